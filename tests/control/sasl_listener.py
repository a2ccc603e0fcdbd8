"""As much of a Kafka broker as hears credentials: it notes what it is shown, maybe over TLS, and refuses it in words
that repeat it, as a broker should not."""

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

HANDSHAKE, VERSIONS, AUTHENTICATE = 17, 18, 36
REFUSED: Final = 58  # SASL_AUTHENTICATION_FAILED
UNSUPPORTED: Final = 35  # UNSUPPORTED_VERSION: ask again in the oldest one


class Listener:
    """`heard` is (mechanism, what was shown); `tls_errors` says why who called does not trust us."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.tls_errors: list[str] = []
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"localhost:{self._socket.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            try:
                self._converse(connection)
            except ssl.SSLError as error:
                self.tls_errors.append(str(error))
            except (OSError, EOFError):
                pass  # who called has left
            finally:
                connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _converse(self, plain: socket.socket) -> None:
        connection = plain if self._context is None else self._context.wrap_socket(plain, server_side=True)
        mechanism = ""
        with connection, connection.makefile("rb") as stream:
            while True:
                (size,) = struct.unpack(">i", read(stream, 4))
                key, version, number, client = struct.unpack(">hhih", read(stream, 10))
                read(stream, client)
                body = read(stream, size - 10 - client)
                if key == VERSIONS:
                    ranges = [(key, 0, 0) for key in (VERSIONS, AUTHENTICATE)] + [(HANDSHAKE, 0, 1)]
                    ranges = [(3, 0, 1), *ranges]
                    answer = struct.pack(">hi", UNSUPPORTED if version else 0, len(ranges))
                    answer += b"".join(struct.pack(">hhh", *one) for one in ranges)
                elif key == HANDSHAKE:
                    mechanism = body[2:].decode()
                    answer = struct.pack(">hi", 0, 1) + body
                else:
                    assert key == AUTHENTICATE, key
                    self.heard.append((mechanism, body[4:]))
                    reason = b"no: " + body[4:].replace(b"\0", b" ")
                    answer = struct.pack(">hh", REFUSED, len(reason)) + reason + struct.pack(">i", 0)
                connection.sendall(struct.pack(">ii", len(answer) + 4, number) + answer)


def read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


@contextmanager
def listening(context: ssl.SSLContext | None = None) -> Iterator[Listener]:
    listener = Listener(context)
    thread = threading.Thread(target=listener.serve, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        listener.close()
        thread.join(10)
