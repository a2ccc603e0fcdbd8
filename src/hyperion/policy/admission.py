"""Whether a request may join the queue of a model version. Called by `gateway/pipeline`, for HTTP before the body is
decoded, once more rows wait than the next batch will take; pure.

The queue is bounded by the time that it takes, not by rows alone: who would be answered after the deadline is told so
now, when that costs little, and not after it waited.
"""

from typing import Final

from msgspec import Struct

from hyperion.policy.latency import LatencyCurve, expect

BUDGET_SHARE: Final = 0.35  # of its time that a request may be expected to wait; it has waited in its socket already

BATCHES_AT_HAND: Final = 2  # per replica: one that it computes, one that lies ready


class QueueState(Struct, frozen=True, gc=False):
    """What one gateway knows of a version's queue: rows that wait, rows being computed, replicas that answer, and the
    pace of all of them under load (`policy/latency.observe_pace`; 0.0 is not known)."""

    queued_rows: int
    running_rows: int
    replicas: int
    max_queued_rows: int
    max_batch_rows: int
    row_ns: float = 0.0


def expected_wait_ns(state: QueueState, curve: LatencyCurve) -> float:
    """Nanoseconds until a request that joins now has been computed: the rows ahead of it at the pace that was seen, or
    full batches of them, shared by the replicas, as long as no pace was.

    The pace does not count for a queue that the replicas could take at once: it holds the gateway's own pauses, and a
    queue that is too short to last through these would make the pace slow, and then be kept short because it is.
    """
    batch = state.max_batch_rows
    if state.row_ns and state.queued_rows >= BATCHES_AT_HAND * batch * state.replicas:
        return (state.queued_rows + state.running_rows + 1) * state.row_ns
    batches = (state.queued_rows + state.running_rows) // batch + 1
    return batches * expect(curve, min(batch, state.queued_rows + 1)) / max(state.replicas, 1)


def retry_after_s(state: QueueState, curve: LatencyCurve) -> float:
    """Seconds after which half of the queue will have gone: at least 1, as `retry-after` counts whole seconds."""
    return max(1.0, expected_wait_ns(state, curve) / 2e9)


def refusal(state: QueueState, curve: LatencyCurve, budget_ns: int) -> str:
    """Why a request with `budget_ns` left until its deadline is not admitted, or "" if it is.

    >>> refusal(QueueState(10, 0, 1, 10, 8), LatencyCurve(), 10**9)
    'the queue is full (10 of 10 rows)'
    """
    if state.queued_rows >= state.max_queued_rows:
        return f"the queue is full ({state.queued_rows} of {state.max_queued_rows} rows)"
    if state.replicas and state.queued_rows and expected_wait_ns(state, curve) > BUDGET_SHARE * budget_ns:
        return "the queue is longer than the deadline allows"
    return ""
