"""HTTP/1.1 in a thin asyncio.Protocol: bytes to exchanges, with strict limits, in order, under back-pressure.

llhttp (through httptools) does the parsing and refuses what smuggles: both lengths, bad chunks, bare line feeds, folded
headers. This file adds the limits that llhttp does not have. Made by `gateway/http/edge` for each connection; requests
go to `gateway/http/routes`, answers are `gateway/http/answering`'s.
"""

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import httptools

from hyperion.gateway.http.answering import AnsweringConnection
from hyperion.gateway.http.exchange import KEPT_OPEN, Exchange
from hyperion.gateway.http.known import KnownHead, clean_id, find_body, learn_head
from hyperion.gateway.http.large_body import SMALLEST_BYTES, BodyReceiver
from hyperion.gateway.tls import peer_of
from hyperion.schema.call import Buffer
from hyperion.schema.errors import (
    ClientTooSlow,
    HeadersTooLarge,
    HyperionError,
    MalformedRequest,
    Overloaded,
    TooLarge,
    Unsupported,
)

if TYPE_CHECKING:
    from hyperion.gateway.http.edge import HttpEdge

MAX_HEAD_BYTES: Final = 16 << 10
MAX_HEADERS: Final = 100
MAX_CHUNKS: Final = 65_536
MAX_PIPELINED: Final = 32
FEED_BYTES: Final = 64 << 10
MAX_BUFFERED_BYTES: Final = 2 << 30  # bodies that are still arriving, over all connections
PROGRESS_BYTES: Final = 64 << 10  # a body that gains this much within the timeout is not slow
MAX_VOID_BYTES: Final = 64 << 10  # trailers and chunk extensions in a row, without a byte of body
ONCE: Final = frozenset(
    (b"host", b"inference-header-content-length", b"authorization", b"content-encoding", b"idempotency-key")
)


