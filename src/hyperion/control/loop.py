"""The control loop: observe, decide (`policy.placement`), apply, publish.

Level-triggered: each look starts from what is, so that it may be killed between any two lines and started again.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hyperion.control.apply import Applier
from hyperion.control.observe import Observer, Seen
from hyperion.control.plan import plan_release, plan_runners, want_models
from hyperion.control.publish import Publisher
from hyperion.control.release.view import ReleaseView
from hyperion.control.snapshot import build_snapshot, list_needed, served_by_version, served_generations
from hyperion.control.sources import resolve
from hyperion.control.state import Memory, Resolved, write_memory
from hyperion.policy.placement import BROKEN, LOADING, Outcome, Placement, place
from hyperion.schema.protect import Directory
from hyperion.schema.snapshot import Snapshot
from hyperion.store.desired import DesiredModel, DesiredState

if TYPE_CHECKING:  # it brings the store, which is imported once the first models run
    from hyperion.control.callers.directory import DirectoryKeeper
    from hyperion.control.release.releases import Releases

LOOK_S = 5.0
LEAST_WAIT_S = 0.02


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
        known: Directory = Directory(),  # noqa: B008  it is frozen
    ) -> None:
        """`known` is whom gateways are told of until the store is open."""
        self.desired = desired
        self.publisher = publisher
        self.observer = observer
        self.outcomes: dict[str, Outcome] = {}
        self.looked_once = False
        self.look_s = 0.0  # what the last look took
        self.looked = asyncio.Event()
        self.releases: Releases | None = None  # until the store is open
        self.people: DirectoryKeeper | None = None  # until then, too
        self._directory = publisher.snapshot.directory if publisher.snapshot.version else known
        self._told = (0, 0)  # how many writes the published directory knows, and the first snapshot with it
        self._epochs: dict[str, tuple[int, int]] = {}  # endpoint -> its epoch, and the first snapshot with it
        self._hidden: frozenset[str] = frozenset()  # endpoints in whose place a PATH is served
        self._reached = (-1, 0)  # how many writes to the store were heeded, and the first snapshot after them
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
            started = time.monotonic()
            await self.look()
            self.look_s = time.monotonic() - started
            try:
                async with asyncio.timeout(self._wait_s()):
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
        names = {model.name for model in wanted}
        views = await self._look_at_releases(seen, names)
        known = views is not None
        views = views or ()
        released = {view.name for view in views}
        serving = served_generations(self.publisher.snapshot)
        # Until the store was read nobody knows whose the other replicas are, so they are left alone.
        kept = released | (self.releases.held(self.publisher.snapshot) if self.releases is not None else frozenset())
        ours = [r for r in seen.replicas if r.model in names or (known and r.model not in kept)]
        placement = place(wanted, ours, serving)
        self._remember_failures(placement, serving)
        await self._start(placement, views)
        self._publish(placement, seen, views, None if known else self.publisher.snapshot)
        retire = placement.retire + tuple(name for view in views for name in view.placement.retire)
        await self._applier.retire(retire, self.publisher)
        self.outcomes = {outcome.model: outcome for outcome in placement.outcomes}
        self.looked_once = True
        self.looked.set()
        self.looked = asyncio.Event()

    async def _look_at_releases(self, seen: Seen, paths: set[str]) -> tuple[ReleaseView, ...] | None:
        if self.releases is None:
            return None
        snapshot = self.publisher.snapshot
        reached = self.publisher.acknowledged()
        epochs = {name: epoch for name, (epoch, version) in self._epochs.items() if reached >= version}
        needed = list_needed(snapshot)
        views = await self.releases.look(seen.replicas, served_by_version(snapshot), epochs, paths, needed)
        if views is None:
            return None
        self._hidden = frozenset(view.name for view in views if view.name in paths)
        for name in sorted(self._hidden):
            self.releases.say(name, f"{name}: a PATH of that name is served, and hides the endpoint")
        return tuple(view for view in views if view.name not in paths)

    async def _start(self, placement: Placement, views: tuple[ReleaseView, ...]) -> None:
        machine = self._applier.machine
        released = sum(spec.spec.options.replicas for view in views for spec in view.specs.values())
        children = plan_runners(placement.start, self._memory, machine, released)
        known = sum(spec.options.replicas for resolved in self._memory.models.values() for spec in resolved.specs)
        for view in views:
            children += plan_release(view.placement.start, view.specs, machine, known + released)
        await self._applier.start(children)

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

    def _publish(
        self, placement: Placement, seen: Seen, views: tuple[ReleaseView, ...], carried: Snapshot | None
    ) -> None:
        old = self.publisher.snapshot
        if self.people is not None:
            self.people.look()
            self._directory = self.people.directory or self._directory
        writes = self.people.known if self.people is not None else 0
        new = build_snapshot(old.version + 1, placement, seen.runners, seen.hellos, views, carried, self._directory)
        if self.releases is not None and carried is None:
            new = self.releases.compose(new, old)
        # A first snapshot is published even where it is empty: gateways without one are not ready.
        same = (new.models, new.index, new.directory) == (old.models, old.index, old.directory)
        if not same or (not old.version and carried is None):
            self.publisher.publish(new)
        version = self.publisher.snapshot.version
        if writes != self._told[0]:
            self._told = (writes, version)
        self._epochs = {
            view.name: self._epochs[view.name]
            if self._epochs.get(view.name, (-1, 0))[0] == view.epoch
            else (view.epoch, version)
            for view in views
        }
        if self.releases is not None and self.releases.reached > self._reached[0]:
            self._reached = (self.releases.reached, version)

    def has_reached(self, written: int) -> bool:
        """Whether every gateway runs what the store had when `written` writes (`Releases.written`) were known of."""
        writes, version = self._reached
        return writes >= written and self.publisher.acknowledged() >= version

    @property
    def hidden(self) -> frozenset[str]:
        """Endpoints in whose place a PATH of their name is served."""
        return self._hidden

    def is_followed(self, endpoint: str) -> bool:
        """Whether every gateway runs what was decided last for the endpoint; True where this process has no part in
        it, and where a PATH hides it, so that no gateway ever will."""
        record = self.releases.record(endpoint) if self.releases else None
        if record is None or endpoint in self._hidden:
            return True
        epoch, version = self._epochs.get(endpoint, (-1, 0))
        return epoch == record.state.epoch and self.publisher.acknowledged() >= version

    def is_directory_followed(self, writes: int) -> bool:
        """Whether every gateway knows whom the store held after so many writes (`DirectoryKeeper.wanted`)."""
        return self._told[0] >= writes and self.publisher.acknowledged() >= self._told[1]

    def is_releasing(self) -> bool:
        """Whether some endpoint waits for its first replicas, or for the store that knows of it."""
        views = self.releases.views if self.releases else None
        if views is None:
            return any(row.state == "LOADING" for row in self.publisher.snapshot.index)
        return any(
            not view.default and LOADING in {o.verdict for o in view.placement.outcomes.values()} for view in views
        )

    def _wait_s(self) -> float:
        """Until something is due, at most `LOOK_S`."""
        due_s = LOOK_S if self.releases is None else self.releases.next_look - time.time()
        if self.people is not None:
            due_s = min(due_s, self.people.wait_s())
        return min(LOOK_S, max(LEAST_WAIT_S, due_s))
