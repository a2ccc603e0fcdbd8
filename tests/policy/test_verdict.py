"""Verdicts of metrics and of queries, and how several become one."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.verdict import WORST_FIRST, Evidence, QueryResult, combine, explain, judge_query
from hyperion.schema.resource import QueryLimit


@given(st.lists(st.sampled_from(WORST_FIRST), max_size=6), st.sampled_from(WORST_FIRST))
def test_one_more_verdict_never_makes_it_better(verdicts: list[str], one_more: str) -> None:
    before, after = combine(verdicts), combine([*verdicts, one_more])
    assert not verdicts or WORST_FIRST.index(after) <= WORST_FIRST.index(before)


@given(st.lists(st.sampled_from(WORST_FIRST), max_size=6))
def test_only_pass_everywhere_passes(verdicts: list[str]) -> None:
    assert (combine(verdicts) == "pass") == (bool(verdicts) and set(verdicts) == {"pass"})


def test_details_are_joined_for_the_metrics_concerned() -> None:
    rows = [Evidence("a", verdict="fail", detail="1"), Evidence("b", verdict="pass"), Evidence("c", verdict="fail")]
    assert explain(rows, "fail") == "a: 1; c: fail"


@pytest.mark.parametrize(
    ("results", "verdict", "detail"),
    [
        ([], "running", "no answer yet"),
        ([QueryResult("other", 0.5, at=100.0)], "running", "no answer yet"),
        ([QueryResult("lag", 0.5, at=100.0)], "pass", "0.5"),
        ([QueryResult("lag", 9.0, at=90.0), QueryResult("lag", 0.5, at=100.0)], "pass", "0.5"),
        ([QueryResult("lag", 1.5, at=100.0)], "fail", "1.5, expected at least 0.1 and at most 1"),
        ([QueryResult("lag", 0.05, at=100.0)], "fail", "0.05, expected at least 0.1 and at most 1"),
        ([QueryResult("lag", nan, at=100.0)], "error", "the query returned nan"),
        ([QueryResult("lag", inf, at=100.0)], "error", "the query returned inf"),
        ([QueryResult("lag", None, at=100.0)], "error", "the query returned no series"),
        ([QueryResult("lag", 0.5, "timeout", at=100.0)], "error", "the provider failed: timeout"),
        ([QueryResult("lag", 0.5, at=10.0)], "error", "the newest answer is from 90 s ago"),
        ([QueryResult("lag", 0.5, at=nan)], "error", "the newest answer is from nan s ago"),
        ([QueryResult("lag", 0.5)], "error", "the newest answer is from 100 s ago"),
    ],
)
def test_a_query_is_judged_by_its_newest_answer(results: list[QueryResult], verdict: str, detail: str) -> None:
    found = judge_query(QueryLimit("up", min=0.1, max=1.0, name="lag"), results, 100.0)
    assert (found.verdict, found.detail) == (verdict, detail)


def test_a_query_without_limits_is_an_error_and_never_passes() -> None:
    found = judge_query(QueryLimit("up"), [QueryResult("up", 0.5, at=100.0)], 100.0)
    assert found.verdict == "error"


@given(st.lists(st.builds(QueryResult, st.just("up"), st.none() | st.floats(), st.just(""), st.floats())))
def test_no_answer_whatever_passes_unless_it_is_a_fresh_number_within_the_limits(results: list[QueryResult]) -> None:
    found = judge_query(QueryLimit("up", max=1.0), results, 100.0)
    if found.verdict == "pass":
        assert any(r.value is not None and r.value <= 1.0 and abs(r.at - 100.0) <= 45.0 for r in results)
