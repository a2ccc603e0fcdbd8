"""Whether a request may join the queue of a model version, and whether another one has to leave it then. Called by
`gateway/room`, for HTTP before the body is decoded, once more rows wait than the next batch will take; pure.

The queue is bounded by the time that it takes, not by rows alone: who would be answered after the deadline is told so
now, when that costs little, and not after it waited. Who goes before a newcomer is `policy/fairness`'s matter; what
waits behind it is no reason to refuse it.
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


def expected_wait_ns(state: QueueState, curve: LatencyCurve, ahead_rows: int = -1) -> float:
    """Nanoseconds until a request that joins now has been computed: the `ahead_rows` waiting rows that go before it
    (-1: all) at the pace that was seen, or full batches of them, shared by the replicas, as long as no pace was.

    The pace does not count for a queue that the replicas could take at once: it holds the gateway's own pauses, and a
    queue that is too short to last through these would make the pace slow, and then be kept short because it is.
    """
    batch = state.max_batch_rows
    ahead = (state.queued_rows if ahead_rows < 0 else ahead_rows) + state.running_rows
    if state.row_ns and state.queued_rows >= BATCHES_AT_HAND * batch * state.replicas:
        return (ahead + 1) * state.row_ns
    return (ahead // batch + 1) * expect(curve, min(batch, state.queued_rows + 1)) / max(state.replicas, 1)


def retry_after_s(state: QueueState, curve: LatencyCurve) -> float:
    """Seconds after which half of the queue will have gone: at least 1, as `retry-after` counts whole seconds."""
    return max(1.0, expected_wait_ns(state, curve) / 2e9)


def refusal(
    state: QueueState, curve: LatencyCurve, budget_ns: int, ahead_rows: int = -1, makes_room: bool = False
) -> str:
    """Why a request with `budget_ns` left until its deadline is not admitted, or "" if it is. `ahead_rows` go before it
    (-1: all), and `makes_room` says that another one would leave a full queue for it.

    >>> refusal(QueueState(10, 0, 1, 10, 8), LatencyCurve(), 10**9)
    'the queue is full (10 of 10 rows)'
    >>> refusal(QueueState(10, 0, 1, 10, 8), LatencyCurve(), 10**9, ahead_rows=2, makes_room=True)
    ''
    """
    if state.queued_rows >= state.max_queued_rows and not makes_room:
        return f"the queue is full ({state.queued_rows} of {state.max_queued_rows} rows)"
    if state.replicas and state.queued_rows and expected_wait_ns(state, curve, ahead_rows) > BUDGET_SHARE * budget_ns:
        return "the queue is longer than the deadline allows"
    return ""


def is_overfull(state: QueueState, curve: LatencyCurve, deadline_ns: int) -> bool:
    """Whether those who wait last are to leave for those who go before them: there are more rows than may wait, or all
    of them take longer than anybody with the endpoint's deadline would be admitted to wait for.

    >>> is_overfull(QueueState(11, 0, 1, 10, 8), LatencyCurve(), 10**9)
    True
    """
    if state.queued_rows > state.max_queued_rows:
        return True
    return state.replicas > 0 and expected_wait_ns(state, curve) > BUDGET_SHARE * deadline_ns
