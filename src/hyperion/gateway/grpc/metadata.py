"""What a caller says in the headers of a gRPC call, read once per set of headers. Used by `gateway/grpc/connection`."""

from typing import Final

from msgspec import Struct

from hyperion.policy.redact import is_personal
from hyperion.schema.errors import HeadersTooLarge, HyperionError, MalformedRequest, Unsupported
from hyperion.wire.grpc.framing import read_timeout_ns
from hyperion.wire.http2.fields import MAX_FIELDS, MAX_LIST_BYTES, Fields, list_bytes
from hyperion.wire.http2.frames import PROTOCOL_ERROR, StreamFault

MAX_TIMEOUT_NS: Final = 86_400 * 1_000_000_000
MAX_PRIORITY: Final = 9
MAX_ID: Final = 128
ENCODINGS: Final = frozenset((b"", b"identity", b"gzip", b"deflate"))
_CONTENT_TYPE: Final = b"application/grpc"
# A proxy that looks at one of two while we look at the other would let in whom it means to keep out.
_ONCE: Final = (b"authorization", b"x-hyperion-tenant", b"idempotency-key")


class CallHead(Struct, frozen=True):
    """What the edge knows of a call before its first message.

    `timeout_ns` is the shorter of gRPC's deadline and the header x-request-timeout-ms; 0 for neither. `deadline_ns`
    is gRPC's alone, which ends the whole call; 0 for none. `http_status` is not 0 for what is no gRPC call at all;
    `refusal` is what is wrong with one that is. `content_length` is -1 where it is not given.
    """

    path: bytes
    content_length: int = -1
    http_status: int = 0
    refusal: HyperionError | None = None
    request_id: str = ""
    timeout_ns: int = 0
    deadline_ns: int = 0
    priority: int | None = None
    encoding: bytes = b""
    headers: dict[bytes, bytes] = {}


def read_head(fields: Fields) -> CallHead:
    """The head of a call. What is wrong with it is in the result; raises StreamFault only for what is no valid HTTP."""
    given = dict(fields)
    path = given[b":path"]
    length = given.get(b"content-length")
    content_length = -1
    if length is not None:
        if not length.isdigit() or len(length) > 15 or sum(name == b"content-length" for name, _ in fields) > 1:
            raise StreamFault(PROTOCOL_ERROR, "content-length is not a number")
        content_length = int(length)
    if given[b":method"] != b"POST":
        return CallHead(path, content_length, 405)
    kind = given.get(b"content-type", b"").lower()
    if not kind.startswith(_CONTENT_TYPE) or kind[len(_CONTENT_TYPE) :][:1] not in (b"", b"+", b";"):
        return CallHead(path, content_length, 415)
    request_id = clean_id(given.get(b"x-request-id", b"").decode("latin-1"))
    try:
        if len(fields) > MAX_FIELDS or list_bytes(fields) > MAX_LIST_BYTES:
            raise HeadersTooLarge(f"the metadata is over the limit of {MAX_FIELDS} fields or {MAX_LIST_BYTES} bytes")
        if len(given) < len(fields):
            _check_once(fields)
        encoding = given.get(b"grpc-encoding", b"").lower()
        if encoding not in ENCODINGS:
            name = encoding[:40].decode("latin-1")
            raise Unsupported(f'grpc-encoding "{name}" is not supported; use gzip, deflate or identity')
        deadline_ns = 0
        if b"grpc-timeout" in given:
            deadline_ns = max(1, min(read_timeout_ns(given[b"grpc-timeout"]), MAX_TIMEOUT_NS))
        timeout_ns = deadline_ns
        if b"x-request-timeout-ms" in given:
            asked_ns = _whole(b"x-request-timeout-ms", given, 1, MAX_TIMEOUT_NS // 1_000_000) * 1_000_000
            timeout_ns = min(timeout_ns, asked_ns) if timeout_ns else asked_ns
        priority = _whole(b"x-hyperion-priority", given, 0, MAX_PRIORITY) if b"x-hyperion-priority" in given else None
    except HyperionError as error:
        return CallHead(path, content_length, 0, error.with_traceback(None), request_id)
    return CallHead(path, content_length, 0, None, request_id, timeout_ns, deadline_ns, priority, encoding, given)


def _check_once(fields: Fields) -> None:
    """Refuses two fields of a name that says who asks."""
    for once in _ONCE:
        if sum(name == once for name, _ in fields) > 1:
            raise MalformedRequest(f'metadata "{once.decode()}" is there twice')


def clean_id(given: str) -> str:
    """A caller's request id if it is safe to repeat in metadata and logs and is nobody's address or number, else ""."""
    if len(given) > MAX_ID or not given.isascii() or not given.isprintable() or " " in given or is_personal(given):
        return ""
    return given


def _whole(name: bytes, given: dict[bytes, bytes], minimum: int, maximum: int) -> int:
    text = given[name]
    if not (text.isdigit() and len(text) < 16 and minimum <= int(text) <= maximum):
        shown = text[:32].decode("latin-1")
        raise MalformedRequest(f'{name.decode()} is "{shown}", expected a whole number from {minimum} to {maximum}')
    return int(text)
