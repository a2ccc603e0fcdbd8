"""What gateways counted, sorted for the verdicts by role, and checked against what was seen before. Pure."""

from itertools import accumulate
from math import isfinite
from typing import Final

from msgspec import Struct

from hyperion.policy.evidence import Tally, Toss
from hyperion.policy.release.drift import BinCounts
from hyperion.policy.release.state import EpochShare, Mark, ReleaseState
from hyperion.schema.release import TrackCounts
from hyperion.schema.resource import Slo, SlowLimit

FREEZE_REQUESTS: Final = 200  # of the control, before its latency is believed
BUCKETS_PER_OCTAVE: Final = 4


class Counted(Struct, frozen=True):
    """The counts of a rollout. `errors` and `slow` are bad events by epoch, of the split; `mirrored` errors of the
    shadow beside the control's; `requests` tell who got how many. Then the canary's own sums over the split, the
    control's requests, and the canary's requests and errors of this stage. `trouble` says why nothing may be promoted
    on this; `lost` that counts went back."""

    errors: tuple[Tally, ...] = ()
    slow: tuple[Tally, ...] = ()
    mirrored: tuple[Tally, ...] = ()
    requests: tuple[Toss, ...] = ()
    bins: tuple[BinCounts, ...] = ()
    canary_requests: int = 0
    canary_errors: int = 0
    canary_timed: int = 0
    canary_slow: int = 0
    control_requests: int = 0
    stage_requests: int = 0
    stage_errors: int = 0
    stage_slow: int = 0
    latency: tuple[int, ...] = ()
    marks: tuple[Mark, ...] = ()
    trouble: str = ""
    lost: str = ""


def count_tracks(state: ReleaseState, counts: tuple[TrackCounts, ...], *, sticky: bool = False) -> Counted:
    """Sort the counts of an endpoint by epoch and role. Where callers stick, the share that counts is the one that was
    realised, as a few of them may bring most requests.

    >>> state = ReleaseState("e", from_version="1", to_version="2", epoch=1, epochs=(EpochShare(1, 0.5),))
    >>> counts = (TrackCounts("e", 1, "1", requests=60, errors=1), TrackCounts("e", 1, "2", requests=40, errors=2))
    >>> count_tracks(state, counts).errors
    (Tally(share=0.5, canary=2, control=1),)
    """
    every = [item for item in counts if item.endpoint == state.endpoint]
    troubles = [_trouble_of(state, item) for item in every]
    trouble = next(filter(None, troubles), "")
    # The rest may still show that the new version is bad; with trouble it cannot show that it is good.
    mine = [item for item, why in zip(every, troubles, strict=True) if not why]
    marks = _mark(mine)
    lost = _find_loss(state, marks)
    epochs = [epoch for epoch in state.epochs if epoch.epoch >= state.base_epoch]
    parts = [_Epoch(state, epoch, mine, sticky) for epoch in epochs]
    stage = [part.canary for part in parts if part.epoch.epoch >= state.stage_epoch]
    split = [part for part in parts if part.share > 0.0]
    timed = [part for part in split if state.slow_ns and part.epoch.epoch >= state.slow_epoch]
    return Counted(
        errors=tuple(Tally(part.share, part.canary.errors, part.control.errors) for part in split),
        slow=tuple(Tally(part.share, part.canary.slow, part.control.slow) for part in timed),
        mirrored=tuple(
            Tally(part.shadow_share, part.shadow.errors, part.control.errors) for part in parts if part.shadow_share
        ),
        requests=tuple(
            Toss(part.canary.requests, part.canary.requests + part.control.requests, part.share) for part in split
        ),
        bins=tuple(
            BinCounts(part.share, part.canary.bins, part.control.bins)
            for part in split
            if part.canary.bins or part.control.bins
        ),
        canary_requests=sum(part.canary.requests for part in split),
        canary_errors=sum(part.canary.errors for part in split),
        canary_timed=sum(part.canary.requests for part in timed),
        canary_slow=sum(part.canary.slow for part in timed),
        control_requests=sum(part.control.requests for part in split),
        stage_requests=sum(canary.requests for canary in stage),
        stage_errors=sum(canary.errors for canary in stage),
        stage_slow=sum(canary.slow for canary in stage),
        latency=add_columns([part.control.latency for part in parts]),
        marks=marks,
        trouble=trouble,
        lost=lost,
    )


def choose_slow(slo: Slo, limit: SlowLimit, latency: tuple[int, ...]) -> tuple[int, float] | None:
    """From how many nanoseconds on a request is slow, and which quantile that is: the SLO's, where it gives one; else
    the upper edge of the bucket in which the control's quantile lies, from 200 of its requests on. None: not yet.

    The upper edge, so that at most 1 - quantile of the control's requests are slow however alike they are.

    >>> choose_slow(Slo(latency_ms={"p95": 200.0}), SlowLimit(), ())
    (200000000, 0.95)
    >>> choose_slow(Slo(), SlowLimit(), (0, 0, 0, 0, 190, 0, 0, 0, 10))
    (2000, 0.95)
    """
    promised = _promised_slow(slo, limit)
    if promised is not None:
        return promised
    quantile = limit.quantile if 0.0 < limit.quantile < 1.0 else 0.95
    total = sum(latency)
    if total < FREEZE_REQUESTS or min(latency) < 0:
        return None
    bucket = next(index for index, seen in enumerate(accumulate(latency)) if seen >= quantile * total)
    return int(1_000 * 2.0 ** (bucket / BUCKETS_PER_OCTAVE)), quantile


