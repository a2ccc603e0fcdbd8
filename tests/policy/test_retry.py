"""Retries never multiply an outage: they are paid from a budget, wait longer and longer, and only for what may help."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.retry import LONGEST_WAIT_S, MOST, PER_SECOND, WAIT_SHARE, Budget, earn, is_worth_it, spend, wait_s
from hyperion.schema.errors import HyperionError
from hyperion.schema.protect import Retry
from tests.policy.codes import CODES

HELPED = {"upstream_failed", "upstream_busy", "runner_lost"}


@pytest.mark.parametrize("kind", CODES.values(), ids=list(CODES))
def test_only_errors_that_another_try_may_not_find_are_worth_one(kind: type[HyperionError]) -> None:
    assert is_worth_it(kind.code, set()) is (kind.code in HELPED)
    if is_worth_it(kind.code, set()):
        assert kind.retryable
        assert kind.blame != "caller"


@pytest.mark.parametrize("parameter", ["sequence_id", "sequence_start", "sequence_end"])
def test_a_step_of_a_sequence_is_tried_again_only_if_it_did_not_start(parameter: str) -> None:
    assert [code for code in sorted(HELPED) if is_worth_it(code, {parameter, "x"})] == ["upstream_busy"]


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 2_000_000_000)), max_size=80), st.floats(0.0, 1.0))
def test_tries_never_exceed_the_share_of_traffic_and_one_a_second(traffic: list[tuple[int, int]], share: float) -> None:
    budget, now_ns, requests, tries = Budget(), 0, 0, 0
    for count, after_ns in traffic:
        now_ns += after_ns
        requests += count
        budget = earn(budget, share, count, now_ns)
        while (after := spend(budget)) is not None:
            budget, tries = after, tries + 1
        assert tries <= share * requests + PER_SECOND * now_ns / 1e9 + 1e-6
        assert 0.0 <= budget.tries <= MOST


def test_a_quiet_time_saves_up_only_so_many() -> None:
    assert earn(Budget(), 0.2, 0, 10**12).tries == MOST
    assert spend(Budget(4.0), 5) is None


def test_a_clock_that_went_back_earns_nothing() -> None:
    assert earn(Budget(1.0, 5_000_000_000), 0.2, 0, 1) == Budget(1.0, 5_000_000_000)


@given(st.integers(1, 200), st.floats(0.0, 100.0), st.floats(0.0, 1000.0), st.floats(0.0, 1.0, exclude_max=True))
def test_a_wait_is_no_shorter_than_told_and_leaves_time_for_the_try(
    tries: int, retry_after_s: float, left_s: float, draw: float
) -> None:
    wait = wait_s(Retry(attempts=1000), tries, retry_after_s, left_s, draw)
    if wait is not None:
        assert retry_after_s <= wait <= retry_after_s + LONGEST_WAIT_S
        assert wait <= WAIT_SHARE * left_s


def test_waits_double_up_to_two_seconds() -> None:
    waits = [wait_s(Retry(attempts=100), tries, 0.0, 100.0, 0.5) for tries in range(1, 10)]
    assert waits == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0])


def test_after_the_last_attempt_there_is_none() -> None:
    assert wait_s(Retry(attempts=1), 1, 0.0, 10.0, 0.0) is None
    assert wait_s(Retry(attempts=2), 1, 0.0, 10.0, 0.0) == 0.0
