"""`/api/v1/batchjobs`: tables to score, as resources. What they read and write is data: reading needs the scope
`deploy`."""

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from hyperion.api.bodies import (
    After,
    DryRun,
    Limit,
    Reason,
    answer_changes,
)
from hyperion.api.callers import Admin, Deployer
from hyperion.api.records import Management, desk_of
from hyperion.api.records_batches import BatchJobList, BatchJobView, view_batch
from hyperion.api.records_endpoints import Changes
from hyperion.api.routes_resource import Name, add_apply_routes


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

    says = (
        "Make batch jobs as these resources say, all or none. A new one is queued, and so is one whose spec changes;\n"
        "the same again changes nothing. Refused (409) for places that the operator did not name."
    )
    add_apply_routes(router, management, "BatchJob", "batchjobs", "batch job", says)

    @router.delete("/batchjobs/{name}")
    async def delete_batch_job(name: Name, caller: Admin, dry_run: DryRun = False, reason: Reason = "") -> Changes:
        """Cancel a batch job and forget it. What it wrote aside stays; the same job goes on from there."""
        batches = desk_of(management).batches
        change = await run_in_threadpool(
            lambda: batches.delete(name, dry_run=dry_run, actor=caller.name, reason=reason)
        )
        return await answer_changes(management, [change], dry_run)
