"""A breaker opens on enough failures, tries again later and later, and never takes the last healthy replica away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.breaker import (
    CLOSED,
    GAUGE,
    JITTER,
    LONGEST_OPEN_NS,
    SLOTS,
    BreakerState,
    admits,
    begin,
    failure_share,
    is_time_over,
    may_leave_alone,
    note,
    timeout_counts,
)
from hyperion.schema.protect import Breaker

RULE = Breaker()
SECOND = 1_000_000_000


def seen(calls: int, failures: int, now_ns: int = 0) -> BreakerState:
    """A closed one that has counted this."""
    return note(CLOSED, Breaker(min_calls=10**9), now_ns, calls, failures, 0.0)


@pytest.mark.parametrize(
    ("calls", "failures", "phase"),
    [
        (19, 19, "closed"),
        (20, 9, "closed"),
        (20, 10, "open"),
        (100, 49, "closed"),
        (100, 50, "open"),
        (20, 0, "closed"),
    ],
)
def test_it_opens_at_half_of_twenty_calls(calls: int, failures: int, phase: str) -> None:
    assert note(CLOSED, RULE, 0, calls, failures, 0.0).phase == phase


def test_calls_are_counted_one_by_one_as_in_one() -> None:
    state = CLOSED
    for _ in range(19):
        state = note(state, RULE, 0, 1, 1, 0.0)
        assert state.phase == "closed"
    assert note(state, RULE, 0, 1, 1, 0.0).phase == "open"


def test_twenty_failures_in_a_row_open_it_however_well_it_went_before() -> None:
    state = seen(1_000, 0)
    for count in range(1, 20):
        state = note(state, RULE, 0, 1, 1, 0.0)
        assert (state.phase, state.run) == ("closed", count)
    assert note(state, RULE, SECOND, 1, 1, 0.0).phase == "open"
    assert note(state, RULE, SECOND, 1, 0, 0.0).run == 0
    assert note(state, RULE, SECOND, 2, 1, 0.0).run == 0


def test_what_is_older_than_the_window_does_not_count() -> None:
    state = seen(19, 18)
    assert note(state, RULE, (SLOTS - 1) * SECOND, 1, 1, 0.0).phase == "open"
    late = note(state, RULE, SLOTS * SECOND, 1, 1, 0.0)
    assert (late.phase, failure_share(late, SLOTS * SECOND)) == ("closed", 1.0)
    assert failure_share(late, 100 * SECOND) == 0.0


def test_a_clock_that_went_back_counts_in_the_newest_second() -> None:
    assert sum(note(seen(5, 1, 9 * SECOND), RULE, SECOND, 5, 1, 0.0).calls) == 10


def test_an_open_one_admits_nothing_until_its_time_and_then_one_probe() -> None:
    state = note(CLOSED, RULE, 0, 20, 20, 0.0)
    assert not admits(state, 5 * SECOND - 1)
    assert admits(state, 5 * SECOND)
    probing = begin(state, 5 * SECOND)
    assert (probing.phase, admits(probing, 5 * SECOND)) == ("half-open", False)
    assert admits(probing, 10 * SECOND)  # the probe was lost
    assert note(probing, RULE, 6 * SECOND, 1, 0, 0.0) == CLOSED


def test_one_that_is_half_open_without_a_probe_admits_one() -> None:
    assert admits(BreakerState("half-open", until_ns=9), 0)


def test_failed_probes_double_the_time_up_to_a_minute() -> None:
    state, now_ns, times = note(CLOSED, RULE, 0, 20, 20, 0.0), 0, []
    for _ in range(6):
        times.append((state.until_ns - now_ns) / 1e9)
        now_ns = state.until_ns
        state = note(begin(state, now_ns), RULE, now_ns, 1, 1, 0.0)
    assert times == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    closed = note(begin(state, state.until_ns), RULE, state.until_ns, 1, 0, 0.0)
    again = note(closed, RULE, 0, 20, 20, 0.0)
    assert again.until_ns == 5 * SECOND


def test_outcomes_of_calls_from_before_it_opened_change_nothing() -> None:
    state = note(CLOSED, RULE, 0, 20, 20, 0.0)
    assert note(state, RULE, 1, 30, 0, 0.0) is state


def test_a_closed_one_begins_calls_without_a_change() -> None:
    assert begin(CLOSED, 7) is CLOSED


def test_one_that_may_not_open_only_counts() -> None:
    state = note(CLOSED, RULE, 0, 20, 20, 0.0, may_open=False)
    assert (state.phase, sum(state.failures)) == ("closed", 20)
    assert note(state, RULE, 0, 1, 1, 0.0).phase == "open"


@given(st.floats(0.0, 1.0, exclude_max=True), st.floats(0.1, 100.0))
def test_the_jitter_only_lengthens_and_stays_within_its_share(draw: float, open_s: float) -> None:
    state = note(CLOSED, Breaker(open_s=open_s), 0, 20, 20, draw)
    assert state.open_ns <= state.until_ns <= state.open_ns * (1 + JITTER) + 1


steps = st.lists(
    st.tuples(st.integers(0, 3 * SECOND), st.integers(0, 40), st.floats(0.0, 1.0), st.floats(0.0, 0.99)), max_size=60
)


@given(steps, st.integers(1, 50), st.floats(0.01, 1.0))
def test_whatever_happens_it_lets_a_call_through_again(
    steps: list[tuple[int, int, float, float]], min_calls: int, share: float
) -> None:
    rule, state, now_ns = Breaker(share, min_calls, 1.0), CLOSED, 0
    for after_ns, calls, failed, draw in steps:
        now_ns += after_ns
        if admits(state, now_ns):
            state = begin(state, now_ns)
        was = state
        state = note(state, rule, now_ns, calls, int(calls * failed), draw)
        if was.phase == "closed" and state.phase == "open":
            assert sum(was.calls) + calls >= min_calls
        assert 0.0 <= failure_share(state, now_ns) <= 1.0
        assert state.phase in GAUGE
        assert admits(state, now_ns + int(LONGEST_OPEN_NS * (1 + JITTER)))


states = st.lists(
    st.tuples(st.sampled_from(["closed", "open", "half-open"]), st.integers(0, 50), st.floats(0.0, 1.0), st.booleans()),
    min_size=1,
    max_size=6,
)


@given(states)
def test_replicas_left_alone_one_after_the_other_always_leave_one(
    drawn: list[tuple[str, int, float, bool]],
) -> None:
    """As the gateway asks: whoever may be left alone is, until nobody may."""
    replicas = [
        seen(calls, int(calls * failed)) if phase == "closed" else BreakerState("open")
        for phase, calls, failed, _ in drawn
    ]
    ready = [answers for *_, answers in drawn]
    healthy = {i for i, state in enumerate(replicas) if ready[i] and state.phase == "closed"}
    for index in range(len(replicas)):
        if index in healthy and may_leave_alone(index, replicas, ready, 0):
            assert healthy - {index}
            replicas[index] = BreakerState("open")
            healthy.discard(index)
    assert healthy or not any(ready[i] and drawn[i][0] == "closed" for i in range(len(drawn)))


def test_a_replica_is_left_alone_only_where_another_fails_clearly_less() -> None:
    bad, half, good = seen(20, 20), seen(20, 11), seen(20, 2)
    assert may_leave_alone(0, (bad, good), (True, True), 0)
    assert not may_leave_alone(0, (bad, half), (True, True), 0)
    assert may_leave_alone(0, (bad, half, good), (True, True, True), 0)
    assert not may_leave_alone(0, (bad, good), (True, False), 0)
    assert not may_leave_alone(0, (bad,), (True,), 0)


@pytest.mark.parametrize(
    ("held_ms", "expected_ms", "counts"),
    [(249, 0, False), (250, 0, True), (50, 10, True), (49, 10, False), (300, 1000, True), (10, 0, False)],
)
def test_an_impatient_callers_timeout_does_not_count(held_ms: int, expected_ms: int, counts: bool) -> None:
    assert timeout_counts(held_ms * 1_000_000, expected_ms * 1e6, SECOND) is counts


@pytest.mark.parametrize(
    ("left_ms", "given_ms", "over"),
    [(0, 1_000, True), (-3, 1_000, True), (50, 1_000, True), (51, 1_000, False), (10, 20, True), (11, 20, False)],
)
def test_time_is_over_in_its_last_twentieth_or_ten_milliseconds(left_ms: int, given_ms: int, over: bool) -> None:
    assert is_time_over(left_ms * 1_000_000, given_ms * 1_000_000) is over
