"""What happened, as records: one finished request, or the answered requests of one batch."""

from msgspec import Struct


class RequestRecord(Struct, frozen=True, gc=False):
    """One finished request, success or not. Times are nanoseconds; `code` is the HTTP status or the gRPC status
    name. `tenant` and `key` (its id) say whose it was, "" where that is not known or nobody's."""

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
    tenant: str = ""
    key: str = ""


class BatchRecord(Struct, frozen=True, gc=False):
    """One finished batch: its rows, its nanoseconds in the model, when (monotonic ns) it was formed and came back, and
    when each of its requests that were answered had been received. These came by one protocol and have one `code`."""

    model: str
    version: str
    rows: int
    compute_ns: int
    formed_ns: int
    back_ns: int
    protocol: str
    code: str
    received_ns: list[int]
