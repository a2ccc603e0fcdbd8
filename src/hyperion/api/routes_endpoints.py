"""`/api/v1/endpoints`: declarative resources, and the deploys that change which version one names."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query
from fastapi.requests import Request

from hyperion.api.callers import Deployer, Reader
from hyperion.api.records import Management, desk_of
from hyperion.api.records_endpoints import (
    Changes,
    DeployRequest,
    DeployView,
    EndpointList,
    EndpointView,
    view_change,
    view_endpoint,
)
from hyperion.schema.errors import InvalidResource, MalformedRequest
from hyperion.schema.resource import Endpoint
from hyperion.store.changes import Change
from hyperion.store.resource_yaml import Origin, read_resource
from hyperion.store.yaml_text import read_yaml_documents

PAGE_MAX = 1_000
BODY_MAX = 1 << 20
Name = Annotated[str, Path(description="name of the endpoint", max_length=128)]
After = Annotated[str, Query(description="names behind this one", max_length=300)]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
DryRun = Annotated[bool, Query(description="say what would change, and change nothing")]
Reason = Annotated[str, Query(description="why; the ledger keeps it", max_length=1_000)]
_RESOURCE = {"$ref": "#/components/schemas/Endpoint"}
_MANY = {"anyOf": [_RESOURCE, {"type": "array", "items": _RESOURCE}]}


def _describe_body(schema: dict[str, Any]) -> dict[str, Any]:
    media = {"application/json": {"schema": schema}, "application/yaml": {"schema": {"type": "string"}}}
    return {"requestBody": {"required": True, "content": media}}


async def _read_body(request: Request) -> tuple[bytes, str]:
    return await request.body(), request.headers.get("content-type", "")


Body = Annotated[tuple[bytes, str], Depends(_read_body)]


def add_endpoint_routes(router: APIRouter, management: Management) -> None:
    """Add the routes."""
    _add_reads(router, management)

    @router.post("/endpoints", openapi_extra=_describe_body(_MANY))
    def apply_endpoints(caller: Deployer, body: Body, dry_run: DryRun = False, reason: Reason = "") -> Changes:
        """Make endpoints as these resources say, all or none. The same again changes nothing."""
        resources = read_body(*body)
        changes = desk_of(management).apply(resources, dry_run=dry_run, actor=caller.name, reason=reason)
        return _view(changes, dry_run)

    @router.put("/endpoints/{endpoint}", openapi_extra=_describe_body(_RESOURCE))
    def put_endpoint(
        endpoint: Name, caller: Deployer, body: Body, dry_run: DryRun = False, reason: Reason = ""
    ) -> Changes:
        """Make one endpoint as this resource says."""
        resources = read_body(*body)
        if [resource.metadata.name for resource in resources] != [endpoint]:
            raise InvalidResource(f'metadata.name: expected the one resource "{endpoint}", as the path says')
        changes = desk_of(management).apply(resources, dry_run=dry_run, actor=caller.name, reason=reason)
        return _view(changes, dry_run)

    @router.delete("/endpoints/{endpoint}")
    def delete_endpoint(endpoint: Name, caller: Deployer, dry_run: DryRun = False, reason: Reason = "") -> Changes:
        """Stop serving an endpoint and forget it. Versions stay in the registry, entries in the ledger."""
        change = desk_of(management).delete_endpoint(endpoint, dry_run=dry_run, actor=caller.name, reason=reason)
        return _view([change], dry_run)

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
        items = [view_endpoint(row, states.get(row.name)) for row in rows]
        return EndpointList(items=items, next=rows[-1].name if len(rows) == limit else None)

    @router.get("/endpoints/{endpoint}")
    def get_endpoint(endpoint: Name, _caller: Reader) -> EndpointView:
        """One endpoint."""
        row = desk_of(management).get_endpoint(endpoint)
        return view_endpoint(row, desk_of(management).get_rollout(endpoint).state)


def read_body(body: bytes, content_type: str) -> list[Endpoint]:
    """Return the resources of a body: JSON (one or a list) or YAML (documents). Raises `InvalidResource`."""
    if len(body) > BODY_MAX:
        raise InvalidResource(f"the body is larger than {BODY_MAX >> 10} KiB; apply in parts")
    if "yaml" in content_type:
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise MalformedRequest(f"the body is not UTF-8 text (byte {error.start})") from error
        documents = read_yaml_documents(text, "body", InvalidResource)
        resources = [read_resource(document.value, Origin("body", document.lines)) for document in documents]
    else:
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise MalformedRequest(
                f"the body is not JSON: {error}; for YAML say content-type: application/yaml"
            ) from error
        items = value if isinstance(value, list) else [value]
        resources = [
            read_resource(item, Origin(f"item {index}" if len(items) > 1 else ""))
            for index, item in enumerate(items, 1)
        ]
    if not resources:
        raise InvalidResource("the body holds no resource")
    names = [resource.metadata.name for resource in resources]
    for name in names:
        if names.count(name) > 1:
            raise InvalidResource(f"metadata.name: {name!r} is given twice")
    return resources


def _view(changes: list[Change], dry_run: bool) -> Changes:
    return Changes(dry_run=dry_run, changes=[view_change(change) for change in changes])
