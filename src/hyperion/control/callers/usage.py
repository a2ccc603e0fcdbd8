"""What tenants use, as the gateways report it: handed on to the store, and told to each gateway as what the others
counted.

`publish` gives the reports and answers with what is known; a task writes and reads the store about each second, in a
thread, so that neither reports nor the loop wait for it. Every control process keeps what its own gateways report and
reads what all have, so quotas hold for all gateways on one database. Imports nothing of the store: it starts before.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from hyperion.policy.quota import NOTHING, add, day_of
from hyperion.schema.errors import HyperionError
from hyperion.schema.release import GatewayReport
from hyperion.schema.usage import Amounts, OthersUsage, UsageRow

KEEP_S: Final = 1.0
Counted = Mapping[str, tuple[UsageRow, ...]]  # by incarnation
Sums = dict[str, dict[str, tuple[Amounts, Amounts]]]  # by tenant and incarnation: of the day and of its month


class Book(Protocol):
    """The store, as `control.usage_book` has it."""

    def keep(self, counted: Counted, tenants: tuple[str, ...], now: float) -> Sums:
        """Keeps the counts, and returns what each gateway counted of these tenants. Slow."""


class UsageKeeper:
    """All of it, on the event loop's thread. `limited` gives the names of the tenants that have quotas."""

    def __init__(
        self,
        limited: Callable[[], Iterable[str]],
        log: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._limited = limited
        self._log = log
        self._clock = clock
        self._unkept: dict[str, tuple[UsageRow, ...]] = {}
        self._day = ""
        self._sums: Sums = {}
        self._failed = ""

    def take(self, report: GatewayReport) -> tuple[OthersUsage, ...]:
        """Takes a report in place of the earlier ones of the same life, and returns what others counted of the tenants
        that have quotas, as far as the store has been read."""
        if report.usage:
            self._unkept[report.incarnation] = report.usage
        found = []
        for tenant in self._limited():
            of_day, of_month = NOTHING, NOTHING
            for life, (day, month) in self._sums.get(tenant, {}).items():
                if life != report.incarnation:
                    of_day, of_month = add(of_day, day), add(of_month, month)
            if of_month != NOTHING:
                found.append(OthersUsage(tenant, self._day, of_day, of_month))
        return tuple(found)

    async def run(self, book: Book) -> None:
        """Keeps for ever what comes. What the store does not take now it takes later."""
        while True:
            await self.keep(book)
            await asyncio.sleep(KEEP_S)

    async def keep(self, book: Book) -> None:
        """Keeps what has come."""
        unkept, self._unkept = self._unkept, {}
        now, tenants = self._clock(), tuple(self._limited())
        try:
            self._sums = await asyncio.to_thread(book.keep, unkept, tenants, now)
            self._day, self._failed = day_of(now), ""
        except HyperionError as error:
            self._unkept = unkept | self._unkept
            if error.message != self._failed:
                self._log(f"usage cannot be kept now, and is later: {error.message}")
            self._failed = error.message