class HttpConnection(AnsweringConnection):
    """One client's connection: an `asyncio.Protocol` in all but name, as a compiled class has no interpreted base. The
    parser's callbacks build an exchange."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_chunks",
        "_exchange",
        "_expected_bytes",
        "_head_began",
        "_head_bytes",
        "_headers",
        "_in_head",
        "_known_head",
        "_parser",
        "_progress_bytes",
        "_receiver",
        "_unfed",
        "_unsent_bytes",
        "_url",
        "_void_bytes",
    )

    def __init__(self, edge: "HttpEdge") -> None:
        super().__init__(edge)
        self._parser = httptools.HttpRequestParser(self)
        self._unfed: deque[memoryview] = deque()
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._head_began = False
        self._in_head = False
        self._exchange: Exchange | None = None
        self._known_head: KnownHead | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._expected_bytes = 0  # of the body; 0 where it comes in chunks
        self._receiver: BodyReceiver | None = None
        self._chunks = 0
        self._progress_bytes = 0
        self._void_bytes = 0
        self._unsent_bytes = 0  # when it was last looked at

    # --- transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the interface but not the class
        self.peer = peer_of(transport)
        self.edge.connections.add(self)
        if len(self.edge.connections) > self.edge.config.max_connections or self.edge.draining:
            self._stop(Overloaded("too many connections; close some or come back later", retry_after_s=1.0))

    def connection_lost(self, _exc: Exception | None) -> None:
        self.edge.connections.discard(self)
        self.edge.look_if_empty()
        self._transport = None
        self._receiver = None
        self._forget_body()
        self._unfed.clear()
        self._leave_exchanges()

    def eof_received(self) -> bool:
        # As in nginx, a client that closes its side has left: its work is cancelled, not finished for nobody.
        return False

    def pause_writing(self) -> None:
        self._writable = False
        self._read_or_pause()

    def resume_writing(self) -> None:
        self._writable = True
        self._read_or_pause()

    # --- bytes in ---

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return  # refused; what still arrives is read and dropped, so that the refusal reaches its sender
        if self._unfed or not self._reading or self._receiver is not None or len(data) > FEED_BYTES:
            self._unfed.append(memoryview(data))
            self._feed_rest()
        else:
            self._feed(data)

    def _feed_rest(self) -> None:
        """Feeds what was kept back, as long as not too many requests wait for their answers."""
        while self._unfed and not self._closing and self._reading:
            data = self._unfed.popleft()
            if self._receiver is not None:
                size = self._receiver.put(data)
                self.body_grew(size)
            else:
                size = min(len(data), FEED_BYTES)
                self._feed(bytes(data[:size]))
            if size < len(data) and not self._closing:
                self._unfed.appendleft(data[size:])

    def _feed(self, data: bytes) -> None:
        if self._closing:
            return
        between = not self._in_head and self._exchange is None
        if between:
            # What llhttp says of a head does not depend on the connection: a new one begins with what another learnt.
            known = self._known_head or self.edge.newest_head
            if known is not None and self._serve_known(known, data):
                return
        self._head_began = False
        body_bytes = self._body_bytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, HyperionError):
                self._stop(cause)
                return
            raise
        except httptools.HttpParserError as error:
            self._stop(MalformedRequest(f"not a valid HTTP/1.1 request: {error}"))
            return
        if self._in_head:
            # Where it began in `data` is not known, so the first piece counts by its finished headers only.
            self._head_bytes += 0 if self._head_began else len(data)
            if self._head_bytes > 2 * MAX_HEAD_BYTES:
                self._stop(HeadersTooLarge(f"the request's head is over the limit of {MAX_HEAD_BYTES} bytes"))
                return
        elif self._exchange is not None:
            # llhttp holds a trailer that does not end, as it holds a header.
            self._void_bytes = self._void_bytes + len(data) if self._body_bytes == body_bytes else 0
            if self._void_bytes > MAX_VOID_BYTES:
                self._stop(HeadersTooLarge(f"more than {MAX_VOID_BYTES} bytes of the body are no data"))
                return
            if self._expected_bytes - self._body_bytes >= SMALLEST_BYTES:
                self._receive_large()
        elif between:
            learned = learn_head(data, self._parser.get_method(), self._url, self._headers) if self.http_11 else None
            self._known_head = learned
            self.edge.newest_head = learned or self.edge.newest_head
        if len(self._exchanges) >= MAX_PIPELINED:
            self._read_or_pause()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Reads the request that asked for an upgrade once more without it, as the last one of its connection: llhttp
        leaves out the body of such a request, and clients that would rather speak HTTP/2 send one."""
        if self._parser.get_method() == b"CONNECT":
            self._closing = True  # it was answered; what follows is not HTTP
            return
        headers = {name: value for name, value in self._headers.items() if name not in (b"upgrade", b"connection")}
        lines = [b"%b: %b\r\n" % header for header in headers.items()]
        self._parser, method = httptools.HttpRequestParser(self), self._parser.get_method()
        self._feed(b"%b %b HTTP/1.1\r\n%bconnection: close\r\n\r\n%b" % (method, self._url, b"".join(lines), rest))

    def _serve_known(self, known: KnownHead, data: bytes) -> bool:
        """Serves `data` if it is one whole request whose head differs from an earlier one of this connection in its
        length only: what llhttp said of that head holds for this one. Spares the usual keep-alive client a third of the
        parsing."""
        body_start = find_body(known, data, self.edge.config.max_body_bytes)
        if not body_start or self.edge.draining:
            return False
        self.http_11 = True
        if self.edge.refusals.standing and not self._exchanges and self._refuse_known(known):
            return True
        exchange = Exchange(
            self,
            known.method,
            known.path,
            known.headers,
            time.monotonic_ns(),
            known.request_id or self.edge.new_request_id(),
            data[body_start:],
        )
        self._exchanges.append(exchange)
        self.edge.serve(exchange)
        if len(self._exchanges) >= MAX_PIPELINED:
            self._read_or_pause()
        return True

    def _refuse_known(self, known: KnownHead) -> bool:
        """Answers from a refusal that stands, if there is one."""
        edge = self.edge
        answer = edge.refusals.answer(known, edge.date, edge.new_request_id)
        if not answer:
            return False
        self._expected_s = edge.now_s + edge.config.idle_timeout_s
        self._write(answer)
        return True

    def _receive_large(self) -> None:
        """Lets the rest of a body come past the parser, which would only copy it. The parser begins anew behind it."""
        body = self.edge.body_memory.take(self._expected_bytes)
        if body is None or self._transport is None:
            return
        self._receiver = BodyReceiver(self, body)
        for piece in self._body:
            self._receiver.put(piece)
        self._body = []
        self._parser = httptools.HttpRequestParser(self)
        if self._transport.get_extra_info("sslcontext") is None:
            self._transport.set_protocol(self._receiver)

    def body_grew(self, size: int) -> None:
        """For the receiver: `size` more bytes of the body are there."""
        try:
            self._count_body(size)
        except HyperionError as error:
            self._stop(error)
            return
        receiver = self._receiver
        if receiver is not None and receiver.complete:
            self._end_receiver()
            self._complete(receiver.body)

    def _end_receiver(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None and self._transport is not None and self._transport.get_protocol() is receiver:
            self._transport.set_protocol(cast(asyncio.Protocol, self))

    def _read_or_pause(self) -> None:
        """Reads only while the client takes its answers and not too many of its requests are open."""
        if self._transport is None or self._transport.is_closing():
            return
        reading = self._writable and len(self._exchanges) < MAX_PIPELINED
        if reading and not self._reading:
            self._reading = True
            if self._in_head or self._exchange is not None:
                # What it was sending could not arrive: its time begins anew.
                self._expected_s = self.edge.now_s + self.edge.config.body_timeout_s
            self._transport.resume_reading()
            self._feed_rest()
        elif not reading and self._reading:
            self._reading = False
            self._transport.pause_reading()

    # --- parser callbacks ---

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = {}
        self._head_bytes = 0
        self._in_head = self._head_began = True
        self._chunks = 0
        self._expected_s = self.edge.now_s + self.edge.config.header_timeout_s

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url
        if len(self._url) > MAX_HEAD_BYTES:
            raise HeadersTooLarge(f"the request line is over the limit of {MAX_HEAD_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # trailers carry nothing that we use
        headers = self._headers
        name = name.lower()
        if name in headers:
            if name in ONCE:
                raise MalformedRequest(f'header "{name.decode("latin-1")}" is there twice')
            value = headers[name] + b", " + value
        headers[name] = value
        self._head_bytes += len(name) + len(value) + 4
        if len(headers) > MAX_HEADERS or self._head_bytes > MAX_HEAD_BYTES:
            raise HeadersTooLarge(f"the headers are over the limit of {MAX_HEADERS} or {MAX_HEAD_BYTES} bytes")

    def on_headers_complete(self) -> None:
        self._in_head = False
        headers = self._headers
        parser = self._parser
        if parser.should_upgrade() and parser.get_method() != b"CONNECT":
            return
        exchange = Exchange(self, parser.get_method(), self._url, headers, time.monotonic_ns())
        version = parser.get_http_version()
        self.http_11 = version == "1.1"
        exchange.keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
        if self.edge.draining:
            self._let_follow(exchange)
        elif exchange.keep_alive and not self.http_11:
            exchange.fields = KEPT_OPEN
        given = headers.get(b"x-request-id")
        exchange.request_id = (given and clean_id(given)) or self.edge.new_request_id()
        self._exchange = exchange
        self._body_bytes = self._progress_bytes = self._void_bytes = 0
        self._expected_s = self.edge.now_s + self.edge.config.body_timeout_s
        if version not in ("1.1", "1.0"):
            raise MalformedRequest(f"HTTP/{version} is not spoken here; use HTTP/1.1")
        if b"host" not in headers and self.http_11:
            raise MalformedRequest('header "host" is missing; HTTP/1.1 requires it')
        coding = headers.get(b"transfer-encoding")
        if coding is not None and not self.http_11:
            raise MalformedRequest("HTTP/1.0 has no transfer encodings")
        if coding is not None and coding.strip().lower() != b"chunked":
            raise Unsupported("only the transfer encoding chunked is supported")
        self._expected_bytes = int(headers.get(b"content-length", 0))
        if self._expected_bytes > self.edge.config.max_body_bytes:
            raise TooLarge(
                f"a body of {self._expected_bytes} bytes is over the limit of {self.edge.config.max_body_bytes}"
            )
        if b"expect" in headers and not self._exchanges and self._transport is not None:
            if headers[b"expect"].lower() != b"100-continue":
                raise Unsupported("only the expectation 100-continue is supported")
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)
        self._count_body(len(data))

    def _count_body(self, size: int) -> None:
        self._body_bytes += size
        self.edge.buffered_bytes += size
        if self._body_bytes > self.edge.config.max_body_bytes:
            raise TooLarge(f"the body is over the limit of {self.edge.config.max_body_bytes} bytes")
        if self.edge.buffered_bytes > MAX_BUFFERED_BYTES:
            raise Overloaded("too many bytes of unfinished requests are held", retry_after_s=1.0)
        if self._body_bytes - self._progress_bytes >= PROGRESS_BYTES:
            self._progress_bytes = self._body_bytes
            self._expected_s = self.edge.now_s + self.edge.config.body_timeout_s

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise TooLarge(f"the body comes in more than {MAX_CHUNKS} chunks; send larger ones")

    def on_message_complete(self) -> None:
        body = self._body
        self._complete(body[0] if len(body) == 1 else b"".join(body))

    def _let_follow(self, exchange: Exchange) -> None:
        """While the edge drains, the newest exchange of a connection is its last one."""
        exchange.keep_alive = False
        if self._exchanges:
            before = self._exchanges[-1]
            before.keep_alive = before.ended or before.chunked or not before.started

    def _complete(self, body: Buffer) -> None:
        """Serves the request that has now arrived whole."""
        exchange = self._exchange
        if exchange is None:
            return
        self._exchange = None
        if len(body):
            exchange.body = body
            self._forget_body()
        self._exchanges.append(exchange)
        self.edge.serve(exchange)

    def _forget_body(self) -> None:
        self.edge.buffered_bytes -= self._body_bytes
        self._body_bytes = 0
        self._body = []

    # --- ends ---

    def _stop(self, error: HyperionError) -> None:
        """Refuses what is arriving and closes, after the answers to what came before."""
        self._closing = self._lingering = True
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()
        self._unfed.clear()
        self._end_receiver()
        self._forget_body()
        exchange = self._exchange or Exchange(self, b"", b"", {}, time.monotonic_ns())
        self._exchange = None
        exchange.close_after()
        exchange.request_id = exchange.request_id or self.edge.new_request_id()
        self._exchanges.append(exchange)
        self.edge.refused(exchange, error)
        exchange.fail(error)

    def look_at_time(self, now_s: float) -> None:
        """Ends the connection if its client takes too long to send or to read, or has nothing to ask any more."""
        if now_s < self._expected_s:
            return
        unsent = self.unsent_bytes() - self._held_bytes
        before, self._unsent_bytes = self._unsent_bytes, unsent
        if unsent:
            if unsent == before:
                self.abort("it does not read its answers")
                return
            self._expected_s = now_s + self.edge.config.body_timeout_s
        elif self._closing:
            if not self._exchanges:
                self.abort("it did not close its side in time")
        elif self._in_head or self._exchange is not None:
            if self._reading:
                self._stop(ClientTooSlow("the request did not arrive in time; send it faster"))
        elif not self._exchanges:
            self.close_if_idle()

    def drain(self) -> None:
        """Closes after the answer to what is there or arriving, which says so; now if there is nothing."""
        if self._exchange is not None:
            self._exchange.close_after()
        elif self._exchanges and not self._in_head:
            self._exchanges[-1].close_after()
        else:
            self.close_if_idle()

    def close_if_idle(self) -> None:
        """Closes unless a request is arriving or being answered."""
        if not self._exchanges and self._exchange is None and not self._in_head and self._transport is not None:
            self._close()
