"""Large bodies go from the socket straight into memory that is used again.

Through the parser every byte of a body is copied four times, the last time into new pages that the kernel must clear
first; for 600 KB that was more than half of the gateway's work. Used by `gateway/http`, once the length of a body is
known and its first bytes are there. Never here: chunked bodies, whose length nobody knows.
"""

import asyncio
from collections.abc import Iterator
from typing import Final, Protocol

SMALLEST_BYTES: Final = 64 << 10  # below, the parser's way is as quick
LARGEST_BYTES: Final = 8 << 20  # above, memory is taken as the bytes arrive, not as a client announces them
KEPT_BYTES: Final = 64 << 20  # all blocks together, those in use too


class BodyMemory:
    """Blocks of memory for bodies, over all connections of a worker.

    A block is in use as long as anybody looks at it: the body, or a tensor cut out of it. Nobody has to give one back.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._held_bytes = 0
        self._blocks: dict[int, list[bytearray]] = {}

    def take(self, size: int) -> memoryview | None:
        """`size` bytes that nobody else looks at, or None where that would be too much memory for now."""
        if not SMALLEST_BYTES <= size <= LARGEST_BYTES:
            return None
        step = 1 << ((size - 1).bit_length() - 3)  # at most an eighth is wasted, and few sizes are different ones
        room = -(-size // step) * step
        blocks = self._blocks.get(room, ())
        for block in blocks:
            if is_free(block):
                return memoryview(block)[:size]
        if self._held_bytes + room > self._kept_bytes:
            self._drop_free(room)
            if self._held_bytes + room > self._kept_bytes:
                return None
        block = bytearray(room)
        self._held_bytes += room
        self._blocks.setdefault(room, []).append(block)
        return memoryview(block)[:size]

    def _drop_free(self, needed: int) -> None:
        """Gives blocks of other sizes back until `needed` bytes fit."""
        for room, block in tuple(self._all()):
            if self._held_bytes + needed <= self._kept_bytes:
                return
            if is_free(block):
                self._blocks[room] = [other for other in self._blocks[room] if other is not block]
                self._held_bytes -= room

    def _all(self) -> Iterator[tuple[int, bytearray]]:
        for room, blocks in self._blocks.items():
            for block in blocks:
                yield room, block


def is_free(block: bytearray) -> bool:
    """Whether nobody looks at the block: a bytearray refuses to change its size while somebody does.

    >>> block = bytearray(8); view = memoryview(block)[2:4]
    >>> is_free(block), view.release(), is_free(block)
    (False, None, True)
    """
    try:
        last = block.pop()
    except BufferError:
        return False
    block.append(last)  # moves nothing: the room for it is still there
    return True


class Receiving(Protocol):
    """What a receiver asks of its connection."""

    def body_grew(self, size: int) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class BodyReceiver(asyncio.BufferedProtocol):
    """Fills `body`; takes its connection's place as the transport's protocol meanwhile.

    It never reads more than the body, so that what follows is left for the parser.
    """

    __slots__ = ("_connection", "_filled", "body")

    def __init__(self, connection: Receiving, body: memoryview) -> None:
        self._connection = connection
        self._filled = 0
        self.body = body

    @property
    def complete(self) -> bool:
        return self._filled == len(self.body)

    def put(self, data: bytes | memoryview) -> int:
        """Takes what was received already; returns how much of it belongs to the body."""
        size = min(len(data), len(self.body) - self._filled)
        self.body[self._filled : self._filled + size] = data[:size]
        self._filled += size
        return size

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self.body[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._connection.body_grew(nbytes)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
