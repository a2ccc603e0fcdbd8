"""The sample ratio: does the canary get the share of the requests that it was given? Tested before anything else. Pure.

If it does not, requests are lost, hang or are sent elsewhere, and no comparison of the two versions is to be trusted.
"""

from collections.abc import Iterable
from math import log
from typing import Final

from hyperion.policy.evidence import Toss, e_value, log_either_way
from hyperion.policy.verdict import FAIL, INCONCLUSIVE, PASS, Evidence

# Its own small risk of a false halt, beside the alpha of the metrics.
LEVEL: Final = 1e-4
DOUBT: Final = 1e-2
METRIC: Final = "sample-ratio"


def judge_ratio(epochs: Iterable[Toss], *, sticky: bool = False) -> Evidence:
    """The verdict over epochs: in each, `hits` of `trials` requests went to the canary, whose share is `chance`.

    `fail` from evidence of 10^4 on, `inconclusive` from 100 on, `pass` where both versions have requests. Callers that
    stick to a version do not come one by one, so with `sticky` their requests are not tested.

    >>> judge_ratio([Toss(52, 1000, 0.05)]).verdict, judge_ratio([Toss(500, 1000, 0.05)]).verdict
    ('pass', 'fail')
    >>> judge_ratio([Toss(0, 40, 0.05)]).detail
    'no requests of the new version yet'
    """
    tosses = [toss for toss in epochs if 0.0 < toss.chance < 1.0]
    canary = sum(toss.hits for toss in tosses)
    every = sum(toss.trials for toss in tosses)
    log_e = 0.0 if sticky else sum(log_either_way(toss.hits, toss.trials, toss.chance) for toss in tosses)
    expected = sum(toss.trials * toss.chance for toss in tosses)
    detail = f"the new version got {canary} of {every} requests, expected {expected:.0f}"
    verdict = PASS
    if log_e >= -log(LEVEL):
        verdict = FAIL
    elif not canary or canary == every:
        return Evidence(METRIC, e_value=e_value(log_e), threshold=1 / LEVEL, detail=_missing(canary))
    elif log_e >= -log(DOUBT):
        verdict = INCONCLUSIVE
    elif sticky:
        detail = f"the new version got {canary} of {every} requests; not tested, as callers stick"
    return Evidence(METRIC, 0, 0, e_value(log_e), 1 / LEVEL, verdict, detail)


def _missing(canary: int) -> str:
    return f"no requests of the {'old' if canary else 'new'} version yet"
