"""Consumers of JetStream as control reads them: what is not there is said, and so is a server that is away, once."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperion.control.jobs import stream_nats
from hyperion.control.jobs import streams as streams_module
from hyperion.control.jobs.stream_source import read_source
from hyperion.control.jobs.streams import Streams
from hyperion.schema.protect import Jobs
from hyperion.schema.resource import Endpoint, EndpointSpec, Metadata
from hyperion.store import endpoints, jobs
from hyperion.store.database import Database, open_home
from tests.services import needs_module

HOST, PORT = "127.0.0.1", 4222
PATIENCE_S = 40.0


class Front:
    """A server in front of the broker, which can go away and come back under the same port."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def come(self) -> None:
        self._server = await asyncio.start_server(self._pass, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def go(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection(HOST, PORT)
        self._open |= {writer, behind_writer}
        with contextlib.suppress(OSError):
            await asyncio.gather(_copy(reader, behind_writer), _copy(behind_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    one = open_home(tmp_path)
    yield one
    one.close()


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "RETRY_S", 0.1)
    monkeypatch.setattr(stream_nats, "FETCH_S", 0.3)


@contextlib.asynccontextmanager
async def broker() -> AsyncIterator[tuple[Any, str]]:
    """A client of the broker's, and the name of a stream with a consumer `scorer`; a skip where there is no server."""
    nats = needs_module("nats", extra="nats")
    try:
        client = await nats.connect(f"nats://{HOST}:{PORT}", allow_reconnect=False, connect_timeout=3)
    except (OSError, nats.errors.Error) as error:
        pytest.skip(f"needs NATS with JetStream at {HOST}:{PORT}: {error}")
    name = f"CONTROL{os.getpid()}"
    context = client.jetstream()
    await context.add_stream(name=name, subjects=[f"{name}.in"])
    await context.pull_subscribe(f"{name}.in", durable="scorer", stream=name)
    try:
        yield context, name
    finally:
        await context.delete_stream(name)
        await client.close()


@contextlib.asynccontextmanager
async def following(database: Database, url: str) -> AsyncIterator[list[str]]:
    """What is logged while the stream is followed."""
    log: list[str] = []
    task = asyncio.create_task(Streams(database, [read_source(url)], lambda _: 0.0, log.append).run())
    try:
        yield log
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(true: Callable[[], bool], what: Callable[[], object]) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends_s, what()
        await asyncio.sleep(0.02)


def kept(database: Database) -> list[str]:
    with database.read() as tx:
        return [job.id for job in jobs.list_(tx, limit=1000)]


async def test_a_consumer_that_is_not_there_is_said_and_used_once_it_is(database: Database) -> None:
    async with broker() as (context, name):
        await context.publish(f"{name}.in", b"{}")
        async with following(database, f"nats://{HOST}:{PORT}/{name}/late?endpoint=e") as log:
            await until(lambda: bool(log), lambda: "nothing was said")
            assert "consumer not found" in log[0]
            await context.pull_subscribe(f"{name}.in", durable="late", stream=name)
            for count in (1, 2):  # rounds without it, after which it is worth saying again
                await until(lambda: len(kept(database)) == count, lambda: log)  # noqa: B023  it is awaited here
                await context.publish(f"{name}.in", b"{}")
            await until(lambda: len(kept(database)) == 3, lambda: log)
            await context.delete_consumer(name, "late")
            await until(lambda: len(log) > 1, lambda: "that it has gone was not said")
            assert "consumer not found" in log[1]


async def test_a_server_that_goes_away_is_said_in_a_line_and_read_when_it_is_back(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    front = Front()
    async with broker() as (context, name):
        await front.come()
        async with following(database, f"nats://{HOST}:{front.port}/{name}/scorer?endpoint=e") as log:
            await context.publish(f"{name}.in", b"1")
            await until(lambda: len(kept(database)) == 1, lambda: log)
            await front.go()
            await until(lambda: any("ConnectionRefused" in line for line in log), lambda: log)
            await context.publish(f"{name}.in", b"2")
            await front.come()
            await until(lambda: len(kept(database)) == 2, lambda: log)
            assert len(log) == len(set(log)), log
        await front.go()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING and "nats" in record.name]


async def test_jobs_of_messages_are_worked_off_as_their_endpoint_says(database: Database) -> None:
    with database.write() as tx:
        spec = EndpointSpec("m@1", jobs=Jobs(attempts=2, backoff_s=7.0, ttl_s=60.0, timeout_s=9.0))
        endpoints.put(tx, Endpoint(Metadata("e"), spec), actor="ann")
    async with broker() as (context, name):
        await context.publish(f"{name}.in", b"{}")
        async with following(database, f"nats://{HOST}:{PORT}/{name}/scorer?endpoint=e") as log:
            await until(lambda: len(kept(database)) == 1, lambda: log)
    with database.renewing() as tx:
        (job,) = jobs.list_(tx)
        assert (job.max_attempts, job.expires_at - job.created_at) == (2, 60.0)
        (claimed,) = jobs.claim(tx, 1, job.created_at)
        assert claimed.timeout_s == 9.0
