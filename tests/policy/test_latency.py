"""The latency curve: what was seen counts, what was not seen comes from the warm-up's line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.latency import (
    BUCKETS,
    LatencyCurve,
    bucket_of,
    expect,
    expect_soonest,
    fit_prior,
    observe,
    observe_pace,
)

ROWS = st.integers(1, 1 << 20)
TOOK_NS = st.floats(1.0, 1e12)


@given(ROWS, ROWS)
def test_more_rows_never_fall_into_a_smaller_bucket(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert 0 <= bucket_of(small) <= bucket_of(large) < BUCKETS


@pytest.mark.parametrize("bucket", range(1, BUCKETS - 1))
def test_a_bucket_holds_the_sizes_up_to_its_power_of_two(bucket: int) -> None:
    assert bucket_of((1 << (bucket - 1)) + 1) == bucket == bucket_of(1 << bucket)


def test_batches_beyond_the_largest_bucket_share_it() -> None:
    assert bucket_of(1 << 17) == bucket_of(1 << 30) == BUCKETS - 1


def test_without_a_warm_up_a_batch_is_expected_to_take_no_time() -> None:
    assert fit_prior({}) == LatencyCurve()
    assert expect(fit_prior({}), 64) == 0.0


def test_one_bucket_gives_a_flat_line() -> None:
    assert [round(expect(fit_prior({8: 0.002}), rows)) for rows in (1, 8, 64)] == [2_000_000] * 3


def test_two_buckets_give_the_line_through_them() -> None:
    curve = fit_prior({1: 0.001, 11: 0.002})
    assert expect(curve, 21) == pytest.approx(3e6)


def test_a_model_that_was_slower_with_fewer_rows_is_not_expected_to_be_infinitely_fast() -> None:
    curve = fit_prior({1: 0.010, 64: 0.001})
    assert curve.slope_ns == 0.0
    assert expect(curve, 1000) == pytest.approx(5.5e6)


def test_a_line_that_would_begin_below_zero_begins_at_zero() -> None:
    assert fit_prior({1: 0.001, 2: 0.009}).base_ns == 0.0


@given(st.dictionaries(ROWS, st.floats(0.0, 1e3)), ROWS, ROWS)
def test_a_prior_never_falls_and_is_never_negative(points: dict[int, float], one: int, other: int) -> None:
    curve = fit_prior(points)
    small, large = sorted((one, other))
    assert 0.0 <= expect(curve, small) <= expect(curve, large)


@given(ROWS, TOOK_NS)
def test_the_first_observation_replaces_the_prior_of_its_bucket_only(rows: int, took_ns: float) -> None:
    prior = fit_prior({1: 0.5, 64: 1.0})
    curve = observe(prior, rows, took_ns)
    assert expect(curve, rows) == took_ns
    others = [1 << n for n in range(BUCKETS) if n != bucket_of(rows)]
    assert [expect(curve, other) for other in others] == [expect(prior, other) for other in others]


@given(ROWS, st.lists(TOOK_NS, min_size=1, max_size=50))
def test_the_mean_stays_between_the_fastest_and_the_slowest(rows: int, durations: list[float]) -> None:
    curve = LatencyCurve()
    for took_ns in durations:
        curve = observe(curve, rows, took_ns)
    mean = curve.mean_ns[bucket_of(rows)]
    assert min(durations) * (1 - 1e-9) <= mean <= max(durations) * (1 + 1e-9)
    assert curve.variance[bucket_of(rows)] >= 0.0
    assert expect(curve, rows) >= mean


def test_a_model_that_became_slower_is_expected_to_be_slow_soon() -> None:
    curve = observe(LatencyCurve(), 4, 1e6)
    for _ in range(40):
        curve = observe(curve, 4, 9e6)
    assert expect(curve, 4) > 8e6


def test_a_batch_that_varies_is_expected_to_take_longer_than_its_mean() -> None:
    curve = LatencyCurve()
    for took_ns in (1e6, 3e6) * 50:
        curve = observe(curve, 4, took_ns)
    assert expect(curve, 4) > curve.mean_ns[bucket_of(4)] + 0.5e6


def test_the_first_batch_sets_the_pace_and_later_ones_move_it() -> None:
    pace = observe_pace(0.0, 64, 6.4e6)
    assert pace == pytest.approx(1e5)
    for _ in range(40):
        pace = observe_pace(pace, 32, 6.4e6)
    assert pace == pytest.approx(2e5, rel=0.02)


@given(st.lists(st.tuples(st.integers(1, 4096), TOOK_NS), min_size=1, max_size=50))
def test_the_pace_stays_between_the_fastest_and_the_slowest_batch(batches: list[tuple[int, float]]) -> None:
    pace = 0.0
    for rows, took_ns in batches:
        pace = observe_pace(pace, rows, took_ns)
    seen = [took_ns / rows for rows, took_ns in batches]
    assert min(seen) * (1 - 1e-9) <= pace <= max(seen) * (1 + 1e-9)


def test_the_soonest_end_is_a_deviation_before_the_mean_and_never_in_the_past() -> None:
    steady = observe(LatencyCurve(), 8, 4_000_000)
    assert expect_soonest(steady, 8) == 4_000_000
    shaky = observe(observe(steady, 8, 8_000_000), 8, 1_000_000)
    assert 0 < expect_soonest(shaky, 8) < 4_000_000
    assert expect_soonest(shaky, 8) < expect(shaky, 8)
    wild = observe(observe(LatencyCurve(), 8, 1), 8, 10**9)
    assert expect_soonest(wild, 8) == 0.0


def test_the_soonest_end_of_a_batch_never_seen_is_half_of_the_prior() -> None:
    assert expect_soonest(LatencyCurve(slope_ns=10.0, base_ns=100.0), 10) == 100.0