def _promised_slow(slo: Slo, limit: SlowLimit) -> tuple[int, float] | None:
    """The SLO's latency at the wanted quantile, or at its own lowest one."""
    found: dict[float, float] = {}
    for name, latency_ms in slo.latency_ms.items():
        digits = name.removeprefix("p")
        per_cent = float(digits) if digits.replace(".", "", 1).isdecimal() else 0.0
        if 0.0 < per_cent < 100.0 and isfinite(latency_ms) and latency_ms > 0.0:
            found[per_cent / 100.0] = latency_ms
    if not found:
        return None
    quantile = min(found, key=lambda each: (abs(each - limit.quantile) > 1e-9, each))
    return max(int(found[quantile] * 1e6), 1), quantile


class _Epoch:
    """One epoch's counts by role, and the canary's share of the events."""

    def __init__(self, state: ReleaseState, epoch: EpochShare, counts: list[TrackCounts], sticky: bool) -> None:
        here = [item for item in counts if item.epoch == epoch.epoch]
        self.epoch = epoch
        self.canary = _sum([item for item in here if item.version == state.to_version and not item.shadow])
        self.control = _sum([item for item in here if item.version == state.from_version])
        self.shadow = _sum([item for item in here if item.version == state.to_version and item.shadow])
        self.share = epoch.share if 0.0 < epoch.share < 1.0 else 0.0
        total = self.canary.requests + self.control.requests
        if sticky and self.share and total:
            self.share = self.canary.requests / total % 1.0
        # A copy is one event more: s copies for each request are a share of s / (1 + s) of the events.
        self.shadow_share = epoch.shadow_share / (1.0 + epoch.shadow_share) if epoch.shadow_share > 0.0 else 0.0


def _trouble_of(state: ReleaseState, counts: TrackCounts) -> str:
    """Why these counts cannot be believed, "" where they can. Those of an earlier rollout are none of ours."""
    first = state.epochs[0].epoch if state.epochs else state.epoch
    if counts.epoch < first:
        return ""
    if counts.epoch not in {epoch.epoch for epoch in state.epochs}:
        return f"counts of epoch {counts.epoch}, which this rollout does not have (it is at {state.epoch})"
    if counts.version not in (state.from_version, state.to_version):
        return f"counts of version {counts.version}, which is no part of this rollout"
    if counts.shadow and counts.version != state.to_version:
        return f"counts of version {counts.version} as the shadow, which is {state.to_version}"
    if min(counts.errors, counts.slow, *counts.bins, *counts.latency) < 0:
        return f"negative counts of version {counts.version}"
    if counts.errors > counts.requests or counts.slow > counts.requests:
        return f"more bad requests of version {counts.version} than requests"
    return ""


def _mark(counts: list[TrackCounts]) -> tuple[Mark, ...]:
    keys = sorted({(item.epoch, item.version, item.shadow) for item in counts})
    marks = []
    for epoch, version, shadow in keys:
        total = _sum([item for item in counts if (item.epoch, item.version, item.shadow) == (epoch, version, shadow)])
        marks.append(Mark(epoch, version, shadow, total.requests, total.errors, total.slow))
    return tuple(marks)


def _find_loss(state: ReleaseState, marks: tuple[Mark, ...]) -> str:
    """Which counts are lower than they once were: a gateway's or control's memory is gone."""
    now = {(mark.epoch, mark.version, mark.shadow): mark for mark in marks}
    for old in state.marks:
        if old.epoch < state.base_epoch:
            continue
        new = now.get((old.epoch, old.version, old.shadow), Mark(old.epoch, old.version, old.shadow, 0, 0, 0))
        if new.requests < old.requests or new.errors < old.errors or new.slow < old.slow:
            return f"version {old.version} had {old.requests} requests counted, now {new.requests}: counts were lost"
    return ""


def _sum(parts: list[TrackCounts]) -> TrackCounts:
    if len(parts) == 1:
        return parts[0]
    return TrackCounts(
        "",
        0,
        "",
        requests=sum(part.requests for part in parts),
        errors=sum(part.errors for part in parts),
        slow=sum(part.slow for part in parts),
        latency=add_columns([part.latency for part in parts]),
        bins=add_columns([part.bins for part in parts]),
    )


def add_columns(rows: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The sums of the columns of rows that may be of different lengths.

    >>> add_columns([(1, 2), (3,)])
    (4, 2)
    """
    width = max(map(len, rows), default=0)
    return tuple(sum(row[column] for row in rows if column < len(row)) for column in range(width))
