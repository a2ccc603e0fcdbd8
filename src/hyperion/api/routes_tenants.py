"""`/api/v1/tenants`, `/api/v1/issuers`: who may call, as resources; and `/api/v1/resources`, which takes any kind.

Callers of models may look at the rest of this API, but not at who else calls: reading needs the scope `deploy`.
"""

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from hyperion.api.bodies import (
    After,
    Body,
    DryRun,
    Limit,
    Reason,
    answer_changes,
    apply_resources,
    describe_body,
    read_body,
)
from hyperion.api.callers import Admin, Deployer
from hyperion.api.records import Management, desk_of
from hyperion.api.records_endpoints import Changes
from hyperion.api.records_tenants import IssuerList, IssuerView, TenantList, TenantView, view_issuer, view_tenant
from hyperion.api.routes_resource import Name, add_apply_routes
from hyperion.store.resource_yaml import KINDS


def add_resource_routes(router: APIRouter, management: Management) -> None:
    """Add the route for any kind."""

    @router.post("/resources", openapi_extra=describe_body(tuple(KINDS), many=True))
    async def apply_any(caller: Deployer, body: Body, dry_run: DryRun = False, reason: Reason = "") -> Changes:
        """Make things as these resources say, whatever their kinds, all or none. The same again changes nothing.
        Answers when every gateway knows. Other kinds than Endpoint need the scope `admin`."""
        resources = await run_in_threadpool(read_body, *body)
        if any(resource.kind != "Endpoint" for resource in resources):
            caller.require("admin")
        return await apply_resources(management, resources, caller, dry_run, reason)


def add_tenant_routes(router: APIRouter, management: Management) -> None:
    """Add the routes."""

    @router.get("/tenants")
    def list_tenants(_caller: Deployer, after: After = "", limit: Limit = 100) -> TenantList:
        """Tenants by name, each with its status."""
        found = desk_of(management).tenants.list_tenants(after, limit)
        items = [view_tenant(one) for one in found]
        return TenantList(items=items, next=found[-1].row.name if len(found) == limit else None)

    @router.get("/tenants/{name}")
    def get_tenant(name: Name, _caller: Deployer) -> TenantView:
        """One tenant."""
        return view_tenant(desk_of(management).tenants.get_tenant(name))

    says = "Make tenants as these resources say, all or none. Answers when every gateway knows."
    add_apply_routes(router, management, "Tenant", "tenants", "tenant", says)

    @router.delete("/tenants/{name}")
    async def delete_tenant(name: Name, caller: Admin, dry_run: DryRun = False, reason: Reason = "") -> Changes:
        """Forget a tenant. Refused (409) while it has keys that are valid, or an issuer lets callers in as it."""
        tenants = desk_of(management).tenants
        change = await run_in_threadpool(
            lambda: tenants.delete_tenant(name, dry_run=dry_run, actor=caller.name, reason=reason)
        )
        return await answer_changes(management, [change], dry_run)


def add_issuer_routes(router: APIRouter, management: Management) -> None:
    """Add the routes."""

    @router.get("/issuers")
    def list_issuers(_caller: Deployer, after: After = "", limit: Limit = 100) -> IssuerList:
        """Issuers of tokens by name, each with its status."""
        found = desk_of(management).tenants.list_issuers(after, limit)
        items = [view_issuer(one) for one in found]
        return IssuerList(items=items, next=found[-1].row.name if len(found) == limit else None)

    @router.get("/issuers/{name}")
    def get_issuer(name: Name, _caller: Deployer) -> IssuerView:
        """One issuer, and which of its keys are known."""
        return view_issuer(desk_of(management).tenants.get_issuer(name))

    says = "Make issuers as these resources say, all or none. Their keys are read at once, but not before the answer."
    add_apply_routes(router, management, "Issuer", "issuers", "issuer", says)

    @router.delete("/issuers/{name}")
    async def delete_issuer(name: Name, caller: Admin, dry_run: DryRun = False, reason: Reason = "") -> Changes:
        """Forget an issuer: its tokens count no more."""
        tenants = desk_of(management).tenants
        change = await run_in_threadpool(
            lambda: tenants.delete_issuer(name, dry_run=dry_run, actor=caller.name, reason=reason)
        )
        return await answer_changes(management, [change], dry_run)
