"""Topics of Kafka, and of brokers that speak its protocol, as `streams` reads them.

Each source is a member of its consumer group. An offset is committed once the jobs of all messages before it are in the
store, so whoever reads the partition next, we again or another process, begins with messages whose jobs may be there
already: the same jobs, as their ids come from the messages. Brokers do not drop what comes twice: an idempotent
producer doubles nothing by itself, but an answer is published again by whoever cannot know that it was.

librdkafka's calls block, so each has a thread of its own (`errands.run_beside`) and none is on the loop.
"""

import base64
import binascii
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from hyperion.control.errands import run_beside
from hyperion.control.jobs.stream_source import BATCH, RETRY_S, SASL, Arrived, Reply, Source, Tell, submission
from hyperion.schema.errors import MissingExtra, UpstreamFailed
from hyperion.schema.job import MAX_PAYLOAD_BYTES, StoredRequest, Submission

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, Producer

T = TypeVar("T")
FETCH_S: Final = 1.0
METADATA_S: Final = 10.0  # within which a topic that is made late is found
DELIVERY_S: Final = 10.0  # shorter than a callback may take: whoever tries again knows what became of the last try
LOOK_S: Final = 0.02
KEY_HEADER: Final = "hyperion-message-key"  # of the request that is kept: base64 of the message's key


class KafkaBroker:
    """A consumer for each source, one producer for each cluster."""

    def __init__(self) -> None:
        self._kafka = _import_kafka()
        self._producers: dict[tuple[str, str, str], Producer] = {}
        self._lock = threading.Lock()

    async def open(self, source: Source, tell: Tell) -> "KafkaReader":
        return await run_beside(lambda: KafkaReader(self._kafka, source, tell))  # which reads files

    async def publish(self, source: Source, reply: Reply) -> None:
        await run_beside(lambda: self._publish(source, reply))

    def _publish(self, source: Source, reply: Reply) -> None:
        """Raises `UpstreamFailed`, and what librdkafka raises."""
        outcome: list[KafkaError | None] = []

        def settle(error: "KafkaError | None", _: "Message") -> None:
            outcome.append(error)

        producer = self._producer_of(source)
        headers = {**reply.headers, "hyperion-message-id": reply.message_id}
        producer.produce(
            source.reply,
            reply.body,
            key=key_of(reply.request),
            headers=[(name, value.encode()) for name, value in headers.items()],
            on_delivery=settle,
        )
        # Whichever thread polls hears for all. The broker's time is bounded by `message.timeout.ms`.
        give_up_s = time.monotonic() + DELIVERY_S + 2
        while not outcome and time.monotonic() < give_up_s:
            producer.poll(LOOK_S)
        error = outcome[0] if outcome else None
        if error is not None and error.fatal():
            self._drop(source, producer)
        if error is not None or not outcome:
            raise UpstreamFailed("no word of it" if error is None else describe(error))

    def _producer_of(self, source: Source) -> "Producer":
        with self._lock:
            producer = self._producers.get(_cluster(source))
            if producer is None:
                producer = self._producers[_cluster(source)] = self._kafka.Producer(producer_config(source))
            return producer

    def _drop(self, source: Source, producer: "Producer") -> None:
        """A producer that met a fatal error never works again."""
        with self._lock:
            if self._producers.get(_cluster(source)) is producer:
                del self._producers[_cluster(source)]


class KafkaReader:
    """A member of a group. Everything but `__init__` and `_tell_all` runs beside the loop, one call at a time."""

    def __init__(self, kafka: Any, source: Source, tell: Tell) -> None:
        self._kafka = kafka
        self._source = source
        self._tell = tell
        self._heard: list[KafkaError] = []
        self._early: list[Message] = []  # what came while nothing should: of a partition that was ours only just
        self._due: dict[int, int] = {}  # by partition, the offset of the first message that is not kept
        self._taken: dict[int, int] = {}
        self._resting = False
        self._calling = threading.Lock()
        self._consumer: Consumer = kafka.Consumer(consumer_config(source) | {"error_cb": self._heard.append})
        self._consumer.subscribe([source.stream])

    async def take(self) -> list[Arrived]:
        arrived = await self._beside(self._take)
        self._tell_all()
        return arrived

    async def acknowledge(self) -> None:
        self._due |= self._taken
        self._taken = {}
        await self._beside(self._commit)
        self._tell_all()

    async def rest(self) -> None:
        await self._beside(self._rest)
        self._tell_all()

    async def close(self) -> None:
        """Leaves the group, so that others need not wait for the session to end."""
        await self._beside(self._consumer.close)

    async def _beside(self, work: Callable[[], T]) -> T:
        def run() -> T:
            with self._calling:  # whoever is cancelled leaves a call behind: `close` comes after it
                return work()

        return await run_beside(run)

    def _take(self) -> list[Arrived]:
        if self._resting:
            self._consumer.resume(self._consumer.assignment())
            self._resting = False
        found, self._early = self._early, []
        if not found and (first := self._consumer.poll(FETCH_S)) is not None:
            found = [first]
        if found:
            found += self._consumer.consume(BATCH - len(found), timeout=0) if len(found) < BATCH else []
        elif self._due:
            self._commit()  # the last time it could not be done
        messages = [message for message in found if not self._is_error(message)]
        for message in messages:
            partition, offset = message.partition(), message.offset()
            assert partition is not None, "of a message, and no error"
            assert offset is not None, "as above"
            self._taken[partition] = offset + 1
        return [Arrived(_where(message), job_of(self._source, message)) for message in messages]

    def _commit(self) -> None:
        """Commit what is due of the partitions that are ours; others' are their new owners' to commit. What fails stays
        due: the next commit does it, or the messages come again."""
        ours = {one.partition for one in self._consumer.assignment()}
        self._due = {partition: offset for partition, offset in self._due.items() if partition in ours}
        offsets = [
            self._kafka.TopicPartition(self._source.stream, partition, offset)
            for partition, offset in self._due.items()
        ]
        if not offsets:
            return
        try:
            committed = self._consumer.commit(offsets=offsets, asynchronous=False) or []
        except self._kafka.KafkaException as error:
            self._heard.append(error.args[0])
            return
        self._heard += [one.error for one in committed if one.error]
        failed = {one.partition for one in committed if one.error}
        self._due = {partition: offset for partition, offset in self._due.items() if partition in failed}

    def _rest(self) -> None:
        """Nothing is fetched, but the group is told that we live (`max.poll.interval.ms`), and rebalances go on."""
        self._consumer.pause(self._consumer.assignment())
        self._resting = True
        message = self._consumer.poll(RETRY_S)
        if message is not None and not self._is_error(message):
            self._early.append(message)

    def _is_error(self, message: "Message") -> bool:
        error = message.error()
        if error is None:
            return False
        if error.fatal():
            raise self._kafka.KafkaException(error)
        self._heard.append(error)
        return True

    def _tell_all(self) -> None:
        while self._heard:
            error = self._heard.pop(0)
            # The texts of one kind differ, by how long it lasts and the like.
            self._tell(error.name(), describe(error))


