"""Bytes of an HTTP/2 client to frames: the preface, where a frame begins and ends, and what may not come at all.

The first stage of `connection`. Header blocks come out whole, data as it arrives: a large frame is never held.
"""

from typing import Final, Protocol

from hyperion.schema.call import Buffer
from hyperion.wire.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    ENHANCE_YOUR_CALM,
    FRAME_HEAD,
    FRAME_SIZE_ERROR,
    HEADERS,
    MAX_STREAM_ID,
    PADDED,
    PREFACE,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    SETTINGS,
    ConnectionFault,
)

__all__ = ["FrameReader", "FrameSink"]

MAX_BLOCK_BYTES: Final = 32 * 1024  # a header block as it is sent, in all of its frames
MAX_CONTINUATIONS: Final = 16
MAX_CONTROL_BYTES: Final = 16_384  # frames that are neither data nor headers
SMALL_BYTES: Final = 4096  # of data that is rather copied than looked at
_unpack = FRAME_HEAD.unpack_from


class FrameSink(Protocol):
    """Who knows what the frames mean. Each may raise ConnectionFault."""

    def begin_data(self, stream_id: int, size: int, flags: int) -> None:
        """A DATA frame of `size` bytes, padding included; `take_data` follows."""
        ...

    def take_data(self, data: Buffer, whole: bool) -> None:
        """A piece of the data of that frame; the last of it if `whole`. To be copied where it is kept."""
        ...

    def take_block(self, flags: int, stream_id: int, block: bytes) -> None:
        """A whole header block."""
        ...

    def take_control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Any other frame of a known type."""
        ...

    def take_unknown(self) -> None:
        """The beginning of a frame of a type that nobody knows."""
        ...


class FrameReader:
    """Cuts what arrives into frames of at most `frame_bytes`. `greeted` says if preface and SETTINGS have come."""

    def __init__(self, sink: FrameSink, frame_bytes: int) -> None:
        self.greeted = False
        self._sink = sink
        self._frame_bytes = frame_bytes
        self._preface = PREFACE
        self._rest = b""  # the beginning of a frame that is not there whole
        self._data_left = 0  # of the data frame that is arriving
        self._skip_left = 0  # bytes to be dropped: padding, unknown frames
        self._block: list[bytes] | None = None  # of headers that go on in continuations
        self._block_bytes = 0
        self._block_stream = 0
        self._block_flags = 0

    def feed(self, data: bytes) -> None:
        """Takes what has arrived. Raises ConnectionFault."""
        if self._preface:
            data = self._take_preface(data)
        if self._rest:
            data = self._rest + data
            self._rest = b""
        sink = self._sink
        position, end = 0, len(data)
        while True:
            if self._data_left or self._skip_left:
                position = self._take_pieces(data, position)
            start = position + 9
            if start > end:
                break
            high, low, kind, flags, stream_id = _unpack(data, position)
            size = high << 8 | low
            stream_id &= MAX_STREAM_ID
            if size > self._frame_bytes:
                raise ConnectionFault(FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            if kind or self._block is not None or not self.greeted:
                self._check_frame(kind, flags, size, stream_id)
            if kind == DATA:
                if flags & PADDED:
                    if size and start == end:
                        break
                    position = start + self._begin_padded(stream_id, size, flags, data[start] if size else 0)
                    continue
                sink.begin_data(stream_id, size, flags)
                self._data_left = size
                position = start
                if not size:
                    sink.take_data(b"", True)
            elif kind > CONTINUATION:
                sink.take_unknown()
                self._skip_left = size
                position = start
            else:
                position = start + size
                if position > end:
                    position = start - 9
                    break
                self._take_frame(kind, flags, stream_id, data[start:position])
        if position < end:
            self._rest = data[position:]

    def _take_preface(self, data: bytes) -> bytes:
        expected = self._preface
        size = min(len(data), len(expected))
        if data[:size] != expected[:size]:
            raise ConnectionFault(PROTOCOL_ERROR, "not the preface of HTTP/2")
        self._preface = expected[size:]
        return data[size:]

    def _take_pieces(self, data: bytes, position: int) -> int:
        """Takes what is there of a data frame and of what is to be dropped; returns where the rest begins."""
        left = self._data_left
        available = len(data) - position
        if left:
            if left <= available:
                self._data_left = 0
                stop = position + left
                self._sink.take_data(
                    data[position:stop] if left < SMALL_BYTES else memoryview(data)[position:stop], True
                )
                position = stop
                available -= left
            else:
                if available:
                    self._data_left = left - available
                    self._sink.take_data(memoryview(data)[position:], False)
                return len(data)
        skipped = min(self._skip_left, available)
        self._skip_left -= skipped
        return position + skipped

    def _check_frame(self, kind: int, flags: int, size: int, stream_id: int) -> None:
        """Raises ConnectionFault for a frame that may not come here, or not with this size."""
        if self._block is not None and (kind != CONTINUATION or stream_id != self._block_stream):
            raise ConnectionFault(PROTOCOL_ERROR, "a header block is not continued")
        if not self.greeted:
            if kind != SETTINGS or flags & ACK:
                raise ConnectionFault(PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self.greeted = True
        if kind in (HEADERS, CONTINUATION):
            if size > MAX_BLOCK_BYTES:
                raise ConnectionFault(ENHANCE_YOUR_CALM, f"a header block over {MAX_BLOCK_BYTES} bytes")
        elif kind == PUSH_PROMISE:
            raise ConnectionFault(PROTOCOL_ERROR, "a client may not push")
        elif kind <= CONTINUATION and size > MAX_CONTROL_BYTES:
            raise ConnectionFault(FRAME_SIZE_ERROR, f"a control frame of {size} bytes")

    def _begin_padded(self, stream_id: int, size: int, flags: int, padding: int) -> int:
        """Begins a DATA frame with padding; returns how many bytes its length takes."""
        if padding >= size:
            raise ConnectionFault(PROTOCOL_ERROR, "more padding than frame")
        self._sink.begin_data(stream_id, size, flags)
        self._data_left = size - 1 - padding
        self._skip_left = padding
        if not self._data_left:
            self._sink.take_data(b"", True)
        return 1

    def _take_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """A frame that is there whole, of any known kind but DATA."""
        if kind == HEADERS:
            if not stream_id:
                raise ConnectionFault(PROTOCOL_ERROR, "headers without a stream")
            if flags & (PADDED | PRIORITY_FLAG):
                payload = _strip(flags, payload)
            if flags & END_HEADERS:
                self._sink.take_block(flags, stream_id, payload)
                return
            self._block = [payload]
            self._block_bytes = len(payload)
            self._block_flags = flags
            self._block_stream = stream_id
        elif kind == CONTINUATION:
            self._take_continuation(flags, payload)
        else:
            self._sink.take_control(kind, flags, stream_id, payload)

    def _take_continuation(self, flags: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise ConnectionFault(PROTOCOL_ERROR, "a continuation of nothing")
        block.append(payload)
        self._block_bytes += len(payload)
        if self._block_bytes > MAX_BLOCK_BYTES or len(block) > MAX_CONTINUATIONS:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a header block in too many or too large pieces")
        if flags & END_HEADERS:
            self._block = None
            self._sink.take_block(self._block_flags, self._block_stream, b"".join(block))


def _strip(flags: int, payload: bytes) -> bytes:
    """The block of a HEADERS frame without padding and priority. Raises ConnectionFault."""
    start, stop = 0, len(payload)
    if flags & PADDED:
        start = 1
        stop -= payload[0] if payload else 1
    if flags & PRIORITY_FLAG:
        start += 5
    if stop < start:
        raise ConnectionFault(PROTOCOL_ERROR, "more padding or priority than frame")
    return payload[start:stop]
