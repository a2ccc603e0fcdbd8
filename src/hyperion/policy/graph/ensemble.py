"""The answers of several models made into one. Pure; used by `gateway/graph/ensemble`. Arrays are all of one shape; the
members come in the order of the graph's steps, those that are missing left out.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def average(answers: "Sequence[Array]", weights: Sequence[float]) -> "Array":
    """The weighted mean, in FP64.

    >>> import numpy as np
    >>> average([np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])], [3.0, 1.0]).tolist()
    [[0.25, 0.75]]
    """
    import numpy as np

    total = np.zeros(answers[0].shape)
    for answer, weight in zip(answers, weights, strict=True):
        total += np.multiply(answer, weight, dtype=np.float64)
    mean: Array = total / sum(weights)
    return mean


def vote(answers: "Sequence[Array]", weights: Sequence[float]) -> "Array":
    """What most of the weight says: element by element, of a tie what the first of those members says. Where rows are
    scores of two classes or more (floats of rank 2 or higher whose last axis has two elements or more), each member
    votes for the class that it scores highest, and the answer is each class's share of the weight.

    >>> import numpy as np
    >>> vote([np.array([1, 2]), np.array([3, 2]), np.array([3, 4])], [1.0, 1.0, 1.0]).tolist()
    [3, 2]
    >>> vote([np.array([[0.6, 0.4]]), np.array([[0.1, 0.9]])], [1.0, 3.0]).tolist()
    [[0.25, 0.75]]
    """
    import numpy as np

    first = answers[0]
    if first.dtype.kind == "f" and first.ndim > 1 and first.shape[-1] > 1:
        classes = np.arange(first.shape[-1])
        return average([answer.argmax(axis=-1)[..., None] == classes for answer in answers], weights)
    stacked = np.stack(answers)
    support = [
        sum(weight * (other == answer) for other, weight in zip(answers, weights, strict=True)) for answer in answers
    ]
    winners = np.argmax(np.stack(support), axis=0)
    chosen: Array = np.take_along_axis(stacked, winners[None], axis=0)[0]
    return chosen


def stack(answers: "Sequence[Array]", batched: bool) -> "Array":
    """All answers beside each other along a new axis, behind that of the rows where there is one.

    >>> import numpy as np
    >>> stack([np.array([1, 2]), np.array([3, 4])], True).tolist()
    [[1, 3], [2, 4]]
    """
    import numpy as np

    return np.stack(answers, axis=1 if batched else 0)


def present_share(weights: Sequence[float], all_weights: Sequence[float]) -> float:
    """How much of the ensemble an answer stands for.

    >>> round(present_share([1.0, 1.0], [1.0, 1.0, 1.0]), 2)
    0.67
    """
    return sum(weights) / sum(all_weights)
