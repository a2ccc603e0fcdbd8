"""Admission: full queues and hopeless waits are refused, everything else is let in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.admission import QueueState, expected_wait_ns, is_overfull, refusal, retry_after_s
from hyperion.policy.latency import LatencyCurve

MS = 1_000_000
FLAT = LatencyCurve(base_ns=10.0 * MS)  # any batch takes 10 ms
STATES = st.builds(
    QueueState,
    st.integers(0, 5000),
    st.integers(0, 128),
    st.integers(0, 8),
    st.integers(1, 4096),
    st.integers(1, 64),
    st.floats(0, 1e8),
)
CURVES = st.builds(LatencyCurve, slope_ns=st.floats(0, 1e7), base_ns=st.floats(0, 1e9))


@pytest.mark.parametrize(
    ("queued", "running", "replicas", "wait_ms"),
    [
        (0, 0, 1, 10),  # next batch
        (0, 8, 1, 20),  # after the one that is computed
        (8, 8, 1, 30),
        (7, 0, 1, 10),  # joins the seven
        (16, 8, 2, 20),  # two replicas share what is ahead
        (0, 0, 0, 10),  # no replica yet: as if there were one
    ],
)
def test_the_expected_wait_counts_full_batches_ahead(queued: int, running: int, replicas: int, wait_ms: int) -> None:
    assert expected_wait_ns(QueueState(queued, running, replicas, 100, 8), FLAT) == wait_ms * MS


@pytest.mark.parametrize(
    ("state", "budget_ms", "reason"),
    [
        (QueueState(0, 0, 1, 10, 8), 1, ""),  # nothing waits: the batch policy will see to the deadline
        (QueueState(9, 0, 1, 10, 8), 1000, ""),
        (QueueState(10, 0, 1, 10, 8), 1000, "the queue is full (10 of 10 rows)"),
        (QueueState(12, 0, 1, 10, 8), 1000, "the queue is full (12 of 10 rows)"),
        (QueueState(80, 8, 1, 100, 8), 342, "the queue is longer than the deadline allows"),  # 120 ms ahead
        (QueueState(80, 8, 1, 100, 8), 343, ""),
        (QueueState(79, 8, 1, 100, 8, 2.0 * MS), 502, "the queue is longer than the deadline allows"),  # 88 rows ahead
        (QueueState(79, 8, 1, 100, 8, 2.0 * MS), 503, ""),
        (QueueState(80, 8, 1, 100, 8), -1, "the queue is longer than the deadline allows"),  # it is over already
        (QueueState(80, 8, 0, 100, 8), 1, ""),  # no replica: its restart may come in time, nobody knows
    ],
)
def test_who_is_refused(state: QueueState, budget_ms: int, reason: str) -> None:
    assert refusal(state, FLAT, budget_ms * MS) == reason


def test_a_pace_that_was_seen_counts_more_than_what_the_model_alone_would_take() -> None:
    assert expected_wait_ns(QueueState(32, 8, 2, 100, 8, 3.0 * MS), FLAT) == 41 * 3 * MS


def test_a_pace_does_not_count_for_a_queue_that_the_replicas_could_take_at_once() -> None:
    assert expected_wait_ns(QueueState(31, 8, 2, 100, 8, 3.0 * MS), FLAT) == 5 * 10 * MS / 2


@given(STATES, CURVES, st.integers(0, 10**12))
def test_a_full_queue_refuses_whatever_the_deadline(state: QueueState, curve: LatencyCurve, budget_ns: int) -> None:
    reason = refusal(state, curve, budget_ns)
    assert (reason != "") >= (state.queued_rows >= state.max_queued_rows)


@given(STATES, CURVES, st.integers(0, 10**12), st.integers(0, 10**12))
def test_who_is_admitted_would_be_with_more_time_too(
    state: QueueState, curve: LatencyCurve, one_ns: int, other_ns: int
) -> None:
    less_ns, more_ns = sorted((one_ns, other_ns))
    if not refusal(state, curve, less_ns):
        assert not refusal(state, curve, more_ns)


@given(STATES, CURVES)
def test_nobody_is_told_to_come_back_in_less_than_a_second(state: QueueState, curve: LatencyCurve) -> None:
    assert retry_after_s(state, curve) >= 1.0


def test_retry_after_is_half_of_the_wait() -> None:
    assert retry_after_s(QueueState(8 * 999, 0, 1, 10_000, 8), FLAT) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("state", "ahead", "makes_room", "reason"),
    [
        (QueueState(80, 8, 1, 100, 8), -1, False, "the queue is longer than the deadline allows"),  # all 80
        (QueueState(80, 8, 1, 100, 8), 80, False, "the queue is longer than the deadline allows"),
        (QueueState(80, 8, 1, 100, 8), 16, False, ""),  # the others wait behind it
        (QueueState(80, 8, 1, 100, 8, 2.0 * MS), 26, False, ""),  # 35 rows at 2 ms
        (QueueState(80, 8, 1, 100, 8, 2.0 * MS), 27, False, "the queue is longer than the deadline allows"),
        (QueueState(100, 8, 1, 100, 8), 0, False, "the queue is full (100 of 100 rows)"),
        (QueueState(100, 8, 1, 100, 8), 0, True, ""),
        (QueueState(100, 8, 1, 100, 8), 99, True, "the queue is longer than the deadline allows"),
    ],
)
def test_what_waits_behind_a_newcomer_does_not_keep_it_out(
    state: QueueState, ahead: int, makes_room: bool, reason: str
) -> None:
    assert refusal(state, FLAT, 200 * MS, ahead, makes_room) == reason


@given(STATES, CURVES, st.integers(0, 10**12), st.integers(0, 5000), st.integers(0, 5000), st.booleans())
def test_who_has_less_ahead_is_never_refused_instead(
    state: QueueState, curve: LatencyCurve, budget_ns: int, one: int, other: int, makes_room: bool
) -> None:
    fewer, more = sorted((one, other))
    if not refusal(state, curve, budget_ns, more, makes_room):
        assert not refusal(state, curve, budget_ns, fewer, makes_room)


@pytest.mark.parametrize(
    ("state", "overfull"),
    [
        (QueueState(10, 0, 1, 10, 8), False),  # just full
        (QueueState(11, 0, 1, 10, 8), True),
        (QueueState(11, 0, 0, 10, 8), True),
        (QueueState(24, 8, 1, 100, 8), False),  # 50 ms ahead, 70 allowed
        (QueueState(48, 8, 1, 100, 8), True),
        (QueueState(48, 8, 0, 100, 8), False),  # no replica: nobody knows how long it takes
    ],
)
def test_when_those_behind_have_to_leave(state: QueueState, overfull: bool) -> None:
    assert is_overfull(state, FLAT, 200 * MS) is overfull
