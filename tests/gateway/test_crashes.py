"""Replicas that die, hang or lie: everybody is answered, the request that did it alone is refused."""

import asyncio
import signal
from pathlib import Path

from hyperion.schema.model import ModelOptions
from hyperion.schema.snapshot import ServedVersion
from tests.gateway.runners import Fifo, config_of, kept_runners, served_by
from tests.gateway.serving import get, infer, on_uvloop, serving


@on_uvloop
async def test_what_a_killed_replica_held_is_computed_after_its_restart(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with kept_runners(config) as (runner,), serving(("obedient", served_by([config]))) as gateway:
        with await gateway.connect() as client, await gateway.connect() as other:
            fifo = Fifo(tmp_path, "fifo")
            client.send(infer(fifo.command), infer("in the same batch"))
            await fifo.reached()
            other.send(infer("in the next batch"))
            await gateway.until(lambda: gateway.pool().queue_state().running_rows == 3)
            runner.kill()
            await gateway.until(lambda: not gateway.pool().ready)
            other.send(infer("in the queue"))
            first = asyncio.ensure_future(client.answer())
            await fifo.release_until(first)
            assert [first.result().said, (await client.answer()).said] == [[fifo.command], ["in the same batch"]]
            assert [(await other.answer()).said for _ in range(2)] == [["in the next batch"], ["in the queue"]]
            assert runner.exits == [-signal.SIGKILL]
            (event,) = gateway.events("replica lost")
            assert (event["replica"], event["rows_held"]) == (config.replica, 3)


@on_uvloop
async def test_what_a_killed_replica_held_is_taken_by_the_other(tmp_path: Path) -> None:
    configs = [config_of(tmp_path, 0), config_of(tmp_path, 1)]
    async with kept_runners(*configs) as runners, serving(("obedient", served_by(configs))) as gateway:
        await gateway.until(lambda: gateway.pool().queue_state().replicas == 2)
        with await gateway.connect() as client:
            fifo = Fifo(tmp_path, "fifo")
            client.send(infer(fifo.command))
            await fifo.reached()
            (link,) = [link for link in gateway.pool()._links.values() if link.held_rows]
            (busy,) = [runner for runner in runners if runner.config.replica == link.name]
            assert (await gateway.ask(infer("the other is free"))).said == ["the other is free"]
            busy.kill()
            answer = asyncio.ensure_future(client.answer())
            await fifo.release_until(answer)
            assert answer.result().said == [fifo.command]
            assert not any(runner.exits for runner in runners if runner is not busy)


@on_uvloop
async def test_a_request_that_kills_its_replica_is_found_and_refused_alone(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with kept_runners(config) as (runner,), serving(("obedient", served_by([config]))) as gateway:
        with await gateway.connect() as client, await gateway.connect() as other:
            names = ["a", "b", "c", "exit", "d", "e", "f"]
            client.send(*map(infer, names))
            answers = [await client.answer() for _ in names]
            assert [answer.status for answer in answers] == [500 if name == "exit" else 200 for name in names]
            assert "ended the process of model" in answers[3].error
            assert [answer.said for answer in answers if answer.status == 200] == [[n] for n in names if n != "exit"]
            assert set(runner.exits) == {9}
            assert len(runner.exits) <= 3
            assert (await other.ask(infer("good"))).said == ["good"]
            metrics = (await other.ask(get("/metrics"))).body.decode()
            assert 'code="500"} 1' in metrics


@on_uvloop
async def test_a_replica_that_hangs_is_ended_at_the_models_deadline(tmp_path: Path) -> None:
    config = config_of(tmp_path, options=ModelOptions(deadline_ms=250))
    async with kept_runners(config) as (runner,), serving(("obedient", served_by([config]))) as gateway:
        assert (await gateway.ask(infer("spin"))).status == 504
        await gateway.until(lambda: runner.exits)
        assert runner.exits == [-signal.SIGALRM]
        assert b"model.py" in runner.stderr  # where it hung is in the log
        while (answer := await gateway.ask(infer("good"))).status == 504:
            continue  # the restart took longer than the deadline
        assert answer.said == ["good"]


@on_uvloop
async def test_a_model_that_prints_garbage_harms_nobody(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        assert (await gateway.ask(infer("print"))).said == ["print"]
        assert not gateway.events("replica lost")


@on_uvloop
async def test_a_replica_that_breaks_the_protocol_loses_its_connection_and_the_request_that_did_it_is_refused(
    tmp_path: Path,
) -> None:
    config = config_of(tmp_path)
    async with kept_runners(config) as (runner,), serving(("obedient", served_by([config]))) as gateway:
        with await gateway.connect() as client:
            client.send(infer("a"), infer("garbage"), infer("b"))
            answers = [await client.answer() for _ in range(3)]
            assert [answer.status for answer in answers] == [200, 500, 200]
            assert all("it broke the protocol" in event["reason"] for event in gateway.events("replica lost"))
            assert (await client.ask(infer("good"))).said == ["good"]
            assert not runner.exits


@on_uvloop
async def test_a_caller_that_left_a_dead_replica_is_not_computed_again(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with kept_runners(config) as (runner,), serving(("obedient", served_by([config]))) as gateway:
        with await gateway.connect() as client, await gateway.connect() as other:
            fifo = Fifo(tmp_path, "fifo")
            client.send(infer(fifo.command))
            await fifo.reached()
            other.send(infer("innocent"))
            await gateway.until(lambda: gateway.pool().queue_state().running_rows == 2)
            client.leave()
            await gateway.until(gateway.events)
            runner.kill()
            assert (await other.answer()).said == ["innocent"]  # would wait for ever behind the FIFO
            fifo.release()


@on_uvloop
async def test_a_request_whose_deadline_passes_while_its_replica_is_away_is_told_so(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with serving() as gateway:
        await gateway.apply(("obedient", served_by([config])))  # which nobody has started
        answer = await gateway.ask(infer("x", x_request_timeout_ms=20))
        assert (answer.status, answer.error) == (504, "the deadline of 20 ms passed before a replica could take it")
        answer = await gateway.ask(infer("x", parameters={"timeout": 1_500}))  # microseconds
        assert (answer.status, answer.error) == (504, "the deadline of 1.5 ms passed before a replica could take it")
