"""Batch jobs: what is applied is run, one after the other, by a supervised process that survives control and is started
again when it dies. Runs on control's event loop; the store is read and written in threads.

Level-triggered like the loop: each look starts from the resources, the kept runs and the children that there are.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from hyperion.fleet.local import LocalFleet
from hyperion.fleet.messages import FAILED, Child
from hyperion.fleet.replicas import describe_batch, read_batches
from hyperion.schema.batch import ENDED, BatchConfig, BatchRun, Progress
from hyperion.schema.config import ControlConfig
from hyperion.schema.errors import HyperionError
from hyperion.schema.resource import BatchJob
from hyperion.store import batch_runs, resources
from hyperion.store.database import Database
from hyperion.store.resources import ResourceRow

LOOK_S: Final = 1.0
AT_ONCE: Final = 1  # a run takes the cores that there are
GRACE_S: Final = 20.0


class _Told(Struct, frozen=True):
    progress: Progress = Progress()
    summary: dict[str, object] | None = None


class Batches:
    """`standing` says whether this process decides, and under which fence it writes; one that does not decide stops the
    runs that it started."""

    def __init__(
        self,
        database: Database,
        config: ControlConfig,
        fleet: LocalFleet,
        standing: Callable[[], tuple[bool, int | None]],
        log: Callable[[str], None],
    ) -> None:
        self._database = database
        self._config = config
        self._fleet = fleet
        self._standing = standing
        self._fence: int | None = None  # of this look
        self._log = log
        self._failing = ""
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Look soon. On the event loop's thread."""
        self._news.set()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            self._news.clear()
            try:
                await self.look()
                self._failing = ""
            except (OSError, TimeoutError, HyperionError) as error:
                if str(error) != self._failing:
                    self._failing = str(error)
                    self._log(f"batch jobs: {error}")
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Once."""
        children = {
            config.name: (child, config) for child, config in read_batches((await self._fleet.watch()).children)
        }
        leads, self._fence = self._standing()
        if not leads:
            for child, _ in children.values():
                await self._fleet.stop(child.name, GRACE_S)
            return
        jobs, runs = await asyncio.to_thread(self._read)
        for name in runs.keys() - jobs.keys():
            await asyncio.to_thread(self._forget, name)
        for name, (child, config) in children.items():
            run = runs.get(name)
            if name not in jobs or run is None or run.run != config.run or run.state in ENDED:
                await self._fleet.stop(child.name, GRACE_S)
        busy = sum(run.state == "running" for name, run in runs.items() if name in jobs)
        for name in sorted(jobs, key=lambda name: jobs[name].updated_at):
            run = runs.get(name)
            if run is None or run.generation != jobs[name].generation:
                await self._keep(
                    BatchRun(name, secrets.token_hex(6), jobs[name].generation, "queued", created_at=time.time())
                )
            elif run.state == "running":
                await self._follow(jobs[name], run, children.get(name))
            elif run.state == "queued" and busy < AT_ONCE and name not in children:
                busy += 1
                await self._keep(msgspec.structs.replace(run, state="running", started_at=time.time()))
                await self._start(jobs[name], run)

    async def _follow(self, row: ResourceRow[BatchJob], run: BatchRun, found: tuple[Child, BatchConfig] | None) -> None:
        """Take over what the run's process says, or start one."""
        if found is None:
            await self._start(row, run)
            return
        child, config = found
        if config.run != run.run:
            return  # its predecessor is on its way out
        told = _read_status(child.status)
        if told.summary is not None:
            await self._end(run, "succeeded", "", told)
        elif child.state == FAILED:
            await self._end(run, "failed", child.reason or child.exit, told)
        elif child.status and told.progress != run.progress:
            await asyncio.to_thread(self._note, run, told.progress, child.reason)

    async def _end(self, run: BatchRun, state: str, reason: str, told: _Told) -> None:
        progress = told.progress if told.progress.rows else run.progress
        ended = msgspec.structs.replace(
            run, state=state, reason=reason, progress=progress, summary=told.summary or {}, finished_at=time.time()
        )
        await self._keep(ended)
        self._log(f"batch job {run.name}: {state}{f': {reason}' if reason else ''}")

    async def _start(self, row: ResourceRow[BatchJob], run: BatchRun) -> None:
        await self._fleet.start(describe_batch(BatchConfig(row.name, run.run, row.resource.spec, self._config)))

    async def _keep(self, run: BatchRun) -> None:
        await asyncio.to_thread(self._put, run)
        self.wake()  # there may be more to do at once

    def _put(self, run: BatchRun) -> None:
        with self._database.write(self._fence) as tx:
            batch_runs.put(tx, run)

    def _note(self, run: BatchRun, progress: Progress, reason: str) -> None:
        with self._database.write(self._fence) as tx:
            batch_runs.note_progress(tx, run.name, run.run, progress, reason)

    def _forget(self, name: str) -> None:
        with self._database.write(self._fence) as tx:
            batch_runs.forget(tx, name)

    def _read(self) -> tuple[Mapping[str, ResourceRow[BatchJob]], dict[str, BatchRun]]:
        with self._database.read() as tx:
            return {row.name: row for row in resources.all_of(tx, BatchJob)}, batch_runs.all_of(tx)


def _read_status(status: str) -> _Told:
    """What a process said last; nothing where it has not spoken, or its line was cut."""
    try:
        return msgspec.json.decode(status, type=_Told) if status else _Told()
    except msgspec.DecodeError:
        return _Told()
