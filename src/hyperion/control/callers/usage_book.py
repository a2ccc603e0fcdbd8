"""What tenants use, in the store: as `usage` keeps it, and as the API reads it. Synchronous and slow (disk, network):
called from threads."""

import time
from collections.abc import Callable
from datetime import date
from typing import Final

from hyperion.control.callers.usage import Counted, Sums
from hyperion.policy.quota import day_of, first_of_month
from hyperion.schema.errors import InvalidResource
from hyperion.schema.usage import Amounts, DayUsage
from hyperion.store import usage
from hyperion.store.database import Database

PRUNE_S: Final = 3_600.0
KEPT_S: Final = 400 * 86_400.0  # a year, and the time in which it is invoiced


class UsageBook:
    """Writes and sums for the keeper. Used by one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._prune_at = 0.0

    def keep(self, counted: Counted, tenants: tuple[str, ...], now: float) -> Sums:
        """Keeps the counts, and returns what each gateway counted of these tenants. Raises `StorageFailed`."""
        if counted or now >= self._prune_at:
            with self._database.write() as tx:
                usage.put_many(tx, counted)
                if now >= self._prune_at:
                    usage.prune(tx, day_of(now - KEPT_S))
                    self._prune_at = now + PRUNE_S
        if not tenants:
            return {}
        with self._database.read() as tx:
            return usage.sums_of(tx, tenants, day_of(now))


class UsageDesk:
    """The desk's verb for usage. Safe to share between threads."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def read(self, tenant: str, first: str = "", last: str = "") -> tuple[str, str, list[DayUsage], Amounts]:
        """The first and the last day, what was used on each day between them, and the sum. "" is the first of the
        last one's month, and today. Raises `InvalidResource` for what is no day, and where the first is after the
        last."""
        first, last = self._days(first, last)
        with self._database.read() as tx:
            days = usage.days_of(tx, tenant, first, last)
        return first, last, days, usage.total_of(days)

    def read_all(self, first: str, last: str, after: str, limit: int) -> tuple[str, str, list[tuple[str, Amounts]]]:
        """The first and the last day, and the sums of the next `limit` tenants behind `after`, by name. As `read`."""
        first, last = self._days(first, last)
        with self._database.read() as tx:
            return first, last, usage.tenants_of(tx, first, last, after, limit)

    def _days(self, first: str, last: str) -> tuple[str, str]:
        last = _parse(last) if last else day_of(self._clock())
        first = _parse(first) if first else first_of_month(last)
        if first > last:
            raise InvalidResource(f"the first day, {first}, is after the last, {last}; expected it the other way round")
        return first, last


def _parse(day: str) -> str:
    try:
        return date.fromisoformat(day).isoformat()
    except ValueError:
        raise InvalidResource(f'day "{day[:32]}": expected YYYY-MM-DD, as in 2026-11-21') from None
