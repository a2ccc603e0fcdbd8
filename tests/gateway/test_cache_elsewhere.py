"""A call that may have been answered elsewhere: found, or computed, and its followers with it."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyperion.gateway.cache.answers import SHARED_HIT, ResponseCache
from hyperion.gateway.cache.elsewhere import Elsewhere
from hyperion.gateway.cache.memory import CacheMemory
from hyperion.gateway.cache.shared import SharedCache, SharedStore
from hyperion.gateway.pending import PendingCall
from hyperion.schema.call import InferenceAnswer
from hyperion.schema.protect import Cache
from tests.gateway.redis_server import RedisServer
from tests.gateway.serving import on_uvloop
from tests.gateway.test_flights import CALL, KEY, OUTPUTS, Caller, Pool, codes
from tests.services import needs_module

pytestmark = pytest.mark.interpreted  # its pools are stand-ins, which compiled code does not take

needs_module("redis", extra="redis")


class Looking(Pool):
    """A pool whose calls are looked up first."""

    def __init__(self, store: SharedStore) -> None:
        super().__init__()
        self.cache = ResponseCache(Cache(ttl_s=3600.0), CacheMemory(), lambda: 0.0)
        self.store = store
        self.shared = SharedCache(store, "m", 30.0)
        self.elsewhere = Elsewhere(
            self.shared,
            self.cache,
            self.flights,
            lambda pending, _pool: self.enqueue(pending),
            self.give,
            self.finished,
        )

    def give(self, pending: PendingCall, answer: InferenceAnswer) -> None:
        pending.reply.answer(answer)
        self.end(pending, None)

    def ask(self, name: str, caller: Caller) -> PendingCall:
        pending = PendingCall(CALL, caller, "http", name, self.began_ns, self.began_ns + 10**12, 1)
        pool: Any = self
        if not self.flights.join(KEY, pending, pool) and not self.elsewhere.look(KEY, pending, pool):
            self.enqueue(pending)
        return pending

    async def settled(self) -> None:
        while self.store._tasks or self.store._open_looks:  # noqa: ASYNC110 (of two things there is no one event)
            await asyncio.sleep(0.001)


async def with_pool(tmp_path: Path, test: Callable[[Looking, RedisServer], Any]) -> None:
    with RedisServer(tmp_path) as server:
        store = SharedStore(server.url, 10.0)
        pool = Looking(store)
        await store._client.ping()
        try:
            await test(pool, server)
        finally:
            await store.close()
        assert pool.idle


@on_uvloop
async def test_what_another_gateway_keeps_answers_the_call_and_its_followers(tmp_path: Path) -> None:
    async def test(pool: Looking, _server: RedisServer) -> None:
        pool.shared.keep(KEY, OUTPUTS)
        await pool.settled()
        callers = [Caller(), Caller()]
        for n, caller in enumerate(callers):
            pool.ask(f"r{n}", caller)
        await pool.settled()
        assert codes(*callers) == [["ok"], ["ok"]]
        assert not pool.queue
        assert pool.cache.counts[SHARED_HIT] == 1
        entry = pool.cache.last_good(KEY)
        assert entry is not None
        assert entry.ends_ns <= time.monotonic_ns() + 30_000_000_000  # as long as it lasts elsewhere, and no ttl anew

    await with_pool(tmp_path, test)


@on_uvloop
async def test_what_nobody_keeps_is_computed_and_ends_when_the_last_waiter_leaves(tmp_path: Path) -> None:
    async def test(pool: Looking, _server: RedisServer) -> None:
        callers = [Caller(), Caller()]
        leader, follower = [pool.ask(f"r{n}", caller) for n, caller in enumerate(callers)]
        await pool.settled()
        assert len(pool.queue) == 1
        leader.cancel()
        assert len(pool.queue) == 1
        follower.cancel()
        assert not pool.queue
        assert [code for _, code in pool.ended] == ["client_gone", "client_gone"]

    await with_pool(tmp_path, test)


@on_uvloop
async def test_a_caller_may_leave_while_its_answer_is_looked_up(tmp_path: Path) -> None:
    async def test(pool: Looking, server: RedisServer) -> None:
        server.hang()
        gone = pool.ask("gone", Caller())
        gone.cancel()
        caller = Caller()
        pool.ask("next", caller)
        server.go_on()
        await pool.settled()
        pool.compute()
        assert codes(caller) == [["ok"]]
        assert pool.ended == [("gone", "client_gone"), ("next", "ok")]

    await with_pool(tmp_path, test)


@on_uvloop
async def test_while_redis_is_away_calls_are_computed_at_once(tmp_path: Path) -> None:
    async def test(pool: Looking, server: RedisServer) -> None:
        server.kill()
        first, second = Caller(), Caller()
        pool.ask("first", first)
        await pool.settled()
        pool.compute()
        pool.ask("second", second)
        assert len(pool.queue) == 1
        pool.compute()
        assert codes(first, second) == [["ok"], ["ok"]]

    await with_pool(tmp_path, test)
