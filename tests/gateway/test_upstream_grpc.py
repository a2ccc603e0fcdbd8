"""Another server behind an endpoint, over gRPC: the real edge of ours as that server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from hyperion.schema.protect import Breaker, Upstream
from hyperion.schema.snapshot import Replica, ServedVersion
from tests.gateway import grpc_serving
from tests.gateway.serving import on_uvloop, serving
from tests.gateway.test_upstream import ask, reach

pytest.importorskip("grpc")

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("x", "FP32", (-1, 2)),))


@pytest.fixture(scope="module")
def far() -> Iterator[grpc_serving.Serving]:
    with grpc_serving.serving() as running:
        yield running


def served(
    far: grpc_serving.Serving, model: str = "double", batch: bool = False, scheme: str = "grpc"
) -> ServedVersion:
    url = f"{scheme}://{far.url}"
    upstream = Upstream(url, "oip-grpc", model, batch=batch)
    options = ModelOptions(max_batch_size=64 if batch else 1, deadline_ms=2_000)
    replicas = tuple(Replica(f"far@upstream.{index}", url) for index in range(2))
    return ServedVersion("1", "", 1, "upstream", SIGNATURE, options, replicas, upstream)


@on_uvloop
async def test_tensors_go_there_and_back(far: grpc_serving.Serving) -> None:
    async with serving() as gateway:
        await reach(gateway, served(far))
        answer = await gateway.ask(ask(1, 2.5))
        assert (answer.status, answer.output("x")) == (200, [2, 2, 5, 5])


@on_uvloop
async def test_requests_are_merged_and_split_again(far: grpc_serving.Serving) -> None:
    before = len(far.pipeline.submitted)
    async with serving() as gateway:
        await reach(gateway, served(far, batch=True))
        with await gateway.connect() as client:
            client.send(*[ask(value) for value in range(6)])
            answers = [await client.answer() for _ in range(6)]
        assert [answer.output("x")[0] for answer in answers] == [2 * value for value in range(6)]
        assert len(far.pipeline.submitted) - before < 6


STATUSES = [
    ("schema_mismatch", 400, "it went wrong"),
    ("unknown_model", 502, "does not have the model"),
    ("unauthenticated", 502, "credentials of this gateway"),
    ("model_failed", 500, "it went wrong"),
    ("overloaded", 503, "too busy"),
    ("deadline_exceeded", 502, "in its own time"),
    ("unsupported", 502, "UNIMPLEMENTED"),
]


@pytest.mark.parametrize(("model", "status", "says"), STATUSES, ids=[model for model, *_ in STATUSES])
@on_uvloop
async def test_what_it_refuses_is_told(far: grpc_serving.Serving, model: str, status: int, says: str) -> None:
    async with serving() as gateway:
        await gateway.apply(("far", served(far, model)))
        pool = gateway.pool("far")
        await gateway.until(lambda: pool._unreachable)
        for link in pool.links():  # its readiness is asked for by a name that it does not know
            link.ready = True
        pool._unreachable = ""
        answer = await gateway.ask(ask(1))
        assert (answer.status, says in answer.error) == (status, True), answer.error
        assert answer.headers.get("retry-after") == ("2" if status == 503 else None)


@on_uvloop
async def test_who_stood_in_over_there_is_told(far: grpc_serving.Serving) -> None:
    async with serving() as gateway:
        await gateway.apply(("far", served(far, "stand-in")))
        pool = gateway.pool("far")
        await gateway.until(lambda: pool._unreachable)
        for link in pool.links():  # its readiness is asked for by a name that it does not know
            link.ready = True
        pool._unreachable = ""
        answer = await gateway.ask(ask(1))
        assert (answer.status, answer.output("x")) == (200, [2, 2])
        assert answer.headers["x-hyperion-served-by"] == "fallback:static"
        assert answer.headers["x-hyperion-degraded"] == "true"


@on_uvloop
async def test_who_leaves_ends_what_is_under_way_there(far: grpc_serving.Serving) -> None:
    async with serving() as gateway:
        await gateway.apply(("far", served(far, "hold")))
        await gateway.until(lambda: gateway.pool("far").ready)
        client = await gateway.connect()
        client.send(ask(1))
        await asyncio.to_thread(far.pipeline.arrived.acquire)
        client.leave()
        assert await asyncio.to_thread(far.pipeline.cancelled.acquire, True, 10)


@on_uvloop
async def test_impatient_callers_are_told_so_and_open_no_breaker(far: grpc_serving.Serving) -> None:
    async with serving() as gateway:
        await gateway.apply(("far", served(far, "hold")))
        await gateway.until(lambda: gateway.pool("far").ready)
        gateway.pool("far").follow_breaker(Breaker(min_calls=2))
        answers = [await gateway.ask(ask(1, x_request_timeout_ms=20)) for _ in range(8)]
        assert [answer.status for answer in answers] == [504] * 8
        assert gateway.pool("far").breaker_states() == {"upstream": 0.0}


@on_uvloop
async def test_a_server_that_is_away_is_said_and_found_again() -> None:
    with grpc_serving.serving() as gone:
        pass
    async with serving() as gateway:
        await gateway.apply(("far", served(gone)))
        await gateway.until(lambda: gateway.events("upstream away"))
        answer = await gateway.ask(ask(1))
        assert (answer.status, "cannot be reached" in answer.error) == (502, True)


@pytest.mark.parametrize("line", ["authorization: Bearer caf\u00e9", "a!b: c", "grpc-encoding: gzip", "token-bin: abc"])
@on_uvloop
async def test_credentials_that_grpc_does_not_carry_are_said_and_not_quoted(
    far: grpc_serving.Serving, tmp_path: Path, line: str
) -> None:
    path = tmp_path / "headers"
    path.write_text(line, encoding="utf-8")
    path.chmod(0o600)
    version = served(far)
    assert version.upstream is not None
    async with serving(credential_dirs=(str(tmp_path),)) as gateway:
        await gateway.apply(("far", replace(version, upstream=replace(version.upstream, headers_from=str(path)))))
        await gateway.until(lambda: gateway.events("upstream away"))
        answer = await gateway.ask(ask(1))
        assert (answer.status, "gRPC carries" in answer.error, line in answer.error) == (502, True, False)
