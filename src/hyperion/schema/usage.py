"""What tenants have used, as gateways count it, control keeps it and everybody learns of it. Days are of UTC."""

from msgspec import Struct


class Amounts(Struct, frozen=True):
    """So much was used. `cost` is in the unit of the tenants' cost quotas."""

    requests: float = 0
    rows: float = 0
    tokens: float = 0
    cost: float = 0.0


class UsageRow(Struct, frozen=True):
    """All that one gateway, in its life, counted of a tenant on a day (`2026-11-21`)."""

    tenant: str
    day: str
    used: Amounts


class OthersUsage(Struct, frozen=True):
    """What all gateways but the one that is told counted of a tenant on `day` and in its month, as far as control
    knows. A gateway adds its own counts, so that nothing is missed or counted twice, however late this is."""

    tenant: str
    day: str
    of_day: Amounts
    of_month: Amounts


class DayUsage(Struct, frozen=True):
    """What all gateways counted of a tenant on a day."""

    day: str
    used: Amounts
