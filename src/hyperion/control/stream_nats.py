"""Durable pull consumers of NATS JetStream, as `control/streams` reads them. JetStream drops an answer that comes twice
by its `Nats-Msg-Id`."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from hyperion.control.stream_source import BATCH, RETRY_S, Arrived, Reply, Source, Tell, submission
from hyperion.schema.errors import MissingExtra
from hyperion.schema.job import Submission

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

FETCH_S: Final = 5.0


class NatsBroker:
    """One client for each server, for messages and answers, which connects again by itself."""

    def __init__(self) -> None:
        self._nats = _import_nats()
        self._clients: dict[str, Client] = {}

    async def open(self, source: Source, tell: Tell) -> "NatsReader":  # noqa: ARG002  its errors are raised
        client = await self._connect(source.server)
        consumer = await client.jetstream().pull_subscribe_bind(source.consumer, source.stream)
        return NatsReader(source, consumer.fetch)

    async def publish(self, source: Source, reply: Reply) -> None:
        client = await self._connect(source.server)
        headers = {"Nats-Msg-Id": reply.message_id, **reply.headers}
        await client.jetstream().publish(source.reply, reply.body, headers=headers)

    async def _connect(self, server: str) -> "Client":
        client = self._clients.get(server)
        if client is None or client.is_closed:
            client = self._clients[server] = await self._nats.connect(server, max_reconnect_attempts=-1)
        return client


class NatsReader:
    """A consumer, bound."""

    def __init__(self, source: Source, fetch: Callable[..., Awaitable[list["Msg"]]]) -> None:
        self._source = source
        self._fetch = fetch
        self._taken: list[Msg] = []

    async def take(self) -> list[Arrived]:
        self._taken = []
        with contextlib.suppress(TimeoutError):  # none came
            self._taken = await self._fetch(BATCH, timeout=FETCH_S)
        return [
            Arrived(f"message {message.metadata.sequence.stream}", job_of(self._source, message))
            for message in self._taken
        ]

    async def acknowledge(self) -> None:
        for message in self._taken:
            await message.ack()

    async def rest(self) -> None:
        await asyncio.sleep(RETRY_S)

    async def close(self) -> None:
        """Nothing is held here: unacknowledged messages are delivered again after a while."""


def job_of(source: Source, message: "Msg") -> Submission:
    """The job that this message is, however often it is delivered."""
    about = message.metadata
    name = f"{source.place} {source.stream} {source.consumer} {about.sequence.stream} {about.timestamp.timestamp()}"
    headers = {key.lower(): value for key, value in (message.headers or {}).items()}
    return submission(source, name, headers, message.data)


def _import_nats() -> Any:
    try:
        import nats
    except ImportError as error:
        raise MissingExtra("--streams needs nats-py: pip install 'hyperion-inference[nats]'") from error
    return nats
