"""An HTTP edge without sockets: bytes go in by hand, what it writes is kept, requests are answered as a test wants."""

from collections.abc import Callable
from typing import Any

import msgspec

from hyperion.gateway.http.edge import HttpEdge
from hyperion.gateway.http.exchange import Exchange
from hyperion.gateway.http.protocol import HttpConnection
from hyperion.gateway.http.refusals import Refusals
from hyperion.schema.config import GatewayConfig
from hyperion.schema.errors import HyperionError

CONFIG = GatewayConfig("", "", max_body_bytes=100_000)


class Wire:
    """The transport of one connection."""

    def __init__(self) -> None:
        self.protocol: Any = None
        self.tls: Any = None
        self.written = b""
        self.closed = False
        self.ended = False
        self.reading = True

    def write(self, data: bytes) -> None:
        assert not self.ended, "written after the end"
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return self.tls if name == "sslcontext" else None

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def deliver(self, data: bytes) -> None:
        """To whoever receives now, as a loop does: in its own buffer if it has one."""
        while data:
            if not hasattr(self.protocol, "get_buffer"):
                self.protocol.data_received(data)
                return
            buffer = self.protocol.get_buffer(len(data))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self.protocol.buffer_updated(size)
            data = data[size:]

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Seen(msgspec.Struct, frozen=True):
    """A request as the routes see it: all but the header content-length, which none of them reads."""

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]
    body: bytes


class Edge:
    """An edge whose requests wait in `open` until the test answers them; each answer repeats what was seen."""

    def __init__(self, at_once: bool = True, config: GatewayConfig = CONFIG) -> None:
        self.seen: list[Seen] = []
        self.open: list[Exchange] = []
        self.refusals: list[HyperionError] = []
        self._at_once = at_once
        self._ids = 0
        self.edge = HttpEdge(
            config,
            self._serve,
            self._new_id,
            lambda _exchange, error: self.refusals.append(error),
            Refusals(lambda *_: None),
        )
        self.edge.date = b"now"

    def _new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids}"

    def _serve(self, exchange: Exchange) -> None:
        headers = {name: value for name, value in exchange.headers.items() if name != b"content-length"}
        self.seen.append(Seen(exchange.method, exchange.path, headers, exchange.body))
        if self._at_once:
            self.answer(exchange)
        else:
            self.open.append(exchange)

    def answer(self, exchange: Exchange) -> None:
        text = b"%b %b %b" % (exchange.method, exchange.path, exchange.body)
        exchange.respond(200, b"text/plain", text, {b"x-1-1": b"%d" % exchange.connection.http_11})

    def connect(self) -> tuple[HttpConnection, Wire]:
        connection, wire = self.edge.make_connection(), Wire()
        transport: Any = wire
        wire.protocol = connection
        connection.connection_made(transport)
        return connection, wire


def feed(wire: Wire, pieces: list[bytes], after: Callable[[], None] = lambda: None) -> None:
    """As a loop does: piece by piece, as long as the connection is open."""
    for piece in pieces:
        if wire.closed:
            return
        wire.deliver(piece)
        after()
