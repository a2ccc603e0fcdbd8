"""Verdicts, and how those of several metrics become one. Never boolean; a missing datum never passes. Pure.

`fail` halts. `error` is a datum that cannot be trusted (NaN, a provider's error, counts that went back), `inconclusive`
one that had its time and said too little, `running` one that is still coming. Only `pass` everywhere promotes.
"""

from collections.abc import Iterable
from math import isfinite
from typing import Final

from msgspec import Struct

from hyperion.schema.resource import QueryLimit

PASS: Final = "pass"  # noqa: S105
RUNNING: Final = "running"
INCONCLUSIVE: Final = "inconclusive"
ERROR: Final = "error"
FAIL: Final = "fail"
WORST_FIRST: Final = (FAIL, ERROR, INCONCLUSIVE, RUNNING, PASS)
STALE_INTERVALS: Final = 3  # a query's answer is used for so many of its intervals, and no longer


class Evidence(Struct, frozen=True):
    """One metric: how many bad events, how strong the evidence against the new version, and the verdict.

    `e_value` reaching `threshold` halts. `detail` says in words what is missing or what was found.
    """

    metric: str
    bad_canary: int = 0
    bad_control: int = 0
    e_value: float = 0.0
    threshold: float = 0.0
    verdict: str = RUNNING
    detail: str = ""


class QueryResult(Struct, frozen=True):
    """What a provider answered to the query of this name at `at` (seconds since 1970); None where it had no series."""

    name: str
    value: float | None
    error: str = ""
    at: float = 0.0


def combine(verdicts: Iterable[str]) -> str:
    """The worst of them; without any there is nothing to promote on, and an unknown one is an error.

    >>> combine(["pass", "running"]), combine(["pass", "error", "fail"]), combine([]), combine(["pass", "maybe"])
    ('running', 'fail', 'running', 'error')
    """
    seen = [verdict if verdict in WORST_FIRST else ERROR for verdict in verdicts]
    return min(seen, key=WORST_FIRST.index) if seen else RUNNING


def explain(evidence: Iterable[Evidence], verdict: str) -> str:
    """The details of the metrics that have this verdict.

    >>> explain([Evidence("errors", verdict="fail", detail="7 of 90 failed"), Evidence("slow")], "fail")
    'errors: 7 of 90 failed'
    """
    return "; ".join(f"{item.metric}: {item.detail or item.verdict}" for item in evidence if item.verdict == verdict)


def name_query(limit: QueryLimit) -> str:
    """What a query is called in results and evidence: its name, or itself.

    >>> name_query(QueryLimit("up")), name_query(QueryLimit("up", name="alive"))
    ('up', 'alive')
    """
    return limit.name or limit.promql


def judge_query(limit: QueryLimit, results: Iterable[QueryResult], now: float) -> Evidence:
    """Whether the newest answer to a query lies within its limits.

    No answer yet is `running`; an error, an empty result, a number that is none, or an answer from too long ago (or
    from the future: a clock was set) is `error`; outside the limits is `fail`.

    >>> judge_query(QueryLimit("lag", max=1), [QueryResult("lag", 3.0, at=9.0)], now=10.0).verdict
    'fail'
    >>> judge_query(QueryLimit("lag", max=1), [QueryResult("lag", None, at=9.0)], now=10.0).detail
    'the query returned no series'
    """
    name = name_query(limit)
    metric = f"query {name}"
    answers = [result for result in results if result.name == name]
    if not answers:
        return Evidence(metric, detail="no answer yet")
    newest = max(answers, key=lambda result: result.at)
    trouble = _trouble_of(newest, limit.interval_s, now)
    if trouble or newest.value is None:
        return Evidence(metric, verdict=ERROR, detail=trouble)
    low, high = limit.min, limit.max
    if low is None and high is None:
        return Evidence(metric, verdict=ERROR, detail="neither min nor max is given; name one of them")
    if (high is not None and not newest.value <= high) or (low is not None and not newest.value >= low):
        allowed = " and ".join(
            f"{word} {bound:g}" for word, bound in (("at least", low), ("at most", high)) if bound is not None
        )
        return Evidence(metric, verdict=FAIL, detail=f"{newest.value:g}, expected {allowed}")
    return Evidence(metric, verdict=PASS, detail=f"{newest.value:g}")


def _trouble_of(result: QueryResult, interval_s: float, now: float) -> str:
    if result.error:
        return f"the provider failed: {result.error}"
    if result.value is None:
        return "the query returned no series"
    if not isfinite(result.value):
        return f"the query returned {result.value}"
    if not abs(now - result.at) <= STALE_INTERVALS * max(interval_s, 1.0):
        return f"the newest answer is from {now - result.at:.0f} s ago"
    return ""
