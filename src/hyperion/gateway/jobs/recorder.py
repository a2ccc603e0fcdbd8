"""An exchange without a client: its answer is taken down instead of sent, to be kept and given later, maybe often.

`Recorder` stands where the connection of an `Exchange` stands. Used by `gateway/http/jobs` for idempotent calls and by
`gateway/jobs/runner` for jobs.
"""

from collections.abc import Callable
from typing import Final

from hyperion.gateway.front.caller import Peer
from hyperion.gateway.http.exchange import Dated, Exchange
from hyperion.gateway.http.status import status_line
from hyperion.schema.errors import InternalError
from hyperion.schema.job import Fields, StoredAnswer

OF_THE_MOMENT: Final = frozenset((b"date", b"connection"))


class Recorder:
    """Takes one answer, and gives it to `done`."""

    __slots__ = ("_done", "_parts", "edge", "http_11", "peer")

    def __init__(self, edge: Dated, peer: Peer, done: Callable[[StoredAnswer], None]) -> None:
        self.edge: Final = edge
        self.peer: Final = peer
        self.http_11: Final = True
        self._done = done
        self._parts: list[bytes] = []

    def finish(self, _exchange: Exchange, data: bytes) -> None:
        """The last bytes of the answer."""
        self._parts.append(data)
        self._done(read_answer(b"".join(self._parts)))

    def write_part(self, _exchange: Exchange, data: bytes) -> None:
        """Some bytes of it."""
        self._parts.append(data)

    def unsent_bytes(self) -> int:
        """Nobody is slow to read it."""
        return 0

    def abort(self, reason: str) -> None:
        """There is no client that could have given a reason."""
        raise InternalError(f"an answer that is taken down was given up: {reason}")


def read_answer(data: bytes) -> StoredAnswer:
    """An answer as `gateway/http/exchange` wrote it, without what belongs to the moment."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    fields = [line.partition(b": ") for line in lines]
    kept = [(name.decode("latin-1"), value.decode("latin-1")) for name, _, value in fields if name not in OF_THE_MOMENT]
    return StoredAnswer(int(first[9:12]), tuple(kept), body)


def write_answer(answer: StoredAnswer, exchange: Exchange, date: bytes, extra: Fields = ()) -> bytes:
    """The answer once more, for this exchange: the stored bytes, a new date, and `extra` fields behind those that were
    stored."""
    lines = [status_line(answer.status), b"date: %b\r\n" % date]
    for name, value in (*answer.headers, *extra):
        if name != "content-length":
            lines.append(f"{name}: {value}\r\n".encode("latin-1"))
    lines.append(b"content-length: %d\r\n" % len(answer.body))
    if not exchange.keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    if exchange.method != b"HEAD":
        lines.append(answer.body)
    return b"".join(lines)
