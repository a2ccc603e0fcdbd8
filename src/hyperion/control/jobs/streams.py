"""Messages of a broker become jobs, and answers become messages. Run by `control/serve` where `--streams` names any.

A message is acknowledged once its job is in the store, under an id that comes from the message itself: one that is
delivered again is the same job. So each message is one job, whoever dies when. Answers are published like callbacks,
with an id by which whoever reads them, or the broker, can drop what comes twice. No broker is spoken to here.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import to_builtins
from msgspec.structs import replace

from hyperion.control.jobs.stream_kafka import KafkaBroker
from hyperion.control.jobs.stream_nats import NatsBroker
from hyperion.control.jobs.stream_source import RETRY_S, Arrived, Broker, Reader, Reply, Source, source_of
from hyperion.schema.errors import UpstreamFailed
from hyperion.schema.job import MAX_PAYLOAD_BYTES, StoredAnswer, StoredRequest, Submission
from hyperion.store import endpoints, job_payloads, jobs
from hyperion.store.database import Database
from hyperion.store.job_callbacks import Callback

MOST_QUEUED: Final = 1_000.0  # jobs of an endpoint: more of the stream stays in the stream
KINDS: Final[dict[str, Callable[[], Broker]]] = {"nats": NatsBroker, "kafka": KafkaBroker}


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
        self._brokers: dict[str, Broker] = {}

    async def run(self) -> None:
        """For ever. Raises `MissingExtra`."""
        for source in self._sources:
            self._broker_of(source)
        await asyncio.gather(*[self._follow(source) for source in self._sources])

    async def publish(self, callback: Callback, message_id: str) -> int:
        """Publish a job's answer where its source says; returns 200. Raises UpstreamFailed."""
        source = next((one for one in self._sources if one.callback == callback.url), None)
        source = source_of(callback.url) if source is None else source
        request, answer = await asyncio.to_thread(self._payloads_of, callback.job)
        headers = {"hyperion-job": callback.job, "hyperion-state": callback.state}
        headers["hyperion-status"] = str(callback.status)
        reply = Reply(b"" if answer is None else answer.body, headers, message_id, request)
        try:
            await self._broker_of(source).publish(source, reply)
        except Exception as error:  # their libraries have no common base of errors, and this one is tried again
            raise UpstreamFailed(_hide(source, f"{source.place}: {type(error).__name__}: {error}")) from error
        return 200

    async def _follow(self, source: Source) -> None:
        told = Told(lambda text: self._log(f"stream {source.stream}/{source.consumer}: {_hide(source, text)}"))
        while True:
            try:
                reader = await self._broker_of(source).open(source, told.tell)
                try:
                    await self._take(source, reader, told)
                finally:
                    await reader.close()
            except Exception as error:  # as above; whatever it is, the messages stay in the stream
                text = f"{type(error).__name__}: {error}"
                told.tell(text, text)
            await asyncio.sleep(RETRY_S)

    async def _take(self, source: Source, reader: Reader, told: "Told") -> None:
        while True:
            if self._queued(source.endpoint) >= MOST_QUEUED:
                await reader.rest()
                continue
            arrived = await reader.take()
            if arrived:
                fitting = [one.job for one in arrived if self._fits(source, one)]
                await asyncio.to_thread(self._keep, source.endpoint, fitting)
                await reader.acknowledge()
                told.end_round()

    def _fits(self, source: Source, arrived: Arrived) -> bool:
        size_bytes = len(arrived.job.request.body)
        if size_bytes > MAX_PAYLOAD_BYTES:  # no gateway could be handed it
            what = f"{size_bytes} bytes are over the limit of {MAX_PAYLOAD_BYTES}: skipped"
            self._log(f"stream {source.stream}/{source.consumer}: {arrived.where}: {what}")
        return size_bytes <= MAX_PAYLOAD_BYTES

    def _keep(self, endpoint: str, submissions: Sequence[Submission]) -> None:
        """As jobs that are worked off as the endpoint says."""
        with self._database.renewing() as tx:
            row = endpoints.get(tx, endpoint)
            says = to_builtins(row.resource.spec.jobs) if row is not None else {}
            jobs.put_many(tx, [replace(one, **says) for one in submissions], time.time())

    def _payloads_of(self, job: str) -> tuple[StoredRequest | None, StoredAnswer | None]:
        with self._database.read() as tx:
            return job_payloads.get_requests(tx, [job]).get(job), job_payloads.get_answer(tx, job)

    def _broker_of(self, source: Source) -> Broker:
        if source.kind not in self._brokers:
            self._brokers[source.kind] = KINDS[source.kind]()
        return self._brokers[source.kind]


class Told:
    """What went wrong, each kind once while it lasts: brokers are away for hours."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._known: set[str] = set()
        self._now: set[str] = set()

    def tell(self, kind: str, text: str) -> None:
        if kind not in self._known:
            self._log(text)
        self._known.add(kind)
        self._now.add(kind)

    def end_round(self) -> None:
        """Messages came and were acknowledged: what was not told since the last time is over."""
        self._known, self._now = self._now, set()


def _hide(source: Source, text: str) -> str:
    for secret in source.secrets:
        text = text.replace(secret, "***")
    return text
