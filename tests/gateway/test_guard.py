"""The stages of a protected endpoint, end to end through a gateway: limits, cache, single-flight."""

import asyncio
from collections.abc import Callable

import pytest

from hyperion.policy.cache_worth import Worth
from hyperion.schema.protect import (
    Cache,
    Cost,
    Directory,
    EndpointLimits,
    Fallback,
    Limits,
    Protection,
    Quotas,
    TenantRecord,
)
from hyperion.schema.snapshot import ServedVersion
from tests.gateway.runners import Fifo
from tests.gateway.serving import Serving, infer, on_uvloop, request, serving
from tests.gateway.test_identity import SECRET, bearer, key


def rows_in(gateway: Serving) -> int:
    state = gateway.pool().queue_state()
    return state.queued_rows + state.running_rows


@on_uvloop
async def test_over_the_rate_is_429_with_the_time_to_come_back(obedient: ServedVersion) -> None:
    limits = EndpointLimits(requests_per_second=0.01, burst=2)
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=Protection(limits=limits))
        with await gateway.connect() as client:
            first, second, third = [await client.ask(infer("a")) for _ in range(3)]
        assert (first.status, second.status, third.status) == (200, 200, 429)
        assert first.headers["ratelimit-policy"].startswith('"endpoint";q=2')
        assert first.headers["ratelimit"].startswith('"endpoint";r=1')
        assert int(third.headers["retry-after"]) > 1
        assert third.headers["ratelimit"].startswith('"endpoint";r=0')
        assert "endpoint" in third.error


@on_uvloop
async def test_open_requests_are_bounded_and_given_back_however_they_end(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=Protection(limits=EndpointLimits(concurrency=1)))
        for leaves in (False, True):
            fifo = new_fifo()
            with await gateway.connect() as held:
                held.send(infer(fifo.command))
                await fifo.reached()
                assert (await gateway.ask(infer("b"))).status == 429
                if leaves:
                    held.leave()
                    await gateway.until(lambda: not gateway.edge.connections)
                    following = asyncio.create_task(gateway.ask(infer("c")))
                    await gateway.until(lambda: rows_in(gateway) == 2)
                    fifo.release()
                    assert (await following).status == 200
                else:
                    fifo.release()
                    assert (await held.answer()).status == 200
            assert (await gateway.ask(infer("raise"))).status == 500
            assert (await gateway.ask(request(b"{", "/v2/models/obedient/infer"))).status == 400
            assert (await gateway.ask(infer("d"))).status == 200


@on_uvloop
async def test_a_quota_counts_rows_and_cost(obedient: ServedVersion) -> None:
    tenants = (
        TenantRecord("acme", quotas=Quotas(rows_per_day=3)),
        TenantRecord("cheap", quotas=Quotas(cost_per_day=1)),
    )
    keys = (key(), key("hyp_c", "cheap"))
    async with serving(("obedient", obedient)) as gateway:
        protection = Protection(cost=Cost(per_row=0.5))
        await gateway.protect(
            ("obedient", obedient), protection=protection, directory=Directory(tenants=tenants, keys=keys)
        )
        statuses = [
            (await gateway.ask(infer(*rows, **bearer(secret)))).status
            for secret, rows in (
                (SECRET, "ab"),
                (SECRET, "ab"),
                (SECRET, "a"),
                (SECRET, "a"),
                ("hyp_c", "ab"),
                ("hyp_c", "a"),
            )
        ]
        assert statuses == [200, 429, 200, 429, 200, 429]


@on_uvloop
async def test_a_tenant_over_its_limit_takes_nothing_from_the_others(obedient: ServedVersion) -> None:
    directory = Directory(
        tenants=(TenantRecord("acme", limits=Limits(requests_per_second=0.01, burst=1)),),
        keys=(key(), key("hyp_o", "other")),
    )
    limits = EndpointLimits(requests_per_second=0.01, burst=3)
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=Protection(limits=limits), directory=directory)
        mine = [(await gateway.ask(infer("a", **bearer(SECRET)))).status for _ in range(5)]
        others = [(await gateway.ask(infer("a", **bearer("hyp_o")))).status for _ in range(3)]
        assert mine == [200, 429, 429, 429, 429]
        assert others == [200, 200, 429]


@pytest.mark.parametrize("rows", [1, 3])
@on_uvloop
async def test_an_identical_request_is_answered_from_the_cache(obedient: ServedVersion, rows: int) -> None:
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=Protection(cache=Cache(ttl_s=60)))
        commands = ["pid"] * rows
        first = await gateway.ask(infer(*commands))
        assert first.headers["x-hyperion-served-by"] == "model"
        again = await gateway.ask(infer(*commands))
        assert again.said == first.said
        assert again.headers["x-hyperion-served-by"] == "cache"
        assert again.headers["x-hyperion-model-digest"] == first.headers["x-hyperion-model-digest"]
        assert again.headers["x-request-id"] != first.headers["x-request-id"]
        assert (await gateway.ask(infer(*commands, "x"))).headers["x-hyperion-served-by"] == "model"
        failed = [(await gateway.ask(infer("raise"))).status for _ in range(2)]
        assert failed == [500, 500]
        counted = (await gateway._scrape()).decode()
        assert 'hyperion_cache_total{result="hit"} 1' in counted
        assert 'code="200"} 3' in counted


@pytest.mark.parametrize("cache", [None, Cache(ttl_s=60)])
@on_uvloop
async def test_identical_requests_under_way_are_computed_once(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo], cache: Cache | None
) -> None:
    """Also where a cache does not pay, and is passed by."""
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=Protection(coalesce=True, cache=cache))
        guard = gateway.pool().guard
        assert guard is not None
        if guard.cache is not None:
            guard.cache.worth = Worth(0.0, 0.0, False)
            guard.cache._looks_this_second = guard.cache._second_ends_ns = 1 << 62
        fifo = new_fifo()
        clients = [await gateway.connect() for _ in range(5)]
        for client in clients:
            client.send(infer(fifo.command))
        await fifo.reached()
        await gateway.until(lambda: len(gateway.edge.connections) == 5)
        clients[0].leave()  # the one that leads
        await gateway.until(lambda: len(gateway.edge.connections) == 4)
        fifo.release()
        answers = await asyncio.gather(*[client.answer() for client in clients[1:]])
        assert {answer.status for answer in answers} == {200}
        assert len({answer.headers["x-request-id"] for answer in answers}) == 4
        assert gateway.pool().queue_state().running_rows == 0
        for client in clients[1:]:
            client.leave()


@on_uvloop
async def test_who_finds_no_room_in_the_queue_is_answered_by_the_fallback(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    static = {"said": [["sorry"]], "rows": [[0]], "turn": [[0]]}
    protection = Protection(fallback=(Fallback(static=static),))
    async with serving(queue_rows=1) as gateway:
        await gateway.protect(("obedient", obedient), protection=protection)
        fifo = new_fifo()
        clients = [await gateway.connect() for _ in range(4)]
        clients[0].send(infer(fifo.command))
        await fifo.reached()
        for number, client in enumerate(clients[1:], 2):
            client.send(infer(f"echo {number}"))
            if number < 4:
                await gateway.until(lambda number=number: rows_in(gateway) == number)
        answer = await clients[3].answer()
        assert (answer.status, answer.said) == (200, ["sorry"])
        assert answer.headers["x-hyperion-served-by"] == "fallback:static"
        assert answer.headers["x-hyperion-degraded"] == "true"
        fifo.release()
        for client in clients[:3]:
            assert (await client.answer()).headers["x-hyperion-served-by"] == "model"
        for client in clients:
            client.leave()
