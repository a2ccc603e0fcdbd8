"""One HTTP request and its answer: the `Reply` of the HTTP edge. Made by `gateway/http`, filled in by
`gateway/http/routes`.

Answers of pipelined requests leave in order: an exchange that is not the oldest of its connection keeps its bytes until
it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, cast

from hyperion.gateway.front.caller import Peer
from hyperion.gateway.front.guard import Visit
from hyperion.gateway.http.status import LATER, STATUS, status_line, whole_seconds
from hyperion.gateway.pending import EncodeTogether, PendingCall, Reply
from hyperion.schema.call import BatchAnswer, Buffer, InferenceAnswer
from hyperion.schema.errors import Fields, HyperionError, Unauthenticated
from hyperion.wire.oip.answer import ALL_JSON, AnswerFormat, encode_answer, encode_error, encode_together

JSON: Final = b"application/json"
BINARY: Final = b"application/octet-stream"
MAX_UNSENT_BYTES: Final = 8 << 20  # of a stream whose caller does not read
MAX_HEADS: Final = 1024
OK_LINE: Final = status_line(200)
KEPT_OPEN: Final = b"\r\nconnection: keep-alive"  # what HTTP/1.0 has to be told
REQUEST_ID: Final = b"\r\nx-request-id: "

Encode = Callable[[InferenceAnswer], bytes]


class Dated(Protocol):
    """What all connections share: the value of the date header."""

    date: bytes


class Connection(Protocol):
    """The connection that an exchange is answered on (`gateway/http`)."""

    @property
    def edge(self) -> Dated: ...
    @property
    def http_11(self) -> bool: ...
    @property
    def peer(self) -> Peer: ...
    def finish(self, exchange: "Exchange", data: bytes) -> None: ...
    def write_part(self, exchange: "Exchange", data: bytes) -> None: ...
    def unsent_bytes(self) -> int: ...
    def abort(self, _reason: str) -> None: ...


class Exchange:
    """A request that is being answered. `encode` is how this route writes an answer where it is not V2, `encode_event`
    where it is a stream; `chunked` says if the end of that stream can be told without closing the connection. `out` is
    what was written before its turn (None: nothing), `fields` are further header fields, a line break before each.
    `says_when`: it failed with an error that knew when to come back, so that nothing was tried."""

    __slots__ = (
        "body",
        "chunked",
        "connection",
        "encode",
        "encode_event",
        "ended",
        "fields",
        "format",
        "headers",
        "keep_alive",
        "method",
        "model",
        "out",
        "path",
        "pending",
        "received_ns",
        "request_id",
        "says_when",
        "started",
        "visit",
    )

    def __init__(
        self,
        connection: Connection,
        method: bytes,
        path: bytes,
        headers: dict[bytes, bytes],
        received_ns: int,
        request_id: str = "",
        body: Buffer = b"",
        keep_alive: bool = True,
        model: str = "",
        format: AnswerFormat | None = None,
        encode: Encode | None = None,
        encode_event: Encode | None = None,
        chunked: bool = False,
        pending: PendingCall | None = None,
        out: list[bytes] | None = None,
        started: bool = False,
        ended: bool = False,
    ) -> None:
        self.connection = connection
        self.method = method
        self.path = path
        self.headers = headers
        self.received_ns = received_ns
        self.request_id = request_id
        self.body = body
        self.keep_alive = keep_alive
        self.model = model
        self.format = format
        self.encode = encode
        self.encode_event = encode_event
        self.chunked = chunked
        self.pending = pending
        self.out = out
        self.started = started
        self.ended = ended
        self.fields = b""
        self.says_when = False
        self.visit: Visit | None = None

    def close_after(self) -> None:
        """The connection ends with this answer."""
        self.keep_alive = False
        self.fields = self.fields.replace(KEPT_OPEN, b"")

    # --- Reply ---

    @property
    def together(self) -> EncodeTogether | None:
        return encode_exchanges if self.format is ALL_JSON else None

    def send(self, message: bytes) -> None:
        self.connection.finish(self, message)

    def add_fields(self, fields: Fields) -> None:
        for name, value in fields:
            self.fields += b"\r\n" + name + b": " + value

    def answer(self, answer: InferenceAnswer) -> None:
        if self.encode_event is not None:
            self._stream(self.encode_event(answer), answer)
            return
        json_length: int | None = None
        parts: Sequence[Buffer]
        if self.format is not None:
            parts, json_length = encode_answer(answer, self.format)
        else:
            assert self.encode is not None
            parts = (self.encode(answer),)
        request_id = self.request_id.encode() + self.fields
        head = _make_head(answer, parts, json_length, self.connection.edge.date, request_id)
        if not self.keep_alive:
            head += b"connection: close\r\n"
        self.connection.finish(self, b"".join((head, b"\r\n", *parts)))

    def answer_again(self, head: bytes, body: bytes) -> None:
        """An answer that was written before, by `encode_again`."""
        connection = self.connection
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        start = b"".join((OK_LINE, b"date: ", connection.edge.date, REQUEST_ID, self.request_id.encode()))
        connection.finish(self, b"".join((start, self.fields, head, end, body)))

    def fail(self, error: HyperionError) -> None:
        if self.started:
            self._end_stream(b"data: " + encode_error(error.message) + b"\n\n")
            return
        extra = dict(error.fields)
        if error.retry_after_s:
            self.says_when = True
            extra[b"retry-after"] = b"%d" % whole_seconds(error.retry_after_s)
        if isinstance(error, Unauthenticated):
            # RFC 9110 (15.5.2): a 401 says which credentials it asks for; RFC 6750 (3.1): and if those shown are wrong.
            shown = b"authorization" in self.headers
            extra[b"www-authenticate"] = b'Bearer error="invalid_token"' if shown else b"Bearer"
        self.respond(STATUS[error.code], JSON, encode_error(error.message), extra)

    # --- everything that is no inference ---

    def respond(
        self, status: int, content_type: bytes, body: bytes, headers: Mapping[bytes, bytes] | None = None
    ) -> None:
        """A whole answer. To HEAD it goes without its body."""
        lines = [
            status_line(status),
            b"date: %b\r\nx-request-id: %b%b\r\n" % (self.connection.edge.date, self.request_id.encode(), self.fields),
            b"content-type: %b\r\ncontent-length: %d\r\n" % (content_type, len(body)),
        ]
        for name, value in (headers or {}).items():
            lines.append(b"%b: %b\r\n" % (name, value))
        if status in LATER and (headers is None or b"retry-after" not in headers):
            lines.append(b"retry-after: 1\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        if self.method != b"HEAD":
            lines.append(body)
        self.connection.finish(self, b"".join(lines))

    # --- server-sent events ---

    def _stream(self, event: bytes, answer: InferenceAnswer) -> None:
        if not self.started:
            self.started = True
            if not self.chunked:
                self.close_after()
            head = (
                b"HTTP/1.1 200 OK\r\ndate: %b\r\nx-request-id: %b\r\ncontent-type: text/event-stream\r\n"
                b"cache-control: no-store\r\n%b"
            ) % (
                self.connection.edge.date,
                self.request_id.encode() + self.fields,
                _model_headers(answer.version, answer.digest, answer.served_by),
            )
            if self.chunked:
                head += b"transfer-encoding: chunked\r\n"
            if not self.keep_alive:
                head += b"connection: close\r\n"
            self.connection.write_part(self, head + b"\r\n")
        if event:
            self._write_event(event)
        if answer.final:
            self._end_stream(b"")
        elif self.connection.unsent_bytes() > MAX_UNSENT_BYTES:
            self.connection.abort("it does not read its stream")

    def _write_event(self, event: bytes) -> None:
        if self.chunked:
            event = b"%x\r\n%b\r\n" % (len(event), event)
        self.connection.write_part(self, event)

    def _end_stream(self, event: bytes) -> None:
        if event:
            self._write_event(event)
        self.connection.finish(self, b"0\r\n\r\n" if self.chunked else b"")


def encode_again(answer: InferenceAnswer, format: AnswerFormat) -> tuple[bytes, bytes]:
    """An answer for `Exchange.answer_again`: its head from behind the request's id on, and its body."""
    parts, json_length = encode_answer(answer, format)
    head = _make_head(answer, parts, json_length, b"", b"")
    return head[head.index(REQUEST_ID) + len(REQUEST_ID) :], b"".join(parts)


