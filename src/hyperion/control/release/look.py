"""One endpoint at one look: its placement, what the policy is told, what it decides, and what is to be served and run.

Made by `releases` for each endpoint that is not idle. Writes nothing: changes are handed back.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import Struct

from hyperion.control.labels import Qualities
from hyperion.control.layouts import Layouts
from hyperion.control.release.aim import aim
from hyperion.control.release.book import Change, Desired, Event
from hyperion.control.release.evidence import Evidence
from hyperion.control.release.probes import Probes
from hyperion.control.release.record import Record
from hyperion.control.release.view import ReleaseView
from hyperion.control.specs import protection_of
from hyperion.policy.constraints import explain_misfit
from hyperion.policy.placement import BROKEN, SERVED, SeenReplica
from hyperion.policy.placement_release import ReleasePlacement, WantedTrack, place_release
from hyperion.policy.redact import explain_unknown_fields
from hyperion.policy.release.rollout import decide, kept_versions, split_of
from hyperion.policy.release.settle import is_unsettled
from hyperion.policy.release.state import OPEN, Command, Observed
from hyperion.schema.registry import VerifiedSpec
from hyperion.schema.snapshot import ModelState
from hyperion.store.rollouts import CommandRow

FOLLOW_S: Final = 1.0  # what the leader decided is found this late by those that follow it
IDLE_LOOK_S: Final = 5.0
HIDDEN: Final = "a PATH of that name is served here and hides the endpoint; give one of them another name"
CANDIDATE: Final = {SERVED: "ready", BROKEN: "broken"}


class Sources(Struct, frozen=True):
    """Where a look finds out what it is not given: counts, files, smoke requests and queries, labels. `new_id` makes
    ids of rollouts; `say(subject, message)` logs what is new."""

    evidence: Evidence
    layouts: Layouts
    probes: Probes
    qualities: Qualities
    new_id: Callable[[], str]
    say: Callable[[str, str], None]


class Start(Struct, frozen=True):
    """What a look at one endpoint starts from, but for counts, commands and the time. `seen` are its replicas."""

    desired: Desired
    record: Record | None
    seen: list[SeenReplica]
    serving: Mapping[str, int]
    hidden: bool


class Look:
    """One endpoint at one look. `save_due` says that evidence alone is to be saved again."""

    def __init__(
        self,
        sources: Sources,
        what: Start,
        commands: tuple[CommandRow, ...],
        acknowledged: int,
        now: float,
        save_due: bool,
    ) -> None:
        self.sources = sources
        self.commands = commands
        self.save_due = save_due
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
        forced = next((row for row in self.commands if row.verb == "restart"), None)
        record, events = aim(self.desired, old, self.now, self.sources.new_id, forced)
        if self.desired.error:
            self.sources.say(self.name, f"{self.name}: {self.desired.error}")
        if record is None:
            return self._nothing()
        if old is None or record.state.rollout_id != old.state.rollout_id:
            self.sources.layouts.forget(self.name, record.kept.runtimes.values())
            if forced is not None:
                self.sources.layouts.renew(self.name, record.kept.runtimes[record.state.to_version])
        record, more, done, due = self._decide(record)
        events = (*events, *more)
        if record.state.rollout_id != (old.state.rollout_id if old else ""):
            self.sources.evidence.forget(self.name, record.state.epoch)
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
            return self._nothing()
        return self._view(record), None, self.now + FOLLOW_S

    def _decide(self, record: Record) -> tuple[Record, tuple[Event, ...], tuple[tuple[int, str], ...], float]:
        spec = self.desired.endpoint.spec
        state, events, done = record.state, [], []
        observed = self._observe(record)
        due = self.now + IDLE_LOOK_S
        for row in (*self.commands, None):
            if row is not None and row.verb == "restart":
                done.append((row.id, "a new rollout has begun"))
                continue
            command = None if row is None else Command(row.verb, row.actor, row.reason)
            decision = decide(spec.rollout, spec.slo, state, observed, self.now, command)
            for kind, detail in decision.events:
                actor, reason = (row.actor, row.reason) if row is not None else ("control", "")
                events.append(Event(kind, self.name, actor, reason or str(detail.get("reason", "")), detail=detail))
            if row is not None:
                done.append((row.id, decision.reason))
            if decision.state.to_version != state.to_version:  # an undo: from here on others are looked at
                self.sources.layouts.forget(self.name, record.kept.runtimes.values())
                observed = self._observe(msgspec.structs.replace(record, state=decision.state))
            state, due = decision.state, decision.next_look
        return msgspec.structs.replace(record, state=state), tuple(events), tuple(done), due

    def _observe(self, record: Record) -> Observed:
        state = record.state
        outcomes = self._place(record).outcomes
        candidate = outcomes.get(state.to_version)
        judged = CANDIDATE.get(candidate.verdict, "loading") if candidate else "loading"
        misfit = self._misfit(state.to_version) if judged == "ready" and state.from_version else ""
        stable = outcomes.get(state.from_version)
        rollout = self.desired.endpoint.spec.rollout
        first = state.epochs[0].epoch if state.epochs else state.epoch
        smoke = ""
        if candidate is not None and candidate.verdict == SERVED and state.strategy == "blue-green":
            names = [r.name for r in self.seen if r.version == state.to_version]
            smoke = self.sources.probes.smoke(self.name, state.rollout_id, rollout.smoke, names)
        return Observed(
            candidate="broken" if misfit else judged,
            candidate_reason=misfit or (candidate.reason if candidate else ""),
            stable_ready=stable is not None and stable.verdict == SERVED,
            counts=self.sources.evidence.counts(self.name, first),
            pairs=self.sources.evidence.pairs(self.name, first),
            sample=self.sources.evidence.sample(self.name, first),
            queries=self.sources.probes.queries(self.name, rollout.halt.query, self.now) if _is_open(record) else (),
            quality=self.sources.qualities.of(state, rollout.halt),
            smoke=smoke,
            acknowledged_epoch=self.acknowledged,
        )

    def _misfit(self, version: str) -> str:
        """Why the endpoint's rules and redacted fields do not fit a version whose replicas run, "" where they do: it
        would refuse every request that it is given."""
        spec = self.desired.endpoint.spec
        for replica in self.seen:
            if replica.version == version and replica.signature is not None:
                wrong = "" if spec.schema is None else explain_misfit(spec.schema, replica.signature)
                return wrong or explain_unknown_fields(spec.log.redact, replica.signature)
        return ""

    def _place(self, record: Record, others: Mapping[str, int] = MappingProxyType({})) -> ReleasePlacement:
        """`others` are versions, with their generations, that are to stay as they are."""
        labels = kept_versions(record.state, self.now)
        tracks, ready = [], set()
        for label in labels:
            runtime = record.kept.runtimes.get(label)
            if runtime is None:
                continue
            found = HIDDEN if self.hidden else self.sources.layouts.find(self.desired, runtime)
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
        if not placement.index:  # a first release that was halted
            index = (ModelState(self.name, record.state.to_version, "UNAVAILABLE", "its release was halted"),)
            placement = msgspec.structs.replace(placement, index=index)
        return ReleaseView(
            self.name,
            placement,
            self.specs,
            default,
            split if counts and default else None,
            spec.log.sample,
            spec.log.redact,
            protection_of(spec),
            self.desired.internal,
            record.state.epoch,
        )

    def _nothing(self) -> tuple[ReleaseView, Change | None, float]:
        index = (ModelState(self.name, "", "UNAVAILABLE", self.desired.error),)
        empty = ReleasePlacement((), (), (), {}, index)
        done = tuple((row.id, f"refused: {self.desired.error}") for row in self.commands)
        change = Change(self.name, done=done) if done else None
        protection = protection_of(self.desired.endpoint.spec)
        view = ReleaseView(self.name, empty, {}, protection=protection, internal=self.desired.internal)
        return view, change, self.now + IDLE_LOOK_S

    def _delete(self) -> tuple[ReleaseView, Change | None, float]:
        placement = place_release(self.name, [], self.seen, {})
        change = None
        if not self.seen:
            done = tuple((row.id, "refused: the endpoint is deleted") for row in self.commands)
            change = Change(self.name, done=done, purge=True)
        return ReleaseView(self.name, placement, {}, internal=self.desired.internal), change, self.now + 0.2

    def is_idle(self, view: ReleaseView) -> bool:
        """Whether nothing happens before the next look, as long as what it starts from stays as it is."""
        state = self.record.state if self.record is not None else None
        if state is None or self.desired.deleting or state.state in OPEN or is_unsettled(state):
            return False
        placement = view.placement
        complete = all(outcome.verdict == SERVED for outcome in placement.outcomes.values())
        return complete and not placement.start and not placement.retire and len(self.specs) == len(placement.outcomes)

    def _is_stale(self, old: Record, new: Record) -> bool:
        return old.state != new.state and self.save_due


def _differs(old: Record, new: Record) -> bool:
    """Whether there is more to save than evidence."""
    keys = ("state", "stage", "weight", "epoch", "verdict", "rollout_id", "slow_ns", "bins")
    return old.kept != new.kept or any(getattr(old.state, key) != getattr(new.state, key) for key in keys)


def _is_open(record: Record) -> bool:
    return record.state.state in OPEN
