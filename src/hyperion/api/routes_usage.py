"""`/api/v1/usage`: what each tenant has used; `/api/v1/tenants/{tenant}/usage`: what one has, by day."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from hyperion.api.bodies import After, Limit
from hyperion.api.callers import Deployer
from hyperion.api.records import Management, desk_of
from hyperion.schema.usage import Amounts

TenantName = Annotated[str, Path(description="name of the tenant", max_length=128)]
Day = Annotated[str, Query(max_length=10, description="of UTC, as in 2026-11-21")]


class AmountsView(BaseModel):
    """So much was used."""

    requests: int
    rows: int
    tokens: int
    cost: float = Field(description="in the unit of spec.cost of the endpoints and of the tenants' cost quotas")


class DayView(AmountsView):
    """What was used on one day."""

    day: str


class UsageView(BaseModel):
    """What a tenant used from one day to another, both of them included."""

    tenant: str
    first: str
    last: str
    total: AmountsView
    days: list[DayView] = Field(description="those on which there was anything, in order")


class TenantUsageView(AmountsView):
    """What one tenant used."""

    tenant: str


class UsageList(BaseModel):
    """What tenants used from one day to another, by name; those that used nothing are not among them."""

    first: str
    last: str
    items: list[TenantUsageView]
    next: str | None = Field(default=None, description="give it as `after` for those behind; null where there are none")


def add_usage_routes(router: APIRouter, management: Management) -> None:
    """Add the routes."""

    @router.get("/usage")
    def list_usage(
        _caller: Deployer, first: Day = "", last: Day = "", after: After = "", limit: Limit = 100
    ) -> UsageList:
        """What each tenant used: from the first of the month (`first`) to today (`last`) unless said otherwise.

        What gateways counted in the last seconds may be missing.
        """
        begins, ends, found = desk_of(management).usage.read_all(first, last, after, limit)
        items = [TenantUsageView(tenant=tenant, **_view(used).model_dump()) for tenant, used in found]
        return UsageList(first=begins, last=ends, items=items, next=found[-1][0] if len(found) == limit else None)

    @router.get("/tenants/{tenant}/usage")
    def get_usage(_caller: Deployer, tenant: TenantName, first: Day = "", last: Day = "") -> UsageView:
        """What a tenant used: from the first of the month (`first`) to today (`last`) unless said otherwise.

        What gateways counted in the last seconds may be missing.
        """
        begins, ends, days, total = desk_of(management).usage.read(tenant, first, last)
        return UsageView(
            tenant=tenant,
            first=begins,
            last=ends,
            total=_view(total),
            days=[DayView(day=day.day, **_view(day.used).model_dump()) for day in days],
        )


def _view(used: Amounts) -> AmountsView:
    return AmountsView(requests=int(used.requests), rows=int(used.rows), tokens=int(used.tokens), cost=used.cost)