def encode_exchanges(replies: list[Reply], answer: BatchAnswer) -> list[bytes] | None:
    """The messages for all exchanges of a batch that want plain JSON. What they share is written once."""
    bodies = encode_together(answer)
    if bodies is None:
        return None
    first = cast(Exchange, replies[0])
    start = b"%bdate: %b\r\nx-request-id: " % (OK_LINE, first.connection.edge.date)
    middle = b"\r\n%bserver-timing: queue;dur=" % _model_headers(answer.version, answer.digest, answer.served_by)
    end = b", batch;dur=%.3f, compute;dur=%.3f\r\ncontent-type: application/json\r\n" % (
        answer.batch_ns * 1e-6,
        answer.compute_ns * 1e-6,
    )
    end_and_close = end + b"connection: close\r\ncontent-length: "
    end += b"content-length: "
    messages = []
    for reply, body, queue_ns in zip(replies, bodies, answer.queue_ns, strict=True):
        exchange = cast(Exchange, reply)
        messages.append(
            b"".join(
                (
                    start,
                    exchange.request_id.encode(),
                    exchange.fields,
                    middle,
                    _milliseconds(queue_ns),
                    end if exchange.keep_alive else end_and_close,
                    _end_of_head(len(body)),
                    body,
                )
            )
        )
    return messages


