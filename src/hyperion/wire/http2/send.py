"""The sending half of an HTTP/2 connection: answers to frames, within the windows that the peer opens.

Owned by `connection`. Whoever moves the bytes takes them from `out`. Never here: sockets, waiting.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from hyperion.schema.call import Buffer
from hyperion.wire.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_HEAD,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    MAX_WINDOW,
    PROTOCOL_ERROR,
    ConnectionFault,
    StreamFault,
    frame,
)
from hyperion.wire.http2.stream import DEFAULT_WINDOW, SENT_FRAME, Patience, Stream

__all__ = ["Sender"]

_ENABLE_PUSH: Final = 2
_SMALLEST_FRAME: Final = 16_384
_LARGEST_FRAME: Final = 2**24 - 1
_OUR_LARGEST_FRAME: Final = 256 * 1024  # so that one large answer leaves the others their turn
_pack = FRAME_HEAD.pack


class Sender:
    """What goes out. `ended(stream)` is called when the last byte of an answer is in `out`.

    `writable` is the transport's word: while it is False, data waits here, where `queued_bytes` counts it.
    """

    def __init__(self, ended: Callable[[Stream], None], patience: Patience) -> None:
        self.out: list[Buffer] = []
        self.writable = True
        self.queued_bytes = 0
        self.sent_bytes = 0  # data, ever
        self.window = DEFAULT_WINDOW
        self.stream_window = DEFAULT_WINDOW
        self.blocked: dict[Stream, None] = {}
        self._frame_bytes = _SMALLEST_FRAME
        self._ended = ended
        self._patience = patience

    # --- answers ---

    def send_answer(self, stream: Stream, head: bytes, body: bytes, trailers: bytes) -> None:
        """A whole answer: two header blocks and the data between them."""
        size = len(body)
        if size > self._frame_bytes or size > self.window or size > stream.send_window or not self.writable:
            self.send_head(stream, head)
            self.send_data(stream, body)
            self.send_trailers(stream, trailers)
            return
        self.window -= size
        stream.send_window -= size
        self.sent_bytes += size
        stream_id = stream.id
        length, trailing = len(head), len(trailers)
        self.out.append(
            b"".join(
                (
                    _pack(length >> 8, length & 0xFF, HEADERS, END_HEADERS, stream_id),
                    head,
                    _pack(size >> 8, size & 0xFF, DATA, 0, stream_id),
                    body,
                    _pack(trailing >> 8, trailing & 0xFF, HEADERS, END_HEADERS | END_STREAM, stream_id),
                    trailers,
                )
            )
        )
        stream.local_ended = True
        self._ended(stream)

    def send_head(self, stream: Stream, block: bytes, last: bool = False) -> None:
        """The first header block; `last` when nothing follows it."""
        if stream.closed or stream.local_ended:
            return
        self.out.append(frame(HEADERS, END_HEADERS | END_STREAM if last else END_HEADERS, stream.id, block))
        if last:
            stream.local_ended = True
            self._ended(stream)

    def send_data(self, stream: Stream, data: Buffer) -> None:
        """Data that leaves now or when the windows allow it."""
        if stream.closed or stream.local_ended or not len(data):
            return
        if stream.queue is None:
            stream.queue = deque()
        stream.queue.append(memoryview(data))
        stream.queued_bytes += len(data)
        self.queued_bytes += len(data)
        self.blocked[stream] = None
        self.pump()

    def send_trailers(self, stream: Stream, block: bytes) -> None:
        """The last header block, after all data."""
        if stream.closed or stream.local_ended:
            return
        stream.local_ended = True
        if stream in self.blocked:
            stream.trailers = block
            return
        self.out.append(frame(HEADERS, END_HEADERS | END_STREAM, stream.id, block))
        self._ended(stream)

    # --- flow ---

    def pump(self) -> None:
        """Sends what the windows and the transport allow, one frame of each stream in turn."""
        while self.blocked and self.window > 0 and self.writable:
            moved = False
            for stream in tuple(self.blocked):
                if stream.send_window > 0 and self.window > 0:
                    self._send_frame(stream)
                    moved = True
            if not moved:
                return

    def _send_frame(self, stream: Stream) -> None:
        queue = stream.queue
        assert queue
        room = min(self._frame_bytes, self.window, stream.send_window)
        piece = queue[0]
        if len(piece) <= room:
            queue.popleft()
        else:
            queue[0] = piece[room:]
            piece = piece[:room]
        size = len(piece)
        self.out += (_pack(size >> 8, size & 0xFF, DATA, 0, stream.id), piece)
        self.window -= size
        stream.send_window -= size
        stream.queued_bytes -= size
        self.queued_bytes -= size
        self.sent_bytes += size
        self._patience.earn(SENT_FRAME)
        if queue:
            return
        del self.blocked[stream]
        if stream.trailers is not None:
            self.out.append(frame(HEADERS, END_HEADERS | END_STREAM, stream.id, stream.trailers))
            self._ended(stream)

    def forget(self, stream: Stream) -> None:
        """The stream is gone: what waited for it is dropped."""
        if self.blocked:
            self.blocked.pop(stream, None)
        if stream.queued_bytes:
            self.queued_bytes -= stream.queued_bytes
            stream.queued_bytes = 0
        stream.queue = stream.trailers = None

    def widen(self, stream: Stream | None, size: int) -> None:
        """The peer takes `size` more bytes of a stream, or of all (None). Raises StreamFault or ConnectionFault."""
        if stream is None:
            if not size:
                raise ConnectionFault(PROTOCOL_ERROR, "a window update of 0")
            self.window += size
            if self.window > MAX_WINDOW:
                raise ConnectionFault(FLOW_CONTROL_ERROR, "the connection's window is over its limit")
        else:
            if not size:
                raise StreamFault(PROTOCOL_ERROR, "a window update of 0")
            stream.send_window += size
            if stream.send_window > MAX_WINDOW:
                raise StreamFault(FLOW_CONTROL_ERROR, "the stream's window is over its limit")
        self.pump()

    def apply_settings(self, settings: list[tuple[int, int]], streams: dict[int, Stream]) -> None:
        """What the peer can take. Raises ConnectionFault for a value out of its range."""
        window = self.stream_window
        for name, value in settings:
            if name == INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise ConnectionFault(FLOW_CONTROL_ERROR, f"an initial window of {value}")
                window = value
            elif name == MAX_FRAME_SIZE:
                if not _SMALLEST_FRAME <= value <= _LARGEST_FRAME:
                    raise ConnectionFault(PROTOCOL_ERROR, f"a frame size of {value}")
                self._frame_bytes = min(value, _OUR_LARGEST_FRAME)
            elif name == _ENABLE_PUSH and value > 1:
                raise ConnectionFault(PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        change = window - self.stream_window
        if change:
            self.stream_window = window
            for stream in streams.values():
                stream.send_window += change
                if stream.send_window > MAX_WINDOW:
                    raise ConnectionFault(FLOW_CONTROL_ERROR, "a stream's window is over its limit")
            self.pump()
