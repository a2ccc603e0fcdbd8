"""The server's side of an HTTP/2 connection (RFC 9113): bytes in to requests, answers to bytes out.

Made by the gateway for each gRPC connection. Bytes come in through `receive`, which tells an `Http2Events` what they
mean; what is to be written lies in `sender.out`. Every limit is checked before anything is kept: header blocks,
streams, windows, and the patience for frames that carry nothing. Never here: sockets, clocks, gRPC.
"""

from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct

from hyperion.schema.call import Buffer
from hyperion.wire.http2.fields import FieldDecoder, Fields, check_trailers
from hyperion.wire.http2.frames import (
    ACK,
    CANCEL,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    MAX_STREAM_ID,
    NO_ERROR,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    ConnectionFault,
    StreamFault,
    goaway_frame,
    ping_frame,
    read_settings,
    reset_frame,
    settings_frame,
    window_frame,
)
from hyperion.wire.http2.input import FrameReader
from hyperion.wire.http2.send import Sender
from hyperion.wire.http2.stream import (
    ANSWERED,
    DEFAULT_WINDOW,
    ODD_FRAME,
    OUR_RESET,
    PING_POINTS,
    SETTINGS_POINTS,
    TINY_BYTES,
    YOUNG_RESET,
    YOUNG_S,
    Patience,
    Stream,
)

__all__ = ["Http2Connection", "Http2Events", "Http2Limits"]

MAX_SETTINGS: Final = 64  # of one frame
MAX_REMEMBERED: Final = 2048  # streams that are over, twice; to tell late frames from wrong ones


class Http2Limits(Struct, frozen=True):
    """What the server offers. A window is how many bytes a client may send ahead."""

    max_streams: int = 1024
    stream_window_bytes: int = 4 << 20
    connection_window_bytes: int = 16 << 20
    frame_bytes: int = 1 << 20
    list_bytes: int = 16 << 10


class RequestHead(Protocol):
    """What the connection itself must know of a request: how long it says to be, -1 if it does not say."""

    @property
    def content_length(self) -> int: ...


class Http2Events(Protocol):
    """Who serves the requests. Called from within `receive`; may answer at once."""

    def on_request(self, stream: Stream) -> None:
        """A new stream, with `head` and maybe already `remote_ended`."""
        ...

    def on_data(self, stream: Stream, data: Buffer) -> None:
        """More of the request, to be copied where it is kept; the last of it if `remote_ended`."""
        ...

    def on_reset(self, stream: Stream) -> None:
        """The stream is gone; nothing can be answered any more."""
        ...


