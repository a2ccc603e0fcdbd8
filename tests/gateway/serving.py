"""A gateway in this process: the real edge, routes, pipeline and pools on a real loop and real sockets."""

import asyncio
import functools
import io
import itertools
import json
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import uvloop

from hyperion.gateway.front.door import Door
from hyperion.gateway.front.identity import Identities
from hyperion.gateway.graph.book import GraphBook
from hyperion.gateway.grpc.status import CODES as GRPC_CODES
from hyperion.gateway.http.edge import HttpEdge
from hyperion.gateway.http.routes import HttpRoutes
from hyperion.gateway.http.status import CODES
from hyperion.gateway.limits.book import LimitBook
from hyperion.gateway.pipeline import Pipeline
from hyperion.gateway.pool import VersionPool
from hyperion.gateway.pools import make_pool
from hyperion.gateway.process import MIN_SLOT_BYTES
from hyperion.gateway.release.counts import Counts
from hyperion.gateway.route import Router
from hyperion.gateway.setting import PoolSetting
from hyperion.schema.config import GatewayConfig
from hyperion.schema.protect import Directory, Protection
from hyperion.schema.release import Split, TrackCounts
from hyperion.schema.snapshot import ModelState, ServedModel, ServedVersion, Snapshot
from hyperion.telemetry.exposition import render
from hyperion.telemetry.logs import EventLog
from hyperion.telemetry.metrics import Metrics
from hyperion.wire.limits import WireLimits

