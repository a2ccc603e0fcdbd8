"""`/api/v1/jobs`: what was to be answered later, of all tenants; what became of it, and what is to become of it.

Callers of models see their own jobs at the gateway, and none here: reading needs the scope `deploy`.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from hyperion.api.callers import Admin, Deployer
from hyperion.api.records import Management, desk_of
from hyperion.api.records_jobs import (
    CallbackSecret,
    DeadJobs,
    JobItem,
    JobList,
    JobRequest,
    JobResult,
    JobState,
    view_dead,
    view_job,
    view_request,
    view_result,
)

PAGE_MAX: Final = 1_000
JobId = Annotated[str, Path(description="id of the job", max_length=64)]
Words = Annotated[str, Query(max_length=300)]


def add_job_routes(router: APIRouter, management: Management) -> None:
    """Add the routes."""

    @router.get("/jobs")
    def list_jobs(
        _caller: Deployer,
        state: JobState | None = None,
        endpoint: Words = "",
        tenant: Words = "",
        after: Annotated[str, Query(max_length=64, description="id of the last job of the page before")] = "",
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
    ) -> JobList:
        """Jobs, oldest first; of one state, endpoint or tenant where asked."""
        found = desk_of(management).jobs.list_(state or "", endpoint, tenant, after, limit)
        return JobList(items=[view_job(job) for job in found], next=found[-1].id if len(found) == limit else None)

    @router.get("/jobs/{job_id}")
    def get_job(job_id: JobId, _caller: Deployer) -> JobItem:
        """One job."""
        return view_job(desk_of(management).jobs.get(job_id))

    @router.get("/jobs/{job_id}/result")
    def get_result(job_id: JobId, _caller: Admin) -> JobResult:
        """What it was answered. It is the tenant's own, so this needs the scope admin."""
        return view_result(desk_of(management).jobs.result(job_id))

    @router.get("/jobs/{job_id}/request")
    def get_request(job_id: JobId, _caller: Admin) -> JobRequest:
        """What was asked. It is the tenant's own, so this needs the scope admin."""
        return view_request(desk_of(management).jobs.request(job_id))

    @router.post("/jobs/{job_id}/cancel")
    def cancel_job(job_id: JobId, caller: Deployer) -> JobItem:
        """End a job that has not ended."""
        return view_job(desk_of(management).jobs.cancel(job_id, actor=caller.name))

    @router.post("/jobs/{job_id}/retry")
    def retry_job(job_id: JobId, caller: Deployer) -> JobItem:
        """Let a job that has ended run again, with all its attempts."""
        return view_job(desk_of(management).jobs.retry(job_id, actor=caller.name))

    @router.delete("/jobs/{job_id}", status_code=204, response_class=Response)
    def discard_job(job_id: JobId, caller: Deployer) -> None:
        """Forget a job that has ended, with all that was asked and answered."""
        desk_of(management).jobs.discard(job_id, actor=caller.name)

    @router.post("/dead-jobs/retry")
    def retry_dead_jobs(caller: Deployer, endpoint: Words = "") -> DeadJobs:
        """Let the oldest 10,000 dead letters run again, of one endpoint where given: one entry of the ledger."""
        return view_dead(desk_of(management).jobs.retry_dead(endpoint, actor=caller.name))

    @router.post("/dead-jobs/discard")
    def discard_dead_jobs(caller: Deployer, endpoint: Words = "") -> DeadJobs:
        """Forget the oldest 10,000 dead letters, of one endpoint where given: one entry of the ledger."""
        return view_dead(desk_of(management).jobs.discard_dead(endpoint, actor=caller.name))

    @router.get("/callback-secret")
    def get_callback_secret(_caller: Admin, tenant: Words = "") -> CallbackSecret:
        """What the callbacks to a tenant ("": to callers without credentials) are signed with."""
        return CallbackSecret(tenant=tenant, secret=desk_of(management).jobs.secret(tenant))
