"""What happened, as records: one finished request, or the answered requests of one batch."""

from msgspec import Struct


class RequestRecord(Struct, frozen=True, gc=False):
    """One finished request, success or not. Times are nanoseconds; `code` is the HTTP status or the gRPC status
    name."""

    request_id: str
    model: str
    version: str
    protocol: str
    code: str
    total_ns: int
    queue_ns: int = 0
    compute_ns: int = 0
    rows: int = 0
    error: str = ""


class BatchRecord(Struct, frozen=True, gc=False):
    """One finished batch and its requests that were answered: how many rows and nanoseconds in the model, and for each
    request its nanoseconds in all and in the queue. All came by the same protocol and have the same `code`."""

    model: str
    version: str
    protocol: str
    code: str
    total_ns: list[int]
    queue_ns: list[int]
