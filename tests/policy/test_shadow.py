"""May it leave the shadow: pairs, slices, copies that failed, numbers that are none."""

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.release.shadow import add_pairs, correlate, judge_shadow
from hyperion.schema.release import PairCounts


def judge(limit: float = 0.02, **fields: Any) -> tuple[str, str]:
    found = judge_shadow([PairCounts("e", 1, **fields)], 500, limit, 100.0)
    return found.verdict, found.detail


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({}, "running"),
        ({"pairs": 499}, "running"),
        ({"pairs": 500}, "pass"),
        ({"pairs": 600, "disagreements": 12}, "running"),
        ({"pairs": 600, "disagreements": 60}, "fail"),
        ({"pairs": 500, "failed": 60}, "fail"),
        ({"pairs": 500, "dropped": 5_000}, "pass"),
        ({"pairs": 5, "disagreements": 6}, "error"),
        ({"pairs": 5, "flips": 6}, "error"),
        ({"pairs": 500, "failed": -1}, "error"),
        ({"pairs": 500, "abs_sum": nan}, "error"),
        ({"pairs": 500, "abs_max": inf}, "error"),
        ({"pairs": 500, "slices": {"a": (3, 4)}}, "error"),
        ({"pairs": 5_000, "disagreements": 40, "slices": {"a": (4_960, 0), "b": (40, 40)}}, "fail"),
        ({"pairs": 5_000, "disagreements": 0, "slices": {"a": (4_960, 0), "b": (40, 0)}}, "pass"),
    ],
)
def test_the_table_of_verdicts(fields: dict[str, Any], verdict: str) -> None:
    assert judge(**fields)[0] == verdict


def test_a_limit_of_zero_is_broken_by_one_pair_and_one_of_one_by_none() -> None:
    assert judge(0.0, pairs=500)[0] == "pass"
    assert judge(0.0, pairs=500, disagreements=1)[0] == "fail"
    assert judge(1.0, pairs=500, disagreements=500)[0] == "pass"


def test_the_detail_says_how_large_the_differences_are() -> None:
    detail = judge(
        pairs=600,
        flips=2,
        disagreements=3,
        failed=1,
        dropped=7,
        abs_sum=6.0,
        abs_max=0.5,
        x=6,
        y=6,
        xx=600,
        yy=600,
        xy=600,
    )[1]
    for part in (
        "4 of 601 pairs differ",
        "2 flips",
        "1 copies failed",
        "7 copies were not made",
        "at most 0.5",
        "1.000",
    ):
        assert part in detail


def test_pairs_of_several_epochs_are_added_slice_by_slice() -> None:
    both = add_pairs(
        [
            PairCounts("e", 1, 10, disagreements=1, abs_max=2.0, slices={"a": (10, 1)}),
            PairCounts("e", 2, 5, disagreements=2, abs_max=1.0, slices={"a": (2, 1), "b": (3, 1)}),
        ]
    )
    assert (both.pairs, both.disagreements, both.abs_max) == (15, 3, 2.0)
    assert both.slices == {"a": (12, 2), "b": (3, 1)}
    assert add_pairs([]).pairs == 0


def test_there_is_no_correlation_of_constants_or_of_numbers_that_are_none() -> None:
    assert correlate(PairCounts("e", 1)) is None
    assert correlate(PairCounts("e", 1, pairs=2, x=2.0, xx=2.0, y=3.0, yy=5.0, xy=3.0)) is None
    assert correlate(PairCounts("e", 1, pairs=2, x=3.0, xx=5.0, y=3.0, yy=5.0, xy=nan)) is None


@given(
    st.builds(
        PairCounts,
        st.just("e"),
        st.just(1),
        pairs=st.integers(-5, 2_000),
        flips=st.integers(-5, 2_000),
        disagreements=st.integers(-5, 2_000),
        abs_sum=st.floats(),
        abs_max=st.floats(),
        x=st.floats(),
        y=st.floats(),
        xx=st.floats(),
        yy=st.floats(),
        xy=st.floats(),
        failed=st.integers(-5, 50),
        dropped=st.integers(-5, 50),
        slices=st.dictionaries(st.text(max_size=2), st.tuples(st.integers(-2, 99), st.integers(-2, 99)), max_size=3),
    )
)
def test_any_pairs_get_a_verdict_and_too_few_never_pass(pairs: PairCounts) -> None:
    found = judge_shadow([pairs], 500, 0.02, 100.0)
    assert found.verdict in ("pass", "fail", "running", "error")
    assert found.verdict != "pass" or pairs.pairs >= 500
