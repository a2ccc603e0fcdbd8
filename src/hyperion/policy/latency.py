"""How long a batch of n rows will take: learned per power-of-two bucket, with a line through the warm-up as prior.

Called by `policy/batching` and by the gateway after each batch. Never looks at a clock: durations come in.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

BUCKETS: Final = 18  # batches of up to 2^17 rows; larger ones share the last bucket
WEIGHT: Final = 0.1  # of the newest observation in the moving averages


class LatencyCurve(Struct, frozen=True, gc=False):
    """Moving mean and variance of the nanoseconds of a batch, by bucket of its row count (0 = never seen), and the
    prior `slope_ns · rows + base_ns` for buckets that were not seen yet."""

    mean_ns: tuple[float, ...] = (0.0,) * BUCKETS
    variance: tuple[float, ...] = (0.0,) * BUCKETS
    slope_ns: float = 0.0
    base_ns: float = 0.0


def bucket_of(rows: int) -> int:
    """Index of the bucket: 1 → 0, 2 → 1, 3–4 → 2, 5–8 → 3 …

    >>> [bucket_of(n) for n in (1, 2, 3, 4, 5, 64, 65)]
    [0, 1, 2, 2, 3, 6, 7]
    """
    return min((rows - 1).bit_length(), BUCKETS - 1)


def fit_prior(bucket_seconds: Mapping[int, float]) -> LatencyCurve:
    """A curve from warm-up timings {rows: seconds}: the least-squares line, never falling, never negative.

    >>> fit_prior({1: 0.001, 11: 0.002}).slope_ns
    100000.0
    """
    points = [(rows, seconds * 1e9) for rows, seconds in bucket_seconds.items()]
    if not points:
        return LatencyCurve()
    mean_rows = sum(rows for rows, _ in points) / len(points)
    mean_ns = sum(ns for _, ns in points) / len(points)
    spread = sum((rows - mean_rows) ** 2 for rows, _ in points)
    slope = sum((rows - mean_rows) * (ns - mean_ns) for rows, ns in points) / spread if spread else 0.0
    slope = max(slope, 0.0)
    return LatencyCurve(slope_ns=slope, base_ns=max(mean_ns - slope * mean_rows, 0.0))


def observe(curve: LatencyCurve, rows: int, took_ns: float) -> LatencyCurve:
    """The curve after one more batch (West's exponentially weighted mean and variance)."""
    bucket = bucket_of(rows)
    mean = curve.mean_ns[bucket]
    if mean == 0.0:
        new_mean, new_variance = took_ns, 0.0
    else:
        difference = took_ns - mean
        step = WEIGHT * difference
        new_mean = mean + step
        new_variance = (1.0 - WEIGHT) * (curve.variance[bucket] + difference * step)
    return LatencyCurve(
        (*curve.mean_ns[:bucket], new_mean, *curve.mean_ns[bucket + 1 :]),
        (*curve.variance[:bucket], new_variance, *curve.variance[bucket + 1 :]),
        curve.slope_ns,
        curve.base_ns,
    )


def expect(curve: LatencyCurve, rows: int) -> float:
    """Nanoseconds that a batch of `rows` will take: its bucket's mean plus one deviation, else the prior.

    >>> expect(LatencyCurve(slope_ns=10.0, base_ns=5.0), 2)
    25.0
    """
    bucket = bucket_of(rows)
    mean = curve.mean_ns[bucket]
    if mean == 0.0:
        return float(curve.slope_ns * rows + curve.base_ns)
    return float(mean + curve.variance[bucket] ** 0.5)


def expect_soonest(curve: LatencyCurve, rows: int) -> float:
    """Nanoseconds that a batch of `rows` takes at least, as far as one can count on it: its bucket's mean less one
    deviation, else half of the prior.

    >>> expect_soonest(LatencyCurve(slope_ns=10.0, base_ns=5.0), 2)
    12.5
    """
    bucket = bucket_of(rows)
    mean = curve.mean_ns[bucket]
    if mean == 0.0:
        return float(curve.slope_ns * rows + curve.base_ns) / 2
    return max(0.0, float(mean - curve.variance[bucket] ** 0.5))


def observe_pace(row_ns: float, rows: int, took_ns: float) -> float:
    """Moving mean of the nanoseconds per row that the replicas need together, after one more batch of `rows` that came
    back `took_ns` after the one before. Only for times when they never paused: then it holds everything that costs
    time, the gateway's own work and what else the machine does too. 0 is "not known yet".

    >>> observe_pace(0.0, 4, 100.0), observe_pace(20.0, 4, 120.0)
    (25.0, 21.0)
    """
    seen_ns = took_ns / rows
    return row_ns + WEIGHT * (seen_ns - row_ns) if row_ns else seen_ns
