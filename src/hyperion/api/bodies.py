"""Resources as requests bring them: read from JSON or YAML, described in the OpenAPI document, applied.

Shared by the routes of each kind.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from fastapi import Depends, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.requests import Request

from hyperion.api.callers import Caller
from hyperion.api.records import Management, desk_of
from hyperion.api.records_endpoints import Changes, view_changes
from hyperion.schema.errors import InvalidResource, MalformedRequest
from hyperion.schema.resource import Resource
from hyperion.store.changes import Change
from hyperion.store.resource_yaml import KINDS, Origin, read_resource
from hyperion.store.yaml_text import read_yaml_documents

PAGE_MAX: Final = 1_000
BODY_MAX: Final = 1 << 20
After = Annotated[str, Query(description="names behind this one", max_length=300)]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
DryRun = Annotated[bool, Query(description="say what would change, and change nothing")]
Reason = Annotated[str, Query(description="why; the ledger keeps it", max_length=1_000)]


def describe_body(kinds: Sequence[str], *, many: bool = False) -> dict[str, Any]:
    """What OpenAPI is to say of a body of one resource, or of `many`, of these kinds."""
    ones = [{"$ref": f"#/components/schemas/{kind}"} for kind in kinds]
    one: dict[str, Any] = ones[0] if len(ones) == 1 else {"anyOf": ones}
    schema = {"anyOf": [one, {"type": "array", "items": one}]} if many else one
    media = {"application/json": {"schema": schema}, "application/yaml": {"schema": {"type": "string"}}}
    return {"requestBody": {"required": True, "content": media}}


async def _read_body(request: Request) -> tuple[bytes, str]:
    return await request.body(), request.headers.get("content-type", "")


Body = Annotated[tuple[bytes, str], Depends(_read_body)]


def read_body(body: bytes, content_type: str, kinds: Sequence[str] = tuple(KINDS)) -> list[Resource]:
    """Return the resources of a body: JSON (one or a list) or YAML (documents). Raises `InvalidResource`, also where
    one is not of these kinds."""
    if len(body) > BODY_MAX:
        raise InvalidResource(f"the body is larger than {BODY_MAX >> 10} KiB; apply in parts")
    resources = _read_yaml(body) if "yaml" in content_type else _read_json(body)
    if not resources:
        raise InvalidResource("the body holds no resource")
    seen: set[tuple[str, str]] = set()
    for kind, name in [(resource.kind, resource.metadata.name) for resource in resources]:
        if kind not in kinds:
            raise InvalidResource(f"kind: expected {' or '.join(kinds)}, got {kind}; /api/v1/resources takes any")
        if (kind, name) in seen:
            raise InvalidResource(f"metadata.name: {name!r} is given twice")
        seen.add((kind, name))
    return resources


def read_one(body: bytes, content_type: str, kind: str, name: str) -> list[Resource]:
    """Return the one resource of a body, which has to be of this kind and name. Raises `InvalidResource`."""
    resources = read_body(body, content_type, (kind,))
    if [resource.metadata.name for resource in resources] != [name]:
        raise InvalidResource(f'metadata.name: expected the one resource "{name}", as the path says')
    return resources


async def apply_resources(
    management: Management, resources: Sequence[Resource], caller: Caller, dry_run: bool, reason: str
) -> Changes:
    """Apply them, and answer when every gateway knows."""
    desk = desk_of(management)
    write = partial(desk.apply, resources, dry_run=dry_run, actor=caller.name, reason=reason)
    return await answer_changes(management, await run_in_threadpool(write), dry_run)


async def answer_changes(management: Management, changes: list[Change], dry_run: bool) -> Changes:
    """The answer to a write that changed this; where it did, once every gateway knows."""
    if not dry_run and any(change.action != "unchanged" for change in changes):
        await management.follow_writes()
    return view_changes(changes, dry_run)


def _read_yaml(body: bytes) -> list[Resource]:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedRequest(f"the body is not UTF-8 text (byte {error.start})") from error
    documents = read_yaml_documents(text, "body", InvalidResource)
    return [read_resource(document.value, Origin("body", document.lines)) for document in documents]


def _read_json(body: bytes) -> list[Resource]:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedRequest(f"the body is not JSON: {error}; for YAML say content-type: application/yaml") from error
    items = value if isinstance(value, list) else [value]
    return [
        read_resource(item, Origin(f"item {index}" if len(items) > 1 else "")) for index, item in enumerate(items, 1)
    ]
