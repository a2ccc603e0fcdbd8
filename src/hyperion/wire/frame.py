"""Frames between a gateway and a runner: a fixed prefix, a MessagePack header, then tensor bytes.

Sans-I/O: `gateway/dispatch` and `runner/channel` own the sockets. Tensor bytes follow the header in the order of the
header's tensors ("inline"), or lie in a shared memory ring at the offset that their head names. Nothing in here
trusts its peer: every length is checked against a limit before anything is allocated, and a frame that breaks a rule
raises `FrameError`, upon which the connection is closed.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from hyperion.schema.call import Buffer, Tensor
from hyperion.wire.frame_headers import INLINE, Cancel, Hello, Predict, Result, TensorHead

PROTOCOL: Final = 1
MARK: Final = struct.Struct("<Q")  # at the ring's start: the id of the batch that the runner computes now
GREETING: Final = b"HYPERION"  # a gateway's first bytes on a connection; the ring's descriptor comes with them
ALIGNMENT: Final = 64  # of each tensor in the ring
PREFIX: Final = struct.Struct("<IIQI")  # bytes after the prefix, bytes of the header, id of the batch, kind
HELLO: Final = 1
PREDICT: Final = 2
RESULT: Final = 3
PART: Final = 4
CANCEL: Final = 5
KINDS: Final = frozenset((HELLO, PREDICT, RESULT, PART, CANCEL))
MAX_HEADER_BYTES: Final = 4 << 20
MAX_FRAME_BYTES: Final = 1 << 30
INLINE_LIMIT_BYTES: Final = 64 << 10  # above this, copying through the socket costs more than the ring


class FrameError(Exception):
    """The peer sent something that is not a frame. Nothing after it can be trusted: close the connection."""


_encoder = msgspec.msgpack.Encoder()
_decoders: Final[dict[int, Any]] = {
    HELLO: msgspec.msgpack.Decoder(Hello),
    PREDICT: msgspec.msgpack.Decoder(Predict),
    RESULT: msgspec.msgpack.Decoder(Result),
    PART: msgspec.msgpack.Decoder(Result),
    CANCEL: msgspec.msgpack.Decoder(Cancel),
}


class Frame:
    """One received frame; `header` is the record of its kind, `data` the inline tensor bytes behind it."""

    __slots__ = ("data", "header", "id", "kind")

    def __init__(self, kind: int, batch_id: int, header: Any, data: memoryview) -> None:
        self.kind = kind
        self.id = batch_id
        self.header = header
        self.data = data


def encode_frame(kind: int, batch_id: int, header: Struct, inline: Sequence[Buffer] = ()) -> bytes:
    """The whole frame as one buffer: one `send`, however many requests the batch holds."""
    head = _encoder.encode(header)
    size = len(head)
    for part in inline:
        size += len(part) if isinstance(part, bytes) else memoryview(part).nbytes
    return b"".join((PREFIX.pack(size, len(head), batch_id, kind), head, *inline))


def decode_frame(prefix: tuple[int, int, int, int], body: memoryview) -> Frame:
    """The frame behind a checked prefix. Raises `FrameError` where the header is not the record of its kind."""
    _size, header_bytes, batch_id, kind = prefix
    try:
        header = _decoders[kind].decode(body[:header_bytes])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"frame of kind {kind}: {error}") from None
    return Frame(kind, batch_id, header, body[header_bytes:])


def check_prefix(prefix: tuple[int, int, int, int]) -> None:
    """Raises `FrameError` unless the lengths and the kind are within the limits."""
    size, header_bytes, _batch_id, kind = prefix
    if kind not in KINDS:
        raise FrameError(f"frame of unknown kind {kind}")
    if header_bytes > size or header_bytes > MAX_HEADER_BYTES or size > MAX_FRAME_BYTES:
        raise FrameError(f"frame of {size} bytes with a header of {header_bytes}: over the limit")


class FrameReader:
    """Cuts a byte stream into frames. Keeps at most one incomplete frame; memory grows only with bytes received."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, in order. Raises `FrameError`."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < PREFIX.size:
                return []
            if len(self._buffer) < PREFIX.size + PREFIX.unpack_from(self._buffer)[0]:
                check_prefix(PREFIX.unpack_from(self._buffer))
                return []
            data = bytes(self._buffer)
            self._buffer = bytearray()
        frames: list[Frame] = []
        view = memoryview(data)
        start, end = 0, len(data)
        while end - start >= PREFIX.size:
            prefix = PREFIX.unpack_from(data, start)
            check_prefix(prefix)
            stop = start + PREFIX.size + prefix[0]
            if stop > end:
                break
            frames.append(decode_frame(prefix, view[start + PREFIX.size : stop]))
            start = stop
        if start < end:
            self._buffer += view[start:]
        return frames


def read_tensors(heads: Iterable[TensorHead], inline: memoryview, ring: memoryview | None) -> tuple[Tensor, ...]:
    """The tensors that a header announces, as views. Raises `FrameError` where a head points outside its bytes."""
    tensors = []
    position = 0
    for name, datatype, shape, size, offset in (
        (head.name, head.datatype, head.shape, head.size_bytes, head.offset) for head in heads
    ):
        if offset == INLINE:
            source, start = inline, position
            position += size
        else:
            if ring is None:
                raise FrameError(f'tensor "{name}" lies in a ring that was never passed')
            source, start = ring, offset
        if size < 0 or start < 0 or start + size > source.nbytes:
            raise FrameError(f'tensor "{name}": {size} bytes at {start} lie outside {source.nbytes}')
        tensors.append(Tensor(name, datatype, shape, source[start : start + size]))
    if position != inline.nbytes:
        raise FrameError(f"{inline.nbytes - position} bytes belong to no tensor")
    return tuple(tensors)
