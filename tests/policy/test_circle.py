"""Endpoints that lead back to themselves."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.graph.circle import find_circle


@pytest.mark.parametrize(
    ("others", "way"),
    [
        ({}, ()),
        ({"a": ["a"]}, ("a", "a")),
        ({"a": ["b"], "b": ["a"]}, ("a", "b", "a")),
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}, ()),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, ()),  # a circle, but not through a
        ({"a": ["x", "b"], "b": ["c"], "c": ["a"]}, ("a", "b", "c", "a")),
    ],
)
def test_a_way_back_is_found(others: dict[str, list[str]], way: tuple[str, ...]) -> None:
    assert find_circle("a", lambda name: others.get(name, [])) == way


@given(st.dictionaries(st.sampled_from("abcde"), st.lists(st.sampled_from("abcde"), max_size=4)))
def test_a_way_is_one_and_there_is_none_where_none_is_found(others: dict[str, list[str]]) -> None:
    way = find_circle("a", lambda name: others.get(name, []))
    reached, pending = set[str](), ["a"]
    while pending:
        for other in others.get(pending.pop(), []):
            if other not in reached:
                reached.add(other)
                pending.append(other)
    assert bool(way) == ("a" in reached)
    assert all(step in others.get(name, []) for name, step in pairwise(way))
    if way:
        assert (way[0], way[-1]) == ("a", "a")
