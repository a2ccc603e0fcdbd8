"""Through a gateway: what was answered is answered again, to whom it may be, without being decoded or computed."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from hyperion.schema.protect import Cache, Directory, EndpointLimits, Protection, TenantRecord
from hyperion.schema.snapshot import ServedVersion
from tests.gateway.runners import Fifo
from tests.gateway.serving import Answer, Serving, infer, on_uvloop, request, serving
from tests.gateway.test_identity import SECRET, bearer, key

CACHED = Protection(cache=Cache(ttl_s=600.0))
MODEL, CACHE = "model", "cache"


def served_by(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return answer.headers["x-hyperion-served-by"]


def results(gateway: Serving) -> dict[str, float]:
    counted = gateway.metrics.collect().counters["hyperion_cache_total"]
    return {key[-1]: count for key, count in counted.items() if count}


def front_of(gateway: Serving) -> dict[Any, Any]:
    guard = gateway.pool().guard
    assert guard is not None
    assert guard.cache is not None
    return guard.cache.front.answers


@on_uvloop
async def test_what_comes_again_is_answered_from_the_cache_and_then_undecoded(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=CACHED)
        with await gateway.connect() as client:
            answers = [await client.ask(infer("again")) for _ in range(5)]
            assert len(front_of(gateway)) == 1
            aside = await client.ask(infer("again", x_request_id="mine"))
        assert [served_by(one) for one in answers] == [MODEL, CACHE, CACHE, CACHE, CACHE]
        assert {one.body for one in answers} == {answers[0].body}
        assert len({one.headers["x-request-id"] for one in answers}) == 5
        assert aside.headers["x-request-id"] == "mine"
        for one in answers[1:]:
            assert one.headers["server-timing"] == "queue;dur=0.000, batch;dur=0.000, compute;dur=0.000"
            for name in ("x-hyperion-model-version", "x-hyperion-model-digest", "content-type", "content-length"):
                assert one.headers[name] == answers[0].headers[name]
            assert "date" in one.headers
        assert results(gateway) == {"miss": 1.0, "hit": 5.0}
        series = gateway.metrics.collect().counters["hyperion_requests_total"]
        assert series["obedient", "1", "http", "200"] == 6.0
        assert [event["request_id"] for event in gateway.events()][-1] == "mine"


@on_uvloop
async def test_an_answer_has_the_name_of_the_version_that_was_asked_where_two_are_the_same_bytes(
    obedient: ServedVersion,
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        for version in ("1", "2", "1"):
            served = structs.replace(obedient, version=version)
            await gateway.protect(("obedient", served), protection=CACHED)
            answers = [await gateway.ask(infer("again")) for _ in range(3)]
            assert {one.headers["x-hyperion-model-version"] for one in answers} == {version}
            assert {one.json()["model_version"] for one in answers} == {version}
        assert results(gateway) == {"miss": 1.0, "hit": 8.0}


@on_uvloop
async def test_pipelined_repeats_and_others_are_answered_in_order(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=CACHED)
        fifo = new_fifo()
        with await gateway.connect() as client:
            for _ in range(3):
                await client.ask(infer("quick"))
            client.send(infer(fifo.command), infer("quick"), infer("quick"))
            await fifo.reached()
            fifo.release()
            said = [(await client.answer()).said for _ in range(3)]
        assert said == [[fifo.command], ["quick"], ["quick"]]


@pytest.mark.parametrize("close", [b"connection: close\r\n", b""])
@on_uvloop
async def test_a_repeat_keeps_the_connection_only_as_it_was_asked(obedient: ServedVersion, close: bytes) -> None:
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=CACHED)
        for _ in range(2):
            await gateway.ask(infer("again"))
        with await gateway.connect() as client:
            answer = await client.ask(infer("again").replace(b"\r\nhost", b"\r\n" + close + b"host", 1))
            assert served_by(answer) == CACHE
            assert answer.headers.get("connection") == ("close" if close else None)
            if close:
                assert await client.rest() == b""
            else:
                assert served_by(await client.ask(infer("again"))) == CACHE


@on_uvloop
async def test_the_same_request_in_other_words_is_answered_in_those(obedient: ServedVersion) -> None:
    """Ids, outputs, binary answers: each as its own request wants it, from one computation."""
    one = {"name": "command", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}
    binary = {"binary_data_output": True}
    bodies = [
        json.dumps(body).encode()
        for body in (
            {"inputs": [one]},
            {"id": "i1", "inputs": [one]},
            {"id": "i2", "inputs": [one]},
            {"inputs": [one], "parameters": binary},
        )
    ]
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=CACHED)
        rounds = [[await gateway.ask(request(body)) for body in bodies] for _ in range(3)]
        assert [served_by(answer) for answer in rounds[0]] == [MODEL, CACHE, CACHE, CACHE]
        assert len(front_of(gateway)) == 4
        for answers in rounds:
            assert [answer.json().get("id") for answer in answers[:3]] == [None, "i1", "i2"]
            size = int(answers[3].headers["inference-header-content-length"])
            assert answers[3].headers["content-type"] == "application/octet-stream"
            assert json.loads(answers[3].body[:size])["outputs"][0]["name"] == "said"
            assert [answer.body for answer in answers] == [answer.body for answer in rounds[0]]


@on_uvloop
async def test_requested_outputs_are_another_request(obedient: ServedVersion) -> None:
    one = {"name": "command", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=CACHED)
        for _ in range(3):
            for outputs in (["said"], ["rows"], ["rows", "said"], ["said", "rows"]):
                body = {"inputs": [one], "outputs": [{"name": name} for name in outputs]}
                answer = await gateway.ask(request(json.dumps(body).encode()))
                assert sorted(output["name"] for output in answer.json()["outputs"]) == sorted(outputs)


@on_uvloop
async def test_what_is_wrong_with_a_header_is_wrong_with_a_repeat_too(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=CACHED)
        for _ in range(2):
            await gateway.ask(infer("again"))
        for headers in ({"x_request_timeout_ms": "soon"}, {"x_hyperion_priority": "10"}):
            assert (await gateway.ask(infer("again", **headers))).status == 400
        assert served_by(await gateway.ask(infer("again", x_request_timeout_ms=5_000, x_hyperion_priority=3))) == CACHE


@on_uvloop
async def test_repeats_count_against_limits_and_say_what_is_left(obedient: ServedVersion) -> None:
    limits = EndpointLimits(requests_per_second=0.001, burst=4)
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=structs.replace(CACHED, limits=limits))
        with await gateway.connect() as client:
            answers = [await client.ask(infer("again")) for _ in range(5)]
        assert [answer.status for answer in answers] == [200, 200, 200, 200, 429]
        left = [answer.headers["ratelimit"].split(";")[1] for answer in answers]
        assert left == ["r=3", "r=2", "r=1", "r=0", "r=0"]
        assert served_by(answers[3]) == CACHE


@on_uvloop
async def test_tenants_do_not_see_each_others_answers_unless_the_endpoint_says_so(obedient: ServedVersion) -> None:
    directory = Directory((TenantRecord("acme"), TenantRecord("zeta")), (key(), key("hyp_z", "zeta")))
    for scope, expected in (("tenant", MODEL), ("all", CACHE)):
        protection = Protection(cache=Cache(ttl_s=600.0, scope=scope))  # type: ignore[arg-type]
        async with serving(("obedient", obedient)) as gateway:
            await gateway.protect(("obedient", obedient), protection=protection, directory=directory)
            for _ in range(3):
                await gateway.ask(infer("again", **bearer(SECRET)))
            assert served_by(await gateway.ask(infer("again", **bearer("hyp_z")))) == expected
            assert served_by(await gateway.ask(infer("again", **bearer("hyp_z")))) == CACHE
            assert (await gateway.ask(infer("again", **bearer("hyp_wrong")))).status == 401


@on_uvloop
async def test_errors_are_never_kept(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=CACHED)
        for _ in range(3):
            assert (await gateway.ask(infer("raise"))).status == 500
        assert results(gateway) == {"miss": 3.0}
        assert not front_of(gateway)


@on_uvloop
async def test_identical_requests_under_way_are_computed_once(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    """The leader leaves in the middle; the others get what was computed for it."""
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=Protection(coalesce=True))
        fifo = new_fifo()
        guard = gateway.pool().guard
        assert guard is not None
        flights = guard.flights
        assert flights is not None
        clients = [await gateway.connect() for _ in range(4)]
        clients[0].send(infer(fifo.command))
        await fifo.reached()
        for client in clients[1:]:
            client.send(infer(fifo.command))
        await gateway.until(lambda: sum(len(one.followers) for one in flights._by_key.values()) == 3)
        clients[0].leave()
        await gateway.until(lambda: len(gateway.edge.connections) == 3)
        answers = [asyncio.create_task(client.answer()) for client in clients[1:]]
        fifo.release()
        answered = await asyncio.gather(*answers)
        assert {answer.output("turn")[0] for answer in answered} == {answered[0].output("turn")[0]}
        assert all(answer.said == [fifo.command] for answer in answered)
        assert len({answer.headers["x-request-id"] for answer in answered}) == 3
        codes = gateway.metrics.collect().counters["hyperion_requests_total"]
        assert codes["obedient", "1", "http", "200"] == 3.0
        assert codes["obedient", "1", "http", "499"] == 1.0
        for client in clients[1:]:
            client.leave()
