"""The time that a first try gets is exceeded by five in a hundred, and busy replicas are not asked twice."""

import random

import pytest

from hyperion.policy.hedge import (
    BUSY_LIMIT,
    MIN_SEEN,
    SHORTEST_NS,
    HedgeState,
    hedge_after_ns,
    observe_busy,
    observe_time,
)


@pytest.mark.parametrize("spread", [0.1, 0.5, 1.0])
def test_the_ratio_is_exceeded_by_about_five_in_a_hundred(spread: float) -> None:
    draws, state, above = random.Random(5), HedgeState(), 0
    for count in range(6_000):
        expected = draws.choice([1e6, 5e6])
        took = expected * draws.lognormvariate(0.0, spread)
        if count >= 1_000:
            above += took > state.ratio * expected
        state = observe_time(state, took, expected)
    assert above / 5_000 == pytest.approx(0.05, abs=0.01)


def test_nothing_is_learned_without_an_expectation() -> None:
    assert observe_time(HedgeState(), 1e6, 0.0) == HedgeState()


def test_busy_replicas_are_not_asked_twice() -> None:
    state = HedgeState(1.5, MIN_SEEN)
    assert hedge_after_ns(state, 10e6) == 15_000_000
    for _ in range(100):
        state = observe_busy(state, 3, 4)
    assert state.busy > BUSY_LIMIT
    assert hedge_after_ns(state, 10e6) == 0
    for _ in range(100):
        state = observe_busy(state, 0, 0)
    assert hedge_after_ns(state, 10e6) == 15_000_000


@pytest.mark.parametrize(
    ("state", "expected_ns", "after_ns"),
    [
        (HedgeState(1.0, MIN_SEEN - 1), 1e7, 0),
        (HedgeState(1.0, MIN_SEEN), 0.0, 0),
        (HedgeState(1.0, MIN_SEEN), 10.0, SHORTEST_NS),
    ],
)
def test_there_is_no_second_try_before_enough_is_known(state: HedgeState, expected_ns: float, after_ns: int) -> None:
    assert hedge_after_ns(state, expected_ns) == after_ns
