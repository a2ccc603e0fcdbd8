"""What tenants use of this gateway, by day, and what is left of their quotas.

`gateway/limits/limiter` counts, `gateway/release/report` tells control and `gateway/limits/shared` Redis; both say what
the other gateways have counted. Counts are cumulative for this gateway's life, so telling may fail or be repeated.
Quotas count what others used as far as it is known: two seconds ago by way of control, a fifth of a second ago by way
of Redis.
"""

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from hyperion.policy.quota import NOTHING, add, first_of_month, fits, largest, room_of, tighter_periods, used_up
from hyperion.schema.protect import Quotas
from hyperion.schema.usage import Amounts, OthersUsage, UsageRow

MAX_TENANTS: Final = 16_384
OTHERS: Final = "*"  # whom all further tenants are counted as; no tenant can have this name
NO_QUOTAS: Final = Quotas()


class Meter:
    """One tenant's own counts of today, and the room that its quotas leave for them."""

    __slots__ = (
        "cost",
        "day",
        "earlier",
        "limited",
        "others",
        "periods",
        "quotas",
        "requests",
        "room",
        "rows",
        "tenant",
        "tokens",
        "yesterday",
    )

    def __init__(self, tenant: str, day: str) -> None:
        self.tenant: Final = tenant
        self.day = day
        self.requests = 0
        self.rows = 0
        self.tokens = 0
        self.cost = 0.0
        self.earlier = NOTHING  # of this gateway, this month before today
        self.yesterday: UsageRow | None = None  # the last day before today on which there was anything
        self.others = NOTHING, NOTHING  # of day and month
        self.quotas = NO_QUOTAS
        self.limited = False
        self.room = room_of(NO_QUOTAS, NOTHING, NOTHING)
        self.periods = tighter_periods(NO_QUOTAS, NOTHING, NOTHING)  # whose room it is, by measure

    def used(self) -> Amounts:
        """What this gateway counted today."""
        return Amounts(self.requests, self.rows, self.tokens, self.cost)

    def fits(self, rows: int, cost: float, requests: int = 1) -> bool:
        """Whether one more request of so many rows fits into the quotas; with 0 `requests` one that was counted."""
        room = self.room
        return (
            (not requests or fits(self.requests + requests, room.requests))
            and fits(self.rows + rows, room.rows)
            and self.tokens < room.tokens
            and (cost <= room.cost - self.cost and self.cost < room.cost)
        )

    def used_up(self, rows: int, cost: float, requests: int = 1) -> tuple[str, str]:
        """The quota that one more request does not fit into, as measure and period."""
        of_day, of_month = self.totals()
        quotas = self.quotas if requests else replace(self.quotas, requests_per_day=0, requests_per_month=0)
        return used_up(quotas, of_day, of_month, Amounts(requests, rows, 0, cost))

    def least_left(self) -> tuple[int, float]:
        """Of requests, rows and tokens (0, 1, 2) the one of which quotas leave least, and how many; none where there
        is no such quota: infinitely many."""
        room = self.room
        measure, least = 0, room.requests - self.requests
        left = room.rows - self.rows
        if left < least:
            measure, least = 1, left
        left = room.tokens - self.tokens
        if left < least:
            measure, least = 2, left
        return measure, least

    def totals(self) -> tuple[Amounts, Amounts]:
        """What all gateways counted, of the day and of the month."""
        mine = self.used()
        return add(mine, self.others[0]), add(add(mine, self.earlier), self.others[1])

    def set_quotas(self, quotas: Quotas | None) -> None:
        """What it may use, from now on."""
        self.quotas = quotas or NO_QUOTAS
        self.limited = self.quotas != NO_QUOTAS
        self._measure_room()

    def take_others(self, others: OthersUsage) -> None:
        """What other gateways counted, by one who knows; the larger of what two know holds for the day."""
        if others.day == self.day:
            of_day, of_month = self.others
            self.others = largest(of_day, others.of_day), largest(of_month, others.of_month)
            self._measure_room()

    def roll(self, day: str) -> bool:
        """Another day has begun. Whether nothing is lost with the meter: it counted nothing on the last one, nor
        anything of this month."""
        mine = self.used()
        if mine != NOTHING:
            self.yesterday = UsageRow(self.tenant, self.day, mine)
        same_month = first_of_month(day) == first_of_month(self.day)
        self.earlier = add(self.earlier, mine) if same_month else NOTHING
        self.others = NOTHING, self.others[1] if same_month else NOTHING
        self.day = day
        self.requests = self.rows = self.tokens = 0
        self.cost = 0.0
        self._measure_room()
        return mine == NOTHING and self.earlier == NOTHING

    def _measure_room(self) -> None:
        of_day, of_month = self.others
        of_month = add(of_month, self.earlier)
        self.room = room_of(self.quotas, of_day, of_month)
        self.periods = tighter_periods(self.quotas, of_day, of_month)


class Usages:
    """All meters of one gateway. `revision` grows with what there is to tell."""

    def __init__(self, day: str) -> None:
        self.day = day
        self.revision = 0
        self.meters: dict[str, Meter] = {}

    def meter(self, tenant: str) -> Meter:
        """The tenant's; where there are too many, that of all further ones."""
        meter = self.meters.get(tenant)
        if meter is None:
            if len(self.meters) >= MAX_TENANTS:
                tenant = OTHERS
            meter = self.meters.setdefault(tenant, Meter(tenant, self.day))
        return meter

    def roll(self, day: str) -> bool:
        """Another day has begun. Whether meters were forgotten, as the places are for those who use the platform."""
        self.day = day
        idle = [tenant for tenant, meter in self.meters.items() if meter.roll(day)]
        for tenant in idle:
            del self.meters[tenant]
        return bool(idle)

    def rows(self) -> tuple[UsageRow, ...]:
        """All counts of today, and of the last day before it."""
        rows = []
        for meter in self.meters.values():
            if meter.yesterday is not None:
                rows.append(meter.yesterday)
            mine = meter.used()
            if mine != NOTHING:
                rows.append(UsageRow(meter.tenant, meter.day, mine))
        return tuple(rows)

    def take(self, others: Iterable[OthersUsage]) -> None:
        """What other gateways counted of tenants that have quotas."""
        for one in others:
            self.meter(one.tenant).take_others(one)

    def has_quotas(self) -> bool:
        """Whether it matters what others count."""
        return any(meter.limited or meter.others[1] != NOTHING for meter in self.meters.values())
