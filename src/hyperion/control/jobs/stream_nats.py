"""Durable pull consumers of NATS JetStream, as `streams` reads them. JetStream drops an answer that comes twice
by its `Nats-Msg-Id`."""

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hyperion.control.jobs.stream_source import BATCH, RETRY_S, Arrived, Reply, Source, Tell, submission
from hyperion.schema.errors import MissingExtra
from hyperion.schema.job import Submission

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

FETCH_S: Final = 5.0


class NatsBroker:
    """One client for each server, for messages and answers, which connects again by itself."""

    def __init__(self) -> None:
        self._nats = _import_nats()
        self._clients: dict[str, Client] = {}
        self._connecting: dict[str, asyncio.Lock] = {}
        self._tells: dict[str, Tell] = {}  # by server, of the source that was opened last

    async def open(self, source: Source, tell: Tell) -> "NatsReader":
        self._tells[source.server] = tell
        client = await self._connect(source.server)
        reader = NatsReader(source, await client.jetstream().pull_subscribe_bind(source.consumer, source.stream))
        try:
            await reader.check()
        except BaseException:
            await reader.close()
            raise
        return reader

    async def publish(self, source: Source, reply: Reply) -> None:
        client = await self._connect(source.server)
        headers = {"Nats-Msg-Id": reply.message_id, **reply.headers}
        await client.jetstream().publish(source.reply, reply.body, headers=headers)

    async def _connect(self, server: str) -> "Client":
        async with self._connecting.setdefault(server, asyncio.Lock()):
            client = self._clients.get(server)
            if client is None or client.is_closed:
                client = self._clients[server] = await self._nats.connect(
                    server,
                    max_reconnect_attempts=-1,
                    error_cb=partial(self._hear, server),  # its own would write stack traces, one every two seconds
                )
            return client

    async def _hear(self, server: str, error: Exception) -> None:
        tell = self._tells.get(server)
        if tell is not None:
            tell(type(error).__name__, f"{type(error).__name__}: {error}")


class NatsReader:
    """A consumer, bound."""

    def __init__(self, source: Source, consumer: "JetStreamContext.PullSubscription") -> None:
        self._source = source
        self._consumer = consumer
        self._taken: list[Msg] = []

    async def check(self) -> None:
        """Raises `NotFoundError` where there is no such stream or consumer (any more): a fetch would find nothing."""
        with contextlib.suppress(TimeoutError):  # the server is away, or we may not ask it
            await self._consumer.consumer_info()

    async def take(self) -> list[Arrived]:
        self._taken = []
        try:
            self._taken = await self._consumer.fetch(BATCH, timeout=FETCH_S)
        except TimeoutError:
            await self.check()
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
        """Unacknowledged messages are delivered again after a while."""
        with contextlib.suppress(Exception):  # of a client that is closed there is nothing to give back
            await self._consumer.unsubscribe()


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
