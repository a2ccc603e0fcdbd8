"""One gRPC client's connection: moves bytes between the socket and `wire/http2/connection`, and knows what time it is.

Made by `gateway/grpc` for each connection; requests become calls. Unary calls cost no task
and no future, and what a batch of answers writes on one connection leaves in one piece.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from hyperion.gateway.front.caller import UNKNOWN_PEER
from hyperion.gateway.grpc.call import Call
from hyperion.gateway.grpc.metadata import CallHead, read_head
from hyperion.gateway.grpc.stream_call import StreamCall
from hyperion.gateway.grpc.unary import UnaryCall
from hyperion.gateway.tls import peer_of
from hyperion.schema.call import Buffer
from hyperion.wire.grpc.framing import http_status_block
from hyperion.wire.http2.connection import Http2Connection, Http2Limits
from hyperion.wire.http2.frames import CANCEL, ENHANCE_YOUR_CALM, ConnectionFault
from hyperion.wire.http2.stream import Stream

if TYPE_CHECKING:
    from hyperion.gateway.grpc.server import GrpcServer

HIGH_WATER_BYTES: Final = 256 << 10
JOINED_BYTES: Final = 64 << 10  # larger writes leave in their pieces, uncopied
LINGER_S: Final = 1.0  # how long a client has to answer the last ping of a connection that drains, or to close it


class GrpcConnection:
    """One connection: an `asyncio.Protocol` in all but name, as a compiled class has no interpreted base."""

    def __init__(self, server: "GrpcServer") -> None:
        self.server = server
        self.now_ns = time.monotonic_ns()
        now_s = self.now_ns * 1e-9
        limits = Http2Limits(max_streams=server.tuning.max_streams)
        self.http2 = Http2Connection(self, read_head, limits, now_s)
        self.sender = self.http2.sender
        self.buffered_bytes = 0
        self.peer = UNKNOWN_PEER
        self.writers: set[StreamCall] = set()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._flushing = False
        self._heard_s = self._made_s = now_s
        self._pinged_s = 0.0
        self._drained_s = 0.0
        self._left = False
        self._closed_s = 0.0  # since when it only waits for the client to close
        self._pongs = 0
        self._progress = (0, 0)
        self._progress_s = now_s

    # --- transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the interface but not the class
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        self.peer = peer_of(transport)
        self.server.connections.add(self)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self.abort()
            return
        if len(self.server.connections) > self.server.max_connections:
            self.http2.fail(ConnectionFault(ENHANCE_YOUR_CALM, "too many connections; close some or come back later"))
        self.flush()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self.http2.end()
        self.server.forget(self)

    def eof_received(self) -> bool:
        return False  # a client that closes its side has left

    def data_received(self, data: bytes) -> None:
        self.now_ns = now_ns = time.monotonic_ns()
        self._heard_s = now_s = now_ns * 1e-9
        self._flushing = True
        self.http2.receive(data, now_s)
        self.flush()

    def pause_writing(self) -> None:
        self.sender.writable = False
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.sender.writable = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self.sender.pump()
        self.flush()

    def wake(self) -> None:
        """There is something to write; it leaves when this turn of the loop has said everything."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Writes what there is, tells those who wait for room, and closes what has ended."""
        self._flushing = False
        transport, out = self._transport, self.sender.out
        if out:
            self.sender.out = []
            if transport is not None and not transport.is_closing():
                if len(out) == 1:
                    transport.write(out[0])
                elif self._is_small(out):
                    transport.write(b"".join(out))
                else:
                    transport.writelines(out)
        if self.writers:
            for call in tuple(self.writers):
                call.look_for_room()
        if self.http2.closed:
            self.close()
        elif self._left or (self._drained_s and self.http2.pongs > self._pongs):
            self._leave()

    @staticmethod
    def _is_small(out: list[Buffer]) -> bool:
        total = 0
        for piece in out:
            total += len(piece)
            if total > JOINED_BYTES:
                return False
        return True

    def close(self) -> None:
        """Closes after what was written. A client that is told why may still be sending: only our side is closed then,
        for a while. A socket closed over unread bytes is reset, and the client would never see the reason."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._closed_s:
            return
        if self.http2.fault is not None and transport.can_write_eof():
            self._closed_s = time.monotonic()
            transport.write_eof()
        else:
            transport.close()

    def abort(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    # --- requests ---

    def on_request(self, stream: Stream) -> None:
        head: CallHead = stream.head
        if head.http_status:
            self.sender.send_head(stream, http_status_block(head.http_status), True)
            return
        method = self.server.methods.get(head.path)
        call: Call
        if method is None:
            call = UnaryCall(self, stream, self.server.unknown)
        elif method.run is not None:
            call = StreamCall(self, stream, method)
        else:
            call = UnaryCall(self, stream, method)
        stream.owner = call
        call.begin()

    def on_data(self, stream: Stream, data: Buffer) -> None:
        if stream.owner is not None:
            stream.owner.feed(data)

    def on_reset(self, stream: Stream) -> None:
        if stream.owner is not None:
            stream.owner.lost()

    # --- time ---

    def look_at_time(self, now_s: float) -> None:
        """Once a second: ends what takes too long, asks if a silent client is still there."""
        tuning = self.server.tuning
        if self._closed_s:
            if now_s - self._closed_s > LINGER_S:
                self.abort()
            return
        if self._drained_s and not self._left and now_s - self._drained_s > LINGER_S:
            self._leave()
        if not self.http2.greeted:
            if now_s - self._made_s > tuning.handshake_timeout_s:
                self.abort()
            return
        if self._pinged_s > self._heard_s:
            if now_s - self._pinged_s > tuning.keepalive_timeout_s:
                self.abort()
                return
        elif now_s - self._heard_s > tuning.keepalive_s:
            self._pinged_s = now_s
            self.http2.ping()
            self.wake()
        for stream in tuple(self.http2.streams.values()):
            if stream.owner is not None:
                stream.owner.look_at_time(now_s, self.server.body_timeout_s)
        self._look_at_unsent(now_s, self.server.body_timeout_s)
        self.wake()

    def unsent_bytes(self) -> int:
        """Bytes of answers that the client has not taken yet."""
        unsent = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return unsent + self.sender.queued_bytes

    def _look_at_unsent(self, now_s: float, timeout_s: float) -> None:
        """Ends the answers that nobody takes: all of them where not a byte has moved within the time."""
        unsent = self.unsent_bytes() - self.sender.queued_bytes
        progress = (self.sender.sent_bytes, unsent)
        if progress != self._progress or not (unsent or self.sender.queued_bytes):
            self._progress, self._progress_s = progress, now_s
        elif now_s - self._progress_s <= timeout_s:
            return
        elif unsent:
            self.abort()
        else:
            for stream in tuple(self.sender.blocked):
                self.http2.reset(stream, CANCEL)

    # --- the end ---

    def drain(self) -> None:
        """No new calls: tells the client, waits until it knows, and closes after the last answer."""
        if self._drained_s or self.http2.closed:
            return
        self._drained_s = time.monotonic()
        self._pongs = self.http2.pongs
        if not self.http2.greeted:
            self._leave()
            return
        self.http2.go_away(at_once=False)
        self.http2.ping()
        self.wake()

    def end(self) -> None:
        """Ends every call and closes, without waiting for the client."""
        self.http2.end()
        self.flush()
        if self._closed_s:
            self.abort()

    def _leave(self) -> None:
        """The client knows, or had the time to: what it opens from here on is refused, and with its last call it ends.
        Not before: a call that was on its way here would be lost with the connection."""
        if not self._left:
            self._left = True
            self.http2.go_away(at_once=True)
            self.wake()
        if not self.http2.streams and not self.sender.out:
            self.http2.end()
            self.close()
