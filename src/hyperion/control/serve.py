"""Put the parts of control together on one event loop, and see that none of them dies unnoticed."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from hyperion.control.apply import Applier
from hyperion.control.callers.usage import UsageKeeper
from hyperion.control.jobs.board import JobBoard
from hyperion.control.loop import ControlLoop
from hyperion.control.management import Management
from hyperion.control.observe import Observer
from hyperion.control.plan import Machine
from hyperion.control.publish import Publisher
from hyperion.control.release.evidence import Evidence
from hyperion.control.state import Memory, read_directory
from hyperion.fleet.home import listen_unix
from hyperion.fleet.local import LocalFleet
from hyperion.fleet.messages import STORE_OPEN
from hyperion.policy.placement import LOADING
from hyperion.schema.config import ControlConfig
from hyperion.schema.snapshot import ModelState, Snapshot
from hyperion.store.desired import DesiredState
from hyperion.telemetry.logs import EventLog

if TYPE_CHECKING:
    from hyperion.control.opening import Store

_API_PATIENCE_S = 2.0
Notify = Callable[[str], None]  # takes a line for the supervisor
ServeApi = Callable[[Management], Awaitable[None]]  # serves the management API until cancelled


class Control:
    """One life of the control process."""

    def __init__(
        self, config: ControlConfig, machine: Machine, desired: DesiredState, memory: Memory, memory_path: Path
    ) -> None:
        self._config = config
        self._log = EventLog("control", "text" if config.log_format == "text" else "json", sys.stderr)
        fleet = LocalFleet(machine.run_dir / "supervisor.sock")
        kept_at = (machine.run_dir / "published.json", Path(config.home) / "snapshot.json")
        self._evidence = Evidence(self._wake)
        self._usage = UsageKeeper(self._limited, self._say)
        self._publisher = Publisher(kept_at, self._wake, self._evidence.take, usage=self._usage.take)
        self._board = JobBoard(self._say)
        self._observer = Observer(fleet, self._wake, self._say)
        applier = Applier(fleet, machine, self._say)
        endpoints = () if config.database_url else desired.list_endpoints()
        self._awaited = tuple(ModelState(name, "", "LOADING", "", access) for name, access in endpoints)
        if not self._publisher.snapshot.version:  # nobody is ready before these are known to be served, or not to be
            self._publisher.snapshot = Snapshot(0, index=self._awaited)
        known = read_directory(Path(config.home) / "directory.json")
        self._loop = ControlLoop(
            desired, memory, memory_path, self._observer, applier, self._publisher, self._say, known
        )
        self._run_dir = machine.run_dir

    async def run(self, notify: Notify, serve_api: ServeApi) -> int:
        """Serve until SIGTERM. Returns 0; raises whatever killed a part."""
        ending = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.set)
        management = Management(self._config, self._loop)
        # Before the first look, so that replicas that serve are seen to serve: nothing is unpublished by a restart.
        revision = await self._observer.refresh()
        server = await self._publisher.serve(
            listen_unix(self._run_dir / "control.sock"), management.command, self._board
        )
        settled = asyncio.ensure_future(self._wait_until_settled(management, notify))
        opened = asyncio.ensure_future(self._open_store(settled, management, notify))
        parts = {
            asyncio.ensure_future(self._lead(opened)),
            asyncio.ensure_future(self._observer.follow(revision)),
            asyncio.ensure_future(self._loop.run()),
            asyncio.ensure_future(self._board.run()),
            asyncio.ensure_future(self._keep_usage(opened)),
            asyncio.ensure_future(self._call_back(opened)),
            asyncio.ensure_future(self._serve_api_later(settled, opened, management, serve_api)),
        }
        end = asyncio.ensure_future(ending.wait())
        await asyncio.wait({end, *parts}, return_when=asyncio.FIRST_COMPLETED)
        server.close()
        try:
            for part in (settled, opened, *parts):
                if part.done() and not part.cancelled():
                    part.result()  # raises what killed it; the supervisor starts us again
        finally:
            for part in (settled, opened, *parts):
                part.cancel()
            await asyncio.gather(settled, opened, *parts, return_exceptions=True)
            self._board.close()
        return 0

    async def _open_store(self, settled: "asyncio.Future[None]", management: Management, notify: Notify) -> "Store":
        """Open the store: at once where only it knows what is to be served, or holds endpoints; else once the models of
        the PATHs serve, because what it imports takes longer than they do. The supervisor is told when it is open:
        until then a setting may be wrong that nobody has looked at."""
        if self._config.sources and not self._awaited:
            await asyncio.wait({settled}, timeout=_API_PATIENCE_S)
        opening = asyncio.to_thread(import_module, "hyperion.control.opening")
        store: Store = await asyncio.to_thread((await opening).open_store, self._config, self._run_dir)
        store.attach(self._evidence, management, self._say, self._wake)
        self._board.open(store.jobs)
        notify(f"STATUS={STORE_OPEN}")
        return store

    async def _lead(self, opened: "asyncio.Future[Store]") -> None:
        store = await asyncio.shield(opened)
        await store.lead(self._loop)

    async def _keep_usage(self, opened: "asyncio.Future[Store]") -> None:
        store = await asyncio.shield(opened)
        await self._usage.run(store.usage)

    def _limited(self) -> list[str]:
        tenants = self._publisher.snapshot.directory.tenants
        return [tenant.name for tenant in tenants if tenant.quotas is not None]

    async def _call_back(self, opened: "asyncio.Future[Store]") -> None:
        store = await asyncio.shield(opened)
        assert store.callbacks is not None, "made when the store was attached"
        assert store.streams is not None, "and so are these"
        assert store.batches is not None, "and these"
        await asyncio.gather(store.callbacks.run(), store.streams.run(), store.batches.run())

    async def _wait_until_settled(self, management: Management, notify: Notify) -> None:
        """Say READY=1 when no model is loading any more and every gateway has heard of it."""
        said = ""
        while not management.is_ready():
            await self._loop.looked.wait()
            status = f"STATUS={_describe_progress(self._loop)}"
            if status != said:  # the supervisor tells us of every change, also of this one
                notify(status)
            said = status
        notify("READY=1")

    async def _serve_api_later(
        self,
        settled: "asyncio.Future[None]",
        opened: "asyncio.Future[Store]",
        management: Management,
        serve_api: ServeApi,
    ) -> None:
        """The management API takes a second to import: not while the first model and its first caller wait."""
        await asyncio.wait({settled}, timeout=_API_PATIENCE_S)
        await asyncio.shield(opened)
        await serve_api(management)

    def _wake(self) -> None:
        self._loop.wake()

    def _say(self, message: str) -> None:
        self._log.write("info", message)


def _describe_progress(loop: ControlLoop) -> str:
    waiting = sorted(outcome.model for outcome in loop.outcomes.values() if outcome.verdict == LOADING)
    if not waiting:
        return ""
    return f"loading {', '.join(waiting[:3])}" + (f" and {len(waiting) - 3} more" if len(waiting) > 3 else "")
