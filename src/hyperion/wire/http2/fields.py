"""Header blocks of HTTP/2 requests: HPACK to fields, and the rules of RFC 9113 section 8 for them.

Used by `http2_receive`, one decoder per connection. A client that keeps its connection soon sends the same bytes with
every call, because all of its fields are in the table; a block that was seen since the table last changed means what it
meant then, so it is looked up and not decoded.
"""

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from hyperion.wire.http2.frames import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    PROTOCOL_ERROR,
    ConnectionFault,
    StreamFault,
)

__all__ = ["MAX_FIELDS", "MAX_LIST_BYTES", "FieldDecoder", "Fields", "check_request", "check_trailers", "list_bytes"]

Fields = Sequence[tuple[bytes, bytes]]
Head = TypeVar("Head")

MAX_LIST_BYTES: Final = 16 * 1024  # what we ask for; more is refused
HARD_LIST_BYTES: Final = 64 * 1024  # where decoding stops, and with it the connection
MAX_FIELDS: Final = 100
MAX_KNOWN: Final = 256  # blocks remembered per connection
MAX_KNOWN_BYTES: Final = 1024  # of a block that is remembered
FIELD_OVERHEAD: Final = 32  # as RFC 9113, section 6.5.2 counts

_CONNECTION_FIELDS: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_PSEUDO: Final = frozenset((b":method", b":scheme", b":authority", b":path"))
_NAME: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_FORBIDDEN_IN_VALUES: Final = (b"\0", b"\r", b"\n")


class _CountingTable(HeaderTable):
    """The dynamic table, which counts what was done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return self._maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.changes += 1
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]


class FieldDecoder(Generic[Head]):
    """The compression state of a connection. `read(fields)` makes of the fields of a request what the connection's
    owner wants to know; it may raise StreamFault, and must depend on nothing but the fields."""

    def __init__(self, read: Callable[[Fields], Head]) -> None:
        self._read = read
        self._hpack = Decoder(max_header_list_size=HARD_LIST_BYTES)
        self._table = _CountingTable()
        self._hpack.header_table = self._table
        self.known: dict[bytes, Head] = {}  # what the blocks mean that the table as it is makes nothing new of

    def decode(self, block: bytes) -> Fields:
        """The fields of a block. Raises ConnectionFault: the state of the table is not known any more."""
        changes = self._table.changes
        try:
            fields = self._hpack.decode(block, raw=True)
        except OversizedHeaderListError:
            raise ConnectionFault(ENHANCE_YOUR_CALM, f"header list over {HARD_LIST_BYTES} bytes") from None
        except (HPACKError, IndexError) as error:
            raise ConnectionFault(COMPRESSION_ERROR, f"not a header block: {error}") from None
        if self._table.changes != changes:
            self.known.clear()
        return list(fields)

    def decode_request(self, block: bytes) -> Head:
        """What `read` made of the fields of a request. Raises ConnectionFault, or StreamFault for a malformed one."""
        head = self.known.get(block)
        if head is not None:
            return head
        changes = self._table.changes
        fields = self.decode(block)
        check_request(fields)
        head = self._read(fields)
        if self._table.changes == changes and len(block) <= MAX_KNOWN_BYTES:
            if len(self.known) >= MAX_KNOWN:
                self.known.clear()
            self.known[block] = head
        return head


def list_bytes(fields: Fields) -> int:
    """The size of a header list as its limit counts it.

    >>> list_bytes([(b"te", b"trailers")])
    42
    """
    return sum(len(name) + len(value) + FIELD_OVERHEAD for name, value in fields)


def check_request(fields: Fields) -> None:
    """Raises StreamFault unless the fields are those of a well-formed request."""
    pseudo: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        if name[:1] == b":":
            if regular or name not in _PSEUDO or name in pseudo:
                raise StreamFault(PROTOCOL_ERROR, "a pseudo-header field is unknown, out of place or there twice")
            pseudo[name] = value
            _check_value(value)
        else:
            regular = True
            _check_field(name, value)
    if pseudo.get(b":method") == b"CONNECT":
        raise StreamFault(PROTOCOL_ERROR, "CONNECT is not served")
    if not (pseudo.get(b":method") and pseudo.get(b":scheme") and pseudo.get(b":path")):
        raise StreamFault(PROTOCOL_ERROR, "a request needs :method, :scheme and :path")


def check_trailers(fields: Fields) -> None:
    """Raises StreamFault unless the fields may end a request."""
    for name, value in fields:
        if name[:1] == b":":
            raise StreamFault(PROTOCOL_ERROR, "a pseudo-header field among the trailers")
        _check_field(name, value)


def _check_field(name: bytes, value: bytes) -> None:
    if not name or not _NAME.issuperset(name):
        raise StreamFault(PROTOCOL_ERROR, "a field name is empty, not lower case or has forbidden characters")
    if name in _CONNECTION_FIELDS or (name == b"te" and value.lower() != b"trailers"):
        raise StreamFault(PROTOCOL_ERROR, "a field that belongs to HTTP/1 connections")
    _check_value(value)


def _check_value(value: bytes) -> None:
    for character in _FORBIDDEN_IN_VALUES:
        if character in value:
            raise StreamFault(PROTOCOL_ERROR, "a field value has forbidden characters")
    if value != value.strip(b" \t"):
        raise StreamFault(PROTOCOL_ERROR, "a field value begins or ends with blanks")
