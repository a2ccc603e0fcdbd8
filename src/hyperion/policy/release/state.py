"""The records of a rollout: what is seen, what is remembered, what is decided. Stored as JSON; no behaviour."""

from typing import Any, NamedTuple

from msgspec import Struct

from hyperion.policy.verdict import RUNNING, Evidence, QueryResult
from hyperion.schema.release import OutputBins, OutputSample, PairCounts, TrackCounts

OPEN = ("shadow", "canary", "blue-green", "paused")


class Command(Struct, frozen=True):
    """What a person asks for: promote, pause, resume, abort or undo."""

    verb: str
    actor: str = ""
    reason: str = ""


class Labelled(Struct, frozen=True):
    """Pairs of predictions whose truth is known: `losses[i]` counts those for which the canary's loss less the
    control's was -1 + 2i / (n - 1), with n odd bins. Accuracy needs three: canary better, both alike, canary worse.
    Round up what lies between two bins: that is against the canary. `both_wrong` are those alike pairs in which neither
    was right."""

    losses: tuple[int, ...] = (0, 0, 0)
    both_wrong: int = 0


class Observed(Struct, frozen=True):
    """What is seen now. `counts` and `pairs` are summed over gateways, every epoch of this rollout, cumulative.

    `candidate` is how far `to_version` is (loading, ready or broken, with the reason); `stable_ready` whether
    `from_version` could answer. `smoke` is "" until it ran, then "pass" or why it failed. `acknowledged_epoch` is the
    epoch that every connected gateway runs. `frozen` holds promotion back (a spent error budget)."""

    candidate: str = "loading"
    candidate_reason: str = ""
    stable_ready: bool = True
    counts: tuple[TrackCounts, ...] = ()
    pairs: tuple[PairCounts, ...] = ()
    sample: OutputSample | None = None
    queries: tuple[QueryResult, ...] = ()
    alerts: tuple[str, ...] = ()
    quality: Labelled | None = None
    smoke: str = ""
    acknowledged_epoch: int = 0
    frozen: bool = False


class Stage(Struct, frozen=True):
    """One stage of a rollout's plan, of a kind of `stages`; `share` 0 to 1 of the requests or copies."""

    kind: str
    share: float = 0.0
    hold_s: float = 0.0
    min_requests: int = 0
    last: bool = False


class EpochShare(NamedTuple):
    """What gateways of an epoch do: the canary's share of the requests, and the share that is copied to the shadow."""

    epoch: int
    share: float = 0.0
    shadow_share: float = 0.0


class Mark(NamedTuple):
    """The counts of a track as seen last. They only ever grow, unless somebody lost some."""

    epoch: int
    version: str
    shadow: bool
    requests: int
    errors: int
    slow: int


class ReleaseState(Struct, frozen=True):
    """All that the next decision needs beside what is seen.

    `state` is idle, shadow, canary (champion-challenger, too), blue-green, paused, promoted (`to_version` serves all),
    halted or aborted (`from_version` serves all). `plan` is frozen when the rollout begins; `stage` is an index into
    it, -1 while the candidate loads. `weight` is the candidate's share of the requests. `epochs` has every epoch of
    this rollout; evidence is from `base_epoch` on, the requests of the stage from `stage_epoch` on. `held_s` is how
    long the stage was watched with all gateways in step, `looked_at` the time of the last look. `slow_ns` (the
    control's, or the SLO's, latency at `slow_quantile`) and `bins` are frozen, and slow requests counted from
    `slow_epoch` on. `lost_at` is when counts were first seen to have gone back (0: they have not). `previous_version`
    came before `to_version` and is warm until `standby_until`. Times are in seconds since 1970.

    >>> ReleaseState("e").state
    'idle'
    """

    endpoint: str
    rollout_id: str = ""
    state: str = "idle"
    from_version: str = ""
    to_version: str = ""
    from_digest: str = ""
    to_digest: str = ""
    previous_version: str = ""
    strategy: str = ""
    plan: tuple[Stage, ...] = ()
    stage: int = -1
    weight: float = 0.0
    shadow_share: float = 0.0
    epoch: int = 0
    epochs: tuple[EpochShare, ...] = ()
    base_epoch: int = 0
    stage_epoch: int = 0
    started_at: float = 0.0
    stage_at: float = 0.0
    looked_at: float = 0.0
    held_s: float = 0.0
    ended_at: float = 0.0
    deadline_at: float = 0.0
    standby_until: float = 0.0
    paused_from: str = ""
    slow_ns: int = 0
    slow_quantile: float = 0.0
    slow_epoch: int = 0
    lost_at: float = 0.0
    bins: OutputBins | None = None
    marks: tuple[Mark, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    verdict: str = RUNNING
    reason: str = ""
    next_look_at: float = 0.0
    first_bad_at: float = 0.0
    back_at: float = 0.0
    settled: bool = False


class Decision(Struct, frozen=True):
    """What follows: the state to keep, entries for the ledger (kind, detail), when to look again (seconds since 1970),
    and why. The reason of a command that was not obeyed begins with "refused:"."""

    state: ReleaseState
    events: tuple[tuple[str, dict[str, Any]], ...] = ()
    next_look: float = 0.0
    reason: str = ""
