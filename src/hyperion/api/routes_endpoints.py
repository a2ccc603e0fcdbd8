"""`/api/v1/endpoints`: declarative resources, and the deploys that change which version one names."""

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.concurrency import run_in_threadpool

from hyperion.api.bodies import (
    After,
    Body,
    DryRun,
    Limit,
    Reason,
    apply_resources,
    describe_body,
    read_body,
    read_one,
)
from hyperion.api.callers import Deployer, Reader
from hyperion.api.endpoint_status import look
from hyperion.api.records import Management, desk_of
from hyperion.api.records_endpoints import (
    Changes,
    DeployRequest,
    DeployView,
    EndpointList,
    EndpointView,
    view_change,
    view_changes,
    view_endpoint,
)

KINDS = ("Endpoint",)
Name = Annotated[str, Path(description="name of the endpoint", max_length=128)]


def add_endpoint_routes(router: APIRouter, management: Management) -> None:
    """Add the routes."""
    _add_reads(router, management)

    @router.post("/endpoints", openapi_extra=describe_body(KINDS, many=True))
    async def apply_endpoints(caller: Deployer, body: Body, dry_run: DryRun = False, reason: Reason = "") -> Changes:
        """Make endpoints as these resources say, all or none. The same again changes nothing. Answers when every
        gateway knows; a rollout that this begins goes on."""
        resources = await run_in_threadpool(read_body, *body, KINDS)
        return await apply_resources(management, resources, caller, dry_run, reason)

    @router.put("/endpoints/{endpoint}", openapi_extra=describe_body(KINDS))
    async def put_endpoint(
        endpoint: Name, caller: Deployer, body: Body, dry_run: DryRun = False, reason: Reason = ""
    ) -> Changes:
        """Make one endpoint as this resource says."""
        resources = await run_in_threadpool(read_one, *body, "Endpoint", endpoint)
        return await apply_resources(management, resources, caller, dry_run, reason)

    @router.delete("/endpoints/{endpoint}")
    def delete_endpoint(endpoint: Name, caller: Deployer, dry_run: DryRun = False, reason: Reason = "") -> Changes:
        """Stop serving an endpoint and forget it. Versions stay in the registry, entries in the ledger. Refused (409)
        while a graph has it as a step that cannot be missing."""
        change = desk_of(management).delete_endpoint(endpoint, dry_run=dry_run, actor=caller.name, reason=reason)
        return view_changes([change], dry_run)

    @router.post("/endpoints/{endpoint}/deploy")
    def deploy(endpoint: Name, caller: Deployer, body: DeployRequest) -> DeployView:
        """Let the endpoint name another version: a rollout to it begins, by the strategy given or the resource's."""
        done = desk_of(management).deploy(endpoint, body.model, body.strategy, actor=caller.name, reason=body.reason)
        return DeployView(
            endpoint=endpoint,
            model=done.model,
            version=done.version,
            digest=done.digest,
            generation=done.generation,
            started=done.started,
            previous_rollout=done.before,
            change=view_change(done.change),
        )


def _add_reads(router: APIRouter, management: Management) -> None:
    @router.get("/endpoints")
    def list_endpoints(_caller: Reader, after: After = "", limit: Limit = 100) -> EndpointList:
        """Endpoints by name, each with its status."""
        rows = desk_of(management).list_endpoints(after, limit)
        states = desk_of(management).list_rollouts() if rows else {}
        sight = look(management)
        items = [view_endpoint(row, states.get(row.name), sight) for row in rows]
        return EndpointList(items=items, next=rows[-1].name if len(rows) == limit else None)

    @router.get("/endpoints/{endpoint}")
    def get_endpoint(endpoint: Name, _caller: Reader) -> EndpointView:
        """One endpoint."""
        row = desk_of(management).get_endpoint(endpoint)
        return view_endpoint(row, desk_of(management).get_rollout(endpoint).state, look(management))
