"""From one snapshot to the next: nothing is lost, nothing is left."""

import asyncio
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from hyperion.schema.model import ModelOptions
from hyperion.schema.release import Split, Track
from hyperion.schema.snapshot import ServedModel, ServedVersion, Snapshot
from tests.gateway.runners import Fifo, config_of, served_by, start_runner, stop_runner
from tests.gateway.serving import generate, get, infer, on_uvloop, serving


def again(served: ServedVersion, generation: int) -> ServedVersion:
    """The same version, loaded again."""
    return structs.replace(served, generation=generation)


@on_uvloop
async def test_swaps_under_load_fail_no_request_and_leave_nothing_open(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient), access_log=False) as gateway:
        stop = asyncio.Event()
        statuses: list[int] = []

        async def ask_all_the_time() -> None:
            with await gateway.connect() as client:
                while not stop.is_set():
                    statuses.append((await client.ask(infer("x"))).status)

        askers = [asyncio.create_task(ask_all_the_time()) for _ in range(4)]
        await gateway.until(lambda: len(statuses) > 10)
        descriptors = len(os.listdir("/proc/self/fd"))
        for generation in range(2, 42):
            before = len(statuses)
            await gateway.serve(("obedient", again(obedient, generation)))
            await gateway.until(lambda before=before: len(statuses) > before + 3)  # type: ignore[misc]
        stop.set()
        await asyncio.gather(*askers)
        assert set(statuses) == {200}
        await gateway.until(lambda: not gateway.router.draining())
        gc.collect()
        assert len(list(gateway.router.all_pools())) == 1
        assert len(os.listdir("/proc/self/fd")) <= descriptors


