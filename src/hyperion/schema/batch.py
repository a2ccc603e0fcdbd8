"""What a run of batch scoring is given and what it tells: plain data between `cli`, `control` and the process that
scores."""

from typing import Any, Literal

from msgspec import Struct

from hyperion.schema.config import ControlConfig
from hyperion.schema.resource import BatchJobSpec

BatchState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
ENDED = frozenset(("succeeded", "failed", "cancelled"))


class Progress(Struct, frozen=True):
    """How far a run is. Rows are those of the source that are done, `skipped` those of them that were left out;
    `total_rows` 0 means that nobody knows; `fraction` (0 to 1) is of the rows or, where these are not known, of the
    bytes. `rows_per_s` is of this attempt, `eta_s` -1 where it cannot be told."""

    rows: int = 0
    skipped: int = 0
    total_rows: int = 0
    fraction: float = 0.0
    rows_per_s: float = 0.0
    eta_s: float = -1.0


class Summary(Struct, frozen=True):
    """What a finished run did: rows of the source, those written and those skipped, and by which version. `scored_rows`
    is what this attempt computed: less than `rows` where it went on from an earlier one. `errors` is where skipped rows
    are explained, "" where there are none."""

    target: str
    rows: int
    written: int
    skipped: int
    scored_rows: int
    seconds: float
    rows_per_s: float
    model: str
    digest: str
    errors: str = ""


class BatchConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One `BatchJob` for the process that runs it. `run` tells runs of one name apart."""

    name: str
    run: str
    spec: BatchJobSpec
    platform: ControlConfig


class BatchRun(Struct, frozen=True):
    """How a `BatchJob` fares, as the store keeps it. `generation` is the resource's that this run is for; times are in
    seconds since 1970, 0 for not yet."""

    name: str
    run: str
    generation: int
    state: BatchState
    reason: str = ""
    progress: Progress = Progress()
    summary: dict[str, Any] = {}
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
