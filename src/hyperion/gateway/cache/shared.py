"""Answers in Redis, which the gateways of a fleet share: looked up after the own cache has missed, for a few
milliseconds at most.

A value says when its time is over (in milliseconds since 1970), so that no gateway gives an answer for longer than
the one that computed it. Nobody waits for a Redis that is slow or away: a look that takes longer than `BOUND_S` has
found nothing, and after an error nobody looks for `AWAY_S`. All looks of one turn of the loop are one MGET, all
answers to keep one pipeline. What Redis gives is checked (`wire/cached_outputs`) before it is anybody's answer.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from hyperion.schema.call import Tensor
from hyperion.schema.errors import MissingExtra
from hyperion.wire.cached_outputs import HEAD_BYTES, decode_outputs, encode_outputs

if TYPE_CHECKING:
    from redis.asyncio import Redis

BOUND_S: Final = 0.005
AWAY_S: Final = 1.0
CONNECT_S: Final = 1.0
ANSWER_S: Final = 1.0
CONNECTIONS: Final = 4
MAX_LOOKS: Final = 1_024  # waiting or asked for; who comes then computes
MAX_WRITES: Final = 1_024  # waiting or being written; further ones are not kept
MAX_VALUE_BYTES: Final = 1 << 20
PREFIX: Final = b"hyperion:cache:"

END_BYTES: Final = 8

Outputs = tuple[Tensor, ...]
# Told what was found and for how many nanoseconds more it is good, or None and 0.
Found = Callable[[Outputs | None, int], None]


class Look:
    """One key that is asked for. `then` is told once, by `read`, what was found; after that it is None itself."""

    __slots__ = ("_cache", "_key", "name", "then")

    def __init__(self, cache: "SharedCache", key: bytes, name: bytes, then: Found) -> None:
        self.name: Final = name
        self.then: Found | None = then
        self._cache: Final = cache
        self._key: Final = key

    def tell(self, value: object) -> None:
        then, self.then = self.then, None
        if then is not None:
            then(*self._cache.read(self._key, value))


class SharedStore:
    """One process's way to Redis, for all its endpoints. Raises MissingExtra where the client is not installed.
    `failures` counts the times that Redis was found to be away."""

    def __init__(self, url: str, bound_s: float = BOUND_S) -> None:
        self._client = _make_client(url)
        self._bound_s = bound_s
        self._loop = asyncio.get_running_loop()
        self._looks: list[Look] = []
        self._writes: list[tuple[bytes, bytes, int]] = []
        self._open_looks = 0
        self._open_writes = 0
        self._asking = 0
        self._writing = False
        self._back_s = 0.0  # when Redis is asked again, by the loop's clock
        self._tasks: set[asyncio.Task[None]] = set()
        self.failures = 0

    @property
    def usable(self) -> bool:
        """Whether it is worth asking now."""
        return self._loop.time() >= self._back_s and self._open_looks < MAX_LOOKS

    def look_up(self, look: Look) -> None:
        """Asks for a key; its `then` is called within `bound_s`, never before this returns."""
        looks = self._looks
        looks.append(look)
        self._open_looks += 1
        if len(looks) == 1:
            self._loop.call_soon(self._ask)
            self._loop.call_later(self._bound_s, self._give_up, looks)

    def write(self, name: bytes, value: bytes, ttl_ms: int) -> None:
        """Keeps a value, some time soon, if Redis takes it."""
        if self._open_writes >= MAX_WRITES or self._loop.time() < self._back_s:
            return
        self._open_writes += 1
        self._writes.append((name, value, ttl_ms))
        if not self._writing:
            self._writing = True
            self._start(self._write(), self._written)

    def _ask(self) -> None:
        if not self._looks or self._asking >= CONNECTIONS:
            return  # the next answer that comes back lets those that gather here go, if they have the time
        looks, self._looks = self._looks, []
        self._asking += 1
        self._start(self._fetch(looks), lambda: self._fetched(looks))

    async def _fetch(self, looks: list[Look]) -> None:
        try:
            values = await self._client.mget([look.name for look in looks])
        except (OSError, TimeoutError, _errors()):
            self._went_away()
            return
        for look, value in zip(looks, values, strict=True):
            look.tell(value)

    def _fetched(self, looks: list[Look]) -> None:
        self._asking -= 1
        self._open_looks -= len(looks)
        _tell_nothing(looks)
        self._ask()

    def _give_up(self, looks: list[Look]) -> None:
        """Their time is over, whether they were asked for or not."""
        if looks is self._looks:
            self._looks = []
            self._open_looks -= len(looks)
        _tell_nothing(looks)

    async def _write(self) -> None:
        try:
            while self._writes:
                writes, self._writes = self._writes, []
                self._open_writes = len(writes)
                pipeline = self._client.pipeline(transaction=False)
                for name, value, ttl_ms in writes:
                    pipeline.set(name, value, px=ttl_ms)
                await pipeline.execute()
        except (OSError, TimeoutError, _errors()):
            self._went_away()

    def _written(self) -> None:
        self._writes = []
        self._open_writes = 0
        self._writing = False

    def _went_away(self) -> None:
        self.failures += 1
        self._back_s = self._loop.time() + AWAY_S

    def _start(self, work: Coroutine[Any, Any, None], ended: Callable[[], None]) -> None:
        """`ended` is called even where the work was cancelled before it began."""

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            ended()

        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(done)

    async def close(self) -> None:
        """Ends the connections. Who still waits is told that nothing was found."""
        self._give_up(self._looks)
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        await self._client.aclose()


class SharedCache:
    """One endpoint's part of the store. `clock` gives seconds since 1970."""

    __slots__ = ("_clock", "_prefix", "_store", "_ttl_ms")

    def __init__(self, store: SharedStore, endpoint: str, ttl_s: float, clock: Callable[[], float] = time.time) -> None:
        self._clock: Final = clock
        self._store: Final = store
        self._prefix: Final = PREFIX + endpoint.encode() + b":"
        self._ttl_ms: Final = max(1, int(ttl_s * 1000))

    @property
    def usable(self) -> bool:
        """Whether a look is worth the moment that it takes."""
        return self._store.usable

    def look_up(self, key: bytes, then: Found) -> None:
        """Calls `then` within the store's `bound_s`, never before this returns."""
        self._store.look_up(Look(self, key, self._prefix + key, then))

    def read(self, key: bytes, value: object) -> tuple[Outputs | None, int]:
        """The outputs that a value holds for that key, and for how many nanoseconds they are good yet. However the
        clocks of two machines differ, no longer than from now on."""
        if not isinstance(value, bytes):
            return None, 0
        end = value[:END_BYTES]
        left_ms = min(self._ttl_ms, int.from_bytes(end, "big") - int(self._clock() * 1000))
        outputs = decode_outputs(key + end, value[END_BYTES:]) if left_ms > 0 else None
        return outputs, 0 if outputs is None else left_ms * 1_000_000

    def keep(self, key: bytes, outputs: Outputs) -> None:
        """Keeps an answer for the other gateways, unless it is too large."""
        size_bytes = END_BYTES + HEAD_BYTES + sum([memoryview(one.data).nbytes for one in outputs])
        if size_bytes <= MAX_VALUE_BYTES:
            end = (int(self._clock() * 1000) + self._ttl_ms).to_bytes(END_BYTES, "big")
            self._store.write(self._prefix + key, end + encode_outputs(key + end, outputs), self._ttl_ms)


def _tell_nothing(looks: list[Look]) -> None:
    for look in looks:
        look.tell(None)


def _errors() -> type[Exception]:
    from redis.exceptions import RedisError

    return RedisError


def _make_client(url: str) -> "Redis":
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise MissingExtra(
            "a cache in Redis needs the Redis client; install hyperion-inference[redis], or leave out redis_url"
        ) from error
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS + 1,
        timeout=ANSWER_S,
        socket_timeout=ANSWER_S,
        socket_connect_timeout=CONNECT_S,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis(connection_pool=pool)
