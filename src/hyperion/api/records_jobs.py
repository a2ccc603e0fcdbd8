"""What the API answers about jobs, as pydantic models. Times are seconds since 1970, null for not yet."""

import base64
from typing import Literal

from pydantic import BaseModel, Field

from hyperion.schema.job import JobView, StoredAnswer, StoredRequest
from hyperion.store.job_orders import DeadOrder

JobState = Literal["queued", "running", "done", "failed", "dead", "cancelled"]


class CallbackView(BaseModel):
    """How far the callback of a job is."""

    url: str
    state: Literal["", "pending", "delivered", "failed"] = Field(description='"" until the job has ended')
    attempts: int
    reason: str


class JobItem(BaseModel):
    """A job without what was asked and answered."""

    id: str
    tenant: str
    endpoint: str
    state: JobState
    priority: int
    attempts: int
    max_attempts: int
    created_at: float
    due_at: float = Field(description="when it is, or was, to run next")
    started_at: float | None
    finished_at: float | None
    expires_at: float = Field(description="when it is given up or, once it has ended, forgotten")
    status: int | None = Field(description="of its answer")
    reason: str = Field(description="why it is not done")
    callback: CallbackView | None


class JobList(BaseModel):
    """A page; `next` is what `after` of the next one is."""

    items: list[JobItem]
    next: str | None


class JobResult(BaseModel):
    """What a job was answered."""

    status: int
    headers: dict[str, str]
    body: str = Field(description="as text, or in base64 where it is none")
    encoding: Literal["utf-8", "base64"]


class JobRequest(BaseModel):
    """What was asked. Headers are those that change the answer; credentials are never kept."""

    method: str
    path: str
    headers: dict[str, str]
    body: str = Field(description="as text, or in base64 where it is none")
    encoding: Literal["utf-8", "base64"]


class DeadJobs(BaseModel):
    """The dead letters that an order took."""

    ids: list[str]
    more: bool = Field(description="there may be more than one order takes: order again")


class CallbackSecret(BaseModel):
    """What callbacks to a tenant are signed with, as the libraries of Standard Webhooks take it."""

    tenant: str
    secret: str


def view_job(job: JobView) -> JobItem:
    """The job as the API shows it."""
    callback = None
    if job.callback:
        callback = CallbackView(
            url=job.callback, state=job.delivery, attempts=job.delivery_attempts, reason=job.delivery_reason
        )
    return JobItem(
        id=job.id,
        tenant=job.tenant,
        endpoint=job.endpoint,
        state=job.state,
        priority=job.priority,
        attempts=job.attempts,
        max_attempts=job.max_attempts,
        created_at=job.created_at,
        due_at=job.due_at,
        started_at=job.started_at or None,
        finished_at=job.finished_at or None,
        expires_at=job.expires_at,
        status=job.status or None,
        reason=job.reason,
        callback=callback,
    )


def view_dead(done: DeadOrder) -> DeadJobs:
    """What an order did, as the API shows it."""
    return DeadJobs(ids=list(done.ids), more=done.more)


def view_result(answer: StoredAnswer) -> JobResult:
    """The answer as the API shows it."""
    text, encoding = _write_body(answer.body)
    return JobResult(status=answer.status, headers=dict(answer.headers), body=text, encoding=encoding)


def view_request(request: StoredRequest) -> JobRequest:
    """The request as the API shows it."""
    text, encoding = _write_body(request.body)
    headers = dict(request.headers)
    return JobRequest(method=request.method, path=request.path, headers=headers, body=text, encoding=encoding)


def _write_body(body: bytes) -> tuple[str, Literal["utf-8", "base64"]]:
    try:
        return body.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode("ascii"), "base64"
