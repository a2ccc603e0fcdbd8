"""The server of the link: who is told what, when, and what is kept on disk."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from hyperion.control.jobs.board import JobBoard
from hyperion.control.publish import Publisher, read_snapshot
from hyperion.fleet.home import listen_unix
from hyperion.schema.snapshot import ModelState, Snapshot
from hyperion.wire import link


class Gateway:
    """The other end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._decoder = link.Decoder()

    def tell(self, message: link.Message) -> None:
        self._writer.write(link.encode(message))

    async def hear(self) -> link.Message:
        while True:
            data = await self._reader.read(1 << 16)
            assert data, "control closed the link"
            if messages := self._decoder.feed(data):
                return messages[0]

    async def ask(self, message: link.Message) -> link.Message:
        self.tell(message)
        return await self.hear()

    async def leave(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class Scene:
    """A publisher on a real socket, and the commands it was given."""

    def __init__(self, directory: Path, poll_s: float) -> None:
        self.kept = (directory / "published.json", directory / "snapshot.json")
        self.socket = directory / "control.sock"
        self.noticed = asyncio.Event()
        self.commands: list[link.Message] = []
        self.publisher = Publisher(self.kept, self.noticed.set, lambda _: None, poll_s)

    async def command(self, message: link.Load | link.Unload) -> link.Done:
        self.commands.append(message)
        return link.Done("no such model", "unknown_model")

    async def connect(self) -> Gateway:
        return Gateway(*await asyncio.open_unix_connection(str(self.socket)))


@asynccontextmanager
async def scene(directory: Path, poll_s: float = 60.0) -> AsyncIterator[Scene]:
    made = Scene(directory, poll_s)
    server = await made.publisher.serve(listen_unix(made.socket), made.command, JobBoard(lambda _: None))
    yield made
    server.close()


async def test_a_gateway_that_is_behind_is_answered_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.publisher.publish(Snapshot(1))
        gateway = await s.connect()
        assert await gateway.ask(link.Poll(0, 0)) == link.Publish(Snapshot(1))


async def test_a_gateway_that_is_up_to_date_hears_of_the_next_snapshot_when_it_comes(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.publisher.publish(Snapshot(1))
        gateway = await s.connect()
        gateway.tell(link.Poll(0, 1))
        await s.noticed.wait()
        news = Snapshot(2, index=(ModelState("m", "1", "READY"),))
        s.publisher.publish(news)
        assert await gateway.hear() == link.Publish(news)


async def test_a_poll_without_news_ends_so_that_the_gateway_knows_that_control_lives(tmp_path: Path) -> None:
    async with scene(tmp_path, poll_s=0.02) as s:
        gateway = await s.connect()
        assert await gateway.ask(link.Poll(0, 0)) == link.Publish(None)


async def test_a_snapshot_is_acknowledged_only_when_the_last_gateway_has_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.publisher.publish(Snapshot(1))
        quick, slow = await s.connect(), await s.connect()
        await quick.ask(link.Poll(0, 0))
        await slow.ask(link.Poll(1, 0))
        assert (s.publisher.acknowledged(), s.publisher.workers()) == (0, {0: 0, 1: 0})
        for gateway, reached in ((quick, 0), (slow, 1)):
            s.noticed.clear()
            gateway.tell(link.Poll(0 if gateway is quick else 1, 1))
            await s.noticed.wait()
            assert s.publisher.acknowledged() == reached


async def test_connections_that_are_open_when_control_ends_are_no_errors(tmp_path: Path) -> None:
    troubles: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: troubles.append(context))
    others = asyncio.all_tasks()
    async with scene(tmp_path) as s:
        (await s.connect()).tell(link.Poll(0, 0))
        await s.noticed.wait()
        tasks = asyncio.all_tasks() - others
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0)  # for what is called when they are done
    assert troubles == []


async def test_nobody_waits_for_the_acknowledgement_of_a_gateway_that_died(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.publisher.publish(Snapshot(1))
        dead = await s.connect()
        await dead.ask(link.Poll(0, 0))
        s.noticed.clear()
        await dead.leave()
        await s.noticed.wait()
        assert (s.publisher.acknowledged(), s.publisher.workers()) == (1, {})


async def test_a_gateway_that_dies_while_it_waits_is_noticed_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        waiting = await s.connect()
        waiting.tell(link.Poll(0, 0))
        await s.noticed.wait()
        s.noticed.clear()
        await waiting.leave()
        await asyncio.wait_for(s.noticed.wait(), 60)
        assert s.publisher.workers() == {}


async def test_a_gateway_from_another_life_gets_a_snapshot_newer_than_its_own(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.publisher.publish(Snapshot(1))
        gateway = await s.connect()
        assert await gateway.ask(link.Poll(0, 41)) == link.Publish(Snapshot(42))


async def test_commands_are_carried_out_and_their_errors_come_back(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        gateway = await s.connect()
        assert await gateway.ask(link.Load("m")) == link.Done("no such model", "unknown_model")
        assert await gateway.ask(link.Unload("m")) == link.Done("no such model", "unknown_model")
        assert isinstance(await gateway.ask(link.UnknownKey("https://id")), link.Done)
        assert s.commands == [link.Load("m"), link.Unload("m"), link.UnknownKey("https://id")]


@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff\xff", b"\x02\x00\x00\x00{}", link.encode(link.Done())])
async def test_nonsense_closes_that_connection_only(tmp_path: Path, nonsense: bytes) -> None:
    async with scene(tmp_path, poll_s=0.02) as s:
        reader, writer = await asyncio.open_unix_connection(str(s.socket))
        writer.write(nonsense)
        assert await reader.read() == b""
        writer.close()
        gateway = await s.connect()
        assert await gateway.ask(link.Poll(0, 0)) == link.Publish(None)


async def test_what_is_published_is_on_disk_for_the_next_life_and_for_gateways(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.publisher.publish(Snapshot(7))
        assert [msgspec.json.decode(path.read_bytes())["version"] for path in s.kept] == [7, 7]
        assert Publisher(s.kept, lambda: None, lambda _: None).snapshot == Snapshot(7)
    assert read_snapshot(tmp_path / "nothing.json") == Snapshot(0)
