"""Ask the supervisor one thing, blocking: for the first runners, which control starts before it imports asyncio, and
for commands that look once."""

import socket
from pathlib import Path

from hyperion.fleet.messages import HEADER_BYTES, Answer, Request, body_bytes, decode_answer, encode


def ask(path: Path, request: Request, timeout_s: float = 10.0) -> Answer:
    """Ask the supervisor once, blocking. Raises OSError where it cannot be reached in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
        connection.sendall(encode(request))
        with connection.makefile("rb") as stream:
            header = stream.read(HEADER_BYTES)
            size = body_bytes(header)
            body = stream.read(size)
            if len(header) < HEADER_BYTES or len(body) < size:
                raise ConnectionResetError("the supervisor closed the connection")
    return decode_answer(body)
