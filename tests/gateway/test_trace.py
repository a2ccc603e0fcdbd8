"""A caller's trace context reaches the server behind an endpoint: over every protocol, as it came, and only the
caller's own.
"""

from collections.abc import Iterator

import pytest

from hyperion.schema.protect import Protection, Retry
from tests.gateway import grpc_serving, test_recovery, test_upstream_grpc
from tests.gateway.bad_upstream import bad_upstream
from tests.gateway.serving import on_uvloop, serving
from tests.gateway.test_upstream import ask, reach

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STATE = "rojo=00f067aa0ba902b7, congo=t61rcwkgmze"
TRACE = (("traceparent", PARENT), ("tracestate", STATE))


@pytest.fixture(scope="module")
def far() -> Iterator[grpc_serving.Serving]:
    with grpc_serving.serving() as running:
        yield running


@on_uvloop
async def test_it_goes_on_over_http_as_it_came_and_what_is_malformed_does_not() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, upstream.served(links=1))
        for headers in ({"traceparent": PARENT, "tracestate": STATE}, {"traceparent": "00-1-2-01"}, {}):
            assert (await gateway.ask(ask(1, **headers))).status == 200
        first, *others = upstream.heads
        assert (first["traceparent"], first["tracestate"]) == (PARENT, STATE)
        assert not any("traceparent" in head for head in others)


@on_uvloop
async def test_a_batch_of_several_callers_is_nobodys_trace() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await reach(gateway, upstream.served(links=1, batch=True))
        with await gateway.connect() as client:
            client.send(*[ask(value, traceparent=PARENT) for value in (1, 2, 3)])
            assert [(await client.answer()).status for _ in range(3)] == [200] * 3
            assert (await client.ask(ask(4, traceparent=PARENT))).status == 200
        told = [("traceparent" in head, rows == 1) for head, rows in zip(upstream.heads, upstream.rows, strict=True)]
        assert set(told) == {(False, False), (True, True)}


@on_uvloop
async def test_what_is_tried_again_belongs_to_the_same_trace() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        await test_recovery.reach(gateway, Protection(retry=Retry(budget=1.0)), ("far", upstream.served()))
        upstream.how = "once"
        assert (await gateway.ask(ask(1, traceparent=PARENT))).status == 200
        assert [head.get("traceparent") for head in upstream.heads] == [PARENT] * 2


@on_uvloop
async def test_it_goes_on_over_grpc(far: grpc_serving.Serving) -> None:
    async with serving() as gateway:
        await reach(gateway, test_upstream_grpc.served(far))
        assert (await gateway.ask(ask(1, traceparent=PARENT, tracestate=STATE))).status == 200
        assert (await gateway.ask(ask(1))).status == 200
    with_trace, without = [how["headers"] for how in far.pipeline.submitted[-2:]]
    assert (with_trace[b"traceparent"], with_trace[b"tracestate"]) == (PARENT.encode(), STATE.encode())
    assert b"traceparent" not in without


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
def test_it_is_known_of_a_grpc_call(far: grpc_serving.Serving, streamed: bool) -> None:
    grpc = pytest.importorskip("grpc")
    before = len(far.pipeline.held)
    with grpc.insecure_channel(far.url) as channel:
        if streamed:
            call = channel.stream_stream(grpc_serving.SERVICE + "ModelStreamInfer")
            calling = call(iter([grpc_serving.a_request("hold")]), metadata=TRACE, timeout=20)
        else:
            call = channel.unary_unary(grpc_serving.SERVICE + "ModelInfer")
            calling = call.future(grpc_serving.a_request("hold"), metadata=TRACE, timeout=20)
        assert far.pipeline.arrived.acquire(timeout=20)
        _, reply = far.pipeline.held[before]
        assert (reply.headers[b"traceparent"], reply.headers[b"tracestate"]) == (PARENT.encode(), STATE.encode())
        calling.cancel()
