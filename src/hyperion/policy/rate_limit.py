"""Whether a rate limit lets something pass now: a token bucket, kept as the one moment until which it is spent. Pure;
called by `gateway/limits/buckets` for each request.

This is the generic cell rate algorithm (GCRA, ITU-T I.371, "virtual scheduling"): each thing that passes moves the
moment `spent_until` on by what it costs in time, and it passes where that moment is then at most `tolerance` away.
It is the same as a bucket of `tolerance / interval` tokens that gets one each `interval`, without anything to refill.

Times are integers in 1/64 ns, so that no rounding adds up; an interval is rounded up, and a rate is therefore kept
exactly or missed by less than one in ten thousand below a million per second, never exceeded.
"""

import math
from typing import Final

UNITS_PER_NS: Final = 64
SECOND: Final = 1_000_000_000 * UNITS_PER_NS
LEAST_PER_SECOND: Final = 1e-6  # one in twelve days; a quota is what says less
MOST_AT_ONCE: Final = 1_000_000_000


def interval_of(per_second: float) -> int:
    """Units of time that one thing costs at this rate, which must be above 0.

    >>> interval_of(4.0) == SECOND // 4, interval_of(1e30)
    (True, 1)
    """
    over, under = per_second.as_integer_ratio()  # exact, where a division would round
    return -(-SECOND * under // over)


def burst_of(per_second: float, burst: int) -> int:
    """How many may pass at once: `burst`, or one second's worth where that is 0; at least one.

    >>> burst_of(2.5, 0), burst_of(0.1, 0), burst_of(0.1, 5)
    (3, 1, 5)
    """
    return burst if burst > 0 else max(1, math.ceil(per_second))


def rows_burst_of(requests_per_second: float, burst: int, rows_per_second: float) -> int:
    """How many rows may pass at once: as many seconds' worth as of requests, where `burst` says that of these.

    >>> rows_burst_of(100.0, 200, 1000.0), rows_burst_of(0.0, 200, 1000.0), rows_burst_of(100.0, 0, 1000.0)
    (2000, 200, 1000)
    >>> rows_burst_of(1e-6, 1_000_000_000, 1e9)
    1000000000
    """
    if burst > 0 and requests_per_second > 0.0:
        return min(MOST_AT_ONCE, max(1, math.ceil(rows_per_second * burst / requests_per_second)))
    return burst_of(rows_per_second, burst)


def tolerance_of(interval: int, burst: int, share: int = 1) -> int:
    """Units of time that a bucket of the `share`-th part of `burst` may be spent ahead; at least one thing's worth.

    >>> tolerance_of(10, 5, 2), tolerance_of(10, 1, 5)
    (25, 10)
    """
    return max(interval, interval * burst // share)


def pass_at(spent_until: int, now: int, cost: int, tolerance: int) -> int:
    """What becomes of something of this `cost` (its count times the interval): the moment until which the bucket is
    spent once it has passed, or below 0, if it may not, the units of time until it may.

    What costs more than the whole bucket passes where the bucket is full, and is paid for afterwards.

    >>> pass_at(0, 100, cost=10, tolerance=20), pass_at(105, 100, cost=10, tolerance=20)
    (110, 115)
    >>> pass_at(115, 100, cost=10, tolerance=20)
    -5
    >>> pass_at(100, 100, cost=50, tolerance=20), pass_at(101, 100, cost=50, tolerance=20)
    (150, -1)
    """
    start = spent_until if spent_until > now else now
    over = start - now + (cost if cost < tolerance else tolerance) - tolerance
    return -over if over > 0 else start + cost


def remaining_of(spent_until: int, now: int, interval: int, tolerance: int) -> int:
    """How many may pass now, one by one.

    >>> remaining_of(0, 100, 10, 25), remaining_of(111, 100, 10, 25), remaining_of(190, 100, 10, 25)
    (2, 1, 0)
    """
    ahead = spent_until - now
    left = tolerance - (ahead if ahead > 0 else 0)
    return left // interval if left > 0 else 0


def seconds_of(units: int) -> float:
    """Units of time in seconds.

    >>> seconds_of(SECOND // 2)
    0.5
    """
    return units / SECOND


def window_s(per_second: float, burst: int) -> int:
    """The window, in whole seconds, of a policy of `burst` per window that is no looser than the rate, as the field
    RateLimit-Policy wants it.

    >>> window_s(500.0, 1000), window_s(0.1, 1), window_s(1000.0, 10)
    (2, 10, 1)
    """
    over, under = per_second.as_integer_ratio()
    return max(1, -(-burst * under // over))
