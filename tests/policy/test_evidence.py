"""The E-values: against the definition event by event, against their guarantees, and at sizes where digits get lost."""

from itertools import pairwise
from math import exp, inf, isfinite, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.evidence import (
    ABOVE,
    BELOW,
    Tally,
    Toss,
    bound_above,
    e_value,
    log_either_way,
    log_evidence,
    log_no_worse,
    log_over,
    log_sum,
    log_under,
    log_worse,
    toss_whose,
)

shares = st.floats(0.001, 0.999)
counts = st.integers(0, 10**7)
tallies = st.lists(st.builds(Tally, shares, counts, counts), max_size=4)


def by_the_book(share: float, events: list[int], margin: float, ratios: tuple[float, ...]) -> float:
    """The formula of the E-value as it is written, multiplied out event by event."""

    def theta(ratio: float) -> float:
        return ratio * share / (ratio * share + 1 - share)

    total = 0.0
    for ratio in ratios:
        product = 1.0
        for mine in events:
            alternative, null = theta(margin * ratio), theta(margin)
            product *= alternative / null if mine else (1 - alternative) / (1 - null)
        total += product / len(ratios)
    return total


@given(
    share=st.floats(0.01, 0.9), events=st.lists(st.integers(0, 1), max_size=40), margin=st.sampled_from([1.0, 1.2, 2.0])
)
def test_the_closed_form_is_the_product_over_events(share: float, events: list[int], margin: float) -> None:
    tally = Tally(share, sum(events), len(events) - sum(events))
    assert exp(log_worse([tally], margin)) == pytest.approx(by_the_book(share, events, margin, ABOVE), rel=1e-9)
    assert exp(log_no_worse([tally], margin)) == pytest.approx(by_the_book(share, events, margin, BELOW), rel=1e-9)


@given(share=st.floats(0.01, 0.99), margin=st.floats(0.5, 3.0), canary=st.integers(0, 30), control=st.integers(0, 30))
def test_at_the_margin_one_more_event_leaves_the_e_value_where_it_is_on_average(
    share: float, margin: float, canary: int, control: int
) -> None:
    """The martingale: it cannot be won against a true hypothesis, whatever came before."""
    chance = toss_whose(Tally(share, 0, 0), margin).chance
    for judge in (log_worse, log_no_worse):
        now = exp(judge([Tally(share, canary, control)], margin))
        bad = exp(judge([Tally(share, canary + 1, control)], margin))
        good = exp(judge([Tally(share, canary, control + 1)], margin))
        assert chance * bad + (1 - chance) * good == pytest.approx(now, rel=1e-9)


@given(limit=st.floats(0.0001, 0.5), bad=st.integers(0, 20), good=st.integers(0, 200))
def test_at_the_limit_one_more_request_leaves_the_e_value_where_it_is_on_average(
    limit: float, bad: int, good: int
) -> None:
    for judge in (log_over, log_under, lambda hits, trials, chance: log_either_way(hits, trials, chance)):
        now = exp(judge(bad, bad + good, limit))
        after = limit * exp(judge(bad + 1, bad + good + 1, limit)) + (1 - limit) * exp(
            judge(bad, bad + good + 1, limit)
        )
        assert after == pytest.approx(now, rel=1e-6)


@given(tallies, st.floats(0.1, 10.0))
def test_any_counts_give_a_number(every: list[Tally], margin: float) -> None:
    for judge in (log_worse, log_no_worse):
        assert isfinite(judge(every, margin))
        assert isfinite(e_value(judge(every, margin)))


@given(share=shares, total=st.integers(1, 1000), margin=st.floats(0.5, 3.0))
def test_more_of_the_events_being_the_canarys_is_more_evidence(share: float, total: int, margin: float) -> None:
    logs = [log_worse([Tally(share, mine, total - mine)], margin) for mine in range(0, total + 1, max(total // 10, 1))]
    assert all(one < other for one, other in pairwise(logs))


def test_the_order_of_epochs_and_how_they_are_cut_change_nothing() -> None:
    parts = [Tally(0.05, 3, 20), Tally(0.25, 9, 11), Tally(0.05, 1, 30)]
    joined = [Tally(0.25, 9, 11), Tally(0.05, 4, 50)]
    assert log_worse(parts, 1.2) == pytest.approx(log_worse(joined, 1.2), rel=1e-12)


def test_ten_million_events_lose_no_digits() -> None:
    one = log_worse([Tally(0.05, 500_000, 9_500_000)], 1.0)
    many = log_worse([Tally(0.05, 50_000, 950_000)] * 10, 1.0)
    assert one == pytest.approx(many, rel=1e-9)
    assert log_either_way(500_000, 10_000_000, 0.05) < 0


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 2.0])
def test_an_epoch_without_two_versions_says_nothing(share: float) -> None:
    tally = Tally(share, 50, 0)
    chance = toss_whose(tally, 1.0).chance
    assert 0.0 < chance < 1.0 or log_worse([tally], 1.0) == 0.0
    assert log_either_way(5, 5, 1.0) == log_either_way(5, 5, 0.0) == log_either_way(0, 0, 0.5) == 0.0


def test_no_tosses_or_impossible_chances_are_no_evidence() -> None:
    assert log_evidence([Toss(3, 3, 1.0)]) == 0.0
    assert log_evidence([Toss(3, 3, float("nan"))]) == 0.0


@given(bad=st.integers(0, 50), good=st.integers(0, 5_000))
def test_the_upper_bound_lies_over_the_rate_and_falls_with_good_requests(bad: int, good: int) -> None:
    bound = bound_above(bad, bad + good)
    assert bound >= bad / max(bad + good, 1)
    assert bound_above(bad, bad + good + 500) <= bound + 1e-9
    assert bound == 1.0 or log_under(bad, bad + good, min(bound + 1e-6, 0.999)) >= -log(0.05) - 0.05


def test_logs_that_are_minus_infinity_add_up() -> None:
    assert log_sum([-inf, 0.0, 0.0]) == pytest.approx(log(2))
    assert e_value(1e6) == e_value(690.0)