CONFIG = GatewayConfig(run_dir="", home="", max_body_bytes=1 << 20)
UNPROTECTED = Protection()
NOBODY = Directory()
LOOK_S = 0.002
HUNG_S = 40.0


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Makes a sync test of a coroutine: it runs on the loop that the gateway runs on in production."""

    async def bounded(arguments: Any, named: Any) -> None:
        async with asyncio.timeout(HUNG_S):  # pytest's own alarm may go off in a task where nobody sees it
            await test(*arguments, **named)

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(bounded(arguments, named))

    return run


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> list[str]:
        """What the obedient model said, row by row."""
        return self.output("said")

    def output(self, name: str) -> list[Any]:
        for output in self.json()["outputs"]:
            if output["name"] == name:
                return list(output["data"])
        raise KeyError(name)

    @property
    def error(self) -> str:
        return str(self.json()["error"])

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection, as bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def ask(self, *data: bytes) -> Answer:
        self.send(*data)
        return await self.answer()

    async def answer(self, head_only: bool = False) -> Answer:
        """The next answer, whole."""
        status, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            parts = [part async for part in self.parts()]
            return Answer(status, headers, b"".join(parts))
        length = int(headers.get("content-length", 0))
        return Answer(status, headers, b"" if head_only else await self.reader.readexactly(length))

    async def head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:-2])
        return int(lines[0].split(" ")[1]), headers

    async def parts(self) -> AsyncIterator[bytes]:
        """The chunks of a chunked body, as they come."""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        return await self.reader.read(-1)

    def leave(self) -> None:
        self.writer.transport.abort()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


class Serving:
    """A gateway that listens on a free port."""

    def __init__(self, config: GatewayConfig, access_log: bool = True) -> None:
        self.config = config
        self.log_stream = io.StringIO()
        self.metrics = Metrics()
        log = EventLog("gateway 0", "json", self.log_stream)
        self.counts = Counts(random.Random(3).random)
        self.now_s = time.time()  # what identities take for now
        self.unknown_keys: list[str] = []
        identities = Identities(config.trusted_proxies, lambda: self.now_s, self.unknown_keys.append)
        book = LimitBook(config.workers, False, config.requests_per_second, config.concurrency)
        door = Door(identities, book, config.require_auth)
        self.graphs = GraphBook()
        self.metrics.add_counters(door.counters)
        self.metrics.add_counters(self.graphs.counters)
        self.router = Router(self._make_pool, log, self.counts, random.Random(7).random, door)
        self.changes: list[tuple[str, Any]] = []
        self.pipeline = Pipeline(
            self.router, {"http": CODES, "grpc": GRPC_CODES}, self._change, self.metrics, log, "id-", access_log, door
        )
        self.metrics.add_gauges(self.pipeline.gauges)
        self.routes = HttpRoutes(self.pipeline, WireLimits(max_body_bytes=config.max_body_bytes), self._scrape, log)
        routes = self.routes
        self.edge = HttpEdge(config, routes.serve, self.pipeline.new_request_id, routes.record_refusal, routes.refusals)
        self.log = log
        self.port = 0
        self.pools: list[VersionPool] = []
        self.change_error: Exception | None = None
        self._versions = itertools.count(1)

    def _make_pool(self, model: str, served: ServedVersion) -> VersionPool:
        setting = PoolSetting(
            self.config.queue_rows,
            max(MIN_SLOT_BYTES, self.config.max_body_bytes) + (1 << 20),
            self.pipeline.finished,
            self.pipeline.batch_done,
            self.log,
            self.router.find_any,
            self.config.credential_dirs,
            self.graphs,
        )
        pool = make_pool(model, served, setting)
        self.pools.append(pool)
        return pool

    async def _scrape(self) -> bytes:
        return render(self.metrics.collect())

    async def _change(self, model: str, parameters: Any) -> None:
        if self.change_error is not None:
            raise self.change_error
        self.changes.append((model, parameters))

    async def serve(self, *models: tuple[str, ServedVersion], index: tuple[ModelState, ...] = ()) -> None:
        """Moves to a snapshot of these models; returns when each has a replica."""
        await self.apply(*models, index=index)
        for name, _version in models:
            assert await self.pool(name).wait_connected(20)

    async def apply(self, *models: tuple[str, ServedVersion], index: tuple[ModelState, ...] = ()) -> None:
        """Moves to a snapshot of these models."""
        served = tuple(ServedModel(name, version.version, (version,)) for name, version in models)
        await self.router.apply(Snapshot(next(self._versions), served, index))

    async def protect(
        self,
        *models: tuple[str, ServedVersion],
        protection: Protection = UNPROTECTED,
        directory: Directory = NOBODY,
        members: tuple[tuple[str, ServedVersion], ...] = (),
    ) -> None:
        """Moves to a snapshot in which all models have this protection; `members` are internal ones without any.
        Returns when each has a replica."""
        served = [ServedModel(name, one.version, (one,), protection=protection) for name, one in models]
        served += [ServedModel(name, one.version, (one,), internal=True) for name, one in members]
        await self.router.apply(Snapshot(next(self._versions), tuple(served), directory=directory))
        for pool in self.router.table.pools():
            assert await pool.wait_connected(20)

    async def release(
        self, split: Split | None, *versions: ServedVersion, model: str = "obedient", log_sample: float = 0.0
    ) -> None:
        """Moves to a snapshot of one endpoint with a split; returns when each version has a replica."""
        served = ServedModel(model, versions[0].version, versions, split, log_sample)
        await self.router.apply(Snapshot(next(self._versions), (served,)))
        for version in versions:
            assert await self.router.table.find(model, version.version).wait_connected(20)

    def tracks(self) -> dict[tuple[int, str, bool], TrackCounts]:
        """What was counted, by epoch, version and whether it is the shadow's."""
        return {(one.epoch, one.version, one.shadow): one for one in self.counts.content(0)[0]}

    def pool(self, model: str = "obedient") -> VersionPool:
        return self.router.table.find(model, "")

    async def connect(self, tls: ssl.SSLContext | None = None) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port, ssl=tls, limit=1 << 24))

    async def connect_deaf(self) -> Client:
        """A client that reads nothing until it is told to, and whose system takes little for it."""
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setblocking(False)
        await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=one, limit=1 << 20)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        return Client(reader, writer)

    async def ask(self, *data: bytes) -> Answer:
        """On a connection of its own."""
        with await self.connect() as client:
            return await client.ask(*data)

    def events(self, event: str = "request") -> list[dict[str, Any]]:
        """The log's events of that name."""
        lines = map(json.loads, self.log_stream.getvalue().splitlines())
        return [line for line in lines if line["event"] == event]

    async def until(self, true: Callable[[], object]) -> None:
        """Until something that the loop does is done; pytest's timeout is the deadline."""
        while not true():  # noqa: ASYNC110 (of anything that the loop may do, there is no event)
            await asyncio.sleep(LOOK_S)

    async def look_at_deadlines(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.pipeline.look_at_deadlines()
            self.counts.settle()

    def tick(self, seconds: float = 0.0) -> None:
        """The edge's clock, so many seconds on."""
        self.edge.tick(time.monotonic() + seconds)


@asynccontextmanager
async def serving(
    *models: tuple[str, ServedVersion], tls: ssl.SSLContext | None = None, access_log: bool = True, **config: Any
) -> AsyncIterator[Serving]:
    """A gateway that serves these models until the block ends; then nothing of theirs may be left."""
    gateway = Serving(msgspec.structs.replace(CONFIG, **config), access_log)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)  # so that back-pressure needs no megabytes
    gateway.port = listener.getsockname()[1]
    server = await asyncio.get_running_loop().create_server(gateway.edge.make_connection, sock=listener, ssl=tls)
    looker = asyncio.create_task(gateway.look_at_deadlines())
    try:
        if models:
            await gateway.serve(*models)
        yield gateway
    finally:
        looker.cancel()
        server.close()
        for connection in tuple(gateway.edge.connections):
            connection.abort("the test is over")
        gateway.router.close()
        await gateway.until(lambda: not gateway.edge.connections)
    assert gateway.edge.buffered_bytes == 0
    assert all(pool.closed.is_set() for pool in gateway.pools)


def request(body: bytes, path: str = "/v2/models/obedient/infer", method: str = "POST", **headers: str | int) -> bytes:
    """A request of the usual kind; `_` in a header's name stands for `-`."""
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    head = f"{method} {path} HTTP/1.1\r\nhost: test\r\n{''.join(lines)}content-length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body


def infer(
    *commands: str, path: str = "/v2/models/obedient/infer", parameters: Any = None, **headers: str | int
) -> bytes:
    """An inference request with one row per command."""
    one = {"name": "command", "shape": [len(commands), 1], "datatype": "BYTES", "data": list(commands)}
    body: dict[str, Any] = {"inputs": [one]}
    if parameters:
        body["parameters"] = parameters
    return request(json.dumps(body).encode(), path, **headers)


def generate(command: str, stream: bool = True, **headers: str | int) -> bytes:
    path = f"/v2/models/obedient/generate{'_stream' if stream else ''}"
    return request(json.dumps({"command": command}).encode(), path, **headers)


def get(path: str, **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    return f"GET {path} HTTP/1.1\r\nhost: test\r\n{''.join(lines)}\r\n".encode("latin-1")
