"""`/api/v1/batchjobs`: tables to score, as resources. What they read and write is data: reading needs the scope
`deploy`."""

from typing import Annotated, Final

from fastapi import APIRouter, Path
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
    read_one,
)
from hyperion.api.callers import Admin, Deployer
from hyperion.api.records import Management, desk_of
from hyperion.api.records_batches import BatchJobList, BatchJobView, view_batch
from hyperion.api.records_endpoints import Changes

KIND: Final = ("BatchJob",)
Name = Annotated[str, Path(description="its name", max_length=128)]


def add_batch_routes(router: APIRouter, management: Management) -> None:
    """Add the routes."""

    @router.get("/batchjobs")
    def list_batch_jobs(_caller: Deployer, after: After = "", limit: Limit = 100) -> BatchJobList:
        """Batch jobs by name, each with how it fares."""
        found = desk_of(management).batches.list_(after, limit)
        items = [view_batch(one) for one in found]
        return BatchJobList(items=items, next=found[-1].row.name if len(found) == limit else None)

    @router.get("/batchjobs/{name}")
    def get_batch_job(name: Name, _caller: Deployer) -> BatchJobView:
        """One batch job, and how far it is."""
        return view_batch(desk_of(management).batches.get(name))

    @router.post("/batchjobs", openapi_extra=describe_body(KIND, many=True))
    async def apply_batch_jobs(caller: Admin, body: Body, dry_run: DryRun = False, reason: Reason = "") -> Changes:
        """Make batch jobs as these resources say, all or none. A new one is queued, and so is one whose spec changes;
        the same again changes nothing. Refused (409) for places that the operator did not name."""
        resources = await run_in_threadpool(read_body, *body, KIND)
        return await apply_resources(management, resources, caller, dry_run, reason)

    @router.put("/batchjobs/{name}", openapi_extra=describe_body(KIND))
    async def put_batch_job(
        name: Name, caller: Admin, body: Body, dry_run: DryRun = False, reason: Reason = ""
    ) -> Changes:
        """Make one batch job as this resource says."""
        resources = await run_in_threadpool(read_one, *body, "BatchJob", name)
        return await apply_resources(management, resources, caller, dry_run, reason)

    @router.delete("/batchjobs/{name}")
    async def delete_batch_job(name: Name, caller: Admin, dry_run: DryRun = False, reason: Reason = "") -> Changes:
        """Cancel a batch job and forget it. What it wrote aside stays; the same job goes on from there."""
        batches = desk_of(management).batches
        change = await run_in_threadpool(
            lambda: batches.delete(name, dry_run=dry_run, actor=caller.name, reason=reason)
        )
        return await answer_changes(management, [change], dry_run)
