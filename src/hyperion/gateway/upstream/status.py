"""What an upstream's HTTP status means for the caller, in one table. Used by `gateway/upstream/http`.

Mistakes of the request stay the caller's, with what the upstream says of them. Refused credentials and a model that it
does not have are ours, and no caller's business.
"""

import re
from collections.abc import Mapping
from typing import Final

from hyperion.schema.errors import (
    DeadlineExceeded,
    HyperionError,
    MalformedRequest,
    ModelFailed,
    SchemaMismatch,
    TooLarge,
    UpstreamBusy,
    UpstreamFailed,
)
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip.upstream import decode_error

MOST_RETRY_AFTER_S: Final = 3600
MARK: Final = b"x-hyperion-degraded"
SERVED_BY: Final = b"x-hyperion-served-by"
_NAME: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9.:@~_-]{0,127}")
CALLERS: Final[dict[int, type[HyperionError]]] = {400: MalformedRequest, 413: TooLarge, 422: SchemaMismatch}
BUSY: Final = frozenset((429, 503))
REASONS: Final = {
    401: "does not accept the credentials of this gateway",
    403: "does not accept the credentials of this gateway",
    404: "does not have the model",
    408: "gave up waiting for the request",
    502: "has a failing server behind it",
}


def error_of_status(status: int, headers: Mapping[bytes, bytes], body: bytes, limits: WireLimits) -> HyperionError:
    """The error for an answer other than 200."""
    told = decode_error(body, limits)
    tail = f": {told}" if told else ""
    kind = CALLERS.get(status)
    if kind is not None:
        return kind(f"the server that answers for this model refused the request{tail}")
    if status in BUSY:
        message = f"the server that answers for this model is too busy (status {status}); try again later"
        return UpstreamBusy(message, retry_after_s=retry_after_s(headers.get(b"retry-after", b"")))
    if status == 500:
        return ModelFailed(f"the server that answers for this model failed on the request{tail}")
    if status == 504:
        return DeadlineExceeded("the server that answers for this model did not answer in its own time")
    reason = REASONS.get(status, f"answered with status {status}")
    return UpstreamFailed(f"the server that answers for this model {reason}")


def retry_after_s(value: bytes) -> float:
    """Seconds of a Retry-After header; 0 where it has none, or a date.

    >>> retry_after_s(b"3"), retry_after_s(b"Fri, 31 Dec 1999 23:59:59 GMT"), retry_after_s(b"9" * 30)
    (3.0, 0.0, 3600.0)
    """
    return float(min(int(value[:9]), MOST_RETRY_AFTER_S)) if value.isdigit() else 0.0


def read_stand_in(mark: bytes, served_by: bytes) -> str:
    """Who answered over there, where another Hyperion marks its answer as degraded; "" where it does not.

    >>> read_stand_in(b"true", b"fallback:static"), read_stand_in(b"", b"model"), read_stand_in(b"true", b"a, b")
    ('fallback:static', '', 'upstream')
    """
    if mark != b"true":
        return ""
    return served_by.decode() if _NAME.fullmatch(served_by) else "upstream"
