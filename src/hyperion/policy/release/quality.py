"""Is the new version worse by its labels? Judged in pairs: shadow and control answered the same request. Pure.

d in [-1, 1] is the canary's loss less the control's. Against "the mean of d is at most δ" the gambler's capital is
K_t = Π (1 + λ (d_i − δ)), which stays fair whatever d depends on. λ is fixed in advance, which is as predictable as it
gets: the stake is split over a grid of λ in [0, 1/(1+δ)), so that the product needs how often each d came, and no more.

Only pairs are judged, so quality needs a shadow stage, which lasts until the labels have come. Requests that only one
version answered would need that a label comes as often for either, and it seldom does: who gets another prediction
does something else, and that is what is labelled. In a pair both versions get the same label, or none.
"""

from math import inf, log, log1p
from typing import Final

from hyperion.policy.evidence import e_value, log_sum
from hyperion.policy.release.state import Labelled
from hyperion.policy.verdict import ERROR, FAIL, PASS, RUNNING, Evidence

METRIC: Final = "quality"
STAKES: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 0.95)  # of the largest λ that never ruins the gambler
PASS_LEVEL: Final = 0.05
STRANGE: Final = "labels is what any version predicted; a label has to be as the model's first output says it"


def log_worse_quality(labelled: Labelled, margin: float) -> float:
    """The log of the E-value against "the mean of d is at most `margin`".

    >>> log_worse_quality(Labelled((10, 100, 60)), 0.01) > 5 > 0 > log_worse_quality(Labelled((35, 100, 35)), 0.1)
    True
    """
    return _log_capital(_values(labelled), margin)


def log_better_quality(labelled: Labelled, margin: float) -> float:
    """The log of the mirrored E-value: against "the mean of d is at least `margin`".

    >>> log_better_quality(Labelled((35, 1_000, 35)), 0.1) > 5
    True
    """
    return _log_capital([(-value, count) for value, count in _values(labelled)], -margin)


def judge_quality(labelled: Labelled | None, margin: float, threshold: float) -> Evidence:
    """`fail` where worse by more than `margin` is proven, `pass` where it is refuted at 5 %.

    >>> judge_quality(None, 0.01, 100.0).detail
    'no labels yet'
    """
    if labelled is None:
        return Evidence(METRIC, threshold=threshold, detail="no labels yet")
    size = len(labelled.losses)
    if size < 3 or size % 2 == 0 or min(labelled.losses) < 0:
        return Evidence(METRIC, verdict=ERROR, detail="the labels' counts are none: expected an odd number of bins")
    better, worse = sum(labelled.losses[: size // 2]), sum(labelled.losses[size // 2 + 1 :])
    log_e = log_worse_quality(labelled, margin)
    verdict = RUNNING
    if log_e >= log(threshold):
        verdict = FAIL
    elif sum(labelled.losses) and labelled.both_wrong == sum(labelled.losses):
        # Two versions that are never right are alike, but what is likelier is a label that no prediction can equal.
        return Evidence(METRIC, 0, 0, e_value(log_e), threshold, RUNNING, f"none of {labelled.both_wrong} {STRANGE}")
    elif log_better_quality(labelled, margin) >= -log(PASS_LEVEL):
        verdict = PASS
    detail = f"worse in {worse} and better in {better} of {sum(labelled.losses)} pairs with labels"
    return Evidence(METRIC, worse, better, e_value(log_e), threshold, verdict, detail)


def _values(labelled: Labelled) -> list[tuple[float, int]]:
    last = len(labelled.losses) - 1
    return [(-1.0 + 2.0 * index / last, count) for index, count in enumerate(labelled.losses) if count]


def _log_capital(values: list[tuple[float, int]], margin: float) -> float:
    if not -1.0 < margin < 1.0:
        return -inf  # no loss can exceed such a margin
    most = 1.0 / (1.0 + margin)
    logs = [
        sum(count * log1p(stake * most * (value - margin)) for value, count in values) - log(len(STAKES))
        for stake in STAKES
    ]
    return log_sum(logs)
