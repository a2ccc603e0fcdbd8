"""A whole `hyperion serve` as the upstream of a gateway, over both protocols: it answers, dies, and is stood in for."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from hyperion.schema.protect import Breaker, Fallback, Protection, Retry, Upstream
from hyperion.schema.snapshot import Replica, ServedModel, ServedVersion, Snapshot
from tests.e2e.served import Served
from tests.gateway.serving import on_uvloop, request, serving

MODELS = Path(__file__).parent / "models"
FP32 = ("FP32", (-1, 2))
SIGNATURE = Signature(
    (TensorSpec("a", *FP32), TensorSpec("b", *FP32)), (TensorSpec("sum", *FP32), TensorSpec("difference", *FP32))
)
STATIC = Fallback(static={"sum": [[0.0, 0.0]], "difference": [[-1.0, -1.0]]})


def ask(value: float) -> bytes:
    inputs = [{"name": name, "shape": [1, 2], "datatype": "FP32", "data": [value, 1]} for name in ("a", "b")]
    return request(json.dumps({"inputs": inputs}).encode(), "/v2/models/far/infer")


def behind(served: Served, protocol: str) -> ServedModel:
    """An endpoint that the server answers for."""
    url = f"grpc://{served.grpc}" if protocol == "oip-grpc" else served.url
    upstream = Upstream(url, "oip-grpc" if protocol == "oip-grpc" else "oip-http", "sums", batch=True)
    replicas = tuple(Replica(f"far@upstream.{index}", url) for index in range(4))
    version = ServedVersion("1", "", 1, "upstream", SIGNATURE, ModelOptions(deadline_ms=5_000), replicas, upstream)
    return ServedModel(
        "far", "1", (version,), protection=Protection(retry=Retry(), breaker=Breaker(open_s=0.2), fallback=(STATIC,))
    )


@pytest.mark.parametrize("protocol", ["oip-http", "oip-grpc"])
def test_another_hyperion_answers_for_an_endpoint_and_is_stood_in_for_when_it_dies(
    serve: Callable[..., Served], protocol: str
) -> None:
    far = serve(MODELS / "sums")

    @on_uvloop
    async def go() -> None:
        async with serving() as gateway:
            await gateway.router.apply(Snapshot(1, (behind(far, protocol),)))
            await gateway.until(lambda: gateway.pool("far").ready)
            with await gateway.connect() as client:
                client.send(*[ask(value) for value in range(40)])
                answers = [await client.answer() for _ in range(40)]
            assert [answer.output("sum") for answer in answers] == [[2 * value, 2] for value in range(40)]
            assert {answer.headers["x-hyperion-served-by"] for answer in answers} == {"model"}
            for pid in far.pids("gateway"):  # the supervisor starts another one
                os.kill(pid, signal.SIGKILL)
            answers = [await gateway.ask(ask(3)) for _ in range(10)]
            assert {answer.status for answer in answers} == {200}
            while (answer := await gateway.ask(ask(3))).headers["x-hyperion-served-by"] != "model":
                assert answer.status == 200
            assert answer.output("sum") == [6, 2]

    go()
