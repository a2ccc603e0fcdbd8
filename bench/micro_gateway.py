"""Where a request's microseconds go in the gateway, without the kernel: `python bench/micro_gateway.py`.

Feeds the bytes of C small JSON requests, one per connection, through the real edge, pipeline, pool and dispatch, whose
sockets are replaced by in-memory transports, answers each batch with a prepared result frame, and prints the best
microseconds per request. Best-of-many is what the code costs; the rest is the machine's noise.
"""

import asyncio
import json
import sys
import time
from typing import Any

from hyperion.gateway.dispatch import ReplicaLink
from hyperion.gateway.front.door import Door
from hyperion.gateway.front.identity import Identities
from hyperion.gateway.http.edge import HttpEdge
from hyperion.gateway.http.routes import HttpRoutes
from hyperion.gateway.http.status import CODES
from hyperion.gateway.limits.book import LimitBook
from hyperion.gateway.pipeline import Pipeline
from hyperion.gateway.pool import VersionPool
from hyperion.gateway.ring import Ring
from hyperion.gateway.route import Router
from hyperion.gateway.setting import PoolSetting
from hyperion.gateway.table import RouteTable
from hyperion.schema.config import GatewayConfig
from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from hyperion.schema.protect import Directory, Protection
from hyperion.schema.snapshot import ServedModel, ServedVersion, Snapshot
from hyperion.telemetry.logs import EventLog
from hyperion.telemetry.metrics import Metrics
from hyperion.wire.frame import HELLO, RESULT, FrameReader, encode_frame
from hyperion.wire.frame_headers import Hello, Result, TensorHead
from hyperion.wire.limits import WireLimits

VALUES = [round(0.1 * n - 1, 4) for n in range(20)]
SECRET = b"hyp_" + b"s" * 43
NOBODY = Directory()
UNPROTECTED = Protection()


def make_request(number: int, credentials: bool) -> bytes:
    """One of as many different requests as there are numbers, all of one length."""
    values = [*VALUES[:-1], float(f"1.{1_000_000 + number}")]
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 20], "datatype": "FP32", "data": values}]}).encode()
    shown = b"authorization: Bearer %b\r\n" % SECRET if credentials else b""
    return (
        b"POST /v2/models/m/infer HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n%b"
        b"content-length: %d\r\n\r\n%b"
    ) % (shown, len(body), body)


class MemoryTransport:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def __getattr__(self, _name: str) -> Any:
        return lambda *_: False


async def measure(
    connections: int, rounds: int, protection: Protection = UNPROTECTED, directory: Directory = NOBODY
) -> float:
    """Best seconds per request, of which no two are the same; with the key where the directory has one."""
    metrics, log = Metrics(), EventLog("bench")
    door = Door(Identities(), LimitBook(), bool(directory.keys))
    router = Router(lambda *_: None, log, door=door)  # type: ignore[arg-type, return-value]
    pipeline = Pipeline(router, {"http": CODES}, None, metrics, log, "abc-", door=door)  # type: ignore[arg-type]
    signature = Signature((TensorSpec("x", "FP32", (-1, 20)),), (TensorSpec("y", "FP32", (-1, 10)),))
    served = ServedVersion("1", "sha256:" + "0" * 64, 1, "onnx", signature, ModelOptions(), ())
    setting = PoolSetting(4096, 1 << 20, pipeline.finished, pipeline.batch_done, log, router.find_any)
    pool = VersionPool("m", served, setting)
    model = ServedModel("m", "1", (served,), protection=protection)
    door.follow(Snapshot(1, (model,), directory=directory))
    router.table = RouteTable(1, {"m": router._make_route(model, {"1": pool}, {})})
    edge = HttpEdge(
        GatewayConfig("", ""), (routes := HttpRoutes(pipeline, WireLimits(), None, log)).serve,  # type: ignore[arg-type]
        pipeline.new_request_id, routes.record_refusal, routes.refusals,
    )  # fmt: skip
    runner = MemoryTransport()
    link = ReplicaLink("r", Ring(1 << 20), pool, asyncio.get_running_loop().create_future())
    link.connection_made(runner)  # type: ignore[arg-type]
    pool._links["r"] = link
    hello = Hello(1, "r", "m", "1", "", "onnx", signature, 64, {1: 0.0001}, 1, 1)
    link.data_received(encode_frame(HELLO, 0, hello))
    clients = []
    for _ in range(connections):
        connection = edge.make_connection()
        transport = MemoryTransport()
        connection.connection_made(transport)  # type: ignore[arg-type]
        clients.append((connection, transport))
    best = float("inf")
    for turn in range(rounds):
        numbers = range(turn * connections, (turn + 1) * connections)
        requests = [make_request(number, bool(directory.keys)) for number in numbers]
        started = time.perf_counter()
        for (connection, _transport), request in zip(clients, requests, strict=True):
            connection.data_received(request)
        await asyncio.sleep(0)
        while runner.written:
            for frame in FrameReader().feed(runner.written.pop()):
                rows = sum(frame.header.rows)
                head = TensorHead("y", "FP32", (rows, 10), rows * 40)
                link.data_received(encode_frame(RESULT, frame.id, Result((head,), (), 50_000, 1), [bytes(rows * 40)]))
            await asyncio.sleep(0)
        best = min(best, time.perf_counter() - started)
        for _connection, transport in clients:
            assert len(transport.written) == 1, transport.written
            assert transport.written[0].startswith(b"HTTP/1.1 200"), transport.written
            transport.written.clear()
    return best / connections


if __name__ == "__main__":
    import numpy as np  # noqa: F401  (the gateway has it once its first answers are out, and writes outputs with it)
    import uvloop

    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    for count in (int(sys.argv[2]),) if len(sys.argv) > 2 else (1, 32, 64):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            seconds = loop.run(measure(count, rounds))
        print(f"{count:4d} connections: {seconds * 1e6:6.2f} µs/request")
