"""What is sure enough for a cascade: a temperature and a threshold, from rows whose truth is known. Pure; used by
`hyperion graph fit`.

The temperature minimises the negative log-likelihood of the cheap model's probabilities (Guo et al., On Calibration of
Modern Neural Networks, ICML 2017). The threshold is the lowest that provably costs little: a row is harmed where the
cheap model is sure, wrong, and the dear one right; accuracy lost is at most the share of harmed rows. Thresholds are
tested from the strictest down, each with the exact binomial bound (Clopper and Pearson, Biometrika 1934) on that share,
up to the first that fails. Such a sequence needs no correction for the number of tests (fixed-sequence testing, as in
Angelopoulos et al., Learn then Test, 2021): with probability `level` over the calibration rows, which have to be drawn
as those to come, the accuracy lost is no more than `max_loss`.
"""

import math
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from hyperion.policy.graph.cascade import judge_array, to_logits
from hyperion.schema.protect import Until

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

DIGIT: Final = 1e-6  # of a threshold
COLDEST: Final = 0.05
HOTTEST: Final = 20.0
_GOLDEN: Final = (math.sqrt(5.0) - 1.0) / 2.0
_HALVINGS: Final = 60


class NoFit(Exception):
    """No threshold can be shown to cost as little as is allowed; the text says why."""


class CascadeFit(Struct, frozen=True):
    """What was found on `rows` rows: `escalated` is the share of them that the dear model answers, `harmed` how many
    lost by it that it did not answer more, `loss_bound` the share of harmed rows that is not exceeded at the level.
    Accuracies are those of the cheap model alone, of the dear one alone, and of both as a cascade."""

    until: Until
    rows: int
    escalated: float
    harmed: int
    loss_bound: float
    cheap: float
    dear: float
    cascade: float


def fit_cascade(
    scores: "Array", truth: "Array", dear_right: "Array", max_loss: float = 0.002, level: float = 0.9
) -> CascadeFit:
    """The `until` of a cheap step. `scores` are its [rows, classes], logits or probabilities; `truth` the class of each
    row, `dear_right` whether the dear model knows it. Raises `NoFit` where the rows are too few to show that
    any threshold keeps within `max_loss`, or where the cheap model is wrong when it is entirely sure.

    >>> import numpy as np
    >>> sure, unsure = np.array([[0.95, 0.05]] * 1300), np.array([[0.45, 0.55]] * 200)
    >>> fit = fit_cascade(np.concatenate([sure, unsure]), np.zeros(1500, int), np.ones(1500, bool))
    >>> round(fit.escalated, 3), fit.harmed, round(fit.loss_bound, 4), fit.cheap, fit.cascade
    (0.133, 0, 0.0015, 0.8666666666666667, 1.0)
    """
    import numpy as np

    rows = len(truth)
    allowed = _most_harmed(rows, max_loss, level)
    if allowed < 0:
        needed = math.ceil(math.log(1.0 - level) / math.log(1.0 - max_loss))
        raise NoFit(
            f"{rows} rows cannot show that at most {max_loss:.2%} of the accuracy is lost: at the level {level:g} that "
            f"takes {needed} rows, or a larger loss that is allowed"
        )
    temperature = fit_temperature(scores, truth)
    best, probability = judge_array(scores, temperature)
    probability = np.nan_to_num(probability, nan=0.0)
    right = best == truth
    harm = ~right & dear_right
    highest = np.sort(probability[harm])[::-1]
    if allowed < len(highest):  # just above the harmed row that is one too many, in digits that a person can copy
        if highest[allowed] >= 1.0:
            raise NoFit(f"the cheap model is wrong in {allowed + 1} rows or more where it is entirely sure")
        confidence = min(1.0, math.floor(float(highest[allowed]) / DIGIT + 1.0) * DIGIT)
    else:  # every row may stay
        confidence = max(DIGIT, math.floor(float(probability.min()) / DIGIT) * DIGIT)
    confidence = round(confidence, 6)
    kept = probability >= confidence
    harmed = int((harm & kept).sum())
    return CascadeFit(
        Until(confidence, temperature),
        rows,
        float(1.0 - kept.mean()),
        harmed,
        bound_share(harmed, rows, level),
        float(right.mean()),
        float(np.mean(dear_right)),
        float(np.where(kept, right, dear_right).mean()),
    )


def fit_temperature(scores: "Array", truth: "Array") -> float:
    """The temperature under which the scores say best how often they are right, by golden-section search over 1 / T, in
    which the likelihood has one peak. Rows with a score that is no number are left out.

    >>> import numpy as np
    >>> scores = np.array([[4.0, 0.0]] * 100)
    >>> round(fit_temperature(scores, np.array([0] * 73 + [1] * 27)), 2)  # 73 % are log-odds of about 1
    4.02
    """
    import numpy as np

    logits, _ = to_logits(scores)
    finite = np.isfinite(logits).all(axis=1)
    logits, truth = logits[finite], truth[finite]
    low, high = 1.0 / HOTTEST, 1.0 / COLDEST
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = _loss(logits, truth, 1.0 / left), _loss(logits, truth, 1.0 / right)
    for _ in range(_HALVINGS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = _loss(logits, truth, 1.0 / left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = _loss(logits, truth, 1.0 / right)
    return round(2.0 / (low + high), 4)


def _loss(logits: "Array", truth: "Array", temperature: float) -> float:
    """Negative log-likelihood of the true classes."""
    import numpy as np

    scaled = logits / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    true = np.take_along_axis(scaled, truth[:, None], axis=1)[:, 0]
    return float((np.log(np.exp(scaled).sum(axis=1)) - true).sum())


def bound_share(found: int, rows: int, level: float) -> float:
    """The share that `found` of `rows` does not exceed at this level: the p at which so few would be found with the
    probability 1 - level (Clopper and Pearson).

    >>> round(bound_share(0, 1150, 0.9), 6), round(bound_share(3, 100, 0.95), 4), bound_share(5, 5, 0.9)
    (0.002, 0.0757, 1.0)
    """
    if found >= rows:
        return 1.0
    low, high = found / rows, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if _at_most(found, rows, middle) > 1.0 - level:
            low = middle
        else:
            high = middle
    return high


def _at_most(found: int, rows: int, share: float) -> float:
    """The probability of at most `found` of `rows`, each of which is one with the probability `share`."""
    whole, yes, no = math.lgamma(rows + 1), math.log(share), math.log1p(-share)
    return math.fsum(
        math.exp(whole - math.lgamma(n + 1) - math.lgamma(rows - n + 1) + n * yes + (rows - n) * no)
        for n in range(found + 1)
    )


def _most_harmed(rows: int, max_loss: float, level: float) -> int:
    """How many harmed rows still prove the loss to be small enough; -1 where not even none does."""
    allowed = -1
    while allowed + 1 <= rows and bound_share(allowed + 1, rows, level) <= max_loss:
        allowed += 1
    return allowed


def saved_share(escalated: float, cheap_cost: float, dear_cost: float) -> float:
    """The share of the dear model's compute that a cascade saves which asks the cheap model for every row, and the dear
    one for the `escalated` share. Negative where it costs more.

    >>> round(saved_share(0.2, 1.0, 20.0), 2)
    0.75
    """
    return 1.0 - escalated - cheap_cost / dear_cost
