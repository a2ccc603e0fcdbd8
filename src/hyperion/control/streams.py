"""Messages of NATS JetStream become jobs, and answers become messages. Run by `control/serve` where `--streams` names
any.

A message is acknowledged once its job is in the store, under an id that comes from the message itself: one that is
delivered again is the same job. So each message is one job, whoever dies when. Answers are published like callbacks,
with an id by which JetStream drops what comes twice.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Struct

from hyperion.schema.errors import InvalidConfig, MissingExtra, UpstreamFailed
from hyperion.schema.job import StoredRequest, Submission
from hyperion.store import job_payloads, jobs
from hyperion.store.database import Database
from hyperion.store.job_callbacks import Callback

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

BATCH: Final = 64
FETCH_S: Final = 5.0
RETRY_S: Final = 2.0
MOST_QUEUED: Final = 1_000.0  # jobs of an endpoint: more of the stream stays in the stream
KEPT_HEADERS: Final = ("content-type", "inference-header-content-length", "x-request-id", "traceparent", "tracestate")
_FORM: Final = "nats://HOST:PORT/STREAM/CONSUMER?endpoint=NAME"


class Source(Struct, frozen=True):
    """A durable pull consumer whose messages are requests (V2 JSON, or what `path` takes) to an endpoint. Where
    `reply` is given, a subject of a stream, answers are published there. `server` is a URL, maybe with credentials."""

    server: str
    stream: str
    consumer: str
    endpoint: str
    path: str
    tenant: str = ""
    reply: str = ""

    @property
    def place(self) -> str:
        """The server's URL without credentials: what jobs may say of it, which are kept and shown."""
        return f"nats://{urlsplit(self.server).netloc.rpartition('@')[2]}"

    @property
    def callback(self) -> str:
        """Where answers go, as jobs say it; "" where nowhere."""
        return f"{self.place}/{self.reply}" if self.reply else ""


def read_source(url: str) -> Source:
    """Raises `InvalidConfig`.

    >>> read_source("nats://broker:4222/ORDERS/scorer?endpoint=fraud&reply=scores").path
    '/v2/models/fraud/infer'
    """
    parts = urlsplit(url)
    names = [unquote(name) for name in parts.path.strip("/").split("/")]
    given = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    endpoint = given.pop("endpoint", "")
    path = given.pop("path", f"/v2/models/{endpoint}/infer")
    tenant, reply = given.pop("tenant", ""), given.pop("reply", "")
    if parts.scheme != "nats" or not parts.hostname or len(names) != 2 or not all(names) or not endpoint or given:
        raise InvalidConfig(f"--streams: expected {_FORM}[&path=…][&tenant=…][&reply=SUBJECT], got {url!r}")
    return Source(f"nats://{parts.netloc}", names[0], names[1], endpoint, path, tenant, reply)


class Streams:
    """`queued(endpoint)` is how many of its jobs wait."""

    def __init__(
        self,
        database: Database,
        sources: Sequence[Source],
        queued: Callable[[str], float],
        log: Callable[[str], None],
    ) -> None:
        self._database = database
        self._sources = tuple(sources)
        self._queued = queued
        self._log = log
        self._clients: dict[str, Client] = {}

    async def run(self) -> None:
        """For ever."""
        if self._sources:
            _import_nats()
        await asyncio.gather(*[self._follow(source) for source in self._sources])

    async def publish(self, callback: Callback, message_id: str) -> int:
        """Publish a job's answer where its source says, once; returns 200. Raises UpstreamFailed."""
        place, _, subject = callback.url.removeprefix("nats://").partition("/")
        source = next((one for one in self._sources if one.callback == callback.url), None)
        answer = await asyncio.to_thread(self._answer_of, callback.job)
        headers = {"Nats-Msg-Id": message_id, "hyperion-job": callback.job, "hyperion-state": callback.state}
        headers["hyperion-status"] = str(callback.status)
        try:
            client = await self._connect(source.server if source is not None else f"nats://{place}")
            await client.jetstream().publish(subject, answer, headers=headers)
        except Exception as error:  # its client has no common base of errors, and this one is tried again
            raise UpstreamFailed(f"{place}: {type(error).__name__}: {error}") from error
        return 200

    async def _follow(self, source: Source) -> None:
        said = ""
        while True:
            try:
                client = await self._connect(source.server)
                consumer = await client.jetstream().pull_subscribe_bind(source.consumer, source.stream)
                said = ""
                await self._take(source, consumer.fetch)
            except Exception as error:  # as above; whatever it is, the messages stay in the stream
                told = f"{source.stream}/{source.consumer}: {type(error).__name__}: {error}"
                if told != said:
                    self._log(f"stream {told}")
                said = told
            await asyncio.sleep(RETRY_S)

    async def _take(self, source: Source, fetch: Callable[..., Awaitable[list["Msg"]]]) -> None:
        while True:
            if self._queued(source.endpoint) >= MOST_QUEUED:
                await asyncio.sleep(RETRY_S)
                continue
            messages: list[Msg] = []
            with contextlib.suppress(TimeoutError):  # none came
                messages = await fetch(BATCH, timeout=FETCH_S)
            if messages:
                await asyncio.to_thread(self._keep, [job_of(source, message) for message in messages])
                for message in messages:
                    await message.ack()

    def _keep(self, submissions: list[Submission]) -> None:
        with self._database.renewing() as tx:
            jobs.put_many(tx, submissions, time.time())

    def _answer_of(self, job: str) -> bytes:
        with self._database.read() as tx:
            answer = job_payloads.get_answer(tx, job)
        return b"" if answer is None else answer.body

    async def _connect(self, server: str) -> "Client":
        client = self._clients.get(server)
        if client is None or client.is_closed:
            client = self._clients[server] = await _import_nats().connect(server, max_reconnect_attempts=-1)
        return client


def job_of(source: Source, message: "Msg") -> Submission:
    """The job that this message is, however often it is delivered."""
    about = message.metadata
    name = f"{source.place} {source.stream} {source.consumer} {about.sequence.stream} {about.timestamp.timestamp()}"
    given = {key.lower(): value for key, value in (message.headers or {}).items()}
    headers = tuple((key, given[key]) for key in KEPT_HEADERS if key in given)
    return Submission(
        hashlib.sha256(name.encode()).hexdigest()[:32],
        source.tenant,
        source.endpoint,
        StoredRequest("POST", source.path, headers, message.data),
        callback=source.callback,
    )


def _import_nats() -> Any:
    try:
        import nats
    except ImportError as error:
        raise MissingExtra("--streams needs nats-py: pip install 'hyperion-inference[nats]'") from error
    return nats
