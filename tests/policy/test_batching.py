"""Batches: as large as the limits and the deadlines in them allow, in queue order, without those that are too late."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from hyperion.policy.batching import (
    AGEING_NS,
    LOWEST_PRIORITY,
    BatchLimits,
    BatchPlan,
    hold_ns,
    open_for_ns,
    plan_batch,
    virtual_arrival,
)
from hyperion.policy.latency import LatencyCurve, expect, observe

MS = 1_000_000
FAR = 10**15


class Call(Struct, frozen=True):
    """What the policy reads of a waiting request."""

    rows: int = 1
    deadline_ns: int = FAR
    size_bytes: int = 1


CALLS = st.lists(st.builds(Call, st.integers(1, 40), st.integers(0, 200 * MS), st.integers(0, 100)), max_size=60)
CURVES = st.builds(LatencyCurve, slope_ns=st.floats(0, 2.0 * MS), base_ns=st.floats(0, 20.0 * MS))
LIMITS = st.builds(BatchLimits, st.integers(1, 64), st.integers(1, 1000), st.integers(0, 2 * MS))
INSTANT = LatencyCurve()


def plan(calls: list[Call], now_ns: int = 0, curve: LatencyCurve = INSTANT, **limits: int) -> BatchPlan:
    return plan_batch(calls, now_ns, curve, BatchLimits(**{"max_rows": 8, "max_bytes": 100, "post_ns": 0, **limits}))


@pytest.mark.parametrize(
    ("calls", "seen", "rows"),
    [
        ([], 0, 0),
        ([Call()], 1, 1),
        ([Call(rows=3), Call(rows=3), Call(rows=3)], 2, 6),  # the third would be the ninth row
        ([Call(rows=4), Call(rows=4), Call(rows=1)], 2, 8),
        ([Call(rows=50), Call()], 1, 50),  # larger than any batch: alone
        ([Call(), Call(rows=50)], 1, 1),
        ([Call(size_bytes=60), Call(size_bytes=60)], 1, 1),
        ([Call(size_bytes=500), Call()], 1, 1),
        ([Call(size_bytes=50), Call(size_bytes=50)], 2, 2),
    ],
)
def test_a_batch_ends_at_the_limits(calls: list[Call], seen: int, rows: int) -> None:
    assert plan(calls) == BatchPlan(seen, rows)


def test_the_late_are_named_and_do_not_keep_the_others_out() -> None:
    calls = [Call(deadline_ns=5), Call(rows=2), Call(deadline_ns=9), Call(rows=2)]
    assert plan(calls, now_ns=10) == BatchPlan(4, 4, (0, 2))


def test_a_deadline_that_is_just_met_is_not_late() -> None:
    curve = LatencyCurve(base_ns=5.0)
    assert plan([Call(deadline_ns=17), Call()], now_ns=10, curve=curve, post_ns=2).late == ()
    assert plan([Call(deadline_ns=16), Call()], now_ns=10, curve=curve, post_ns=2).late == (0,)


def test_where_all_would_be_late_the_first_that_is_not_yet_is_tried_alone() -> None:
    """A curve that is wrong must not refuse everybody for ever: only a new observation can mend it."""
    slow = LatencyCurve(base_ns=1_000.0)
    calls = [Call(deadline_ns=5), Call(rows=3, deadline_ns=50), Call(deadline_ns=60)]
    assert plan(calls, now_ns=10, curve=slow) == BatchPlan(2, 3, (0,))


def test_those_whose_deadlines_have_passed_are_never_tried() -> None:
    slow = LatencyCurve(base_ns=1_000.0)
    assert plan([Call(deadline_ns=5), Call(deadline_ns=10)], now_ns=10, curve=slow) == BatchPlan(2, 0, (0, 1))


def test_the_most_urgent_call_is_not_delayed_beyond_its_deadline_by_those_behind_it() -> None:
    curve = LatencyCurve(slope_ns=10.0)
    calls = [Call(deadline_ns=45), *[Call() for _ in range(7)]]
    assert plan(calls, curve=curve) == BatchPlan(4, 4)


def test_a_more_urgent_call_further_back_does_not_join_a_batch_that_would_be_too_long_for_it() -> None:
    curve = LatencyCurve(slope_ns=10.0)
    assert plan([Call(rows=4), Call(deadline_ns=30)], curve=curve) == BatchPlan(1, 4)


@given(CALLS, st.integers(0, 100 * MS), CURVES, LIMITS)
def test_a_batch_keeps_to_its_limits_and_deadlines(
    calls: list[Call], now_ns: int, curve: LatencyCurve, limits: BatchLimits
) -> None:
    outcome = plan_batch(calls, now_ns, curve, limits)
    assert set(outcome.late) <= set(range(outcome.seen))
    assert outcome.seen <= len(calls)
    chosen = [call for index, call in enumerate(calls[: outcome.seen]) if index not in outcome.late]
    assert outcome.rows == sum(call.rows for call in chosen)
    alone_ns = now_ns + expect(curve, 1) + limits.post_ns
    assert all(alone_ns > calls[index].deadline_ns for index in outcome.late)
    tried_alone = len(chosen) == 1 and now_ns < chosen[0].deadline_ns
    assert tried_alone or all(alone_ns <= call.deadline_ns for call in chosen)
    if len(chosen) > 1:
        assert outcome.rows <= limits.max_rows
        assert sum(call.size_bytes for call in chosen) <= limits.max_bytes
        # The curve is looked at once per power of two, so the smallest size of that bucket is what must fit.
        least_rows = (1 << ((outcome.rows - 1).bit_length() - 1)) + 1 if outcome.rows > 2 else outcome.rows
        assert now_ns + expect(curve, least_rows) + limits.post_ns <= min(call.deadline_ns for call in chosen)


@given(CALLS, st.integers(0, 100 * MS), CURVES, LIMITS)
def test_while_something_waits_something_is_seen(
    calls: list[Call], now_ns: int, curve: LatencyCurve, limits: BatchLimits
) -> None:
    outcome = plan_batch(calls, now_ns, curve, limits)
    assert bool(outcome.seen) == bool(calls)


@given(CALLS, LIMITS)
def test_without_deadlines_a_batch_is_as_large_as_the_limits_allow(calls: list[Call], limits: BatchLimits) -> None:
    calls = [Call(call.rows, FAR, call.size_bytes) for call in calls]
    outcome = plan_batch(calls, 0, INSTANT, limits)
    assert outcome.late == ()
    if outcome.seen < len(calls) and outcome.rows < limits.max_rows:
        following = calls[outcome.seen]
        size_bytes = sum(call.size_bytes for call in calls[: outcome.seen]) + following.size_bytes
        assert outcome.rows + following.rows > limits.max_rows or size_bytes > limits.max_bytes


def test_the_plan_looks_at_no_more_calls_than_it_takes_and_one() -> None:
    looked = []

    def waiting() -> object:
        for index in range(100):
            looked.append(index)
            yield SimpleNamespace(rows=1, size_bytes=1, deadline_ns=FAR)

    assert plan(waiting()).seen == 8  # type: ignore[arg-type]
    assert len(looked) <= 9


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, LOWEST_PRIORITY), st.integers(0, LOWEST_PRIORITY))
def test_a_lower_priority_waits_longer_but_not_for_ever(one_ns: int, other_ns: int, high: int, low: int) -> None:
    high, low = sorted((high, low))
    key = virtual_arrival(one_ns, low)
    assert key >= virtual_arrival(one_ns, high)
    if other_ns > one_ns + (low - high) * AGEING_NS:
        assert key < virtual_arrival(other_ns, high)


@pytest.mark.parametrize(
    ("queued", "delay_ns", "now_ns", "held_ns"),
    [
        (3, 0, 120, 0),  # no delay was asked for
        (8, 50, 120, 0),  # full
        (9, 50, 120, 0),
        (3, 50, 120, 30),
        (3, 50, 150, 0),
        (3, 50, 999, 0),
    ],
)
def test_how_long_a_batch_is_held_back(queued: int, delay_ns: int, now_ns: int, held_ns: int) -> None:
    assert hold_ns(queued, 8, 100, delay_ns, now_ns) == held_ns


@pytest.mark.parametrize(
    ("takes_ms", "since_ms", "open_ms"),
    [
        (10, 0, 9),  # nothing is gained by closing it 9 ms before it can be computed
        (10, 8, 1),
        (10, 9, 0),
        (10, 20, 0),
        (0.5, 0, 0),  # a short batch: send the next one at once
    ],
)
def test_the_next_batch_stays_open_until_the_one_before_is_nearly_done(
    takes_ms: float, since_ms: int, open_ms: int
) -> None:
    curve = observe(LatencyCurve(), 4, takes_ms * MS)
    assert open_for_ns(curve, 4, 1_000 * MS, (1_000 + since_ms) * MS) == open_ms * MS