_THREE_DIGITS: Final = tuple([b"%03d" % n for n in range(1000)])
_WHOLE: Final = tuple([b"%d." % n for n in range(1000)])
_ends: dict[int, bytes] = {}


def _milliseconds(duration_ns: int) -> bytes:
    """With three decimals. Formatting a float, this takes as long as everything else in the head of an answer."""
    microseconds = duration_ns // 1000
    if not 0 <= microseconds < 1_000_000:
        return b"%.3f" % (duration_ns * 1e-6)
    return _WHOLE[microseconds // 1000] + _THREE_DIGITS[microseconds % 1000]


def _end_of_head(length: int) -> bytes:
    """The length of a body and the end of the head, behind `content-length: `."""
    end = _ends.get(length)
    if end is None:
        end = b"%d\r\n\r\n" % length
        if len(_ends) >= MAX_HEADS:
            _ends.clear()
        _ends[length] = end
    return end


def _model_headers(version: str, digest: str, served_by: str) -> bytes:
    """The headers that say who answered."""
    return (
        f"x-hyperion-model-version: {version}\r\n"
        f"x-hyperion-model-digest: {digest}\r\n"
        f"x-hyperion-served-by: {served_by}\r\n"
    ).encode()


def _make_head(
    answer: InferenceAnswer, parts: Sequence[Buffer], json_length: int | None, date: bytes, request_id: bytes
) -> bytes:
    """The head of an answer that is no batch's, but for its last line. `parts` are the body's, `json_length` is how
    much of it is JSON where not all of it is."""
    size = len(parts[0]) if len(parts) == 1 else sum([memoryview(part).nbytes for part in parts])
    head = _answer_head(answer) % (
        date,
        request_id,
        answer.queue_ns * 1e-6,
        answer.batch_ns * 1e-6,
        answer.compute_ns * 1e-6,
        JSON if json_length is None else BINARY,
        size,
    )
    return head if json_length is None else head + b"inference-header-content-length: %d\r\n" % json_length


_heads: dict[tuple[str, str, str], bytes] = {}


def _answer_head(answer: InferenceAnswer) -> bytes:
    """The head of an answer with places for what differs from one to the next."""
    key = (answer.version, answer.digest, answer.served_by)
    head = _heads.get(key)
    if head is None:
        head = (
            OK_LINE
            + b"date: %b\r\nx-request-id: %b\r\n"
            + _model_headers(*key).replace(b"%", b"%%")
            + b"server-timing: queue;dur=%.3f, batch;dur=%.3f, compute;dur=%.3f\r\n"
            + b"content-type: %b\r\ncontent-length: %d\r\n"
        )
        if len(_heads) >= MAX_HEADS:
            _heads.clear()
        _heads[key] = head
    return head
