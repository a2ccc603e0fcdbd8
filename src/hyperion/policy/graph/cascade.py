"""Which rows of a cheap model's answer are sure enough to be the answer. Pure; used by `gateway/graph/cascade` with
each request, and by `policy/graph/cascade_fit` to choose what is sure enough.

A row of scores is turned into probabilities with a temperature T (Guo et al., On Calibration of Modern Neural Networks,
ICML 2017): softmax(z / T) of logits z. Where the row is made of probabilities p already, z is log p. One score alone is
that of the second of two classes. A row is judged by itself, whatever else is in its request.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from hyperion.schema.protect import Until

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

SUM_TOLERANCE: Final = 1e-3  # of probabilities that were rounded to a short float
LEAST_PROBABILITY: Final = 1e-30  # what a probability of 0 is taken for


def judge(scores: Sequence[float], temperature: float) -> tuple[int, float]:
    """The class that a row of scores speaks for, and its probability; NaN where a score is no number.

    >>> judge([0.2, 0.7, 0.1], 1.0), judge([2.0, 2.0], 1.0)
    ((1, 0.7), (0, 0.5))
    >>> judge([0.9], 1.0)[0], round(judge([0.9], 1.0)[1], 6), round(judge([0.0, math.log(4)], 2.0)[1], 6)
    (1, 0.9, 0.666667)
    """
    if len(scores) == 1:
        only = scores[0]
        scores = (1.0 - only, only) if 0.0 <= only <= 1.0 else (0.0, only)
    best = max(range(len(scores)), key=scores.__getitem__)
    if not all(map(math.isfinite, scores)):
        return best, math.nan
    if min(scores) >= 0.0 and abs(sum(scores) - 1.0) <= SUM_TOLERANCE:
        if temperature == 1.0:
            return best, scores[best]
        scores = [math.log(max(score, LEAST_PROBABILITY)) for score in scores]
    top = scores[best]
    return best, 1.0 / sum([math.exp((score - top) / temperature) for score in scores])


def is_sure(until: Until, best: int, probability: float) -> bool:
    """Whether an answer with this probability for class `best` is good enough. A NaN never is.

    >>> is_sure(Until(0.9), 3, 0.91), is_sure(Until(0.9, thresholds=(0.5, 0.99)), 1, 0.95)
    (True, False)
    """
    thresholds = until.thresholds
    return probability >= (thresholds[best] if best < len(thresholds) else until.confidence)


def find_unsure(rows: Sequence[Sequence[float]], until: Until) -> list[int]:
    """The places of the rows that a better model should answer. For a few rows; `find_unsure_in_array` is for many.

    >>> find_unsure([[0.99, 0.01], [0.6, 0.4]], Until(0.9))
    [1]
    """
    temperature = until.temperature
    return [place for place, scores in enumerate(rows) if not is_sure(until, *judge(scores, temperature))]


def find_unsure_in_array(scores: "Array", until: Until) -> list[int]:
    """As `find_unsure`, for an array [rows, classes].

    >>> import numpy as np
    >>> find_unsure_in_array(np.array([[0.99, 0.01], [0.6, 0.4]]), Until(0.9))
    [1]
    """
    import numpy as np

    best, probability = judge_array(scores, until.temperature)
    needed = np.full(len(best), until.confidence)
    if until.thresholds:
        thresholds = np.array(until.thresholds)
        known = best < len(thresholds)
        needed[known] = thresholds[best[known]]
    unsure: list[int] = np.flatnonzero(~(probability >= needed)).tolist()
    return unsure


def judge_array(scores: "Array", temperature: float) -> "tuple[Array, Array]":
    """As `judge`, for an array [rows, classes]: classes and probabilities, [rows] each.

    >>> import numpy as np
    >>> best, probability = judge_array(np.array([[0.2, 0.8], [3.0, 3.0]]), 1.0)
    >>> best.tolist(), probability.tolist()
    ([1, 0], [0.8, 0.5])
    """
    import numpy as np

    logits, stated = to_logits(scores)
    best = np.where(np.isnan(logits), -np.inf, logits).argmax(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        top = np.take_along_axis(logits, best[:, None], axis=1)
        probability = 1.0 / np.exp((logits - top) / temperature).sum(axis=1)
    if temperature == 1.0:
        probability = np.where(np.isnan(stated), probability, stated)
    return best, np.where(np.isfinite(logits).all(axis=1), probability, np.nan)


def to_logits(scores: "Array") -> "tuple[Array, Array]":
    """Scores [rows, classes] as logits, two classes where there was one score; and the highest probability of the rows
    that were made of probabilities, NaN for others.

    >>> import numpy as np
    >>> logits, stated = to_logits(np.array([[0.2, 0.8], [3.0, 1.0]]))
    >>> logits.round(2).tolist(), stated.tolist()
    ([[-1.61, -0.22], [3.0, 1.0]], [0.8, nan])
    """
    import numpy as np

    scores = np.asarray(scores, np.float64)
    if scores.shape[1] == 1:
        inside = (scores >= 0.0) & (scores <= 1.0)
        scores = np.concatenate([np.where(inside, 1.0 - scores, 0.0), scores], axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        adds_up = np.abs(scores.sum(axis=1) - 1.0) <= SUM_TOLERANCE
        are_probabilities = np.isfinite(scores).all(axis=1) & (scores.min(axis=1) >= 0.0) & adds_up
        logits = np.where(are_probabilities[:, None], np.log(np.maximum(scores, LEAST_PROBABILITY)), scores)
    return logits, np.where(are_probabilities, scores.max(axis=1), np.nan)
