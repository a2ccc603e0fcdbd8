"""Ask a replica who it is: connect to its socket and read the first frame, `Hello`, which carries its signature."""

import asyncio

from hyperion.schema.errors import NotReady
from hyperion.wire.frame import HELLO, FrameError, FrameReader
from hyperion.wire.frame_headers import Hello

_READ_BYTES = 64 << 10


async def probe(socket: str, timeout_s: float) -> Hello:
    """Return the replica's `Hello`. Raises `NotReady` where it cannot be reached or says something else in time."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _read_hello(socket)
    except (OSError, FrameError) as error:  # TimeoutError is an OSError
        raise NotReady(f"replica at {socket}: {type(error).__name__}: {error}") from error


async def _read_hello(socket: str) -> Hello:
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        frames = FrameReader()
        while data := await reader.read(_READ_BYTES):
            for frame in frames.feed(data):
                if frame.kind != HELLO:
                    raise FrameError(f"expected Hello, got a frame of kind {frame.kind}")
                hello: Hello = frame.header
                return hello
        raise ConnectionResetError("closed before Hello")
    finally:
        writer.close()