def job_of(source: Source, message: "Message") -> Submission:
    """The job that this message is, however often it is delivered. One without a value is a request without a body,
    which no route takes: its job says so."""
    partition, offset, (_, stamp_ms) = message.partition(), message.offset(), message.timestamp()
    # The time: a topic that is made anew counts from 0 again.
    name = f"{source.place} {source.stream} {source.consumer} {partition} {offset} {stamp_ms}"
    headers = {
        name.lower(): value.decode("latin-1") if isinstance(value, bytes) else value
        for name, value in _pairs(message.headers())
        if value is not None
    }
    key = message.key()
    more = () if key is None else ((KEY_HEADER, base64.b64encode(key).decode()),)
    return submission(source, name, headers, message.value() or b"", *more)


def key_of(request: StoredRequest | None) -> bytes | None:
    """The key of the message that the request was, None where it had none.

    >>> key_of(StoredRequest("POST", "/", (("hyperion-message-key", "YWRh"),), b""))
    b'ada'
    """
    kept = dict(request.headers).get(KEY_HEADER) if request is not None else None
    try:
        return None if kept is None else base64.b64decode(kept, validate=True)
    except binascii.Error:
        return None


def consumer_config(source: Source) -> dict[str, Any]:
    """librdkafka's, for a member of the source's group."""
    return _client_config(source) | {
        "group.id": source.consumer,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",  # a new group misses nothing
        "session.timeout.ms": int(source.session_s * 1000),
        "heartbeat.interval.ms": int(source.session_s * 1000 / 3),
        "topic.metadata.refresh.interval.ms": int(METADATA_S * 1000),
    }


def producer_config(source: Source) -> dict[str, Any]:
    """librdkafka's, for answers. The broker, not the client, says how long they may be."""
    return _client_config(source) | {
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": int(DELIVERY_S * 1000),
        "message.max.bytes": MAX_PAYLOAD_BYTES + (1 << 20),
        "error_cb": lambda _: None,  # the answers' own outcomes say it
    }


def _client_config(source: Source) -> dict[str, Any]:
    parts = urlsplit(source.server)
    tls = parts.scheme == "kafka+tls"
    config: dict[str, Any] = {
        "bootstrap.servers": parts.netloc.rpartition("@")[2],
        "client.id": "hyperion",
        "socket.keepalive.enable": True,
        "reconnect.backoff.max.ms": int(RETRY_S * 1000),
        "log_level": 0,  # it would write to stderr: its errors are told by `error_cb`
        "security.protocol": ("SASL_" if source.sasl else "") + ("SSL" if tls else "PLAINTEXT"),
    }
    if tls:
        config["ssl.ca.location"] = source.ca or "probe"
    if source.sasl:
        config |= {
            "sasl.mechanisms": SASL[source.sasl],
            "sasl.username": unquote(parts.username or ""),
            "sasl.password": unquote(parts.password or ""),
        }
    return config


def describe(error: "KafkaError") -> str:
    """The error in one line."""
    return f"{error.name()}: {error.str()}"


def _where(message: "Message") -> str:
    return f"partition {message.partition()}, offset {message.offset()}"


def _pairs(headers: Any) -> Sequence[tuple[str, str | bytes | None]]:
    return list(headers.items()) if isinstance(headers, dict) else headers or []


def _cluster(source: Source) -> tuple[str, str, str]:
    return source.server, source.sasl, source.ca


def _import_kafka() -> Any:
    try:
        import confluent_kafka
    except ImportError as error:
        raise MissingExtra("--streams needs confluent-kafka: pip install 'hyperion-inference[kafka]'") from error
    return confluent_kafka
