"""Accepts connections as fast as they come. Made by `gateway/process`.

The loop's own server takes one connection per turn. Under load a turn is long, and newcomers would wait for seconds,
which no deadline sees: their requests have not been read yet.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

MOST_PER_TURN: Final = 256  # the connections that are there want their turn, too
PAUSE_S: Final = 0.1  # without descriptors or memory for one more
HANDSHAKE_S: Final = 10.0  # for TLS; until then a connection is in nobody's count


class Acceptor:
    """Gives each connection of `listener` a protocol of its own. Owns the listener.

    `most_per_turn` is small where connections are few and live long, so that the other workers get some of them.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_connection: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
        most_per_turn: int = MOST_PER_TURN,
    ) -> None:
        self._listener = listener
        self._most_per_turn = most_per_turn
        self._make_connection = make_connection
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        listener.setblocking(False)
        self._resume()

    def use(self, context: ssl.SSLContext | None) -> None:
        """Newcomers get this TLS context; those that are there keep theirs."""
        self._context = context

    def close(self) -> None:
        """No more connections; those that are there live on."""
        if self._listener.fileno() < 0:
            return
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _resume(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(self._most_per_turn):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._listener)
                self._loop.call_later(PAUSE_S, self._resume)
                return
            connection.setblocking(False)
            work = self._loop.connect_accepted_socket(
                self._make_connection,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=None if self._context is None else HANDSHAKE_S,
            )
            task = self._loop.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a client that left, or that does not speak TLS, is nobody's error
