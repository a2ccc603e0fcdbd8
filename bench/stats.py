"""The statistics of a comparison: the median of paired ratios and a bootstrap interval around it. Pure.

>>> r = median_ratio([20.0, 22.0, 21.0], [10.0, 11.0, 7.0])
>>> r.median, r.low <= r.median <= r.high
(2.0, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Ratio:
    """Median of the pairs' ratios with its 95 % bootstrap interval (percentile method)."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def median_ratio(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Ratio:
    """How many times ``a`` is ``b``, pair by pair; both were measured one right after the other."""
    ratios = np.asarray(a, float) / np.asarray(b, float)
    picks = np.random.default_rng(seed).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[picks], axis=1), [2.5, 97.5])
    return Ratio(float(np.median(ratios)), float(low), float(high), len(ratios))
