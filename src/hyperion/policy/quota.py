"""Quotas of the calendar day and month, in UTC: how much is left of them, and which one is used up. Pure; called by
`gateway/limits/usage` and `control/callers/usage`. Never here: who counts, and where the counts are kept.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Final

from hyperion.schema.protect import Quotas
from hyperion.schema.usage import Amounts

NOTHING: Final = Amounts()
MEASURES: Final = ("requests", "rows", "tokens", "cost")


def day_of(time_s: float) -> str:
    """The day of a time in seconds since 1970.

    >>> day_of(0.0), day_of(1_795_219_199.9)
    ('1970-01-01', '2026-11-20')
    """
    return datetime.fromtimestamp(math.floor(time_s), UTC).strftime("%Y-%m-%d")


def first_of_month(day: str) -> str:
    """The first day of a day's month; days sort as texts.

    >>> first_of_month("2026-11-21")
    '2026-11-01'
    """
    return f"{day[:7]}-01"


def day_ends_s(time_s: float) -> float:
    """When the day ends, in seconds since 1970.

    >>> day_ends_s(86_399.5), day_ends_s(86_400.0)
    (86400.0, 172800.0)
    """
    return (math.floor(time_s / 86_400.0) + 1) * 86_400.0


def month_ends_s(time_s: float) -> float:
    """When the month ends, in seconds since 1970.

    >>> day_of(month_ends_s(0.0)), day_of(month_ends_s(day_ends_s(0.0) * 364))
    ('1970-02-01', '1971-01-01')
    """
    now = datetime.fromtimestamp(math.floor(time_s), UTC)
    next_month = now.replace(day=1, hour=0, minute=0, second=0) + timedelta(days=32)
    return next_month.replace(day=1).timestamp()


def add(left: Amounts, right: Amounts) -> Amounts:
    """The sum.

    >>> add(Amounts(1, 2, 3, 0.5), Amounts(1, 1, 1, 1.0))
    Amounts(requests=2, rows=3, tokens=4, cost=1.5)
    """
    return Amounts(
        left.requests + right.requests, left.rows + right.rows, left.tokens + right.tokens, left.cost + right.cost
    )


def largest(left: Amounts, right: Amounts) -> Amounts:
    """Of each measure the larger one: what is known where two have counted the same.

    >>> largest(Amounts(1, 20), Amounts(2, 10))
    Amounts(requests=2, rows=20, tokens=0, cost=0.0)
    """
    return Amounts(
        max(left.requests, right.requests),
        max(left.rows, right.rows),
        max(left.tokens, right.tokens),
        max(left.cost, right.cost),
    )


def room_of(quotas: Quotas, of_day: Amounts, of_month: Amounts) -> Amounts:
    """What may still be used today, of each measure, where so much was used; infinite where there is no quota, and
    below zero where more was used than allowed.

    >>> room_of(Quotas(requests_per_day=10, requests_per_month=100), Amounts(4), Amounts(97)).requests
    3
    >>> room_of(Quotas(), Amounts(4), Amounts(4)).rows
    inf
    """
    rooms = [
        min(
            _left(getattr(quotas, f"{name}_per_{period}"), getattr(used, name))
            for period, used in _periods(of_day, of_month)
        )
        for name in MEASURES
    ]
    return Amounts(*rooms)


def tighter_periods(quotas: Quotas, of_day: Amounts, of_month: Amounts) -> tuple[str, ...]:
    """For each measure the period whose quota leaves less: "day" or "month" (the month where both leave the same, as it
    ends later), "" where there is no quota.

    >>> tighter_periods(Quotas(requests_per_day=10, requests_per_month=100, rows_per_month=5), Amounts(4), Amounts(97))
    ('month', 'month', '', '')
    >>> tighter_periods(Quotas(requests_per_day=10, requests_per_month=100), Amounts(4), Amounts(4))[0]
    'day'
    """
    tighter = []
    for name in MEASURES:
        left, period = math.inf, ""
        for each, used in _periods(of_day, of_month):
            leaves = _left(getattr(quotas, f"{name}_per_{each}"), getattr(used, name))
            if leaves <= left and leaves != math.inf:
                left, period = leaves, each
        tighter.append(period)
    return tuple(tighter)


def used_up(quotas: Quotas, of_day: Amounts, of_month: Amounts, more: Amounts) -> tuple[str, str]:
    """The quota that `more` does not fit into any more, as measure and period ("day" or "month"; the month's where it
    is both), or a pair of "". Tokens, and what costs by tokens, are known only afterwards: there `more` is 0, and
    what is used up wholly refuses.

    >>> used_up(Quotas(rows_per_day=10), Amounts(rows=8), Amounts(), Amounts(1, 3))
    ('rows', 'day')
    >>> used_up(Quotas(tokens_per_month=10), Amounts(), Amounts(tokens=10), Amounts(1, 3))
    ('tokens', 'month')
    >>> used_up(Quotas(rows_per_day=10), Amounts(rows=7), Amounts(), Amounts(1, 3))
    ('', '')
    """
    for name in MEASURES:
        for period, used in reversed(_periods(of_day, of_month)):
            left = _left(getattr(quotas, f"{name}_per_{period}"), getattr(used, name))
            if not fits(getattr(more, name), left):
                return name, period
    return "", ""


def fits(more: float, left: float) -> bool:
    """Whether `more` may be used where so much is left. Nothing fits where nothing is left.

    >>> fits(3, 3), fits(4, 3), fits(0, 0)
    (True, False, False)
    """
    return more <= left and left > 0


def _periods(of_day: Amounts, of_month: Amounts) -> tuple[tuple[str, Amounts], tuple[str, Amounts]]:
    return ("day", of_day), ("month", of_month)


def _left(limit: float, used: float) -> float:
    return limit - used if limit else math.inf
