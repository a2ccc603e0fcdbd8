"""Refusals that hold for more than one request: what an overloaded model's callers are told, at next to no cost.

Filled by `gateway/http/routes` when it refuses a request because the queue is too long, asked by `gateway/http` before
it makes anything of the next one. Whoever comes to the same path with the same time and priority would wait no less, as
long as the queue has lost nothing: the first such request after that is looked at in full again.
"""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from hyperion.gateway.http.jobs import KEY, PREFER
from hyperion.gateway.http.known import KnownHead
from hyperion.gateway.http.status import STATUS, status_line, whole_seconds
from hyperion.gateway.pool import VersionPool
from hyperion.schema.errors import Overloaded
from hyperion.wire.oip.answer import encode_error

PROTOCOL: Final = "http"
MAX_STANDING: Final = 256
TIMEOUT: Final = b"x-request-timeout-ms"
PRIORITY: Final = b"x-hyperion-priority"

Key = tuple[bytes, bytes | None, bytes | None]
Count = Callable[[str, str], None]


class Standing(Struct, frozen=True, gc=False):
    """A refusal and how long it holds: until `pool.epoch` is another one. `before` and `after` are the answer around
    the date and the request's id."""

    pool: VersionPool
    epoch: int
    model: str
    before: bytes
    after: bytes


class Refusals:
    """The refusals that stand, by path, by the time that the caller allows and by its priority. `count(protocol,
    model)` is told of each that was given again."""

    def __init__(self, count: Count) -> None:
        self.standing: dict[Key, Standing] = {}
        self._count = count

    def remember(
        self, path: bytes, headers: Mapping[bytes, bytes], pool: VersionPool, model: str, error: Overloaded
    ) -> None:
        """A POST to `path` was refused with `error`, by the look of the pool's queue alone."""
        if len(self.standing) >= MAX_STANDING:
            self.standing.clear()
        body = encode_error(error.message)
        status = status_line(STATUS[error.code])
        self.standing[path, headers.get(TIMEOUT), headers.get(PRIORITY)] = Standing(
            pool,
            pool.epoch,
            model,
            status + b"date: ",
            b"\r\ncontent-type: application/json\r\ncontent-length: %d\r\nretry-after: %d\r\n\r\n%b"
            % (len(body), whole_seconds(error.retry_after_s), body),
        )

    def forget_old(self) -> None:
        """Once a second: nobody need ask any more for what holds no longer."""
        for key in [key for key, standing in self.standing.items() if standing.epoch != standing.pool.epoch]:
            del self.standing[key]

    def answer(self, known: KnownHead, date: bytes, new_request_id: Callable[[], str]) -> bytes:
        """The whole answer to a request with that head, or b"" where its queue has to be looked at."""
        headers = known.headers
        key = (known.path, headers.get(TIMEOUT), headers.get(PRIORITY))
        standing = self.standing.get(key)
        if standing is None or known.method != b"POST" or KEY in headers or PREFER in headers:
            return b""  # the last two need not come to the queue now: they wait for their turn, or have their answer
        if standing.epoch != standing.pool.epoch:
            del self.standing[key]
            return b""
        standing.pool.glance()
        self._count(PROTOCOL, standing.model)
        request_id = (known.request_id or new_request_id()).encode()
        return b"".join((standing.before, date, b"\r\nx-request-id: ", request_id, standing.after))
