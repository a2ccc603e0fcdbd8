"""Room in a full queue: who is more urgent, or under its share, gets in, and somebody else is told to come again."""

from collections.abc import Callable

import pytest
from msgspec import structs

from hyperion.policy.brownout import COPIES, HEDGES, Brownout
from hyperion.policy.latency import LatencyCurve
from hyperion.schema.protect import Directory, KeyRecord, TenantRecord
from hyperion.schema.release import Split, Track
from hyperion.schema.snapshot import ServedVersion
from tests.gateway.runners import Fifo
from tests.gateway.serving import Serving, infer, on_uvloop, serving
from tests.gateway.test_batches import changed, hold
from tests.gateway.test_identity import bearer, key

SECOND = 1_000_000_000
FAR_NS = 1 << 60
NAMES = ("loud", "quiet", "last")


def secret_of(tenant: str) -> str:
    return f"hyp_{tenant:x<43}"


def directory() -> Directory:
    tenants = tuple(TenantRecord(name, priority=9 if name == "last" else 0) for name in NAMES)
    keys: tuple[KeyRecord, ...] = tuple(structs.replace(key(secret_of(name), name), id=name) for name in NAMES)
    return Directory(tenants, keys)


def of(tenant: str, *rows: str) -> bytes:
    return infer(*rows, **bearer(secret_of(tenant)))


def queued(gateway: Serving) -> list[str]:
    return sorted(call.caller.tenant for call in gateway.pool().queue)


