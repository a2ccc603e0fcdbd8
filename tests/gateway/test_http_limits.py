"""Limits of the HTTP edge: how much, how long, how many; each refusal reaches the client, and nothing else suffers."""

import asyncio
import functools
from collections.abc import Callable

import pytest

from hyperion.gateway.http import edge as http_edge
from hyperion.gateway.http import exchange as http_exchange
from hyperion.gateway.http import protocol as http
from hyperion.gateway.http.answering import LINGER_S
from hyperion.gateway.unread import choose_unread
from hyperion.schema.snapshot import ServedVersion
from tests.gateway.runners import Fifo
from tests.gateway.serving import Client, Serving, generate, get, infer, on_uvloop, request, serving

CHUNKED = b"POST /v2/models/obedient/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (get("/v2/health/live", x_filler="f" * 16_000), 200),
        (get("/v2/health/live", x_filler="f" * 17_000), 431),
        (get("/v2/health/live", x_filler="f" * 500_000), 431),
        (get("/v2/health/live", **{f"x_{n}": "1" for n in range(99)}), 200),
        (get("/v2/health/live", **{f"x_{n}": "1" for n in range(100)}), 431),
        (get("/" + "n" * 17_000), 431),
        (get("/" + "n" * 500_000), 431),
        (get("/v2/health/live?" + "q" * 10_000), 200),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-filler: 1\r\n" * 5000, 431),
        (get("/v2/models/obedient/infer", content_length="1048577").replace(b"GET", b"POST"), 413),
        (request(b"[" * (1 << 20)), 400),
        (CHUNKED + b"%x\r\n" % ((1 << 20) + 1) + b"x" * ((1 << 20) + 1), 413),
        (CHUNKED + b"1\r\nx\r\n" * (http.MAX_CHUNKS + 1), 413),
        (CHUNKED + b"1;" + b"e" * 300_000, 431),
        (CHUNKED + b"1\r\nx\r\n0\r\nx-trailer: " + b"t" * 300_000, 431),
        (CHUNKED + b"1\r\nx\r\n0\r\n" + b"x-trailer: 1\r\n" * 30_000, 431),
    ],
)
@on_uvloop
async def test_a_request_over_a_limit_is_refused(obedient: ServedVersion, data: bytes, status: int) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            answer = await client.ask(data)
            assert answer.status == status
            if status in (413, 431):
                assert answer.headers["connection"] == "close"
                assert "limit" in answer.error or "chunks" in answer.error or "no data" in answer.error
                assert await client.rest() == b""
        assert (await gateway.ask(infer("good"))).said == ["good"]


@on_uvloop
async def test_a_small_body_limit_holds_for_known_heads_too(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient), max_body_bytes=120) as gateway:
        with await gateway.connect() as client:
            assert [(await client.ask(infer("x"))).status for _ in range(3)] == [200] * 3
            assert (await client.ask(infer("x" * 100))).status == 413


