"""Connections are accepted as fast as they come, whatever the loop does meanwhile."""

import asyncio
import errno
import socket
from typing import Any

import pytest
import uvloop

from hyperion.gateway.accept import Acceptor


class Counted(asyncio.Protocol):
    def __init__(self, made: list[Any]) -> None:
        self.made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made.append(transport)

    def data_received(self, data: bytes) -> None:
        self.made[0].write(data)


class Scarce(socket.socket):
    """A listener without a free descriptor at first."""

    failures = 2

    def accept(self) -> tuple[socket.socket, Any]:
        if Scarce.failures:
            Scarce.failures -= 1
            raise OSError(errno.EMFILE, "no descriptors")
        return super().accept()


def run(work: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(work, 20))


def listen(kind: type[socket.socket] = socket.socket) -> socket.socket:
    listener = kind(socket.AF_INET)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    return listener


def test_a_hundred_newcomers_are_accepted_in_a_few_turns_of_the_loop() -> None:
    async def check() -> None:
        made: list[Any] = []
        listener = listen()
        clients = [socket.create_connection(listener.getsockname()) for _ in range(100)]
        acceptor = Acceptor(listener, lambda: Counted(made), None)
        turns = 0
        while len(made) < len(clients):
            turns += 1
            await asyncio.sleep(0)
        assert turns < 20
        assert all(
            transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for transport in made
        )
        acceptor.close()
        for client in clients:
            client.close()
        for transport in made:
            transport.close()

    run(check())


def test_who_is_connected_stays_so_when_no_more_are_accepted() -> None:
    async def check() -> None:
        made: list[Any] = []
        listener = listen()
        acceptor = Acceptor(listener, lambda: Counted(made), None)
        address = listener.getsockname()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        acceptor.close()
        writer.write(b"2")
        assert await reader.readexactly(1) == b"2"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        writer.close()

    run(check())


def test_without_descriptors_it_tries_again_later() -> None:
    async def check() -> None:
        made: list[Any] = []
        Scarce.failures = 2
        listener = listen(Scarce)
        acceptor = Acceptor(listener, lambda: Counted(made), None)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        assert Scarce.failures == 0
        acceptor.close()
        writer.close()

    run(check())
