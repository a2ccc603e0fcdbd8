"""Streams: parts that arrive as they are made, ends of every kind, and nothing that waits for ever."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from hyperion.schema.snapshot import ServedVersion
from tests.gateway.runners import Fifo, config_of, kept_runners, served_by
from tests.gateway.serving import generate, get, infer, on_uvloop, serving


@on_uvloop
async def test_the_parts_of_a_stream_arrive_one_by_one(obedient: ServedVersion, new_fifo: Callable[[], Fifo]) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            fifo = new_fifo()
            client.send(generate(f"gated:{fifo.name}:3", x_request_id="stream-1"))
            parts = client.parts()
            for number in (1, 2, 3):
                await fifo.reached()
                fifo.release()
                if number == 1:
                    status, headers = await client.head()
                    assert (status, headers["content-type"]) == (200, "text/event-stream")
                    assert headers["x-request-id"] == "stream-1"
                    assert headers["x-hyperion-model-version"] == "1"
                event = await anext(parts)
                assert event.startswith(b"data: {")
                assert event.endswith(b"\n\n")
                assert b'"said":"%d"' % number in event
            assert [part async for part in parts] == []
            assert (await client.ask(infer("the connection stays"))).said == ["the connection stays"]
            assert gateway.pool().streams == 0


@on_uvloop
async def test_a_client_that_leaves_a_stream_ends_its_generator(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            fifo = new_fifo()
            client.send(generate(f"forever:{fifo.name}"))
            await client.head()
            parts = client.parts()
            assert b'"said":"1"' in await anext(parts)
            client.leave()
            assert await fifo.said() == b"closed"
            await gateway.until(lambda: gateway.pool().queue_state().running_rows == 0)
            assert [event["code"] for event in gateway.events()] == ["499"]
            assert gateway.pool().streams == 0


@on_uvloop
async def test_streams_and_batches_share_the_model(obedient: ServedVersion, new_fifo: Callable[[], Fifo]) -> None:
    async with serving(("obedient", obedient), access_log=False) as gateway:
        fifos = [new_fifo(), new_fifo()]
        clients = [await gateway.connect() for _ in fifos]
        streams = []
        for client, fifo in zip(clients, fifos, strict=True):
            client.send(generate(f"forever:{fifo.name}"))
            await client.head()
            streams.append(client.parts())
        for number in range(1, 6):
            for parts in streams:
                assert b'"said":"%d"' % number in await anext(parts)
            assert (await gateway.ask(infer("between"))).said == ["between"]
        for client, fifo in zip(clients, fifos, strict=True):
            client.leave()
            assert await fifo.said() == b"closed"


@pytest.mark.parametrize(
    ("command", "parts", "error"),
    [
        ("count:0", 0, b""),
        ("last:raise", 1, b'raised ValueError for this request; its message is in the log'),
    ],
)  # fmt: skip
@on_uvloop
async def test_a_stream_ends_as_its_generator_does(
    obedient: ServedVersion, command: str, parts: int, error: bytes
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            answer = await client.ask(generate(command))
            events = [event for event in answer.body.split(b"\n\n") if event]
            assert answer.status == 200
            assert len(events) == parts + bool(error)
            assert error in answer.body
            assert b"secret" not in answer.body
            assert (await client.ask(infer("good"))).said == ["good"]


@on_uvloop
async def test_a_stream_that_cannot_begin_is_an_error_like_any_other(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        assert (await gateway.ask(generate("none", x_request_timeout_ms=0))).status == 400
        assert (await gateway.ask(generate("x").replace(b'"command"', b'"comment"'))).status == 422


@on_uvloop
async def test_a_stream_past_its_deadline_is_told_so_in_the_stream(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            fifo = new_fifo()
            client.send(generate(f"gated:{fifo.name}:2", x_request_timeout_ms=1000))
            await fifo.reached()
            fifo.release()
            await client.head()
            parts = client.parts()
            assert b'"said":"1"' in await anext(parts)
            await fifo.reached()  # the second part is computed until the deadline has passed
            assert b"the deadline of 1000 ms passed while the model was computing" in await anext(parts)
            assert [part async for part in parts] == []
            fifo.release()
            assert (await client.ask(infer("good"))).said == ["good"]


@on_uvloop
async def test_a_stream_to_an_old_client_ends_with_its_connection(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            old = generate("count:2").replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\nconnection: keep-alive\r\n")
            client.send(old)
            _status, headers = await client.head()
            assert headers["connection"] == "close"
            assert (await client.rest()).count(b"data: ") == 2


@on_uvloop
async def test_a_model_that_does_not_stream_answers_with_a_stream_of_one(obedient: ServedVersion) -> None:
    plain = structs.replace(obedient, signature=structs.replace(obedient.signature, streams=False))
    async with serving(("obedient", plain)) as gateway:
        with await gateway.connect() as client:
            answer = await client.ask(generate("hello"))
            assert answer.body.count(b"data: ") == 1
            assert b'"said":"hello"' in answer.body


@pytest.mark.interpreted
@on_uvloop
async def test_no_more_streams_are_open_than_a_replica_may_hold(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperion.gateway.admit.MAX_STREAMS", 1)
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            fifo = new_fifo()
            client.send(generate(f"gated:{fifo.name}:1"))
            await fifo.reached()
            answer = await gateway.ask(generate("count:1"))
            assert (answer.status, "1 streams are open" in answer.error) == (503, True)
            fifo.release()
            assert (await client.answer()).status == 200
            assert (await client.ask(generate("count:1"))).status == 200


@on_uvloop
async def test_a_replica_that_dies_in_a_stream_ends_it_with_an_error_and_takes_no_other_call_with_it(
    tmp_path: Path,
) -> None:
    config = config_of(tmp_path)
    async with kept_runners(config) as (runner,), serving(("obedient", served_by([config]))) as gateway:
        with await gateway.connect() as client, await gateway.connect() as other:
            # The innocent one leaves first: a write to a replica that has just died can cost the part that it had sent.
            innocent, answer = await asyncio.gather(other.ask(infer("innocent")), client.ask(generate("last:exit")))
            assert b'"said":"1"' in answer.body
            assert b"died in the middle of the stream" in answer.body
            assert innocent.said == ["innocent"]
            assert runner.exits == [9] or not runner.exits
            assert (await other.ask(infer("good"))).said == ["good"]


@on_uvloop
async def test_streams_that_follow_each_other_on_one_connection_leave_in_order(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            client.send(generate("count:3"), infer("between"), generate("count:2"), get("/v2/health/live"))
            answers = [await client.answer() for _ in range(4)]
            assert [answer.body.count(b"data: ") for answer in answers] == [3, 0, 2, 0]
            assert answers[1].said == ["between"]
