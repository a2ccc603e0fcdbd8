"""HTTP/1.1 as a client: the bytes of a request, and answers read within strict limits. Sans-I/O, on httptools.

Called by `gateway/upstream/http`. The peer is a server that may be broken or hostile: everything it sends is bounded
before it is kept, and what breaks a rule raises `AnswerError`, upon which the connection is closed. An answer must say
how long it is, by a length or by chunks: one that ends where the connection does cannot be told from half of one.
"""

from collections.abc import Mapping
from typing import Final

import httptools

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_HEADERS: Final = 100
MAX_AROUND_BYTES: Final = 64 * 1024  # of trailers and of what separates chunks, beside 6 bytes for each of the body
MAX_INTERIM: Final = 8  # answers of 1xx before the real one
TOKEN: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class AnswerError(Exception):
    """The peer's bytes are not an answer within the limits. Nothing after them can be trusted: close the connection."""


def encode_request_head(
    method: bytes, target: bytes, host: bytes, headers: Mapping[bytes, bytes], length: int | None
) -> bytes:
    """The head of a request whose body has `length` bytes, None for no body. Names and values must be clean (see
    `is_clean`)."""
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method, target, host)]
    lines += [b"%b: %b\r\n" % pair for pair in headers.items()]
    if length is not None:
        lines.append(b"content-length: %d\r\n" % length)
    lines.append(b"\r\n")
    return b"".join(lines)


def is_clean(name: bytes, value: bytes) -> bool:
    """Whether a header field can be sent as it is: a token, and a value without control characters.

    >>> is_clean(b"authorization", b"Bearer x"), is_clean(b"a b", b"x"), is_clean(b"a", b"x" + bytes([10]) + b"b: c")
    (True, False, False)
    """
    return bool(name) and TOKEN.issuperset(name) and all(byte >= 0x20 and byte != 0x7F for byte in value)


class AnswerReader:
    """Reads one answer at a time; made anew for each connection. `started` says that bytes of the present answer have
    come, `complete` that all have; then `status`, `headers` (names in lower case) and `body` are there."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._interim = 0
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.started = False
        self.complete = False
        self.keep_alive = False
        self._head_bytes = 0
        self._fields = 0
        self._in_body = False
        self._body_bytes = 0
        self._around_bytes = 0
        self._parts: list[bytes] = []

    @property
    def body(self) -> bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def next(self) -> None:
        """Makes ready for the answer to the next request on the same connection."""
        self._interim = 0
        self._reset()

    def feed(self, data: bytes) -> None:
        """Takes what has come. Raises `AnswerError`, also for bytes after the end of the answer."""
        if self.complete:
            raise AnswerError("it sent more than one answer")
        self.started = True
        try:
            if not self._in_body:
                # The parser keeps what it has of a field: it must not get more of a head than there may be.
                room = MAX_HEAD_BYTES - self._head_bytes
                first, data = data[:room], data[room:]
                self._head_bytes += len(first)
                self._parser.feed_data(first)
                if not self._in_body and self._head_bytes >= MAX_HEAD_BYTES:
                    raise AnswerError(f"the head of its answer has more than {MAX_HEAD_BYTES} bytes")
            if data:
                self._around_bytes += len(data)
                self._parser.feed_data(data)
                if self._around_bytes > 7 * self._body_bytes + MAX_AROUND_BYTES:
                    raise AnswerError("its answer has far more around its body than in it")
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ if isinstance(error.__context__, AnswerError) else error from None
        except httptools.HttpParserError:
            raise AnswerError("what it sent is not HTTP/1.1") from None

    # --- callbacks of httptools ---

    def on_message_begin(self) -> None:
        if self.complete:
            raise AnswerError("it sent more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        if self._fields > MAX_HEADERS:
            raise AnswerError(f"its answer has more than {MAX_HEADERS} headers")
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._in_body = True
        if self.status < 200:
            return
        self.keep_alive = self._parser.should_keep_alive()
        length = self.headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > self._max_body_bytes:
            raise AnswerError(f"its answer has {int(length)} bytes, at most {self._max_body_bytes} are allowed")
        chunked = self.headers.get(b"transfer-encoding", b"").lower() == b"chunked"
        if length is None and not chunked and self.status not in (204, 304):
            raise AnswerError("its answer does not say how long it is")
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise AnswerError("its answer is compressed, which it was not asked for")

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > self._max_body_bytes:
            raise AnswerError(f"its answer has more than {self._max_body_bytes} bytes")
        self._parts.append(data)

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self.complete = True
            return
        self._interim += 1
        if self._interim > MAX_INTERIM or self.status == 101:
            raise AnswerError("it does not come to its answer")
        self._reset()
