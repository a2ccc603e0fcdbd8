"""Whose turn it is where tenants wait for the same model: start-time fair queueing by predicted cost.

Called by `gateway/turns`, which keeps the tags. Each tenant that waits has a start tag, in nanoseconds of compute per
unit of weight; the smallest goes next and is moved on by what it costs. Whoever comes after a pause starts at the
virtual time, the tag of what was served last, so that a pause earns nothing and past service is not held against
anybody. Two tenants that both wait differ by at most one call's cost each (Goyal, Vin and Cheng, Start-time Fair
Queuing, SIGCOMM 1996). Never here: the queue itself, priorities, a clock.
"""

from typing import Final

from hyperion.policy.latency import LatencyCurve, expect

LEAST_COST_NS: Final = 1.0  # per row, where nothing is known yet: rows alone count then
LEAST_WEIGHT: Final = 1e-6


def row_cost_ns(curve: LatencyCurve, batch_rows: int) -> float:
    """What one row costs in a batch of so many, in nanoseconds of compute.

    >>> row_cost_ns(LatencyCurve(slope_ns=10.0, base_ns=80.0), 8), row_cost_ns(LatencyCurve(), 8)
    (20.0, 1.0)
    """
    return max(LEAST_COST_NS, expect(curve, batch_rows) / batch_rows)


def start_tag(own: float, virtual: float) -> float:
    """Where a tenant stands that begins to wait: where it stopped, but not behind the virtual time.

    >>> start_tag(3.0, 5.0), start_tag(7.0, 5.0)
    (5.0, 7.0)
    """
    return own if own > virtual else virtual


def next_tag(start: float, rows: int, row_ns: float, weight: float) -> float:
    """The start tag after a call of `rows` rows that cost `row_ns` each.

    >>> next_tag(5.0, 2, 10.0, 1.0), next_tag(5.0, 2, 10.0, 4.0)
    (25.0, 10.0)
    """
    return start + rows * row_ns / max(weight, LEAST_WEIGHT)


def rows_ahead(level_rows: int, own_rows: int, weight: float, total_weight: float) -> int:
    """How many of the `level_rows` that wait at a newcomer's priority go before it: while its own tenant's `own_rows`
    are served, the others get their shares, as far as they have any. `total_weight` is that of all who wait, its own
    tenant included. An upper bound, as those with little left are counted as if they had their shares.

    >>> rows_ahead(1000, 0, 1.0, 2.0), rows_ahead(1000, 990, 1.0, 2.0), rows_ahead(40, 40, 1.0, 1.0)
    (1, 1000, 40)
    """
    others = (own_rows + 1) * (total_weight / max(weight, LEAST_WEIGHT) - 1.0)
    return min(level_rows, own_rows + int(max(0.0, others)))


def is_over_share(rows: int, weight: float, other_rows: int, other_weight: float) -> bool:
    """Whether a tenant with `rows` waiting rows must make room for another one, of the same priority, that would have
    `other_rows` with the call that comes.

    >>> is_over_share(10, 1.0, 1, 1.0), is_over_share(10, 1.0, 10, 1.0), is_over_share(10, 10.0, 2, 1.0)
    (True, False, False)
    """
    return rows * max(other_weight, LEAST_WEIGHT) > other_rows * max(weight, LEAST_WEIGHT)