@on_uvloop
async def test_what_the_old_version_holds_is_finished_by_it_and_named_as_draining(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            fifo, old = new_fifo(), gateway.pool()
            client.send(generate(f"forever:{fifo.name}"))
            await client.head()
            parts = client.parts()
            await anext(parts)
            await gateway.serve(("obedient", again(obedient, 2)))
            assert gateway.router.draining() == (obedient.replicas[0].name,)
            assert (await gateway.ask(infer("new"))).said == ["new"]
            for _ in range(5):
                assert b"said" in await anext(parts)
            assert not old.closed.is_set()
            client.leave()
            assert await fifo.said() == b"closed"
            await old.closed.wait()
            assert gateway.router.draining() == ()


@on_uvloop
async def test_it_is_told_at_once_that_an_old_version_holds_its_replicas_no_more(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            told: list[tuple[str, ...]] = []
            gateway.router.drained = lambda: told.append(gateway.router.draining())
            fifo = new_fifo()
            client.send(generate(f"forever:{fifo.name}"))
            await client.head()
            await gateway.serve(("obedient", again(obedient, 2)))
            assert gateway.router.draining() == (obedient.replicas[0].name,)
            assert not told
            client.leave()
            assert await fifo.said() == b"closed"
            await gateway.until(lambda: told)
            assert told == [()]


@on_uvloop
async def test_an_old_version_whose_replica_never_comes_back_is_closed_once_its_callers_have_given_up(
    obedient: ServedVersion, tmp_path: Path
) -> None:
    config = config_of(tmp_path, options=ModelOptions(deadline_ms=2000))
    runner = await asyncio.to_thread(start_runner, config)
    try:
        async with serving(("obedient", served_by([config]))) as gateway:
            with await gateway.connect() as client:
                fifo, old = Fifo(tmp_path, "fifo"), gateway.pool()
                client.send(infer(fifo.command, x_request_timeout_ms=300))
                await fifo.reached()
                await gateway.serve(("obedient", again(obedient, 2)))
                runner.kill()
                fifo.release()
                assert (await client.answer()).status == 504
                await old.closed.wait()
                assert gateway.router.draining() == ()
    finally:
        stop_runner(runner)


@on_uvloop
async def test_versions_are_chosen_by_name_and_the_default_by_the_snapshot(obedient: ServedVersion) -> None:
    two = structs.replace(obedient, version="2")
    async with serving() as gateway:
        await gateway.router.apply(Snapshot(1, (ServedModel("m", "2", (obedient, two)),)))
        with await gateway.connect() as client:
            for path, version in (("/v2/models/m/infer", "2"), ("/v2/models/m/versions/1/infer", "1")):
                answer = await client.ask(infer("x", path=path))
                assert answer.headers["x-hyperion-model-version"] == version
            assert (await client.ask(get("/v2/models/m"))).json()["versions"] == ["1", "2"]
            await gateway.router.apply(Snapshot(2, (ServedModel("m", "1", (obedient,)),)))
            answer = await client.ask(infer("x", path="/v2/models/m/infer"))
            assert answer.headers["x-hyperion-model-version"] == "1"
            assert (await client.ask(infer("x", path="/v2/models/m/versions/2/infer"))).status == 404
            await gateway.router.apply(Snapshot(3))
            assert (await client.ask(infer("x", path="/v2/models/m/infer"))).status == 404
            assert (await client.ask(get("/v2/models"))).json() == {"models": []}
        await gateway.until(lambda: not gateway.router.draining())


@on_uvloop
async def test_a_version_that_did_not_change_keeps_its_connections(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        pool = gateway.pool()
        await gateway.serve(("obedient", obedient), ("other", obedient))
        assert gateway.pool() is pool
        assert not pool.retired


@on_uvloop
async def test_a_new_version_that_cannot_be_reached_leaves_the_old_one_in_its_place(
    obedient: ServedVersion, monkeypatch: object
) -> None:
    nowhere = structs.replace(again(obedient, 2), replicas=(structs.replace(obedient.replicas[0], socket="/nowhere"),))
    async with serving(("obedient", obedient)) as gateway:
        pool = gateway.pool()
        monkeypatch.setattr("hyperion.gateway.route.CONNECT_S", 0.05)  # type: ignore[attr-defined]
        await gateway.apply(("obedient", nowhere))
        assert gateway.pool() is pool
        assert (await gateway.ask(infer("x"))).said == ["x"]
        assert len(gateway.events("replicas not reached; the old ones stay")) == 1


@on_uvloop
async def test_a_model_whose_default_version_is_missing_is_left_out_and_nothing_of_it_stays(
    obedient: ServedVersion,
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        descriptors = len(os.listdir("/proc/self/fd"))
        await gateway.router.apply(
            Snapshot(5, (ServedModel("obedient", "1", (obedient,)), ServedModel("m", "7", (obedient,))))
        )
        assert gateway.pipeline.models() == ("obedient",)
        assert (await gateway.ask(infer("x"))).said == ["x"]
        await gateway.until(lambda: [pool.closed.is_set() for pool in gateway.pools] == [False, True])
        await gateway.until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors + 2)  # the asker's, in both states


@on_uvloop
async def test_a_reload_that_cannot_be_reached_delays_neither_weights_nor_other_endpoints(
    obedient: ServedVersion,
) -> None:
    nowhere = structs.replace(again(obedient, 2), replicas=(structs.replace(obedient.replicas[0], socket="/nowhere"),))
    two = structs.replace(obedient, version="2")
    async with serving() as gateway:
        await gateway.router.apply(Snapshot(1, (ServedModel("m", "1", (obedient, two)), ServedModel("n", "1", (two,)))))
        for name in ("1", "2"):
            assert await gateway.router.table.find("m", name).wait_connected(20)
        all_to_two = Split(1, "", (Track("1", 0.0), Track("2", 1.0)))
        models = (ServedModel("m", "1", (nowhere, two), all_to_two), ServedModel("n", "1", (obedient,)))
        following = asyncio.create_task(gateway.router.apply(Snapshot(2, models)))
        await asyncio.sleep(0)
        assert gateway.router.table.version == 2
        for _ in range(5):
            answer = await gateway.ask(infer("x", path="/v2/models/m/infer"))
            assert answer.headers["x-hyperion-model-version"] == "2"
        assert obedient.replicas[0].name in gateway.router.draining()
        # The next snapshot is followed although this one has not been in full; what waits is no longer wanted.
        assert not following.done()
        await asyncio.wait_for(gateway.router.apply(Snapshot(3, (ServedModel("m", "1", (obedient,)),))), 1)
        await asyncio.wait_for(following, 1)
        assert (await gateway.ask(infer("x", path="/v2/models/m/infer"))).said == ["x"]


@on_uvloop
async def test_an_endpoint_whose_new_part_makes_no_sense_stays_as_it_was_and_is_named(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        pool = gateway.pool()
        bad = ServedModel("obedient", "7", (obedient,))
        await gateway.router.apply(Snapshot(5, (bad, ServedModel("m", "1", (obedient,)))))
        assert gateway.pool() is pool
        assert not pool.retired
        assert list(gateway.router.rejected) == ["obedient"]
        assert gateway.pipeline.models() == ("obedient", "m")
        await gateway.router.apply(Snapshot(6, (ServedModel("obedient", "1", (obedient,)),)))
        assert gateway.router.rejected == {}


@on_uvloop
async def test_new_weights_cost_little_beside_two_hundred_endpoints(obedient: ServedVersion) -> None:
    two = structs.replace(obedient, version="2")

    def snapshot(version: int, share: float) -> Snapshot:
        split = Split(version, "", (Track("1", 1 - share), Track("2", share)))
        others = tuple(ServedModel(f"m{number}", "1", (obedient,)) for number in range(199))
        return Snapshot(version, (ServedModel("m", "1", (obedient, two), split), *others))

    async with serving(queue_rows=64) as gateway:
        started_s = time.perf_counter()
        await gateway.router.apply(snapshot(1, 0.0))
        all_s = time.perf_counter() - started_s  # what changes costs, not what is there
        pools = set(gateway.router.table.pools())
        assert await gateway.router.table.find("m", "2").wait_connected(20)
        started_s = time.perf_counter()
        for version in range(2, 22):
            await gateway.router.apply(snapshot(version, version % 2))
        assert time.perf_counter() - started_s < 20 * 0.5 * all_s
        assert set(gateway.router.table.pools()) == pools
