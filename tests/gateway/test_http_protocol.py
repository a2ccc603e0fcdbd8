"""HTTP/1.1 as clients speak it: connections that stay, requests in a row, bodies in every form."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable

import pytest

from hyperion.schema.snapshot import ServedVersion
from tests.gateway.runners import Fifo
from tests.gateway.serving import get, infer, on_uvloop, request, serving

BODY = infer("x").partition(b"\r\n\r\n")[2]


@on_uvloop
async def test_a_connection_answers_one_request_after_the_other(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            for number in range(5):
                answer = await client.ask(infer(f"n{number}"))
                assert (answer.status, answer.said) == (200, [f"n{number}"])
                assert "connection" not in answer.headers


@on_uvloop
async def test_an_answer_says_who_made_it_and_how_long_it_took(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        answer = await gateway.ask(infer("x", x_request_id="mine-1"))
        assert answer.headers["x-request-id"] == "mine-1"
        assert answer.headers["x-hyperion-model-version"] == "1"
        assert answer.headers["x-hyperion-model-digest"] == obedient.digest
        assert answer.headers["x-hyperion-served-by"] == "model"
        stages = [stage.split(";dur=") for stage in answer.headers["server-timing"].split(", ")]
        assert [name for name, _ms in stages] == ["queue", "batch", "compute"]
        assert all(float(ms) >= 0 for _name, ms in stages)
        assert answer.headers["date"].endswith(" gmt")
        assert answer.headers["content-type"] == "application/json"
        other = await gateway.ask(infer("x", x_request_id="two words"))
        assert other.headers["x-request-id"].startswith("id-")


@on_uvloop
async def test_a_thousand_requests_in_one_send_are_answered_in_order(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient), access_log=False) as gateway:
        with await gateway.connect() as client:
            client.send(*(infer(f"n{number}") for number in range(1000)))
            for number in range(1000):
                answer = await client.answer()
                assert (answer.status, answer.said) == (200, [f"n{number}"])


@on_uvloop
async def test_pipelined_requests_of_many_sizes_are_answered_in_order(obedient: ServedVersion) -> None:
    """Heads fall on every side of the pieces in which the edge looks at what it received."""
    async with serving(("obedient", obedient), access_log=False) as gateway:
        with await gateway.connect() as client:
            texts = [f"{number}" * (1 + number * 7919 % 9000) for number in range(120)]
            client.send(*(infer(text, x_filler="f" * (len(text) % 3000)) for text in texts))
            for text in texts:
                answer = await client.answer()
                assert (answer.status, answer.said) == (200, [text])


@on_uvloop
async def test_fast_and_broken_requests_wait_for_the_answer_of_a_slow_one(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            fifo = new_fifo()
            client.send(infer(fifo.command), get("/v2/health/live"), request(b"{"), get("/nowhere"), infer("last"))
            await fifo.reached()
            await gateway.until(lambda: len(gateway.events()) >= 2)  # the two refusals are recorded
            other = await gateway.ask(get("/v2/health/live"))
            assert other.status == 200
            assert not client.reader._buffer  # type: ignore[attr-defined]
            fifo.release()
            answers = [await client.answer() for _ in range(5)]
            assert [answer.status for answer in answers] == [200, 200, 400, 404, 200]
            assert answers[0].said == [fifo.command]
            assert answers[1].json() == {"live": True}
            assert answers[4].said == ["last"]


@on_uvloop
async def test_a_request_may_come_byte_by_byte(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            for byte in infer("slowly"):
                client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (await client.answer()).said == ["slowly"]


CHUNKED = b"POST /v2/models/obedient/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n%b\r\n"


@pytest.mark.parametrize("size", [1, 7, len(BODY)])
@on_uvloop
async def test_a_chunked_body_is_put_together(obedient: ServedVersion, size: int) -> None:
    pieces = [BODY[start : start + size] for start in range(0, len(BODY), size)]
    chunks = b"".join(b"%x;note=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            for _ in range(2):
                answer = await client.ask(CHUNKED % b"trailer: x-sum\r\n", chunks, b"0\r\nx-sum: 5\r\n\r\n")
                assert answer.said == ["x"]


@on_uvloop
async def test_a_client_that_waits_for_leave_gets_it_before_it_sends_its_body(obedient: ServedVersion) -> None:
    head, _, body = infer("x", expect="100-continue").partition(b"\r\n\r\n")
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            for _ in range(2):
                client.send(head + b"\r\n\r\n")
                assert await client.head() == (100, {})
                answer = await client.ask(body)
                assert answer.said == ["x"]


@on_uvloop
async def test_a_body_that_would_be_refused_is_refused_before_it_is_sent(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        head = CHUNKED.replace(b"transfer-encoding: chunked", b"content-length: 9000000\r\nexpect: 100-continue") % b""
        with await gateway.connect() as client:
            answer = await client.ask(head)
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert await client.rest() == b""
        with await gateway.connect() as client:
            answer = await client.ask(infer("x", expect="a miracle"))
            assert (answer.status, answer.headers["connection"]) == (400, "close")


@on_uvloop
async def test_head_gets_the_headers_of_get_without_a_body(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            got = await client.ask(get("/v2/models/obedient"))
            client.send(get("/v2/models/obedient").replace(b"GET", b"HEAD"))
            head = await client.answer(head_only=True)
            assert (head.status, head.headers["content-length"]) == (200, str(len(got.body)))
            client.send(get("/nowhere").replace(b"GET", b"HEAD"))
            assert (await client.answer(head_only=True)).status == 404
            assert (await client.ask(infer("still here"))).said == ["still here"]


RAW = zlib.compressobj(wbits=-15)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        ("GZIP", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", RAW.compress(BODY) + RAW.flush()),
        ("identity", BODY),
    ],
)
@on_uvloop
async def test_a_compressed_body_is_inflated(obedient: ServedVersion, encoding: str, body: bytes) -> None:
    async with serving(("obedient", obedient)) as gateway:
        assert (await gateway.ask(request(body, content_encoding=encoding))).said == ["x"]


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", gzip.compress(b" " * (2 << 20)), 413),  # a bomb: two thousand bytes that become two million
        ("deflate", zlib.compress(b" " * (2 << 20)), 413),
        ("gzip", gzip.compress(gzip.compress(BODY)), 400),
        ("gzip", BODY, 400),
        ("gzip", b"", 400),
        ("gzip", gzip.compress(BODY)[:-4], 400),
        ("gzip", gzip.compress(BODY) + b"more", 400),
        ("deflate", b"\x78", 400),
        ("br", BODY, 400),
        ("gzip, gzip", BODY, 400),
    ],
)
@on_uvloop
async def test_a_bad_compression_costs_its_request_only(
    obedient: ServedVersion, encoding: str, body: bytes, status: int
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            answer = await client.ask(request(body, content_encoding=encoding))
            assert answer.status == status
            assert (await client.ask(infer("good"))).said == ["good"]


@pytest.mark.parametrize(
    ("version", "asked", "told"),
    [("1.1", "", ""), ("1.1", "close", "close"), ("1.0", "", "close"), ("1.0", "Keep-Alive", "keep-alive")],
)
@pytest.mark.parametrize("data", [infer("x"), get("/v2"), get("/nothing"), get("/metrics")])
@on_uvloop
async def test_a_connection_stays_or_closes_as_the_client_wants(
    obedient: ServedVersion, data: bytes, version: str, asked: str, told: str
) -> None:
    """HTTP/1.0 has to be told that its connection stays, or it waits for the end (`ab -k`)."""
    data = data.replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    if asked:
        data = data.replace(b"host:", f"connection: {asked}\r\nhost:".encode())
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            answer = await client.ask(data)
            assert answer.headers.get("connection", "") == told
            if told != "close":
                assert (await client.ask(data)).status == answer.status
            else:
                assert await client.rest() == b""


@pytest.mark.parametrize("data", [get("/v2/health/live"), infer("x")])
@on_uvloop
async def test_an_upgrade_is_not_made_and_the_request_is_answered_all_the_same(
    obedient: ServedVersion, data: bytes
) -> None:
    """Some clients ask for HTTP/2 with their first request. The connection ends: what follows may not be HTTP/1."""
    data = data.replace(
        b"host:", b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAM\r\nhost:"
    )
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            answer = await client.ask(data)
            assert (answer.status, answer.headers.get("connection")) == (200, "close")
            assert await client.rest() == b""


@on_uvloop
async def test_a_body_of_several_reads_is_one_body(obedient: ServedVersion) -> None:
    text = "x" * 700_000
    async with serving(("obedient", obedient)) as gateway:
        answer = await gateway.ask(infer(text))
        assert answer.said == [text]
        assert json.loads(answer.body)["model_name"] == "obedient"
