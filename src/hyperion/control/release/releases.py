"""The releases of all endpoints: at each look, from what is desired, seen and counted, to the next state of each.

Part of the control loop (`control/loop`). One control process leads and decides; the others follow: they serve and run
what the records say, and change none. Decisions are `policy.rollout`'s; what they change is in the store, with its
ledger entries, before a gateway or a runner hears of it. Level-triggered: may be killed between any two lines.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from hyperion.control.compose import Composer, Declared, Wanted, list_held
from hyperion.control.labels import Qualities
from hyperion.control.layouts import Layouts
from hyperion.control.release.book import Book, Change, Page
from hyperion.control.release.evidence import Evidence
from hyperion.control.release.look import FOLLOW_S, IDLE_LOOK_S, Look, Sources, Start
from hyperion.control.release.probes import Probes
from hyperion.control.release.record import Record
from hyperion.control.release.view import ReleaseView
from hyperion.control.upstream.ask import ask_upstream
from hyperion.control.upstream.upstreams import Ask, Upstreams
from hyperion.policy.placement import SeenReplica
from hyperion.schema.errors import Conflict, Fenced, HyperionError, StorageFailed
from hyperion.schema.snapshot import Snapshot
from hyperion.store.rollouts import CommandRow

SAVE_S: Final = 1.0  # evidence that changes nothing else is saved this often
REREAD_S: Final = 5.0  # what another process may have written is found this late
NO_ROLLOUTS: Final = "refused: an upstream or a graph has no versions to roll out"


class Releases:
    """Owns the records between looks. All methods run on the event loop's thread. It follows until `lead` is called.

    `views` is what the last look came to, None before the first. `outcomes` holds what became of the last commands, by
    id; `next_look` is when something is due, in seconds since 1970. `new_id` makes the ids of rollouts. `written`
    counts what was said to be written to the store; `reached` is that count as the last look's reading knew it. `ask`
    asks upstreams.
    """

    def __init__(
        self,
        book: Book,
        evidence: Evidence,
        probes: Probes,
        new_id: Callable[[], str],
        log: Callable[[str], None],
        wake: Callable[[], None],
        clock: Callable[[], float] = time.time,
        ask: Ask = ask_upstream,
    ) -> None:
        self.book = book
        self.evidence = evidence
        qualities = Qualities(book.database, wake, lambda message: self.say("labels", message))
        self._sources = Sources(evidence, Layouts(book, wake), probes, qualities, new_id, self.say)
        self.outcomes: dict[int, str] = {}
        self.next_look = 0.0
        self.views: tuple[ReleaseView, ...] | None = None
        self.written = 0
        self.reached = -1
        self._log = log
        self._wake = wake
        self._clock = clock
        self._composer = Composer(Upstreams(wake, self.say, ask))
        self._declared: tuple[Declared, ...] = ()
        self._leads = False
        self._fence: int | None = None
        self._page: Page | None = None
        self._records: dict[str, Record] = {}
        self._saved_at: dict[str, float] = {}
        self._idle: dict[str, tuple[Start, ReleaseView, float]] = {}
        self._stale = True
        self._read_at = 0.0
        self._read_through = -1
        self._said: dict[str, str] = {}

    def lead(self, fence: int | None) -> None:
        """Decide from now on, from what the store has, and write under this fence (None: nobody else can write)."""
        self._leads, self._fence = True, fence
        self._forget()
        self._wake()

    def follow(self) -> None:
        """Decide nothing from now on: another process leads, or nobody knows who."""
        self._leads, self._fence = False, None
        self.invalidate()

    def invalidate(self) -> None:
        """Somebody wrote to the store: read it again at the next look, and look soon."""
        self._stale = True
        self.written += 1
        self._wake()

    def record(self, endpoint: str) -> Record | None:
        """How far the endpoint's release is."""
        return self._records.get(endpoint)

    async def look(
        self,
        seen: Sequence[SeenReplica],
        serving: Mapping[str, Mapping[str, int]],
        acknowledged: Mapping[str, int],
        hidden: Collection[str] = (),
        needed: Collection[str] = (),
    ) -> tuple[ReleaseView, ...] | None:
        """Decide for every endpoint, save, and return what is to be served and run; None as long as nobody knows.

        `serving` has, by endpoint and version, the generation that is published; `acknowledged` the epoch that all
        gateways run; `hidden` are endpoints in whose place a PATH of that name is served, `needed` members that
        something published still calls. Where the store cannot be written, what was decided last goes on.
        """
        now = self._clock()
        leads, fence = self._leads, self._fence  # for the whole look, whatever happens to the lead meanwhile
        age_s = now - self._read_at
        if self._stale or age_s < 0.0 or age_s > (REREAD_S if leads else FOLLOW_S):
            await self._read(now, leads)
        if self._page is None:
            self.next_look = now + FOLLOW_S
            return self.views
        replicas = _group(seen)
        changes: list[Change] = []
        views: list[ReleaseView] = []
        dues: list[float] = [now + (IDLE_LOOK_S if leads else FOLLOW_S)]
        for desired in self._page.desired:
            name = desired.endpoint.metadata.name
            if desired.is_left_over and name in needed:
                desired = msgspec.structs.replace(desired, deleting=False)
            mine = [] if name in hidden else replicas.get(name, [])
            idle = Start(desired, self._records.get(name), mine, serving.get(name, {}), name in hidden)
            known = self._idle.get(name)
            commands = self._commands(name) if leads else ()
            if known is not None and leads and now < known[2] and known[0] == idle and not commands:
                views.append(known[1])
                dues.append(known[2])
                continue
            save_due = now - self._saved_at.get(name, 0.0) >= SAVE_S
            looked = Look(self._sources, idle, commands, acknowledged.get(name, 0), now, save_due)
            view, change, due = looked.run() if leads else looked.follow()
            self._idle.pop(name, None)
            if change is None and looked.is_idle(view):
                self._idle[name] = (idle, view, due)
            views.append(view)
            dues.append(due)
            if change is not None:
                changes.append(change)
        if leads:
            changes += self._tend_declared(serving)
        if changes and not await self._save(changes, now, fence):
            return self.views
        await self._keep_predictions(fence)
        if leads:
            self._sources.qualities.tend(fence)
        self.next_look = min(dues)
        self.views, self.reached = tuple(views), self._read_through
        return self.views

    def _tend_declared(self, serving: Collection[str]) -> list[Change]:
        """Forget endpoints that are no longer published, and refuse what was asked of a rollout that is not there."""
        changes = []
        for one in self._declared:
            name = one.endpoint.metadata.name
            done = tuple((row.id, NO_ROLLOUTS) for row in self._commands(name))
            purge = one.deleting and name not in serving
            if done or purge:
                changes.append(Change(name, done=done, purge=purge))
        return changes

    def compose(self, new: Snapshot, published: Snapshot) -> Snapshot:
        """The snapshot with upstreams and graphs, by what was read of them last."""
        names = [view.name for view in self.views or () if not view.internal]
        stuck = [view.name for view in self.views or () if view.internal and not view.default and _is_stuck(view)]
        return self._composer.compose(new, published, Wanted(self._declared, names, self.explain_members(), stuck))

    def explain_members(self) -> dict[str, str]:
        """Why members do not answer, by name; those that do are left out."""
        return {view.name: _explain(view) for view in self.views or () if view.internal and not view.default}

    def held(self, published: Snapshot) -> frozenset[str]:
        """Endpoints whose runners are no release's any more, but answer until an upstream or a graph can."""
        return list_held(self._declared, published)

    async def _read(self, now: float, leads: bool) -> None:
        self._stale, written = False, self.written
        try:
            self._page = page = await asyncio.to_thread(self.book.read)
        except HyperionError as error:
            self._stale = True
            self.say("store", f"the store cannot be read; what was read last holds: {error.message}")
            return
        self._read_at, self._read_through, self._declared = now, written, page.declared
        if not leads:
            self._records = dict(page.records)
        for name, record in page.records.items():
            mine = self._records.get(name)
            if mine is None or mine.revision != record.revision:
                self._records[name] = record

    async def _save(self, changes: list[Change], now: float, fence: int | None) -> bool:
        try:
            revisions = await asyncio.to_thread(self.book.save, changes, fence)
        except (Conflict, Fenced):
            self._forget()  # another writer was first; decide again from what it wrote
            self._wake()
            return False
        except StorageFailed as error:  # it may have been written, if the connection was lost in the very commit
            self._forget()
            self.next_look = now + FOLLOW_S
            self.say("store", f"the store cannot be written; what was decided last goes on: {error.message}")
            return False
        for change in changes:
            if change.record is not None:
                revision = revisions[change.endpoint]
                self._records[change.endpoint] = msgspec.structs.replace(change.record, revision=revision)
                self._saved_at[change.endpoint] = now
            if change.purge:
                self._records.pop(change.endpoint, None)
                self._sources.layouts.forget(change.endpoint)
                self.evidence.forget(change.endpoint, 1 << 62)
            for event in change.events:
                self._log(f"{event.subject}: {event.kind}" + (f": {event.reason}" if event.reason else ""))
            for command_id, outcome in change.done:
                self.outcomes[command_id] = outcome
        if any(change.done or change.purge for change in changes):
            self._stale = True
        while len(self.outcomes) > 1_000:
            del self.outcomes[next(iter(self.outcomes))]
        return True

    def _forget(self) -> None:
        """What was read may not be what is: nothing is decided before it is read again."""
        self._stale, self._page, self._records = True, None, {}

    async def _keep_predictions(self, fence: int | None) -> None:
        rows, pairs = self.evidence.take_predictions(), self.evidence.take_values()
        if rows or pairs:
            try:
                await asyncio.to_thread(self.book.keep_predictions, rows, pairs, fence)
            except HyperionError as error:
                lost = len(rows) + len(pairs)
                self.say("predictions", f"{lost} sampled predictions were not kept: {error.message}")

    def say(self, subject: str, message: str) -> None:
        """Log it once, not at every look."""
        if self._said.get(subject) != message:
            self._said[subject] = message
            self._log(message)

    def _commands(self, endpoint: str) -> tuple[CommandRow, ...]:
        """Those that wait for an outcome."""
        rows = self._page.commands.get(endpoint, ()) if self._page is not None else ()
        return tuple(row for row in rows if row.id not in self.outcomes)


def _group(seen: Sequence[SeenReplica]) -> dict[str, list[SeenReplica]]:
    """Replicas by their endpoint."""
    replicas: dict[str, list[SeenReplica]] = {}
    for replica in seen:
        replicas.setdefault(replica.model, []).append(replica)
    return replicas


def _is_stuck(view: ReleaseView) -> bool:
    """Whether a member that does not answer will not by waiting."""
    return any(state.state == "UNAVAILABLE" for state in view.placement.index)


def _explain(view: ReleaseView) -> str:
    """Why a member does not answer."""
    state = next(iter(view.placement.index), None)
    return f"is {state.state}{': ' if state.reason else ''}{state.reason}" if state is not None else "is LOADING"
