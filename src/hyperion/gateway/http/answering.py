"""The half of an HTTP connection that answers: exchanges in the order of their requests, and its end behind the last.

The base of `gateway/http/protocol`, which reads the requests.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from hyperion.gateway.front.caller import UNKNOWN_PEER
from hyperion.gateway.http.exchange import Exchange

if TYPE_CHECKING:
    from hyperion.gateway.http.edge import HttpEdge

LINGER_S: Final = 2.0


class AnsweringConnection:
    """Until `_expected_s` the client has time to do what is expected of it."""

    __slots__ = (
        "_closing",
        "_exchanges",
        "_expected_s",
        "_held_bytes",
        "_lingering",
        "_reading",
        "_transport",
        "_writable",
        "edge",
        "http_11",
        "peer",
    )

    def __init__(self, edge: "HttpEdge") -> None:
        self.edge = edge
        self.peer = UNKNOWN_PEER
        self.http_11 = True  # whether the newest request is HTTP/1.1 and not 1.0
        self._transport: asyncio.Transport | None = None
        self._exchanges: deque[Exchange] = deque()
        self._held_bytes = 0  # of answers whose turn has not come
        self._closing = False
        self._lingering = False
        self._reading = True
        self._writable = True
        self._expected_s = edge.now_s + edge.config.idle_timeout_s

    def unsent_bytes(self) -> int:
        """Bytes that the client has not taken yet, or could not."""
        return self._held_bytes + (self._transport.get_write_buffer_size() if self._transport is not None else 0)

    def abort(self, _reason: str) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def finish(self, exchange: Exchange, data: bytes) -> None:
        """The last bytes of an exchange; they leave when it is the oldest one."""
        self.write_part(exchange, data)
        exchanges = self._exchanges
        exchange.ended = True
        if not exchanges or exchanges[0] is not exchange:
            return  # what it wrote is kept until its turn comes
        exchanges.popleft()
        keep_alive = exchange.keep_alive
        while keep_alive and exchanges and exchanges[0].ended:
            following = exchanges.popleft()
            keep_alive = following.keep_alive
            self._write_held(following)
        if not keep_alive:
            self._close()
            return
        if exchanges:
            self._write_held(exchanges[0])
        else:
            self._expected_s = self.edge.now_s + self.edge.config.idle_timeout_s
        if not self._reading:
            self._read_or_pause()

    def write_part(self, exchange: Exchange, data: bytes) -> None:
        """Some bytes of an exchange, now or when its turn comes."""
        if self._exchanges and self._exchanges[0] is exchange:
            self._write(data)
            return
        self._held_bytes += len(data)
        if exchange.out is None:
            exchange.out = [data]
        else:
            exchange.out.append(data)

    def _write_held(self, exchange: Exchange) -> None:
        """What was kept of an exchange whose turn has come."""
        if exchange.out is not None:
            data = b"".join(exchange.out)
            exchange.out = None
            self._held_bytes -= len(data)
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(data)

    def _read_or_pause(self) -> None:
        """Reads only while the client takes its answers and not too many of its requests are open."""
        raise NotImplementedError

    def _close(self) -> None:
        """Closes after what was written. While the client is still sending, only our side is closed, for a while: a
        socket closed over unread bytes is reset, and the client would never see the refusal."""
        self._closing = True
        self._leave_exchanges()
        transport = self._transport
        if transport is None:
            return
        self._expected_s = self.edge.now_s + LINGER_S
        if self._lingering and transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def _leave_exchanges(self) -> None:
        """Nobody waits for them any more."""
        for exchange in self._exchanges:
            if exchange.pending is not None:
                exchange.pending.cancel()
        self._exchanges.clear()
