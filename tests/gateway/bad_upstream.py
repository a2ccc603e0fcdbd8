"""A V2 server that misbehaves as a test says: it dies, slows down, answers garbage, closes half-way, resets, floods.

It takes JSON and binary tensors for the model `double` (input x FP32 [-1, 2], output y twice that), counts what it is
asked, and keeps what it was sent.
"""

import asyncio
import json
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from hyperion.schema.protect import Upstream
from hyperion.schema.snapshot import Replica, ServedVersion

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))


class BadUpstream:
    """`how` is what it does to inferences: `well`, `slow` (waits for `slow_s`), `garbage`, `half` (of an answer),
    `silent` (closes without a word), `dying` (the same after `slow_s`), `reset`, `once` (resets the first one),
    `headers` (without end), `shape` (a wrong one), `status:N`, `poison` (400 where a value is negative), `hang`,
    `punctual` (504 when the time that it was given is over), `degraded` or `once:degraded`
    (says that another answered in its place)."""

    def __init__(self) -> None:
        self.how = "well"
        self.slow_s = 0.5
        self.binary = True
        self.ready = True
        self.retry_after = ""
        self.inferences = 0
        self.rows: list[int] = []
        self.heads: list[dict[str, str]] = []
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self.connections = 0
        self.hung = asyncio.Event()
        self.gone = asyncio.Event()  # who was waiting has left
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """Closes everything at once, as a killed process does."""
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()

    def served(self, links: int = 4, batch: bool = False, deadline_ms: int = 2_000, **options: Any) -> ServedVersion:
        """The version that it answers for."""
        url = f"https://localhost:{self.port}" if self.tls is not None else f"http://127.0.0.1:{self.port}"
        upstream = Upstream(url, model="double", concurrency=links, batch=batch, **options)
        replicas = tuple(Replica(f"far@upstream.{index}", url) for index in range(links))
        chosen = ModelOptions(max_batch_size=64 if batch else 1, deadline_ms=deadline_ms)
        return ServedVersion("1", "", 1, "upstream", SIGNATURE, chosen, replicas, upstream)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:-2])
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path = lines[0].split(" ")[1]
        if path == "/v2":
            extensions = ["binary_tensor_data"] if self.binary else []
            reply(writer, 200, json.dumps({"name": "bad", "extensions": extensions}).encode())
        elif path.endswith("/ready"):
            reply(writer, 200 if self.ready else 503, b"{}")
        else:
            self.inferences += 1
            self.heads.append(headers)
            await self._infer(reader, writer, headers, body)

    async def _infer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str], body: bytes
    ) -> None:
        how, _, number = self.how.partition(":")
        if how == "slow":
            await asyncio.sleep(self.slow_s)
        elif how == "garbage":
            writer.write(b"\x00\xffthis is no HTTP\r\n\r\n" * 9)
            return
        elif how == "half":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{")
            writer.write_eof()
            return
        elif how in ("silent", "dying"):
            if how == "dying":
                await asyncio.sleep(self.slow_s)
            raise ConnectionError
        elif how == "reset" or (how == "once" and self.inferences == 1):
            writer.transport.abort()
            raise ConnectionError
        elif how == "headers":
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                writer.write(b"x-more: " + b"a" * 4096 + b"\r\n")
                await writer.drain()
        elif how == "status":
            extra = f"retry-after: {self.retry_after}\r\n" if self.retry_after else ""
            reply(writer, int(number), b'{"error": "it does not want to\\nsecond line"}', extra.encode())
            return
        elif how == "punctual":
            await asyncio.sleep(int(headers["x-request-timeout-ms"]) / 1_000)
            reply(writer, 504, b'{"error": "too late"}')
            return
        elif how == "hang":
            self.hung.set()
            try:
                await reader.readexactly(1)
            finally:
                self.gone.set()
        values = read_values(headers, body)
        self.rows.append(len(values) // 2)
        if how == "poison" and any(value < 0 for value in values):
            reply(writer, 400, b'{"error": "a negative value"}')
            return
        shape = [len(values) // 2, 2] if how != "shape" else [len(values)]
        binary = "inference-header-content-length" in headers
        answer(writer, binary, shape, [2 * value for value in values], "degraded" in self.how)


def read_values(headers: dict[str, str], body: bytes) -> list[float]:
    length = headers.get("inference-header-content-length")
    if length is None:
        data: list[float] = json.loads(body)["inputs"][0]["data"]
        return data
    raw = body[int(length) :]
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def answer(
    writer: asyncio.StreamWriter, binary: bool, shape: list[int], values: list[float], stands_in: bool = False
) -> None:
    output: dict[str, Any] = {"name": "y", "datatype": "FP32", "shape": shape}
    raw = struct.pack(f"<{len(values)}f", *values) if binary else b""
    if binary:
        output["parameters"] = {"binary_data_size": len(raw)}
    else:
        output["data"] = values
    text = json.dumps({"model_name": "double", "outputs": [output]}).encode()
    extra = b"inference-header-content-length: %d\r\n" % len(text) if binary else b""
    if stands_in:
        extra += b"x-hyperion-degraded: true\r\nx-hyperion-served-by: fallback:static\r\n"
    reply(writer, 200, text + raw, extra)


def reply(writer: asyncio.StreamWriter, status: int, body: bytes, extra: bytes = b"") -> None:
    writer.write(b"HTTP/1.1 %d X\r\n%bcontent-length: %d\r\n\r\n%b" % (status, extra, len(body), body))


@asynccontextmanager
async def bad_upstream(tls: ssl.SSLContext | None = None) -> AsyncIterator[BadUpstream]:
    """One that listens, until the block ends."""
    upstream = BadUpstream()
    upstream.tls = tls
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.die()
