"""The routes by which admins say what a kind of resource is to be: POST of one or many, PUT of one.

They are the same for each kind but for what they are called and what is said of them.
"""

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.concurrency import run_in_threadpool

from hyperion.api.bodies import Body, DryRun, Reason, apply_resources, describe_body, read_body, read_one
from hyperion.api.callers import Admin
from hyperion.api.records import Management
from hyperion.api.records_endpoints import Changes

Name = Annotated[str, Path(description="its name", max_length=128)]


def add_apply_routes(router: APIRouter, management: Management, kind: str, place: str, one: str, says: str) -> None:
    """Add both for resources of a kind, at `/place`. `one` is what the OpenAPI document calls one of them, `says` what
    it says of applying several."""
    snake = one.replace(" ", "_")

    @router.post(f"/{place}", name=f"apply_{snake}s", description=says, openapi_extra=describe_body((kind,), many=True))
    async def apply_many(caller: Admin, body: Body, dry_run: DryRun = False, reason: Reason = "") -> Changes:
        resources = await run_in_threadpool(read_body, *body, (kind,))
        return await apply_resources(management, resources, caller, dry_run, reason)

    @router.put(
        f"/{place}/{{name}}",
        name=f"put_{snake}",
        description=f"Make one {one} as this resource says.",
        openapi_extra=describe_body((kind,)),
    )
    async def put_one(name: Name, caller: Admin, body: Body, dry_run: DryRun = False, reason: Reason = "") -> Changes:
        resources = await run_in_threadpool(read_one, *body, kind, name)
        return await apply_resources(management, resources, caller, dry_run, reason)