@on_uvloop
async def test_the_refusal_of_a_body_arrives_although_the_client_is_still_sending(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            client.send(CHUNKED)
            for _ in range(64):
                client.send(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
                await asyncio.sleep(0)
            assert (await client.answer()).status == 413
            client.send(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
            assert await client.rest() == b""


async def stalled(gateway: Serving, *data: bytes) -> Client:
    """A client that has sent this, seen by the gateway, and sends nothing more."""
    client = await gateway.connect()
    with await gateway.connect() as witness:
        client.send(*data)
        await gateway.until(lambda: len(gateway.edge.connections) == 2)
        for _ in range(3):  # what was sent before is read before
            await witness.ask(get("/v2/health/live"))
    await gateway.until(lambda: len(gateway.edge.connections) == 1)
    return client


@pytest.mark.parametrize(
    ("data", "limit"),
    [
        (b"GET / HT", "header_timeout_s"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx-slow", "header_timeout_s"),
        (infer("x")[:-5], "body_timeout_s"),
        (CHUNKED + b"5\r\nab", "body_timeout_s"),
    ],
)
@on_uvloop
async def test_a_slow_sender_is_refused_after_its_time_and_not_before(
    obedient: ServedVersion, data: bytes, limit: str
) -> None:
    async with serving(("obedient", obedient), **{limit: 5.0}) as gateway:
        with await stalled(gateway, data) as client:
            gateway.tick(4.0)
            assert len(gateway.edge.connections) == 1
            gateway.tick(6.0)
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (408, "close")
            assert await client.rest() == b""
            (event,) = gateway.events()
            assert event["code"] == "408"


@on_uvloop
async def test_a_body_that_keeps_coming_is_not_too_slow(obedient: ServedVersion) -> None:
    data = infer("x" * 300_000)
    async with serving(("obedient", obedient), body_timeout_s=5.0) as gateway:
        with await stalled(gateway, data[:100_000]) as client:
            gateway.tick(4.0)
            client.send(data[100_000:200_000])
            (connection,) = gateway.edge.connections
            await gateway.until(lambda: connection._body_bytes > 190_000)
            gateway.tick(8.0)
            client.send(data[200_000:])
            assert (await client.answer()).status == 200


@on_uvloop
async def test_an_idle_connection_is_closed_after_its_time_and_not_before(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient), idle_timeout_s=5.0) as gateway:
        with await gateway.connect() as fresh, await gateway.connect() as used:
            assert (await used.ask(infer("x"))).status == 200
            await gateway.until(lambda: len(gateway.edge.connections) == 2)
            gateway.tick(4.0)
            assert len(gateway.edge.connections) == 2
            gateway.tick(6.0)
            assert await fresh.rest() == b""
            assert await used.rest() == b""


@on_uvloop
async def test_a_connection_whose_request_is_computed_is_not_idle(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient), idle_timeout_s=5.0) as gateway:
        with await gateway.connect() as client:
            fifo = new_fifo()
            client.send(infer(fifo.command))
            await fifo.reached()
            gateway.tick(1000.0)
            fifo.release()
            assert (await client.answer()).status == 200


@on_uvloop
async def test_a_refusal_behind_a_slow_request_does_not_cut_off_its_answer(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            fifo = new_fifo()
            client.send(infer(fifo.command), b"\x00\x01 no HTTP")
            await fifo.reached()
            await gateway.until(gateway.events)
            gateway.tick(1000.0)
            fifo.release()
            assert (await client.answer()).said == [fifo.command]
            assert (await client.answer()).status == 400
            assert await client.rest() == b""


@on_uvloop
async def test_a_refused_client_that_never_closes_is_cut_off(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            assert (await client.ask(b"no HTTP\r\n\r\n")).status == 400
            assert len(gateway.edge.connections) == 1
            gateway.tick(LINGER_S + 1)
            await gateway.until(lambda: not gateway.edge.connections)


@on_uvloop
async def test_a_client_that_does_not_read_is_no_longer_read_and_in_the_end_cut_off(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient), access_log=False) as gateway:
        with await gateway.connect_deaf() as client:
            await gateway.until(lambda: gateway.edge.connections)
            (connection,) = gateway.edge.connections
            client.send(*(infer("x" * 50_000) for _ in range(200)))
            await gateway.until(lambda: not connection._writable and not connection._exchanges)
            assert not connection._reading
            assert connection.unsent_bytes() < 4 << 20
            gateway.tick(1000.0)
            assert connection in gateway.edge.connections  # it gets one more look
            gateway.tick(2000.0)
            await gateway.until(lambda: not gateway.edge.connections)
        assert (await gateway.ask(infer("good"))).said == ["good"]


@on_uvloop
async def test_a_client_that_reads_late_gets_every_answer(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient), access_log=False) as gateway:
        with await gateway.connect_deaf() as client:
            texts = [f"{number}" * 30_000 for number in range(60)]
            client.send(*map(infer, texts))
            await gateway.until(lambda: any(not one._writable for one in gateway.edge.connections))
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            for text in texts:
                assert (await client.answer()).said == [text]


@on_uvloop
async def test_no_more_requests_of_one_connection_are_open_than_allowed(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    count = http.MAX_PIPELINED * 3
    async with serving(("obedient", obedient), access_log=False) as gateway:
        with await gateway.connect() as client:
            fifo = new_fifo()
            client.send(infer(fifo.command))
            await fifo.reached()
            for number in range(count):
                client.send(infer(f"n{number}"))
                await asyncio.sleep(0)
            client.send(infer("last")[:-5])  # is cut off by our not reading, not by its sender
            await gateway.until(lambda: any(not one._reading for one in gateway.edge.connections))
            gateway.tick(1000.0)
            fifo.release()
            assert (await client.answer()).said == [fifo.command]
            for number in range(count):
                assert (await client.answer()).said == [f"n{number}"]
            client.send(infer("last")[-5:])
            assert (await client.answer()).said == ["last"]


@on_uvloop
async def test_connections_beyond_the_bound_are_told_to_come_back(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient), max_connections=2) as gateway:
        with await gateway.connect() as one, await gateway.connect() as two:
            await gateway.until(lambda: len(gateway.edge.connections) == 2)
            with await gateway.connect() as three:
                answer = await three.answer()
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                assert await three.rest() == b""
            assert (await one.ask(infer("one"))).said == ["one"]
            two.leave()
            await gateway.until(lambda: len(gateway.edge.connections) == 1)
            assert (await gateway.ask(infer("next"))).said == ["next"]


@on_uvloop
async def test_answers_that_nobody_reads_are_bounded_over_all_connections(
    obedient: ServedVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_edge, "choose_unread", functools.partial(choose_unread, most_bytes=300_000))
    async with serving(("obedient", obedient), access_log=False) as gateway:
        with await gateway.connect_deaf() as client, await gateway.connect() as other:
            client.send(*(infer("x" * 50_000) for _ in range(200)))
            await gateway.until(lambda: any(one.unsent_bytes() > 300_000 for one in gateway.edge.connections))
            gateway.tick(1.0)
            assert (await other.ask(infer("good"))).said == ["good"]
            await gateway.until(lambda: len(gateway.edge.connections) == 1)


@pytest.mark.interpreted
@pytest.mark.parametrize("most_bytes", [150_000, 180_000])  # it is refused in the parser, and behind it
@on_uvloop
async def test_bodies_that_are_still_arriving_are_bounded_over_all_connections(
    obedient: ServedVersion, monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    monkeypatch.setattr(http, "MAX_BUFFERED_BYTES", most_bytes)
    async with serving(("obedient", obedient)) as gateway:
        with await stalled(gateway, infer("x" * 100_000)[:-5]), await gateway.connect() as client:
            assert (await client.ask(infer("x" * 100_000))).status == 503
            assert (await gateway.ask(infer("small"))).said == ["small"]
        await gateway.until(lambda: gateway.edge.buffered_bytes == 0)
        assert (await gateway.ask(infer("x" * 100_000))).status == 200


@pytest.mark.parametrize("half_close", [True, False])
@on_uvloop
async def test_a_client_that_leaves_is_counted_and_its_work_dropped(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo], half_close: bool
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client, await gateway.connect() as waiter:
            first, second = new_fifo(), new_fifo()
            client.send(infer(first.command))
            await first.reached()
            waiter.send(infer(second.command))  # waits in the gateway or the runner's socket
            await gateway.until(lambda: gateway.pool().queue_state().running_rows == 2)
            for one in (client, waiter):
                one.writer.write_eof() if half_close else one.leave()
            await gateway.until(lambda: len(gateway.events()) == 2)
            assert {event["code"] for event in gateway.events()} == {"499"}
            first.release()
            await second.reached()
            second.release()
            assert (await gateway.ask(infer("next"))).said == ["next"]
            metrics = (await gateway.ask(get("/metrics"))).body.decode()
            assert 'code="499"} 2' in metrics


@on_uvloop
async def test_a_draining_edge_answers_what_it_has_and_closes(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as busy, await gateway.connect() as idle, await gateway.connect() as known:
            fifo = new_fifo()
            await known.ask(infer("x"))
            busy.send(infer(fifo.command))
            await fifo.reached()
            with await stalled_beside(gateway, infer("late")[:-5]) as late:
                gateway.edge.drain()
                assert await idle.rest() == b""
                assert await known.rest() == b""
                late.send(infer("late")[-5:])
                busy.send(infer("one more"))
                await gateway.until(lambda: gateway.pool().queue_state().running_rows >= 2)
                fifo.release()
                assert (await late.answer()).said == ["late"]
                assert (await busy.answer()).said == [fifo.command]
                last = await busy.answer()
                assert (last.said, last.headers["connection"]) == (["one more"], "close")
            with await gateway.connect() as newcomer:
                assert (await newcomer.answer()).status == 503


@on_uvloop
async def test_a_draining_edge_says_with_the_answer_that_was_asked_for_before_that_it_closes(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as busy, await gateway.connect() as streams:
            first, second = new_fifo(), new_fifo()
            streams.send(generate(f"gated:{second.name}:1"))
            await second.reached()
            busy.send(infer("x"), infer(first.command))
            await gateway.until(lambda: gateway.pool().queue_state().running_rows == 3)
            gateway.edge.drain()
            second.release()
            status, headers = await streams.head()
            assert (status, headers["connection"]) == (200, "close")
            await first.reached()
            first.release()
            assert "connection" not in (await busy.answer()).headers
            assert (await busy.answer()).headers["connection"] == "close"
            assert await busy.rest() == b""
            assert (await streams.rest()).endswith(b"0\r\n\r\n")
            await gateway.edge.empty.wait()


async def stalled_beside(gateway: Serving, data: bytes) -> Client:
    """As `stalled`, with other connections there."""
    client = await gateway.connect()
    client.send(data)
    await gateway.until(lambda: any(one._body_bytes for one in gateway.edge.connections))
    return client


@on_uvloop
async def test_a_stream_whose_client_does_not_read_is_cut_off(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_exchange, "MAX_UNSENT_BYTES", 20_000)
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect_deaf() as client:
            fifo = new_fifo()
            client.send(generate(f"forever:{fifo.name}"))
            assert await fifo.said() == b"closed"
            await gateway.until(gateway.events)
            assert gateway.events()[0]["code"] == "499"
