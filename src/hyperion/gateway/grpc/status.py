"""Error codes to names of gRPC statuses, in one table, and what goes into the metadata at the end of a call.

Imports nothing slow: the pipeline needs the table before there is an edge.
"""

from math import ceil
from typing import Final

from hyperion.gateway.http.status import LATER, STATUS
from hyperion.schema.call import BatchAnswer, InferenceAnswer
from hyperion.schema.errors import HyperionError
from hyperion.wire.grpc.framing import OK_FIELD, field, string

CODES: Final[dict[str, str]] = {
    "ok": "OK",
    "internal": "INTERNAL",
    "malformed": "INVALID_ARGUMENT",
    "schema_mismatch": "INVALID_ARGUMENT",
    "too_large": "RESOURCE_EXHAUSTED",  # as gRPC itself answers a message over its limit
    "headers_too_large": "RESOURCE_EXHAUSTED",
    "unknown_model": "NOT_FOUND",
    "unknown_route": "UNIMPLEMENTED",
    "method_not_allowed": "UNIMPLEMENTED",
    "unsupported": "UNIMPLEMENTED",
    "unauthenticated": "UNAUTHENTICATED",
    "forbidden": "PERMISSION_DENIED",
    "client_gone": "CANCELLED",
    "client_too_slow": "DEADLINE_EXCEEDED",
    "deadline_exceeded": "DEADLINE_EXCEEDED",
    "overloaded": "UNAVAILABLE",
    "rate_limited": "RESOURCE_EXHAUSTED",
    "not_ready": "UNAVAILABLE",
    "runner_lost": "UNAVAILABLE",
    "model_failed": "INTERNAL",
    "poison_request": "INTERNAL",
    "upstream_failed": "UNAVAILABLE",
    "upstream_busy": "UNAVAILABLE",
    "model_refused": "FAILED_PRECONDITION",
    "missing_extra": "FAILED_PRECONDITION",
    "invalid_config": "INVALID_ARGUMENT",
    "conflict": "ALREADY_EXISTS",
    "fenced": "UNAVAILABLE",
    "key_reused": "INVALID_ARGUMENT",
    "invalid_resource": "INVALID_ARGUMENT",
    "not_found": "NOT_FOUND",
    "refused": "PERMISSION_DENIED",
    "storage_failed": "UNAVAILABLE",
}

MAX_DETAILS: Final = 1024  # characters; clients refuse metadata of more than 8 KiB, and a message may quote a request
MAX_FIXED: Final = 1024
PUSHBACK: Final = "grpc-retry-pushback-ms"

Metadata = tuple[tuple[str, str], ...]


def details_of(error: HyperionError, request_id: str) -> str:
    """The status message: what the error says, except for our own bugs, of which the caller learns the request id."""
    if error.code == "internal":
        return f"internal error; request id {request_id}"
    return error.message.encode("utf-8", "replace").decode()[:MAX_DETAILS]


def error_metadata(error: HyperionError, request_id: str) -> Metadata:
    """Trailing metadata of a call that failed: the id, and when to come back if that can help (over HTTP: 429, 503).

    gRPC clients that retry by themselves wait as `grpc-retry-pushback-ms` says.
    """
    given = tuple([(name.decode(), value.decode("latin-1")) for name, value in error.fields])
    if error.retry_after_s <= 0:
        later = (("retry-after", "1"),) if STATUS[error.code] in LATER else ()
        return (("x-request-id", request_id), *given, *later)
    return (
        ("x-request-id", request_id),
        *given,
        ("retry-after", str(ceil(error.retry_after_s))),
        (PUSHBACK, str(ceil(error.retry_after_s * 1000))),
    )


def answer_trailers(answer: InferenceAnswer | BatchAnswer, request_id: str, queue_ns: int) -> bytes:
    """The header block behind an answer; the times in `server-timing` are milliseconds."""
    timing = b"queue;dur=%.3f, batch;dur=%.3f, compute;dur=%.3f" % (
        queue_ns * 1e-6,
        answer.batch_ns * 1e-6,
        answer.compute_ns * 1e-6,
    )
    key = (answer.version, answer.digest, answer.served_by)
    fixed = _fixed.get(key)
    if fixed is None:
        fixed = _fix(*key)
    return b"%b%b%b%b" % (fixed, string(request_id.encode()), _TIMING, string(timing))


_TIMING: Final = field(b"server-timing", b"")[:-1]  # without its value


_fixed: dict[tuple[str, str, str], bytes] = {}


def _fix(version: str, digest: str, served_by: str) -> bytes:
    """The fields that are the same for every answer of a version, up to the value of x-request-id."""
    fixed = OK_FIELD + b"".join(
        (
            field(b"x-hyperion-model-version", version.encode()),
            field(b"x-hyperion-model-digest", digest.encode()),
            field(b"x-hyperion-served-by", served_by.encode()),
            field(b"x-request-id", b"")[:-1],
        )
    )
    if len(_fixed) >= MAX_FIXED:
        _fixed.clear()
    _fixed[version, digest, served_by] = fixed
    return fixed
