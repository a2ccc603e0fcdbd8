"""The releases of all endpoints: at each look, from what is desired, seen and counted, to the next state of each.

Part of the control loop (`control/loop`). One control process leads and decides; the others follow: they serve and run
what the records say, and change none. Decisions are `policy.rollout`'s; what they change is in the store, with its
ledger entries, before a gateway or a runner hears of it. Level-triggered: may be killed between any two lines.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import Struct

from hyperion.control.evidence import Evidence
from hyperion.control.labels import Qualities
from hyperion.control.layouts import Layouts
from hyperion.control.probes import Probes
from hyperion.control.release_aim import aim
from hyperion.control.release_book import Book, Change, Desired, Event, Page
from hyperion.control.release_record import Record
from hyperion.control.release_view import ReleaseView
from hyperion.policy.placement import BROKEN, SERVED, SeenReplica
from hyperion.policy.placement_release import ReleasePlacement, WantedTrack, place_release
from hyperion.policy.rollout import decide, kept_versions, split_of
from hyperion.policy.rollout_settle import is_unsettled
from hyperion.policy.rollout_state import OPEN, Command, Observed
from hyperion.schema.errors import Conflict, Fenced, HyperionError, StorageFailed
from hyperion.schema.registry import VerifiedSpec
from hyperion.schema.snapshot import ModelState
from hyperion.store.rollouts import CommandRow

SAVE_S: Final = 1.0  # evidence that changes nothing else is saved this often
REREAD_S: Final = 5.0  # what another process may have written is found this late
FOLLOW_S: Final = 1.0  # and what the leader decided this late by those that follow it
IDLE_LOOK_S: Final = 5.0
HIDDEN: Final = "a PATH of that name is served here and hides the endpoint; give one of them another name"
CANDIDATE: Final = {SERVED: "ready", BROKEN: "broken"}


class Releases:
    """Owns the records between looks. All methods run on the event loop's thread. It follows until `lead` is called.

    `views` is what the last look came to, None before the first. `outcomes` holds what became of the last commands, by
    id; `next_look` is when something is due, in seconds since 1970. `new_id` makes the ids of rollouts.
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
    ) -> None:
        self.book = book
        self.evidence = evidence
        self.qualities = Qualities(book.database, wake, lambda message: self.say("labels", message))
        self.layouts = Layouts(book, wake)
        self.outcomes: dict[int, str] = {}
        self.next_look = 0.0
        self.views: tuple[ReleaseView, ...] | None = None
        self._probes = probes
        self._new_id = new_id
        self._log = log
        self._wake = wake
        self._clock = clock
        self._leads = False
        self._fence: int | None = None
        self._page: Page | None = None
        self._records: dict[str, Record] = {}
        self._saved_at: dict[str, float] = {}
        self._idle: dict[str, tuple[_Start, ReleaseView, float]] = {}
        self._stale = True
        self._read_at = 0.0
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
    ) -> tuple[ReleaseView, ...] | None:
        """Decide for every endpoint, save, and return what is to be served and run; None as long as nobody knows.

        `serving` has, by endpoint and version, the generation that is published; `acknowledged` the epoch that all
        gateways run; `hidden` are endpoints in whose place a PATH of that name is served. Where the store cannot be
        written, what was decided last goes on.
        """
        now = self._clock()
        leads, fence = self._leads, self._fence  # for the whole look, whatever happens to the lead meanwhile
        age_s = now - self._read_at
        if self._stale or age_s < 0.0 or age_s > (REREAD_S if leads else FOLLOW_S):
            await self._read(now, leads)
        if self._page is None:
            self.next_look = now + FOLLOW_S
            return self.views
        replicas: dict[str, list[SeenReplica]] = {}
        for replica in seen:
            replicas.setdefault(replica.model, []).append(replica)
        changes: list[Change] = []
        views: list[ReleaseView] = []
        dues: list[float] = [now + (IDLE_LOOK_S if leads else FOLLOW_S)]
        for desired in self._page.desired:
            name = desired.endpoint.metadata.name
            mine = [] if name in hidden else replicas.get(name, [])
            idle = _Start(desired, self._records.get(name), mine, serving.get(name, {}), name in hidden)
            known = self._idle.get(name)
            if known is not None and leads and now < known[2] and known[0] == idle and not self.commands(name):
                views.append(known[1])
                dues.append(known[2])
                continue
            looked = _Look(self, idle, acknowledged.get(name, 0), now)
            view, change, due = looked.run() if leads else looked.follow()
            self._idle.pop(name, None)
            if change is None and looked.is_idle(view):
                self._idle[name] = (idle, view, due)
            views.append(view)
            dues.append(due)
            if change is not None:
                changes.append(change)
        if changes and not await self._save(changes, now, fence):
            return self.views
        await self._keep_predictions(fence)
        if leads:
            self.qualities.tend(fence)
        self.next_look = min(dues)
        self.views = tuple(views)
        return self.views

    async def _read(self, now: float, leads: bool) -> None:
        self._stale = False
        try:
            self._page = page = await asyncio.to_thread(self.book.read)
        except HyperionError as error:
            self._stale = True
            self.say("store", f"the store cannot be read; what was read last holds: {error.message}")
            return
        self._read_at = now
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
                self.layouts.forget(change.endpoint)
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

    def is_due(self, endpoint: str, now: float) -> bool:
        """Whether evidence alone is to be saved again."""
        return now - self._saved_at.get(endpoint, 0.0) >= SAVE_S

    def commands(self, endpoint: str) -> tuple[CommandRow, ...]:
        """Those that wait for an outcome."""
        rows = self._page.commands.get(endpoint, ()) if self._page is not None else ()
        return tuple(row for row in rows if row.id not in self.outcomes)

    @property
    def probes(self) -> Probes:
        """Smoke requests and queries that run beside the looks."""
        return self._probes

    def new_rollout_id(self) -> str:
        """An id that no other rollout has."""
        return self._new_id()