class Http2Connection:
    """One connection. `read` is the decoder's (`fields`). After `closed` nothing more is read."""

    def __init__(
        self, events: Http2Events, read: Callable[[Fields], RequestHead], limits: Http2Limits, now_s: float
    ) -> None:
        self.streams: dict[int, Stream] = {}
        self.closed = False
        self.fault: ConnectionFault | None = None
        self.pongs = 0
        self._patience = Patience(now_s)
        self.sender = Sender(self._answered, self._patience)
        self._input = FrameReader(self, limits.frame_bytes)
        self._events = events
        self._limits = limits
        self._decoder: FieldDecoder[RequestHead] = FieldDecoder(read)
        self._now_s = now_s
        self._data_flags = 0
        self._data_stream: Stream | None = None
        self._last_id = 0
        self._most_id = MAX_STREAM_ID  # streams above are not served any more
        self._window = limits.connection_window_bytes
        self._over: dict[int, bool] = {}  # streams that are over; True where late frames are no fault
        self._over_before: dict[int, bool] = {}
        out = self.sender.out
        out.append(
            settings_frame(
                {
                    MAX_CONCURRENT_STREAMS: limits.max_streams,
                    INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
                    MAX_FRAME_SIZE: limits.frame_bytes,
                    MAX_HEADER_LIST_SIZE: limits.list_bytes,
                }
            )
        )
        out.append(window_frame(0, limits.connection_window_bytes - DEFAULT_WINDOW))

    # --- bytes in ---

    def receive(self, data: bytes, now_s: float) -> None:
        """Takes what has arrived at `now_s`. Never raises: a fault of the peer ends the connection."""
        if self.closed:
            return
        self._now_s = now_s
        try:
            self._input.feed(data)
        except ConnectionFault as fault:
            self.fail(fault)

    @property
    def greeted(self) -> bool:
        """If the client has shown that it speaks HTTP/2."""
        return self._input.greeted

    # --- data ---

    def begin_data(self, stream_id: int, size: int, flags: int) -> None:
        """Counts a DATA frame of `size` bytes against the windows."""
        self._window -= size
        limits = self._limits
        if self._window < limits.connection_window_bytes >> 1:
            if self._window < 0:
                raise ConnectionFault(FLOW_CONTROL_ERROR, "more data than the connection's window")
            self.sender.out.append(window_frame(0, limits.connection_window_bytes - self._window))
            self._window = limits.connection_window_bytes
        self._data_flags = flags
        stream = self._data_stream = self.streams.get(stream_id)
        if size < TINY_BYTES and not flags & END_STREAM:
            self._patience.charge(ODD_FRAME, self._now_s, "tiny pieces of data")
        if stream is None:
            self._check_over(stream_id)
            return
        if stream.remote_ended:
            self._data_stream = None
            self.reset(stream, STREAM_CLOSED, at_fault=True)
            return
        stream.receive_window -= size
        if stream.receive_window < limits.stream_window_bytes >> 1:
            if stream.receive_window < 0:
                self._data_stream = None
                self.reset(stream, FLOW_CONTROL_ERROR, at_fault=True)
            elif not stream.withheld and not flags & END_STREAM:
                self._fill_window(stream)

    def take_data(self, data: Buffer, whole: bool) -> None:
        """A piece of the data of that frame; the last of it if `whole`."""
        stream = self._data_stream
        if stream is None or stream.closed:
            return
        stream.received_bytes += len(data)
        expected = stream.head.content_length
        ended = whole and self._data_flags & END_STREAM
        if expected >= 0 and (stream.received_bytes > expected or (ended and stream.received_bytes != expected)):
            self.reset(stream, PROTOCOL_ERROR, at_fault=True)
            return
        if ended:
            stream.remote_ended = True
        elif not len(data):
            return
        self._events.on_data(stream, data)

    def _fill_window(self, stream: Stream) -> None:
        size = self._limits.stream_window_bytes - stream.receive_window
        stream.receive_window += size
        self.sender.out.append(window_frame(stream.id, size))

    def withhold(self, stream: Stream, withheld: bool) -> None:
        """Lets the client send on only while `withheld` is False; what is in the window may come nevertheless."""
        stream.withheld = withheld
        limit = self._limits.stream_window_bytes
        if not withheld and not stream.closed and not stream.remote_ended and stream.receive_window < limit >> 1:
            self._fill_window(stream)

    # --- headers ---

    def take_block(self, flags: int, stream_id: int, block: bytes) -> None:
        """A whole header block: a request, trailers, or a mistake."""
        ended = bool(flags & END_STREAM)
        if stream_id <= self._last_id:
            self._take_late_headers(self.streams.get(stream_id), stream_id, block, ended)
            return
        if not stream_id & 1:
            raise ConnectionFault(PROTOCOL_ERROR, "a client's streams have odd numbers")
        self._last_id = stream_id
        try:
            head = self._decoder.decode_request(block)
            if stream_id > self._most_id or len(self.streams) >= self._limits.max_streams:
                raise StreamFault(REFUSED_STREAM, "not served any more")
            if ended and head.content_length > 0:
                raise StreamFault(PROTOCOL_ERROR, "a body shorter than its content-length")
        except StreamFault as fault:
            self._refuse(stream_id, fault.code)
            return
        stream = Stream(
            stream_id, head, ended, self.sender.stream_window, self._limits.stream_window_bytes, self._now_s
        )
        self.streams[stream_id] = stream
        self._events.on_request(stream)

    def _take_late_headers(self, stream: Stream | None, stream_id: int, block: bytes, ended: bool) -> None:
        """Headers of a stream that was opened before: trailers, or a mistake."""
        fields = self._decoder.decode(block)
        if stream is None:
            self._check_over(stream_id)
            return
        try:
            if stream.remote_ended:
                raise StreamFault(STREAM_CLOSED, "headers after the end")
            if not ended:
                raise StreamFault(PROTOCOL_ERROR, "headers in the middle of a request")
            check_trailers(fields)
            if stream.head.content_length not in (-1, stream.received_bytes):
                raise StreamFault(PROTOCOL_ERROR, "a body shorter than its content-length")
        except StreamFault as fault:
            self.reset(stream, fault.code, at_fault=True)
            return
        stream.remote_ended = True
        self._events.on_data(stream, b"")

    def _refuse(self, stream_id: int, code: int) -> None:
        """A stream that is not even opened."""
        points = ODD_FRAME if code == REFUSED_STREAM else OUR_RESET
        self._patience.charge(points, self._now_s, "requests that cannot be served")
        self._remember(stream_id, True)
        self.sender.out.append(reset_frame(stream_id, code))

    # --- control ---

    def take_unknown(self) -> None:
        """A frame of a type that nobody knows."""
        self._patience.charge(ODD_FRAME, self._now_s)

    def take_control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """A frame that is neither data nor headers."""
        if kind == WINDOW_UPDATE:
            self._take_window_update(stream_id, payload)
        elif kind == RST_STREAM:
            self._take_reset(stream_id, payload)
        elif kind == SETTINGS:
            self._take_settings(flags, stream_id, payload)
        elif kind == PING:
            self._take_ping(flags, stream_id, payload)
        elif kind == PRIORITY:
            self._take_priority(stream_id, payload)
        else:
            assert kind == GOAWAY
            self._patience.charge(PING_POINTS, self._now_s)
            if stream_id or len(payload) < 8:
                raise ConnectionFault(PROTOCOL_ERROR if stream_id else FRAME_SIZE_ERROR, "not a GOAWAY")

    def _take_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "settings of a stream")
        if flags & ACK:
            if payload:
                raise ConnectionFault(FRAME_SIZE_ERROR, "an acknowledgement with settings")
            return
        if len(payload) % 6:
            raise ConnectionFault(FRAME_SIZE_ERROR, "settings of a broken length")
        if len(payload) > MAX_SETTINGS * 6:
            raise ConnectionFault(ENHANCE_YOUR_CALM, f"more than {MAX_SETTINGS} settings")
        self._patience.charge(SETTINGS_POINTS, self._now_s, "settings")
        self.sender.out.append(SETTINGS_ACK)
        self.sender.apply_settings(read_settings(payload), self.streams)

    def _take_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "a ping of a stream")
        if len(payload) != 8:
            raise ConnectionFault(FRAME_SIZE_ERROR, "a ping has 8 bytes")
        self._patience.charge(PING_POINTS, self._now_s, "pings")
        if flags & ACK:
            self.pongs += 1
        else:
            self.sender.out.append(ping_frame(payload, True))

    def _take_window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "a window update has 4 bytes")
        self._patience.charge(ODD_FRAME, self._now_s, "window updates")
        size = int.from_bytes(payload) & MAX_STREAM_ID
        if not stream_id:
            self.sender.widen(None, size)
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_opened(stream_id)
            return
        try:
            self.sender.widen(stream, size)
        except StreamFault as fault:
            self.reset(stream, fault.code, at_fault=True)

    def _take_reset(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "a reset has 4 bytes")
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_opened(stream_id)
            return
        self._drop(stream, False)
        self._events.on_reset(stream)
        if self._now_s - stream.opened_s < YOUNG_S:
            self._patience.charge(YOUNG_RESET, self._now_s, "calls that are given up at once")

    def _take_priority(self, stream_id: int, payload: bytes) -> None:
        self._patience.charge(ODD_FRAME, self._now_s)
        if not stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "a priority without a stream")
        if len(payload) != 5:
            stream = self.streams.get(stream_id)
            if stream is None:
                raise ConnectionFault(FRAME_SIZE_ERROR, "a priority has 5 bytes")
            self.reset(stream, FRAME_SIZE_ERROR, at_fault=True)

    # --- streams that are over ---

    def _check_opened(self, stream_id: int) -> None:
        """Raises ConnectionFault if the stream was never opened."""
        if stream_id > self._last_id or not stream_id & 1:
            raise ConnectionFault(PROTOCOL_ERROR, "a frame of a stream that is not open")

    def _check_over(self, stream_id: int) -> None:
        """For data and headers of a stream that is not open: raises ConnectionFault unless they may just be late."""
        self._check_opened(stream_id)
        late = self._over.get(stream_id, self._over_before.get(stream_id))
        if late is None:
            raise ConnectionFault(PROTOCOL_ERROR, "a stream number below the last one")
        if not late:
            raise ConnectionFault(STREAM_CLOSED, "a frame of a stream that is over")

    def _remember(self, stream_id: int, late: bool) -> None:
        self._over[stream_id] = late
        if len(self._over) >= MAX_REMEMBERED:
            self._over_before = self._over
            self._over = {}

    def _drop(self, stream: Stream, late: bool) -> None:
        stream.closed = True
        del self.streams[stream.id]
        self._remember(stream.id, late)
        self.sender.forget(stream)

    def _answered(self, stream: Stream) -> None:
        """For the sender: the whole answer is on its way."""
        if not stream.remote_ended:  # the rest of the request is not wanted (RFC 9113, section 8.1)
            self.sender.out.append(reset_frame(stream.id, NO_ERROR))
        self._patience.earn(ANSWERED)
        self._drop(stream, not stream.remote_ended)

    def reset(self, stream: Stream, code: int = CANCEL, *, at_fault: bool = False) -> None:
        """Ends a stream without an answer, or without the rest of it."""
        if stream.closed:
            return
        self.sender.out.append(reset_frame(stream.id, code))
        self._drop(stream, True)
        self._events.on_reset(stream)
        if at_fault:
            self._patience.charge(OUR_RESET, self._now_s, "streams that broke the rules")

    # --- the end ---

    def go_away(self, *, at_once: bool) -> None:
        """No more streams: a warning first, and then (`at_once`) for good."""
        if self.closed:
            return
        if at_once:
            self._most_id = self._last_id
        self.sender.out.append(goaway_frame(self._last_id if at_once else MAX_STREAM_ID, NO_ERROR))

    def ping(self) -> None:
        """Asks if the peer is there; `pongs` counts its answers."""
        self.sender.out.append(ping_frame(b"hyperion", False))

    def fail(self, fault: ConnectionFault) -> None:
        """Ends the connection for a fault of the peer."""
        if self.closed:
            return
        self.fault = fault
        self.sender.out.append(goaway_frame(self._last_id, fault.code, fault.message))
        self.end()

    def end(self) -> None:
        """The connection is gone, and every stream with it."""
        self.closed = True
        for stream in tuple(self.streams.values()):
            self._drop(stream, True)
            self._events.on_reset(stream)
