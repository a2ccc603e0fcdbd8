"""After a crash: every request is run again or refused, the innocent are not refused, the guilty soon are."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.crash import MAX_DEATHS_ALONE, PARTS, plan_after_crash, split_group


@given(st.lists(st.integers(), max_size=300))
def test_a_split_keeps_every_position_once_and_in_order(positions: list[int]) -> None:
    groups = split_group(positions)
    assert [position for group in groups for position in group] == positions
    assert len(groups) == min(PARTS, len(positions))


@given(st.integers(1, 300))
def test_the_groups_of_a_split_differ_by_one_at_most(count: int) -> None:
    sizes = [len(group) for group in split_group(range(count))]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


@given(st.lists(st.integers(0, 2 * MAX_DEATHS_ALONE), max_size=100))
def test_every_request_is_either_run_again_or_refused(deaths: list[int]) -> None:
    plan = plan_after_crash(deaths)
    again = [index for group in plan.retry for index in group]
    assert sorted([*again, *plan.refuse]) == list(range(len(deaths)))
    assert all(deaths[index] >= MAX_DEATHS_ALONE for index in plan.refuse)
    assert all(deaths[index] < MAX_DEATHS_ALONE for index in again)


def test_a_request_is_not_refused_for_one_death() -> None:
    assert plan_after_crash([MAX_DEATHS_ALONE - 1]).retry == ((0,),)


def crashes_until_settled(count: int, poison: set[int]) -> tuple[set[int], set[int], int]:
    """Runs the policy over a replica that dies of any batch with a poison request: answered, refused, deaths."""
    deaths_alone = [0] * count
    answered: set[int] = set()
    refused: set[int] = set()
    deaths = 0
    groups = deque([tuple(range(count))])
    while groups:
        group = groups.popleft()
        if poison.isdisjoint(group):
            answered.update(group)
            continue
        deaths += 1
        if len(group) == 1:
            deaths_alone[group[0]] += 1
        plan = plan_after_crash([deaths_alone[position] for position in group])
        refused.update(group[index] for index in plan.refuse)
        groups.extend(tuple(group[index] for index in retry) for retry in plan.retry)
    return answered, refused, deaths


@given(st.integers(1, 200), st.data())
def test_the_poison_is_refused_and_everything_else_answered(count: int, data: st.DataObject) -> None:
    poison = data.draw(st.sets(st.integers(0, count - 1), max_size=5))
    answered, refused, _deaths = crashes_until_settled(count, poison)
    assert refused == poison
    assert answered == set(range(count)) - poison


@pytest.mark.parametrize(("count", "deaths"), [(1, 2), (8, 3), (64, 4), (512, 5)])
def test_one_poison_request_costs_one_death_per_eighth_and_two_alone(count: int, deaths: int) -> None:
    assert crashes_until_settled(count, {count // 2})[2] == deaths
