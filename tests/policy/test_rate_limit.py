"""The token bucket: never more than burst and rate allow, never less than is due, whatever comes when."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.rate_limit import (
    LEAST_PER_SECOND,
    MOST_AT_ONCE,
    SECOND,
    burst_of,
    interval_of,
    pass_at,
    remaining_of,
    rows_burst_of,
    seconds_of,
    tolerance_of,
    window_s,
)

RATES = st.floats(0.01, 1e6)
BURSTS = st.integers(1, 2_000)
ARRIVALS = st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(1, 5)), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("spent_until", "cost", "outcome"),
    [
        (0, 10, 1010),  # long full
        (1000, 10, 1010),
        (1005, 10, 1015),  # partly spent
        (1020, 10, 1030),  # the last one
        (1021, 10, -1),  # a unit too early
        (1030, 10, -10),
        (1000, 30, 1030),  # the whole burst at once
        (1000, 31, 1031),  # more than the burst, but it is full
        (1001, 31, -1),
        (1300, 31, -300),
    ],
)
def test_what_passes_when(spent_until: int, cost: int, outcome: int) -> None:
    assert pass_at(spent_until, 1000, cost, 30) == outcome


@given(RATES, BURSTS, ARRIVALS)
def test_in_any_window_no_more_passes_than_burst_and_rate_allow(
    rate: float, burst: int, arrivals: list[tuple[int, int]]
) -> None:
    interval = interval_of(rate)
    tolerance = tolerance_of(interval, burst)
    spent_until, now = 0, 10**18
    passed: list[tuple[int, int]] = []
    for gap, count in arrivals:
        now += gap
        after = pass_at(spent_until, now, count * interval, tolerance)
        if after >= 0:
            spent_until = after
            passed.append((now, count))
    largest = max([burst, *(count for _, count in passed)])
    for first in range(len(passed)):
        total = 0
        for at, count in passed[first:]:
            total += count
            elapsed = Fraction(at - passed[first][0], SECOND)
            assert total <= largest + Fraction(rate) * elapsed


@given(RATES, BURSTS, ARRIVALS)
def test_whoever_waits_as_told_passes_and_a_unit_earlier_does_not(
    rate: float, burst: int, arrivals: list[tuple[int, int]]
) -> None:
    interval = interval_of(rate)
    tolerance = tolerance_of(interval, burst)
    spent_until, now = 0, 0
    for gap, count in arrivals:
        now += gap
        after = pass_at(spent_until, now, count * interval, tolerance)
        if after < 0:
            assert pass_at(spent_until, now - after - 1, count * interval, tolerance) < 0
            now -= after
            after = pass_at(spent_until, now, count * interval, tolerance)
        assert after >= now
        spent_until = after


@given(RATES, BURSTS, st.integers(0, 10**12), st.integers(0, 10**12))
def test_as_many_remain_as_then_pass_one_by_one(rate: float, burst: int, spent_until: int, now: int) -> None:
    interval = interval_of(rate)
    tolerance = tolerance_of(interval, burst)
    remaining = remaining_of(spent_until, now, interval, tolerance)
    assert 0 <= remaining <= burst
    for _ in range(remaining):
        spent_until = pass_at(spent_until, now, interval, tolerance)
        assert spent_until > 0
    assert pass_at(spent_until, now, interval, tolerance) < 0


@given(RATES)
def test_a_rate_is_never_exceeded_and_missed_by_less_than_one_in_ten_thousand(rate: float) -> None:
    kept = Fraction(SECOND, interval_of(rate))
    assert Fraction(rate) * Fraction(9999, 10000) < kept <= Fraction(rate)


@given(RATES, BURSTS)
def test_the_window_of_the_header_promises_no_more_than_the_rate_brings(rate: float, burst: int) -> None:
    assert burst <= Fraction(rate) * window_s(rate, burst)


def test_bursts_are_a_seconds_worth_unless_said() -> None:
    assert [burst_of(rate, 0) for rate in (0.01, 1.0, 1.5, 500.0)] == [1, 1, 2, 500]
    assert burst_of(500.0, 3) == 3
    assert rows_burst_of(10.0, 20, 7.0) == 14
    assert rows_burst_of(10.0, 1, 7.0) == 1
    assert rows_burst_of(0.0, 0, 7.0) == 7
    assert rows_burst_of(0.0, 9, 7.0) == 9
    assert seconds_of(3 * SECOND) == 3.0


@given(st.floats(LEAST_PER_SECOND, 1e9), st.integers(1, MOST_AT_ONCE), st.integers(0, 10**12))
def test_a_full_bucket_has_all_of_its_burst(rate: float, burst: int, now: int) -> None:
    """However slow it is, no rounding takes one away."""
    interval = interval_of(rate)
    assert remaining_of(0, now, interval, tolerance_of(interval, burst)) == burst
