"""Messages of a topic are jobs, each once: over rebalances, a full queue, a store or a broker that is away. The broker
is a real one, or librdkafka's test cluster in another process; the store is a real one, too."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hyperion.control.jobs import stream_kafka
from hyperion.control.jobs import streams as streams_module
from hyperion.control.jobs.stream_kafka import KafkaReader
from hyperion.control.jobs.stream_source import read_source
from hyperion.control.jobs.streams import Streams, Told
from hyperion.schema.errors import MissingExtra, StorageFailed, UpstreamFailed
from hyperion.schema.job import StoredAnswer, StoredRequest
from hyperion.store import job_payloads, jobs
from hyperion.store.database import Database, open_home
from hyperion.store.job_callbacks import Callback
from tests.e2e.kafka_broker import Broker, any_broker, own_broker

PATIENCE_S = 40.0


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with any_broker() as one:
        yield one


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (stream_kafka, streams_module):
        monkeypatch.setattr(module, "RETRY_S", 0.2)
    monkeypatch.setattr(stream_kafka, "FETCH_S", 0.2)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    one = open_home(tmp_path)
    yield one
    one.close()


class Following:
    """Streams that run; what they log, and whether the queue is full."""

    def __init__(self, database: Database, *urls: str) -> None:
        self.log: list[str] = []
        self.full = False
        self.asked = 0
        self.streams = Streams(database, [read_source(url) for url in urls], self._queued, self.log.append)

    def _queued(self, _: str) -> float:
        self.asked += 1
        return streams_module.MOST_QUEUED if self.full else 0.0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.streams.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(true: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends_s, what()
        await asyncio.sleep(0.02)


def requests(database: Database) -> list[StoredRequest]:
    with database.read() as tx:
        kept = [job.id for job in jobs.list_(tx, limit=10_000)]
        found = job_payloads.get_requests(tx, kept)
    return [found[name] for name in kept]


def bodies(database: Database) -> list[bytes]:
    return sorted(request.body for request in requests(database))


def numbered(count: int) -> list[bytes | None]:
    return [b"%04d" % number for number in range(count)]


async def beside(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(work, *arguments)


async def test_each_message_is_a_job_with_its_body_its_key_and_the_headers_that_count(
    broker: Broker, database: Database
) -> None:
    topic = broker.topic()
    headers = [("Content-Type", b"application/json"), ("traceparent", "00-1"), ("x-request-id", None), ("other", b"x")]
    await beside(lambda: broker.fill(topic, [b"{}"], headers=headers))
    following = Following(database, broker.url(topic, f"of-{topic}", "endpoint=e&tenant=t&reply=r"))
    async with following.running():
        await until(lambda: len(requests(database)) == 1, lambda: following.log)
    [request] = requests(database)
    kept = (("content-type", "application/json"), ("traceparent", "00-1"), ("hyperion-message-key", "MA=="))
    assert request == StoredRequest("POST", "/v2/models/e/infer", kept, b"{}")
    with database.read() as tx:
        [job] = jobs.list_(tx, limit=10)
    assert (job.tenant, job.endpoint, job.callback) == ("t", "e", f"kafka://{broker.address}/r")


async def test_neither_a_tombstone_nor_a_message_that_is_too_large_stops_the_stream(
    broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "MAX_PAYLOAD_BYTES", 1000)
    topic = broker.topic(1)
    await beside(broker.fill, topic, [b"first", None, b"x" * 1001, b"last"])
    following = Following(database, broker.url(topic, f"of-{topic}", "endpoint=e"))
    async with following.running():
        await until(lambda: len(requests(database)) == 3, lambda: following.log)
    assert bodies(database) == [b"", b"first", b"last"]
    assert following.log == [
        f"stream {topic}/of-{topic}: partition 0, offset 2: 1001 bytes are over the limit of 1000: skipped"
    ]


async def test_over_rebalances_and_restarts_each_message_is_one_job(broker: Broker, database: Database) -> None:
    topic, count = broker.topic(4), 0
    url = broker.url(topic, f"of-{topic}", "endpoint=e")
    first, second = Following(database, url), Following(database, url)
    async with second.running():
        async with first.running():
            for _ in range(3):
                await beside(broker.fill, topic, numbered(200))
                count += 200
            await until(lambda: len(requests(database)) > 50, lambda: first.log)
        # One has left in the middle: the other goes on where it was.
        await until(lambda: len(requests(database)) >= count, lambda: second.log)
    third = Following(database, url)
    await beside(broker.fill, topic, [b"last"])
    async with third.running():
        await until(lambda: b"last" in bodies(database), lambda: third.log)
    assert bodies(database) == sorted([b"%04d" % number for number in range(200)] * 3 + [b"last"])


async def test_messages_that_are_delivered_again_are_the_same_jobs(
    broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = broker.topic()
    await beside(broker.fill, topic, numbered(100))
    url = broker.url(topic, f"of-{topic}", "endpoint=e")
    with monkeypatch.context() as patched:  # as if it died each time before it could commit
        patched.setattr(KafkaReader, "_commit", lambda self: None)
        first = Following(database, url)
        async with first.running():
            await until(lambda: len(requests(database)) == 100, lambda: first.log)
    again = Following(database, url)
    taken: list[int] = []
    put_many = jobs.put_many

    def spy(tx: Any, submissions: Any, now: float) -> None:
        taken.append(len(submissions))
        put_many(tx, submissions, now)

    monkeypatch.setattr(jobs, "put_many", spy)
    async with again.running():
        await until(lambda: sum(taken) == 100, lambda: again.log)
    assert bodies(database) == numbered(100)


async def test_what_is_acknowledged_is_not_delivered_again(broker: Broker) -> None:
    topic = broker.topic()
    source = read_source(broker.url(topic, f"of-{topic}", "endpoint=e"))
    await beside(broker.fill, topic, numbered(100))
    seen: list[bytes] = []
    for count in (100, 101):
        reader = await stream_kafka.KafkaBroker().open(source, lambda kind, text: None)
        ends_s = time.monotonic() + PATIENCE_S
        while len(seen) < count and time.monotonic() < ends_s:
            seen += [one.job.request.body for one in await reader.take()]
            await reader.acknowledge()
        await reader.close()
        await beside(broker.fill, topic, [b"last"])
    assert sorted(seen) == [*numbered(100), b"last"]


async def test_a_message_that_comes_while_none_should_is_taken_later(broker: Broker) -> None:
    """A partition that is given to us in a rest begins to deliver before it is paused."""
    import confluent_kafka

    class Unpausable(confluent_kafka.Consumer):
        def pause(self, partitions: Any) -> None:
            pass

    topic = broker.topic(1)
    await beside(broker.fill, topic, numbered(100))
    kafka = SimpleNamespace(**{**vars(confluent_kafka), "Consumer": Unpausable})
    reader = KafkaReader(kafka, read_source(broker.url(topic, f"of-{topic}", "endpoint=e")), lambda kind, text: None)
    ends_s = time.monotonic() + PATIENCE_S
    while not reader._early:
        assert time.monotonic() < ends_s
        await reader.rest()
    seen: list[bytes] = []
    while len(seen) < 100:
        assert time.monotonic() < ends_s
        seen += [one.job.request.body for one in await reader.take()]
    await reader.close()
    assert seen == numbered(100)


async def test_while_too_many_jobs_wait_nothing_is_taken_and_then_all_is(broker: Broker, database: Database) -> None:
    topic = broker.topic()
    following = Following(database, broker.url(topic, f"of-{topic}", "endpoint=e"))
    following.full = True
    await beside(broker.fill, topic, numbered(300))
    async with following.running():
        # It rests again and again: so it polls, joins the group, and is given partitions meanwhile.
        await until(lambda: following.asked > 3, lambda: following.log)
        assert requests(database) == []
        following.full = False
        await until(lambda: len(requests(database)) == 300, lambda: following.log)
        following.full = True
        asked = following.asked
        await until(lambda: following.asked > asked + 1)
        await beside(broker.fill, topic, numbered(50))
        asked = following.asked
        await until(lambda: following.asked > asked + 1)
        assert len(requests(database)) == 300
        following.full = False
        await until(lambda: len(requests(database)) == 350, lambda: following.log)
    assert following.log == []


async def test_what_the_store_could_not_take_comes_again(
    broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, tries = broker.topic(1), 0
    put_many = jobs.put_many

    def fail_once(tx: Any, submissions: Any, now: float) -> None:
        nonlocal tries
        tries += 1
        put_many(tx, submissions, now)
        if tries == 1:
            raise StorageFailed("the disk is full")

    monkeypatch.setattr(jobs, "put_many", fail_once)
    following = Following(database, broker.url(topic, f"of-{topic}", "endpoint=e"))
    await beside(broker.fill, topic, numbered(30))
    async with following.running():
        await until(lambda: len(requests(database)) == 30, lambda: following.log)
    assert bodies(database) == numbered(30)
    assert following.log == [f"stream {topic}/of-{topic}: StorageFailed: the disk is full"]


def ended(database: Database, source: str, body: bytes, answer: bytes) -> Callback:
    """The callback of a job that has ended, whose message was `body`."""
    with database.write() as tx:
        held = next(job for job in jobs.claim(tx, 100, time.time()) if job.request.body == body)
        job_payloads.put(tx, "answer", [(held.id, job_payloads.encode(StoredAnswer(200, (), answer)))])
    return Callback(held.id, "", "e", "done", 200, "", 1.0, read_source(source).callback, 1)


async def read(broker: Broker, topic: str, count: int) -> list[Any]:
    def collect() -> list[Any]:
        found: list[Any] = []
        ends_s = time.monotonic() + PATIENCE_S
        with broker.read(topic) as more:
            while len(found) < count and time.monotonic() < ends_s:
                found += more()
        return found

    found: list[Any] = await beside(collect)
    return found


async def test_a_broker_that_was_away_and_is_back_loses_no_message_and_no_answer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_broker() as broker:
        topic, out = broker.topic(), broker.topic()
        url = broker.url(topic, f"of-{topic}", f"endpoint=e&reply={out}")
        following = Following(database, url)
        await beside(broker.fill, topic, numbered(20))
        async with following.running():
            await until(lambda: len(requests(database)) == 20, lambda: following.log)
            callback = ended(database, url, b"0007", b"seven")
            broker.down()
            with monkeypatch.context() as patched:
                patched.setattr(stream_kafka, "DELIVERY_S", 0.3)
                hasty = Following(database, url)
                with pytest.raises(UpstreamFailed, match="_MSG_TIMED_OUT"):
                    await hasty.streams.publish(callback, "m7")
            await until(lambda: following.log != [])
            broker.up()
            await beside(broker.fill, topic, [b"later"])
            await until(lambda: len(requests(database)) == 21, lambda: following.log)
            assert await following.streams.publish(callback, "m7") == 200
        [message] = await read(broker, out, 1)
        assert (message.key(), message.value()) == (b"7", b"seven")
        assert dict(message.headers()) == {
            "hyperion-job": callback.job.encode(),
            "hyperion-state": b"done",
            "hyperion-status": b"200",
            "hyperion-message-id": b"m7",
        }
        assert len(following.log) == len(set(following.log)), "the same is said once"


async def test_an_answer_that_no_broker_takes_is_an_error_in_time(
    broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperion.control.jobs.stream_kafka.DELIVERY_S", 0.5)
    url = "kafka://ada:secret@127.0.0.1:1/t/g?endpoint=e&reply=out"
    streams = Streams(database, [read_source(url)], lambda _: 0.0, lambda _: None)
    callback = Callback("0" * 32, "", "e", "done", 200, "", 1.0, read_source(url).callback, 1)
    with pytest.raises(UpstreamFailed, match=r"^kafka://127\.0\.0\.1:1: .*_MSG_TIMED_OUT") as failed:
        await streams.publish(callback, "m1")
    assert "secret" not in failed.value.message


async def test_a_password_that_is_refused_is_not_in_the_log(
    broker: Broker, database: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    """No broker here knows it, and the test cluster not even how to ask for one."""
    following = Following(database, f"kafka://ada:s3cr3t%21@{broker.address}/t/g?endpoint=e")
    async with following.running():
        await until(lambda: following.log != [])
    written = "".join((*following.log, *capfd.readouterr()))
    assert written
    assert "s3cr3t" not in written


def test_each_kind_of_trouble_is_said_once_while_it_lasts() -> None:
    said: list[str] = []
    told = Told(said.append)
    for _ in range(3):  # messages come, but cannot be acknowledged
        told.tell("commit", "no")
        told.end_round()
    assert said == ["no"]
    told.end_round()
    told.tell("commit", "no again")
    assert said == ["no", "no again"]


async def test_without_the_library_the_extra_is_named(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    following = Following(database, "kafka://b/t/g?endpoint=e")
    with pytest.raises(MissingExtra, match=r"--streams needs confluent-kafka: pip install 'hyperion-inference\[kafka"):
        await following.streams.run()
