"""What tenants have used, by day and by the life of the gateway that counted it.

`control` puts what gateways report and asks for the sums; `api` reads days. Reports are cumulative: one that comes
twice, late or after a newer one changes nothing, and the counts of a gateway that is gone stay.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, case, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from hyperion.policy.quota import MEASURES, NOTHING, add, first_of_month
from hyperion.schema.usage import Amounts, DayUsage, UsageRow
from hyperion.store.canonical import clean
from hyperion.store.tables import TENANT_USAGE
from hyperion.store.transaction import reached

_CHUNK = 100  # rows per statement: both databases bound the number of a statement's parameters
_KEY = ("tenant", "day", "incarnation")
_COLUMNS = [TENANT_USAGE.c[name] for name in MEASURES]
Sums = dict[str, dict[str, tuple[Amounts, Amounts]]]  # by tenant and incarnation: of the day and of its month


def put_many(tx: Connection, counted: Mapping[str, Iterable[UsageRow]]) -> None:
    """Keeps the rows, by the incarnation of the gateway that counted them. Counts only grow."""
    rows = {
        (clean(row.tenant), row.day, incarnation): {
            "requests": int(row.used.requests),
            "rows": int(row.used.rows),
            "tokens": int(row.used.tokens),
            "cost": row.used.cost,
        }
        for incarnation, given in counted.items()
        for row in given
    }
    values = [dict(zip(_KEY, key, strict=True)) | used for key, used in sorted(rows.items())]
    build: Any = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    for at in range(0, len(values), _CHUNK):
        statement = build(TENANT_USAGE).values(values[at : at + _CHUNK])
        fresh, old = statement.excluded, TENANT_USAGE.c
        larger = {name: case((fresh[name] > old[name], fresh[name]), else_=old[name]) for name in MEASURES}
        tx.execute(statement.on_conflict_do_update(index_elements=list(_KEY), set_=larger))
        reached(tx, "usage.put")


def sums_of(tx: Connection, tenants: Iterable[str], day: str) -> Sums:
    """What each gateway counted of these tenants, on the day and in its month up to it."""
    of_day, of_month = ([func.sum(column) for column in _of_day(day)], [func.sum(column) for column in _COLUMNS])
    query = (
        select(TENANT_USAGE.c.tenant, TENANT_USAGE.c.incarnation, *of_day, *of_month)
        .where(TENANT_USAGE.c.tenant.in_(sorted(tenants)))
        .where(TENANT_USAGE.c.day.between(first_of_month(day), day))
        .group_by(TENANT_USAGE.c.tenant, TENANT_USAGE.c.incarnation)
    )
    sums: Sums = {}
    for row in tx.execute(query):
        sums.setdefault(row[0], {})[row[1]] = _amounts(row, 2), _amounts(row, 2 + len(MEASURES))
    return sums


def days_of(tx: Connection, tenant: str, first: str, last: str) -> list[DayUsage]:
    """What all gateways counted of a tenant, on each day from `first` to `last` on which there was anything."""
    query = (
        select(TENANT_USAGE.c.day, *[func.sum(column) for column in _COLUMNS])
        .where(TENANT_USAGE.c.tenant == clean(tenant))
        .where(TENANT_USAGE.c.day.between(first, last))
        .group_by(TENANT_USAGE.c.day)
        .order_by(TENANT_USAGE.c.day)
    )
    return [DayUsage(row[0], _amounts(row, 1)) for row in tx.execute(query)]


def tenants_of(tx: Connection, first: str, last: str, after: str, limit: int) -> list[tuple[str, Amounts]]:
    """What all gateways counted from `first` to `last`, of at most `limit` tenants by name behind `after`."""
    query = (
        select(TENANT_USAGE.c.tenant, *[func.sum(column) for column in _COLUMNS])
        .where(TENANT_USAGE.c.tenant > clean(after))
        .where(TENANT_USAGE.c.day.between(first, last))
        .group_by(TENANT_USAGE.c.tenant)
        .order_by(TENANT_USAGE.c.tenant)
        .limit(limit)
    )
    return [(row[0], _amounts(row, 1)) for row in tx.execute(query)]


def total_of(days: Iterable[DayUsage]) -> Amounts:
    """The sum."""
    total = NOTHING
    for day in days:
        total = add(total, day.used)
    return total


def prune(tx: Connection, before: str) -> int:
    """Forgets days before this one. Returns how many rows that were."""
    return tx.execute(delete(TENANT_USAGE).where(TENANT_USAGE.c.day < before)).rowcount


def _of_day(day: str) -> list[ColumnElement[Any]]:
    return [case((TENANT_USAGE.c.day == day, column), else_=0) for column in _COLUMNS]


def _amounts(row: Row[Any], at: int) -> Amounts:
    requests, rows, tokens, cost = row[at : at + len(MEASURES)]
    return Amounts(int(requests), int(rows), int(tokens), float(cost))
