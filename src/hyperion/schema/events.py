"""What happened, as records: one finished request."""

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
