"""Error codes to HTTP statuses, in one table, and the status lines as bytes."""

from math import ceil
from typing import Final

STATUS: Final[dict[str, int]] = {
    "ok": 200,
    "internal": 500,
    "malformed": 400,
    "schema_mismatch": 422,
    "too_large": 413,
    "headers_too_large": 431,
    "unknown_model": 404,
    "unknown_route": 404,
    "method_not_allowed": 405,
    "unsupported": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "client_gone": 499,
    "client_too_slow": 408,
    "deadline_exceeded": 504,
    "overloaded": 503,
    "rate_limited": 429,
    "not_ready": 503,
    "runner_lost": 503,
    "model_failed": 500,
    "poison_request": 500,
    "upstream_failed": 502,
    "upstream_busy": 503,
    "model_refused": 400,
    "missing_extra": 400,
    "invalid_config": 400,
    "conflict": 409,
    "fenced": 503,
    "key_reused": 422,
    "invalid_resource": 422,
    "not_found": 404,
    "refused": 403,
    "storage_failed": 503,
}
LATER: Final = frozenset((429, 503))  # with which `retry-after` always goes
CODES: Final[dict[str, str]] = {code: str(status) for code, status in STATUS.items()}

REASONS: Final[dict[int, bytes]] = {
    200: b"OK",
    202: b"Accepted",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    413: b"Content Too Large",
    415: b"Unsupported Media Type",
    422: b"Unprocessable Content",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    499: b"Client Closed Request",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    507: b"Insufficient Storage",
}


def status_line(status: int) -> bytes:
    """`HTTP/1.1 200 OK` and its line end."""
    return b"HTTP/1.1 %d %b\r\n" % (status, REASONS[status])


def whole_seconds(after_s: float) -> int:
    """The value of `retry-after`: never earlier than `after_s`, or who comes then would be refused again.

    >>> whole_seconds(2.4), whole_seconds(0.01), whole_seconds(0.0)
    (3, 1, 1)
    """
    return max(1, ceil(after_s))
