"""One gateway's connection, seen from the runner: frames in, frames out, and the shared memory ring that it may pass.

Used by `runner/loop` only. Receiving never blocks (the loop waits for all channels at once); sending does, up to
`SEND_TIMEOUT_S`, after which the gateway counts as gone.
"""

import mmap
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Final

from hyperion.schema.call import Buffer, Tensor
from hyperion.wire.frame import (
    ALIGNMENT,
    GREETING,
    INLINE_LIMIT_BYTES,
    MARK,
    Frame,
    FrameError,
    FrameReader,
    encode_frame,
    read_tensors,
)
from hyperion.wire.frame_headers import INLINE, Predict, Result, TensorHead

SEND_TIMEOUT_S: Final = 30
RECEIVE_BYTES: Final = 64 << 10  # a buffer of more would come from the kernel anew each time, which costs 50 µs


class ChannelClosed(Exception):
    """The gateway left, or broke the protocol; `reason` is "" for an orderly end."""


class Channel:
    """A connected gateway. `pending` holds the frames that were received and not yet worked on."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.pending: deque[Frame] = deque()
        self._reader = FrameReader()
        self._ring: memoryview | None = None
        self._greeted = False
        connection.setblocking(True)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT_S, 0))

    def fileno(self) -> int:
        return self.socket.fileno()

    def receive(self) -> None:
        """Reads what is there into `pending`. Raises `ChannelClosed`."""
        try:
            if not self._greeted:
                self._greet()
                return
            data = self.socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
            if not data:
                raise ChannelClosed("")
            self.pending.extend(self._reader.feed(data))
        except BlockingIOError:
            return
        except (OSError, FrameError) as error:
            raise ChannelClosed(str(error)) from None

    def _greet(self) -> None:
        """The first bytes carry the ring's descriptor."""
        greeting, descriptors, _flags, _address = socket.recv_fds(
            self.socket, len(GREETING), 1, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        )
        try:
            if greeting != GREETING or len(descriptors) != 1:
                raise ChannelClosed("no greeting with a ring" if greeting else "")
            self._ring = memoryview(mmap.mmap(descriptors[0], os.fstat(descriptors[0]).st_size))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._greeted = True

    def mark(self, batch_id: int) -> None:
        """Writes into the ring which batch is being computed (0: none), so that the gateway knows, if this process
        dies, which batch was the one that it died of."""
        if self._ring is not None:
            MARK.pack_into(self._ring, 0, batch_id)

    def read_inputs(self, frame: Frame) -> tuple[Tensor, ...]:
        """The tensors of a PREDICT frame, as views that are valid until its result is sent."""
        return read_tensors(frame.header.tensors, frame.data, self._ring)

    def send(self, kind: int, batch_id: int, tensors: Sequence[Tensor], predict: Predict, result: Result) -> None:
        """Sends `result` with `tensors`, through the ring where they are large and fit. Raises `ChannelClosed`."""
        total = sum(memoryview(tensor.data).nbytes for tensor in tensors)
        room = predict.reply_bytes - ALIGNMENT * len(tensors)
        in_ring = INLINE_LIMIT_BYTES < total <= room and self._ring is not None
        heads: list[TensorHead] = []
        inline: list[Buffer] = []
        position = predict.reply_offset
        for tensor in tensors:
            data = tensor.data
            size = memoryview(data).nbytes
            offset = INLINE
            if in_ring and self._ring is not None:
                offset = position
                if not 0 <= offset <= offset + size <= self._ring.nbytes:
                    raise ChannelClosed(f"reply area at {offset} lies outside the ring")
                self._ring[offset : offset + size] = memoryview(data).cast("B")
                position += -(-size // ALIGNMENT) * ALIGNMENT
            else:
                inline.append(data)
            heads.append(TensorHead(tensor.name, tensor.datatype, tensor.shape, size, offset))
        reply = Result(tuple(heads), result.failures, result.compute_ns, result.memory_bytes)
        self.send_bytes(encode_frame(kind, batch_id, reply, inline))

    def send_bytes(self, data: bytes) -> None:
        """Sends one whole frame. Raises `ChannelClosed`."""
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise ChannelClosed(str(error)) from None

    def close(self) -> None:
        self.socket.close()
