"""What the API answers about batch jobs, as pydantic models."""

from typing import Any, Literal

import msgspec
from pydantic import BaseModel, Field

from hyperion.schema.resource import API_VERSION
from hyperion.store.views import BatchFound


class BatchProgressView(BaseModel):
    """How far it is."""

    rows: int = Field(description="of the source that are done")
    skipped: int = Field(description="of these, left out")
    total_rows: int = Field(description="0 where nobody knows")
    fraction: float = Field(description="0 to 1: of the rows or, where these are not known, of the bytes")
    rows_per_s: float
    eta_s: float = Field(description="-1 where it cannot be told")


class BatchStatus(BaseModel):
    """What is, beside what is to be."""

    generation: int = Field(description="grows with every change of the spec, which starts another run")
    created_at: float
    updated_at: float
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    reason: str = Field(description="why it failed, or why its process had to be started again")
    started_at: float | None
    finished_at: float | None
    progress: BatchProgressView
    summary: dict[str, Any] = Field(description="what a run that succeeded did: rows, version, rate")


class BatchJobView(BaseModel):
    """A batch job: the resource, which can be applied again, and its status."""

    apiVersion: str = API_VERSION  # noqa: N815
    kind: Literal["BatchJob"] = "BatchJob"
    metadata: dict[str, Any]
    spec: dict[str, Any]
    status: BatchStatus


class BatchJobList(BaseModel):
    """Batch jobs by name."""

    items: list[BatchJobView]
    next: str | None = Field(default=None, description="give it as `after` for those behind; null where there are none")


def view_batch(found: BatchFound) -> BatchJobView:
    """Return the view. A run of an earlier generation counts no more."""
    row, run = found.row, found.run
    if run is not None and run.generation != row.generation:
        run = None
    progress = msgspec.to_builtins(run.progress) if run else dict.fromkeys(BatchProgressView.model_fields, 0)
    return BatchJobView(
        metadata=msgspec.to_builtins(row.resource.metadata),
        spec=msgspec.to_builtins(row.resource.spec),
        status=BatchStatus(
            generation=row.generation,
            created_at=row.created_at,
            updated_at=row.updated_at,
            state=run.state if run else "queued",
            reason=run.reason if run else "",
            started_at=(run.started_at or None) if run else None,
            finished_at=(run.finished_at or None) if run else None,
            progress=BatchProgressView(**progress),
            summary=run.summary if run else {},
        ),
    )
