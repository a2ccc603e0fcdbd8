"""Fair queueing: those who wait get their shares, whoever paused gets no more than that, and nobody is passed over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.fairness import (
    LEAST_COST_NS,
    is_over_share,
    next_tag,
    row_cost_ns,
    rows_ahead,
    start_tag,
)
from hyperion.policy.latency import LatencyCurve, observe

WEIGHTS = st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]), min_size=2, max_size=6)


class Line:
    """Tenants by number, each with the rows of its waiting calls, served by the policy alone."""

    def __init__(self, weights: list[float]) -> None:
        self.weights = weights
        self.tags = [0.0] * len(weights)
        self.calls: list[list[int]] = [[] for _ in weights]
        self.given = [0.0] * len(weights)
        self.virtual = 0.0

    def come(self, tenant: int, rows: list[int]) -> None:
        if not self.calls[tenant]:
            self.tags[tenant] = start_tag(self.tags[tenant], self.virtual)
        self.calls[tenant] += rows

    def serve(self, row_ns: float = 1.0) -> int:
        tenant = min((tag, index) for index, tag in enumerate(self.tags) if self.calls[index])[1]
        rows = self.calls[tenant].pop(0)
        self.virtual = max(self.virtual, self.tags[tenant])
        self.tags[tenant] = next_tag(self.tags[tenant], rows, row_ns, self.weights[tenant])
        self.given[tenant] += rows
        return tenant


@given(WEIGHTS, st.data())
def test_two_that_both_wait_differ_by_no_more_than_a_call_of_each(weights: list[float], data: st.DataObject) -> None:
    line = Line(weights)
    for tenant in range(len(weights)):
        line.come(tenant, data.draw(st.lists(st.integers(1, 9), min_size=40, max_size=40)))
    largest = [max(calls) for calls in line.calls]
    while all(line.calls):
        line.serve()
        shares = [given / weight for given, weight in zip(line.given, weights, strict=True)]
        for one in range(len(weights)):
            for other in range(one):
                bound = largest[one] / weights[one] + largest[other] / weights[other]
                assert abs(shares[one] - shares[other]) <= bound + 1e-6


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), min_size=1, max_size=80), st.integers(1, 5))
def test_nobody_is_passed_over_for_longer_than_the_others_shares(coming: list[tuple[int, int]], rows: int) -> None:
    """A newcomer that has nothing else waiting is served before any other tenant gets two calls' worth more."""
    line = Line([1.0, 1.0, 1.0, 1.0])
    for tenant, count in coming:
        line.come(tenant, [count] * 3)
    for _ in range(len(coming)):
        line.serve()
    line.come(3, [rows])
    before = list(line.given)
    while line.serve() != 3:
        assert all(line.given[tenant] - before[tenant] <= 2 * 9 for tenant in range(3))


def test_a_pause_earns_nothing() -> None:
    line = Line([1.0, 1.0])
    line.come(0, [1] * 100)
    for _ in range(50):
        line.serve()
    line.come(1, [1] * 50)  # it was away while the other was served 50 times
    for _ in range(40):
        line.serve()
    assert line.given == [70, 20]


def test_past_service_is_not_held_against_anybody() -> None:
    line = Line([1.0, 1.0])
    line.come(0, [1] * 30)
    for _ in range(30):
        line.serve()
    line.come(0, [1] * 30)
    line.come(1, [1] * 30)
    for _ in range(20):
        line.serve()
    assert abs(line.given[0] - 30 - line.given[1]) <= 1


def test_going_away_for_a_moment_does_not_wipe_out_what_was_just_used() -> None:
    line = Line([1.0, 1.0])
    line.come(1, [1] * 400)
    for _ in range(20):
        line.come(0, [8])  # always its only one
        while line.calls[0]:
            line.serve()
    assert line.given[1] >= line.given[0] - 16


@pytest.mark.parametrize(
    ("curve", "rows", "cost_ns"),
    [
        (LatencyCurve(), 64, LEAST_COST_NS),
        (LatencyCurve(base_ns=640.0), 64, 10.0),
        (LatencyCurve(base_ns=640.0), 1, 640.0),  # what cannot be merged costs a whole batch
        (observe(LatencyCurve(base_ns=1e9), 4, 400.0), 4, 100.0),
    ],
)
def test_a_row_costs_its_part_of_a_batch(curve: LatencyCurve, rows: int, cost_ns: float) -> None:
    assert row_cost_ns(curve, rows) == cost_ns


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_a_tenant_without_weight_waits_but_breaks_nothing(weight: float) -> None:
    assert next_tag(0.0, 1, 1.0, weight) == pytest.approx(1e6)


@pytest.mark.parametrize(
    ("level", "own", "weight", "total", "ahead"),
    [
        (0, 0, 1.0, 1.0, 0),
        (500, 500, 1.0, 1.0, 500),  # alone: everything
        (500, 0, 1.0, 2.0, 1),  # one of the other goes before it
        (500, 9, 1.0, 2.0, 19),
        (500, 9, 3.0, 6.0, 19),
        (500, 9, 1.0, 11.0, 109),
        (15, 9, 1.0, 11.0, 15),  # never more than there are
        (500, 0, 4.0, 5.0, 0),
        (500, 0, 1.0, 0.5, 0),  # sums of weights may be a little off
    ],
)
def test_what_goes_before_a_newcomer(level: int, own: int, weight: float, total: float, ahead: int) -> None:
    assert rows_ahead(level, own, weight, total) == ahead


@given(WEIGHTS, st.lists(st.integers(0, 30), min_size=6, max_size=6))
def test_a_newcomer_waits_for_no_more_than_was_foreseen(weights: list[float], waiting: list[int]) -> None:
    line = Line(weights)
    for tenant in range(len(weights)):
        line.come(tenant, [1] * waiting[tenant])
    total = sum(weight for index, weight in enumerate(weights) if line.calls[index] or index == 0)
    foreseen = rows_ahead(sum(map(len, line.calls)), len(line.calls[0]), weights[0], total)
    line.come(0, [1])
    served = 0
    while line.calls[0]:
        line.serve()
        served += 1
    assert served - 1 <= foreseen + len(weights)  # each other one may be ahead by a call


@given(st.integers(1, 100), st.integers(1, 100), st.floats(0.1, 10), st.floats(0.1, 10))
def test_of_two_at_most_one_has_to_make_room(rows: int, others: int, weight: float, other_weight: float) -> None:
    assert not (is_over_share(rows, weight, others, other_weight) and is_over_share(others, other_weight, rows, weight))
    assert not is_over_share(rows, weight, rows, weight)
