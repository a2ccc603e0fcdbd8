"""The control loop: observe, decide (`policy.placement`), apply, publish.

Level-triggered: each look starts from what is, so that it may be killed between any two lines and started again.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from hyperion.control.apply import Applier
from hyperion.control.observe import Observer, Seen
from hyperion.control.plan import want_models
from hyperion.control.publish import Publisher
from hyperion.control.snapshot import build_snapshot, served_generations
from hyperion.control.sources import resolve
from hyperion.control.state import Memory, Resolved, write_memory
from hyperion.policy.placement import BROKEN, Outcome, Placement, place
from hyperion.store.desired import DesiredModel, DesiredState

LOOK_S = 5.0


class ControlLoop:
    """Owns the memory and the order of things. All methods run on the event loop's thread.

    `outcomes` says, per model, how far its wanted generation is; `looked` is set (and replaced) after every look.
    """

    def __init__(
        self,
        desired: DesiredState,
        memory: Memory,
        memory_path: Path,
        observer: Observer,
        applier: Applier,
        publisher: Publisher,
        log: Callable[[str], None],
    ) -> None:
        self.desired = desired
        self.publisher = publisher
        self.observer = observer
        self.outcomes: dict[str, Outcome] = {}
        self.looked_once = False
        self.looked = asyncio.Event()
        self._memory = memory
        self._memory_path = memory_path
        self._applier = applier
        self._log = log
        self._wake = asyncio.Event()
        self._resolving: dict[str, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """Something changed: look soon."""
        self._wake.set()

    async def run(self) -> None:
        """Look whenever something changed, and every few seconds anyway, for ever."""
        while True:
            self._wake.clear()
            await self.look()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Observe, decide, apply, publish, once."""
        rows = self.desired.list()
        for row in rows:
            self._resolve_if_new(row)
        wanted = want_models(rows, self._memory)
        seen = self.observer.see()
        serving = served_generations(self.publisher.snapshot)
        placement = place(wanted, seen.replicas, serving)
        self._remember_failures(placement, serving)
        await self._applier.start(placement.start, self._memory)
        self._publish(placement, seen)
        await self._applier.retire(placement.retire, self.publisher)
        self.outcomes = {outcome.model: outcome for outcome in placement.outcomes}
        self.looked_once = True
        self.looked.set()
        self.looked = asyncio.Event()

    def _resolve_if_new(self, row: DesiredModel) -> None:
        known = self._memory.models.get(row.name)
        if not row.serve or row.name in self._resolving or (known and known.generation == row.generation):
            return
        self._log(f"{row.name}: looking at its source (generation {row.generation})")
        self._resolving[row.name] = asyncio.ensure_future(self._resolve(row))

    async def _resolve(self, row: DesiredModel) -> None:
        try:
            self._remember(row.name, await asyncio.to_thread(resolve, row))
        except Exception as error:  # a bug in a reader must not stop the loop; the caller of the load learns of it
            self._remember(row.name, Resolved(row.generation, error=f"{type(error).__name__}: {error}"))
        finally:
            del self._resolving[row.name]
            self.wake()

    def _remember(self, name: str, resolved: Resolved) -> None:
        self._memory = self._memory.put(name, resolved)
        write_memory(self._memory_path, self._memory)
        if resolved.error:
            self._log(f"{name}: generation {resolved.generation} cannot be loaded: {resolved.error}")

    def _remember_failures(self, placement: Placement, serving: dict[str, int]) -> None:
        """A load that failed beside a serving generation is over: its replicas go, and are not started again."""
        for outcome in placement.outcomes:
            known = self._memory.models.get(outcome.model)
            beside = serving.get(outcome.model, outcome.generation) != outcome.generation
            if outcome.verdict == BROKEN and beside and known and not known.error:
                self._remember(outcome.model, Resolved(known.generation, known.specs, outcome.reason))

    def _publish(self, placement: Placement, seen: Seen) -> None:
        old = self.publisher.snapshot
        new = build_snapshot(old.version + 1, placement, seen.runners, seen.hellos)
        if (new.models, new.index) != (old.models, old.index):
            self.publisher.publish(new)