class _Start(Struct, frozen=True):
    """What a look at one endpoint starts from, but for counts, commands and the time. `seen` are its replicas."""

    desired: Desired
    record: Record | None
    seen: list[SeenReplica]
    serving: Mapping[str, int]
    hidden: bool


class _Look:
    """One endpoint at one look."""

    def __init__(self, owner: Releases, what: "_Start", acknowledged: int, now: float) -> None:
        self.owner = owner
        self.desired = what.desired
        self.name = what.desired.endpoint.metadata.name
        self.record = what.record
        self.seen = what.seen
        self.serving = what.serving
        self.hidden = what.hidden
        self.acknowledged = acknowledged
        self.now = now
        self.specs: dict[str, VerifiedSpec] = {}

    def run(self) -> tuple[ReleaseView, Change | None, float]:
        """Return what is to be, what is to be saved, and when to look again."""
        if self.desired.deleting:
            return self._delete()
        old = self.record
        commands = self.owner.commands(self.name)
        forced = next((row for row in commands if row.verb == "restart"), None)
        record, events = aim(self.desired, old, self.now, self.owner.new_rollout_id, forced)
        if self.desired.error:
            self.owner.say(self.name, f"{self.name}: {self.desired.error}")
        if record is None:
            return self._nothing(commands)
        if old is None or record.state.rollout_id != old.state.rollout_id:
            self.owner.layouts.forget(self.name, record.kept.runtimes.values())
            if forced is not None:
                self.owner.layouts.renew(self.name, record.kept.runtimes[record.state.to_version])
        record, more, done, due = self._decide(record, commands)
        events = (*events, *more)
        if record.state.rollout_id != (old.state.rollout_id if old else ""):
            self.owner.evidence.forget(self.name, record.state.epoch)
        view = self._view(record)
        change = None
        if events or done or old is None or _differs(old, record) or self._is_stale(old, record):
            change = Change(self.name, record, events, done)
        return view, change, due

    def follow(self) -> tuple[ReleaseView, Change | None, float]:
        """Return what is to be by what the leader decided last."""
        record = self.record
        if self.desired.deleting:
            return self._delete()[0], None, self.now + FOLLOW_S
        if record is None:
            return self._nothing(())
        return self._view(record), None, self.now + FOLLOW_S

    def _decide(
        self, record: Record, commands: tuple[CommandRow, ...]
    ) -> tuple[Record, tuple[Event, ...], tuple[tuple[int, str], ...], float]:
        spec = self.desired.endpoint.spec
        state, events, done = record.state, [], []
        observed = self._observe(record)
        due = self.now + IDLE_LOOK_S
        for row in (*commands, None):
            if row is not None and row.verb == "restart":
                done.append((row.id, "a new rollout has begun"))
                continue
            command = None if row is None else Command(row.verb, row.actor, row.reason)
            decision = decide(spec.rollout, spec.slo, state, observed, self.now, command)
            actor, reason = (row.actor, row.reason) if row is not None else ("control", decision.reason)
            events += [Event(kind, self.name, actor, reason, detail=detail) for kind, detail in decision.events]
            if row is not None:
                done.append((row.id, decision.reason))
            if decision.state.to_version != state.to_version:  # an undo: from here on others are looked at
                self.owner.layouts.forget(self.name, record.kept.runtimes.values())
                observed = self._observe(msgspec.structs.replace(record, state=decision.state))
            state, due = decision.state, decision.next_look
        return msgspec.structs.replace(record, state=state), tuple(events), tuple(done), due

    def _observe(self, record: Record) -> Observed:
        state = record.state
        outcomes = self._place(record).outcomes
        candidate = outcomes.get(state.to_version)
        stable = outcomes.get(state.from_version)
        rollout = self.desired.endpoint.spec.rollout
        first = state.epochs[0].epoch if state.epochs else state.epoch
        smoke = ""
        if candidate is not None and candidate.verdict == SERVED and state.strategy == "blue-green":
            names = [r.name for r in self.seen if r.version == state.to_version]
            smoke = self.owner.probes.smoke(self.name, state.rollout_id, rollout.smoke, names)
        return Observed(
            candidate=CANDIDATE.get(candidate.verdict, "loading") if candidate else "loading",
            candidate_reason=candidate.reason if candidate else "",
            stable_ready=stable is not None and stable.verdict == SERVED,
            counts=self.owner.evidence.counts(self.name, first),
            pairs=self.owner.evidence.pairs(self.name, first),
            sample=self.owner.evidence.sample(self.name, first),
            queries=self.owner.probes.queries(self.name, rollout.halt.query, self.now) if _is_open(record) else (),
            quality=self.owner.qualities.of(state, rollout.halt),
            smoke=smoke,
            acknowledged_epoch=self.acknowledged,
        )

    def _place(self, record: Record, others: Mapping[str, int] = MappingProxyType({})) -> ReleasePlacement:
        """`others` are versions, with their generations, that are to stay as they are."""
        labels = kept_versions(record.state, self.now)
        tracks, ready = [], set()
        for label in labels:
            runtime = record.kept.runtimes.get(label)
            if runtime is None:
                continue
            found = HIDDEN if self.hidden else self.owner.layouts.find(self.desired, runtime)
            error = found if isinstance(found, str) else ""
            # As many as there are, until it is known how many the version itself wants.
            replicas = sum((r.version, r.generation) == (label, runtime.generation) for r in self.seen)
            if isinstance(found, VerifiedSpec):
                self.specs[label] = found
                ready.add(label)
                replicas = found.spec.options.replicas
            tracks.append(WantedTrack(label, runtime.generation, max(replicas, 1), error))
        tracks += [WantedTrack(label, generation) for label, generation in others.items() if label not in labels]
        placed = place_release(self.name, tracks, self.seen, self.serving)
        return msgspec.structs.replace(placed, start=tuple(new for new in placed.start if new.version in ready))

    def _view(self, record: Record) -> ReleaseView:
        spec = self.desired.endpoint.spec
        placement = self._place(record)
        served = {part.version for part in placement.serve}
        split = split_of(spec.rollout, record.state)
        default = split.tracks[0].version if split.tracks else ""
        counts = len(split.tracks) > 1 or split.shadow or split.sampling
        if default not in served:
            # Another control decided this, whose replicas were ready: what serves here goes on until ours are.
            unproven = "" if record.state.state == "promoted" else record.state.to_version
            others = {label: generation for label, generation in self.serving.items() if label != unproven}
            placement = self._place(record, others)
            served = {part.version for part in placement.serve}
            proven = sorted(served - {unproven}, key=lambda label: (label not in others, label))
            default = proven[0] if proven else ""
        return ReleaseView(
            self.name,
            placement,
            self.specs,
            default,
            split if counts and default else None,
            spec.log.sample,
            record.state.epoch,
        )

    def _nothing(self, commands: tuple[CommandRow, ...]) -> tuple[ReleaseView, Change | None, float]:
        index = (ModelState(self.name, "", "UNAVAILABLE", self.desired.error),)
        empty = ReleasePlacement((), (), (), {}, index)
        done = tuple((row.id, f"refused: {self.desired.error}") for row in commands)
        change = Change(self.name, done=done) if done else None
        return ReleaseView(self.name, empty, {}), change, self.now + IDLE_LOOK_S

    def _delete(self) -> tuple[ReleaseView, Change | None, float]:
        placement = place_release(self.name, [], self.seen, {})
        change = None
        if not self.seen:
            done = tuple((row.id, "refused: the endpoint is deleted") for row in self.owner.commands(self.name))
            change = Change(self.name, done=done, purge=True)
        return ReleaseView(self.name, placement, {}), change, self.now + 0.2

    def is_idle(self, view: ReleaseView) -> bool:
        """Whether nothing happens before the next look, as long as what it starts from stays as it is."""
        state = self.record.state if self.record is not None else None
        if state is None or self.desired.deleting or state.state in OPEN or is_unsettled(state):
            return False
        placement = view.placement
        complete = all(outcome.verdict == SERVED for outcome in placement.outcomes.values())
        return complete and not placement.start and not placement.retire and len(self.specs) == len(placement.outcomes)

    def _is_stale(self, old: Record, new: Record) -> bool:
        return old.state != new.state and self.owner.is_due(self.name, self.now)


def _differs(old: Record, new: Record) -> bool:
    """Whether there is more to save than evidence."""
    keys = ("state", "stage", "weight", "epoch", "verdict", "rollout_id", "slow_ns", "bins")
    return old.kept != new.kept or any(getattr(old.state, key) != getattr(new.state, key) for key in keys)


def _is_open(record: Record) -> bool:
    return record.state.state in OPEN
