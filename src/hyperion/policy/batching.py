"""Which waiting requests make the next batch. Called by `gateway/batch` whenever a replica has a free credit.

Dispatch is completion-driven: an idle replica and a non-empty queue dispatch now. Priorities are ordered by virtual
arrival: a lower one waits at most `AGEING_NS` per step longer, so nothing starves, and a short deadline buys no
priority. Among tenants of one priority `policy/fairness` says whose turn it is; a tenant's calls of one priority are
ordered by deadline. Never here: a clock, the queue itself.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from msgspec import Struct

from hyperion.policy.latency import LatencyCurve, expect, expect_soonest

AGEING_NS: Final = 5_000_000_000  # one step of priority is worth this much waiting
LOWEST_PRIORITY: Final = 9
NEVER_NS: Final = 1 << 63
LEAD_NS: Final = 1_000_000  # to form a batch, send it, and be read: timers fire up to a millisecond late


class Waiting(Protocol):
    """What the policy reads of a queued request: its rows, its bytes, and when it must be answered (monotonic ns)."""

    @property
    def rows(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def deadline_ns(self) -> int: ...


class BatchLimits(Struct, frozen=True, gc=False):
    """Bounds of one batch. `post_ns` is what happens to an answer after the model; it is kept free before a
    deadline."""

    max_rows: int = 64
    max_bytes: int = 64 << 20
    post_ns: int = 500_000


class BatchPlan(Struct, frozen=True, gc=False):
    """Of the first `seen` waiting requests, those at the positions in `late` can no longer be answered in time and the
    others make a batch of `rows` rows. `seen` 0 means that nothing waits."""

    seen: int
    rows: int
    late: tuple[int, ...] = ()


def virtual_arrival(received_ns: int, priority: int) -> int:
    """By what calls of different priorities are compared: the smaller one goes first.

    >>> virtual_arrival(100, 0) < virtual_arrival(50, 1) < virtual_arrival(100 + AGEING_NS, 0)
    True
    """
    return received_ns + priority * AGEING_NS


def plan_batch(waiting: Iterable[Waiting], now_ns: int, curve: LatencyCurve, limits: BatchLimits) -> BatchPlan:
    """The largest batch, in queue order, that fits the limits and the earliest deadline in it.

    `waiting` is in the order in which it is to be served, and every two of it may be merged. A request that alone is
    over the limits makes a batch of its own. Where the curve says that nobody can be answered in time, the first whose
    deadline has not passed yet is tried alone: the curve may be wrong, and only a new observation can mend it.
    """
    alone_ns = expect(curve, 1) + limits.post_ns
    max_rows, max_bytes = limits.max_rows, limits.max_bytes
    seen = rows = size_bytes = 0
    earliest = NEVER_NS
    late: list[int] = []
    trial: tuple[int, int] | None = None
    checked_rows, finish_ns = 0, 0.0
    for item in waiting:
        deadline = item.deadline_ns
        if now_ns + alone_ns > deadline:
            if trial is None and now_ns < deadline:
                trial = (seen, item.rows)
            late.append(seen)
            seen += 1
            continue
        total = rows + item.rows
        size_bytes += item.size_bytes
        if rows:
            if total > max_rows or size_bytes > max_bytes:
                break
            if total > checked_rows:
                # One look at the curve covers every size of the same bucket.
                checked_rows = 1 << (total - 1).bit_length()
                finish_ns = now_ns + expect(curve, total) + limits.post_ns
            if finish_ns > (deadline if deadline < earliest else earliest):
                break
        if deadline < earliest:
            earliest = deadline
        rows = total
        seen += 1
        if rows >= max_rows:
            break
    if not rows and trial is not None:
        position, trial_rows = trial
        return BatchPlan(position + 1, trial_rows, tuple(late[:position]))
    return BatchPlan(seen, rows, tuple(late))


def open_for_ns(curve: LatencyCurve, computing_rows: int, started_ns: int, now_ns: int) -> int:
    """How long the next batch of a replica stays open for newcomers while it computes one of `computing_rows` rows
    since `started_ns`: until shortly before that one can be done, so that the replica never waits and nobody is tied to
    a batch too early. 0 means to send it now.

    >>> open_for_ns(LatencyCurve(base_ns=10e6), 1, 0, 0), open_for_ns(LatencyCurve(base_ns=1e6), 1, 0, 0)
    (4000000, 0)
    """
    return max(0, int(started_ns + expect_soonest(curve, computing_rows) - LEAD_NS - now_ns))


def hold_ns(queued_rows: int, max_rows: int, oldest_ns: int, max_delay_ns: int, now_ns: int) -> int:
    """How long a batch that is not full is still held back for more requests: 0 unless a delay was asked for.

    >>> hold_ns(3, 8, 100, 50, 120)
    30
    """
    if not max_delay_ns or queued_rows >= max_rows:
        return 0
    return max(0, oldest_ns + max_delay_ns - now_ns)