@on_uvloop
async def test_in_a_full_queue_a_higher_priority_takes_the_place_of_the_newest_low_one(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", changed(obedient, max_batch_size=1)), queue_rows=2) as gateway:
        held = await hold(gateway, new_fifo())
        clients = [await gateway.connect() for _ in range(3)]
        for client, row in zip(clients, "abc", strict=True):
            client.send(infer(row, x_hyperion_priority=0 if row == "c" else 5))
            await held.queued(min(2, ord(row) - ord("a") + 1))
        refused = await clients[1].answer()
        assert (refused.status, int(refused.headers["retry-after"]) >= 1) == (503, True)
        assert "higher priority" in refused.error
        assert (await gateway.ask(infer("d", x_hyperion_priority=5))).status == 503  # no less urgent one is left
        await held.release()
        assert [(await clients[n].answer()).said for n in (2, 0)] == [["c"], ["a"]]
        assert 'hyperion_shed_total{reason="overloaded"} 2' in await metrics(gateway)
        for client in (*clients, held.client):
            client.leave()


async def metrics(gateway: Serving) -> str:
    return (await gateway.ask(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")).body.decode()


@on_uvloop
async def test_a_refusal_that_stands_for_a_low_priority_is_none_for_a_high_one(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    one = changed(obedient, max_batch_size=1)
    async with serving(("obedient", one), queue_rows=2, access_log=False) as gateway:
        held = await hold(gateway, new_fifo())
        with await gateway.connect() as client, await gateway.connect() as other, await gateway.connect() as late:
            client.send(infer("a", x_hyperion_priority=7))
            other.send(infer("b", x_hyperion_priority=7))
            await held.queued(2)
            low = infer("c", x_hyperion_priority=7)
            assert [(await late.ask(low)).status for _ in range(3)] == [503] * 3
            assert {name[2] for name in gateway.edge.refusals.standing} == {b"7"}
            late.send(infer("d"))
            assert (await other.answer()).status == 503
            await held.release()
            assert (await late.answer()).said == ["d"]
            assert (await client.answer()).said == ["a"]
        held.client.leave()


@on_uvloop
async def test_a_backlog_of_low_priority_does_not_refuse_a_high_one_before_it_is_decoded(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    """Though the whole queue would take longer than the caller has."""
    async with serving(("obedient", changed(obedient, max_batch_size=1))) as gateway:
        held = await hold(gateway, new_fifo())
        pool = gateway.pool()
        with await gateway.connect() as client, await gateway.connect() as late:
            for number in range(5):
                client.send(infer(f"low{number}", x_hyperion_priority=9))
            await held.queued(5)
            pool.curve = LatencyCurve(base_ns=0.2e9)
            low = await late.ask(infer("a", x_hyperion_priority=9, x_request_timeout_ms=3_000))
            assert (low.status, "longer than the deadline allows" in low.error) == (503, True)
            late.send(infer("b", x_request_timeout_ms=3_000))
            await held.queued(6)
            await held.release()
            assert (await late.answer()).said == ["b"]
            assert [(await client.answer()).said for _ in range(5)] == [[f"low{n}"] for n in range(5)]
        held.client.leave()


@on_uvloop
async def test_a_tenant_that_fills_the_queue_makes_room_for_others_up_to_their_shares(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    one = ("obedient", changed(obedient, max_batch_size=1))
    async with serving(one, queue_rows=4) as gateway:
        await gateway.protect(one, directory=directory())
        held = await hold(gateway, new_fifo())
        loud = [await gateway.connect() for _ in range(4)]
        quiet = [await gateway.connect() for _ in range(3)]
        for number, client in enumerate(loud):
            client.send(of("loud", f"l{number}"))
            await held.queued(number + 1)
        assert (await gateway.ask(of("loud", "l4"))).status == 503
        for number, client in enumerate(quiet[:2]):
            client.send(of("quiet", f"q{number}"))
            refused = await loud[3 - number].answer()
            assert (refused.status, "other tenants" in refused.error) == (503, True)
        assert queued(gateway) == ["loud", "loud", "quiet", "quiet"]
        assert (await quiet[2].ask(of("quiet", "q2"))).status == 503  # it has its share
        await held.release()
        for client, said in ((loud[0], "l0"), (quiet[0], "q0"), (loud[1], "l1"), (quiet[1], "q1")):
            assert (await client.answer()).said == [said]
        for client in (*loud, *quiet, held.client):
            client.leave()


@on_uvloop
async def test_a_tenants_own_priority_counts_whatever_it_asks_for(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    one = ("obedient", changed(obedient, max_batch_size=1))
    async with serving(one, queue_rows=1) as gateway:
        await gateway.protect(one, directory=directory())
        held = await hold(gateway, new_fifo())
        with await gateway.connect() as first, await gateway.connect() as client:
            first.send(infer("a", **bearer(secret_of("last")), x_hyperion_priority=0))
            await held.queued(1)
            client.send(of("quiet", "b"))
            assert (await first.answer()).status == 503
            assert (await first.ask(of("last", "c"))).status == 503
            await held.release()
            assert (await client.answer()).said == ["b"]
        held.client.leave()


@on_uvloop
async def test_an_overload_that_lasts_gives_up_optional_work_and_takes_it_up_again(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", changed(obedient, max_batch_size=1))) as gateway:
        held = await hold(gateway, new_fifo())
        pool = gateway.pool()
        with await gateway.connect() as client:
            client.send(*[infer(f"r{number}") for number in range(4)])
            await held.queued(4)
            pool.curve = LatencyCurve(base_ns=pool.deadline_ns * 0.1)
            start_ns = max(call.received_ns for call in pool.queue)
            levels = []
            for tenth in range(60):
                pool._look_at_load(start_ns + tenth * SECOND // 10)
                levels.append(pool.brownout)
            assert levels == sorted(levels)
            assert levels[9] == 0
            assert levels.index(HEDGES) - levels.index(COPIES) == 10
            assert 'hyperion_brownout{endpoint="obedient",version="1"} 3' in await metrics(gateway)
            assert [event["step"] for event in gateway.events("brown-out")] == [1, 2, 3]
            await held.release()
            for _ in range(4):
                await client.answer()
            for tenth in range(400):
                pool._look_at_load(start_ns + 5 * SECOND + tenth * SECOND // 10)
            assert pool.brownout == 0
        held.client.leave()


@pytest.mark.parametrize("level", [0, COPIES])
@on_uvloop
async def test_in_a_brown_out_nothing_is_copied_or_sampled(obedient: ServedVersion, level: int) -> None:
    shadow = structs.replace(obedient, version="2", digest="sha256:" + "cd" * 32)
    split = Split(1, "salt", (Track("1", 1.0),), "2", 1.0)
    async with serving(access_log=False) as gateway:
        await gateway.release(split, obedient, shadow, log_sample=1.0)
        pool = gateway.pool()
        pool.brownout, pool._overload = level, Brownout(level, 1.0, FAR_NS, FAR_NS)
        with await gateway.connect() as client:
            for command in ["a", "b", "a", "c"]:
                assert (await client.ask(infer(command))).said == [command]
        (pairs,) = gateway.counts.content(0)[1]
        assert pairs.dropped == (4 if level else 0)
        await gateway.until(lambda: gateway.counts.content(0)[1][0].pairs == (0 if level else 4))
        of_the_first = [row for row in gateway.counts.content(100)[3] if row.version == "1"]
        assert len(of_the_first) == (0 if level else 4)
