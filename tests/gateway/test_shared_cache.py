"""Answers in a real Redis: found by another gateway, never waited for, never believed unchecked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hyperion.gateway.cache import shared as shared_cache
from hyperion.gateway.cache.shared import (
    AWAY_S,
    BOUND_S,
    CONNECTIONS,
    MAX_LOOKS,
    MAX_VALUE_BYTES,
    SharedCache,
    SharedStore,
)
from hyperion.schema.call import Tensor
from hyperion.schema.errors import MissingExtra
from tests.gateway.redis_server import RedisServer
from tests.gateway.serving import on_uvloop
from tests.services import needs_module

needs_module("redis", extra="redis")

OUTPUTS = (Tensor("y", "FP32", (1, 2), b"\0\0\x80?\0\0\0@"),)
KEY = bytes(range(32))
Outcome = tuple[Tensor, ...] | None


@asynccontextmanager
async def store_of(server: RedisServer, bound_s: float = 10.0) -> AsyncIterator[SharedStore]:
    store = SharedStore(server.url, bound_s)
    try:
        yield store
    finally:
        await store.close()


async def look(cache: SharedCache, key: bytes = KEY) -> Outcome:
    """What a caller is told."""
    told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    cache.look_up(key, lambda found, _left_ns: told.set_result(found))
    assert not told.done()
    return await told


async def settled(store: SharedStore) -> None:
    """Until nothing is under way."""
    while store._tasks:
        await asyncio.wait(store._tasks)


async def warm(store: SharedStore, cache: SharedCache) -> None:
    """Until a connection is there: the first look may be over before."""
    await look(cache, bytes(32))
    await settled(store)


@on_uvloop
async def test_another_gateway_finds_an_answer_until_its_time_is_over(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with store_of(server) as one, store_of(server) as other:
            kept, found = (SharedCache(store, "fraud", 30.0) for store in (one, other))
            await warm(other, found)
            assert await look(found) is None
            kept.keep(KEY, OUTPUTS)
            await settled(one)
            assert await look(found) == OUTPUTS
            assert await look(SharedCache(other, "fraud2", 30.0)) is None  # another endpoint's
            brief = SharedCache(one, "fraud", 0.05)
            brief.keep(bytes(32), OUTPUTS)
            await settled(one)
            while await look(found, bytes(32)) is not None:  # noqa: ASYNC110 (time itself)
                await asyncio.sleep(0.01)
            assert one.failures == other.failures == 0


@pytest.mark.parametrize(
    ("clock", "left_s"), [(1000.0, 30), (1012.0, 18), (1029.999, 0.001), (1030.0, 0), (1100.0, 0), (1.0, 30)]
)
@on_uvloop
async def test_what_is_found_is_good_for_as_long_as_where_it_was_computed(
    tmp_path: Path, clock: float, left_s: float
) -> None:
    """And never for longer than from now on, however the clocks of two machines differ."""
    with RedisServer(tmp_path) as server:
        async with store_of(server) as store:
            SharedCache(store, "fraud", 30.0, lambda: 1000.0).keep(KEY, OUTPUTS)
            await settled(store)
            told: asyncio.Future[tuple[Outcome, int]] = asyncio.get_running_loop().create_future()
            later = SharedCache(store, "fraud", 30.0, lambda: clock)
            later.look_up(KEY, lambda found, left_ns: told.set_result((found, left_ns)))
            assert await told == (OUTPUTS if left_s else None, round(left_s * 1e9))


@on_uvloop
async def test_a_value_that_is_damaged_or_anothers_is_nothing(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with store_of(server) as store:
            cache = SharedCache(store, "fraud", 30.0)
            cache.keep(KEY, OUTPUTS)
            await settled(store)
            name = b"hyperion:cache:fraud:" + KEY
            value = await store._client.get(name)
            assert value
            other = bytes(31) + b"x"
            await store._client.set(b"hyperion:cache:fraud:" + other, value)
            assert await look(cache, other) is None
            for damaged in (value[:-1] + b"\1", value[:-1], b"\2" + value[1:], b"", b"rubbish"):
                await store._client.set(name, damaged)
                assert await look(cache) is None
            await store._client.delete(name)
            await store._client.lpush(name, b"a list")
            assert await look(cache) is None


@on_uvloop
async def test_the_looks_of_one_turn_are_one_command_and_each_gets_its_own(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with store_of(server) as store:
            cache = SharedCache(store, "fraud", 30.0)
            keys = [bytes([n]) * 32 for n in range(200)]
            outputs = [(Tensor("y", "UINT8", (1,), bytes([n])),) for n in range(200)]
            for key, one in zip(keys, outputs, strict=True):
                cache.keep(key, one)
            await settled(store)
            await warm(store, cache)
            before = (await store._client.info("commandstats"))["cmdstat_mget"]["calls"]
            assert list(await asyncio.gather(*[look(cache, key) for key in keys])) == outputs
            assert (await store._client.info("commandstats"))["cmdstat_mget"]["calls"] == before + 1


@on_uvloop
async def test_nobody_waits_for_a_redis_that_is_away_and_it_is_found_again(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with store_of(server) as store:
            cache = SharedCache(store, "fraud", 30.0)
            await warm(store, cache)
            server.kill()
            assert await look(cache) is None
            await settled(store)
            assert not cache.usable
            cache.keep(KEY, OUTPUTS)  # is not tried
            assert not store._tasks
            server.start()
            while not cache.usable:  # noqa: ASYNC110 (time itself)
                await asyncio.sleep(AWAY_S / 20)
            cache.keep(KEY, OUTPUTS)
            await settled(store)
            await warm(store, cache)
            assert await look(cache) == OUTPUTS


@on_uvloop
async def test_nobody_waits_for_a_redis_that_hangs(tmp_path: Path) -> None:
    """Callers are told within the bound, while the command itself is still under way."""
    with RedisServer(tmp_path) as server:
        async with store_of(server, BOUND_S) as store:
            cache = SharedCache(store, "fraud", 30.0)
            await warm(store, cache)
            server.hang()
            for _ in range(2 * CONNECTIONS):  # more often than there are connections to hang
                outcomes = await asyncio.gather(*[look(cache, bytes([n]) * 32) for n in range(50)])
                assert outcomes == [None] * 50
            assert len(store._tasks) == CONNECTIONS
            server.go_on()
            await settled(store)
            assert cache.usable


@on_uvloop
async def test_looks_and_writes_are_bounded_while_redis_hangs(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with store_of(server, BOUND_S) as store:
            cache = SharedCache(store, "fraud", 30.0)
            await warm(store, cache)
            server.hang()
            told: list[Any] = []
            while cache.usable:
                cache.look_up(KEY, lambda found, _left_ns: told.append(found))
                cache.keep(KEY, OUTPUTS)
                if len(told) % 100 == 0:
                    await asyncio.sleep(0)
            assert store._open_looks == MAX_LOOKS
            assert store._open_writes <= shared_cache.MAX_WRITES
            server.go_on()
            await settled(store)
            assert len(told) == MAX_LOOKS
            assert store._open_looks == store._open_writes == 0


@on_uvloop
async def test_an_answer_that_is_too_large_stays_here(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with store_of(server) as store:
            cache = SharedCache(store, "fraud", 30.0)
            cache.keep(KEY, (Tensor("y", "UINT8", (MAX_VALUE_BYTES,), bytes(MAX_VALUE_BYTES)),))
            assert not store._tasks


@on_uvloop
async def test_who_still_waits_when_the_store_closes_is_told(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        told: list[Any] = []
        async with store_of(server) as store:
            cache = SharedCache(store, "fraud", 30.0)
            await warm(store, cache)
            server.hang()
            cache.look_up(KEY, lambda found, _left_ns: told.append(found))
            await asyncio.sleep(0)
            cache.look_up(KEY, lambda found, _left_ns: told.append(found))
        assert told == [None, None]


@on_uvloop
async def test_without_the_client_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis.asyncio", None)
    with pytest.raises(MissingExtra, match=r"hyperion-inference\[redis\]"):
        SharedStore("redis://127.0.0.1:1/0")
