"""gRPC's own framing over HTTP/2: length-prefixed messages in, header blocks and messages out, and `grpc-timeout`.

Used by the gateway's gRPC edge. The rules are those of gRPC's "PROTOCOL-HTTP2" document. Pure.
"""

from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

from hyperion.schema.call import Buffer
from hyperion.schema.errors import MalformedRequest, TooLarge

__all__ = [
    "ANSWER_HEAD",
    "OK_FIELD",
    "STATUSES",
    "Message",
    "MessageReader",
    "field",
    "frame_message",
    "http_status_block",
    "read_timeout_ns",
    "status_block",
    "string",
]

PREFIX_BYTES: Final = 5
MAX_TIMEOUT_DIGITS: Final = 8
_UNITS_NS: Final = {
    72: 3_600_000_000_000,  # H
    77: 60_000_000_000,  # M
    83: 1_000_000_000,  # S
    109: 1_000_000,  # m
    117: 1_000,  # u
    110: 1,  # n
}
# Names of statuses to their numbers.
STATUSES: Final = {
    name: number
    for number, name in enumerate(
        (
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        )
    )
}


class Message(Struct, frozen=True, gc=False):
    """One message as it came; `compressed` as the call's grpc-encoding says."""

    data: Buffer
    compressed: bool


class MessageReader:
    """Puts the messages of one call together. Holds at most one unfinished message of `limit_bytes`.

    `take(size)` may give memory for a message, as long as it is; where it gives None, memory grows as bytes arrive.
    """

    __slots__ = ("_block", "_filled", "_limit_bytes", "_message", "_prefix", "_take", "_wanted")

    def __init__(self, limit_bytes: int, take: Callable[[int], memoryview | None]) -> None:
        self._limit_bytes = limit_bytes
        self._take = take
        self._prefix = b""
        self._message = bytearray()
        self._block: memoryview | None = None
        self._filled = 0
        self._wanted = -1

    @property
    def held_bytes(self) -> int:
        """What has come of the message that is not there whole."""
        return len(self._prefix) + self._filled

    def feed(self, data: Buffer) -> list[Message]:
        """The messages that are now there whole. Raises TooLarge, with nothing of it kept, or MalformedRequest."""
        messages: list[Message] = []
        view = memoryview(data)
        while True:
            if self._wanted < 0:
                missing = PREFIX_BYTES - len(self._prefix)
                self._prefix += bytes(view[:missing])
                view = view[missing:]
                if len(self._prefix) < PREFIX_BYTES:
                    return messages
                self._begin()
            size = min(len(view), self._wanted - self._filled)
            if self._block is not None:
                self._block[self._filled : self._filled + size] = view[:size]
            else:
                self._message += view[:size]
            self._filled += size
            view = view[size:]
            if self._filled < self._wanted:
                return messages
            messages.append(self._finish())

    def _begin(self) -> None:
        if self._prefix[0] > 1:
            raise MalformedRequest(f"a message begins with {self._prefix[0]}, expected 0 or 1")
        wanted = int.from_bytes(self._prefix[1:])
        if wanted > self._limit_bytes:
            raise TooLarge(f"the message has {wanted} bytes, at most {self._limit_bytes} are allowed")
        self._wanted = wanted
        self._block = self._take(wanted)

    def _finish(self) -> Message:
        data: Buffer = self._block if self._block is not None else bytes(self._message)
        message = Message(data, self._prefix[0] == 1)
        self._message = bytearray()
        self._block = None
        self._filled = 0
        self._wanted = -1
        self._prefix = b""
        return message


def frame_message(*parts: Buffer) -> bytes:
    """A message, whole or in parts, behind its prefix.

    >>> frame_message(b"ab", b"c")
    b'\\x00\\x00\\x00\\x00\\x03abc'
    """
    return b"".join((b"\0", sum(map(len, parts)).to_bytes(4), *parts))


def read_timeout_ns(value: bytes) -> int:
    """A `grpc-timeout` in nanoseconds. Raises MalformedRequest.

    >>> read_timeout_ns(b"250m")
    250000000
    """
    digits, unit = value[:-1], _UNITS_NS.get(value[-1]) if value else None
    if unit is None or not digits.isdigit() or len(digits) > MAX_TIMEOUT_DIGITS:
        text = value[:32].decode("latin-1")
        raise MalformedRequest(f'grpc-timeout is "{text}", expected up to 8 digits and one of H, M, S, m, u, n')
    return int(digits) * unit


# --- header blocks ---


def field(name: bytes, value: bytes) -> bytes:
    """A field of a header block: a literal that nobody is asked to remember (RFC 7541, section 6.2.2).

    >>> field(b"te", b"x")
    b'\x00\x02te\x01x'
    """
    return b"\0%b%b" % (string(name), string(value))


def string(value: bytes) -> bytes:
    """Text as header blocks have it, not Huffman-coded (RFC 7541, section 5.2)."""
    size = len(value)
    if size < 127:
        return b"%c%b" % (size, value)
    size -= 127
    length = bytearray(b"\x7f")
    while size >= 128:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes(length) + value


_STATUS_200: Final = b"\x88"  # :status 200, field 8 of the static table
_CONTENT_TYPE: Final = b"\x0f\x10"  # the name of field 31, not to be remembered
_GRPC: Final = _CONTENT_TYPE + string(b"application/grpc")
ANSWER_HEAD: Final = _STATUS_200 + _GRPC + field(b"grpc-accept-encoding", b"identity,deflate,gzip")
OK_FIELD: Final = field(b"grpc-status", b"0")


def http_status_block(status: int) -> bytes:
    """The whole answer to what is no gRPC request."""
    return b"\x08" + string(b"%d" % status) + field(b"content-length", b"0")


def status_block(status: str, message: str, metadata: Iterable[tuple[str, str]]) -> bytes:
    """The fields that end a call, without the head that a call needs that ends before it begins."""
    parts = [field(b"grpc-status", b"%d" % STATUSES[status])]
    if message:
        parts.append(field(b"grpc-message", _escape(message)))
    parts += [field(name.encode(), value.encode()) for name, value in metadata]
    return b"".join(parts)


def _escape(message: str) -> bytes:
    """Text as `grpc-message` carries it.

    >>> _escape("50 %: ü")
    b'50 %25: %C3%BC'
    """
    return b"".join(
        [b"%c" % byte if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in message.encode()]
    )
