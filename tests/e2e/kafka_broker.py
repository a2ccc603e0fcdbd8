"""A broker that speaks Kafka's protocol over TCP: the one that listens, else librdkafka's own test cluster.

`python -m tests.e2e.kafka_broker` is that cluster in a process of its own, from the library that confluent-kafka
brings. It prints its address, and does what it is told on its input: `topic NAME PARTITIONS`, `down` (its listener and
all its connections are closed), `up`. It ends with its input. It knows no credentials, and forgets all when it ends.
"""

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

from tests.services import needs_module

GIVEN: Final = os.environ.get("HYPERION_TEST_KAFKA", "127.0.0.1:9092")
ROOT: Final = Path(__file__).parents[2]
PRODUCER: Final = 0  # RD_KAFKA_PRODUCER
BROKER: Final = 1  # the id of the only one


class Cluster:
    """librdkafka's test cluster of one broker, by its C functions: Python's client shows nothing of them."""

    def __init__(self) -> None:
        import confluent_kafka  # noqa: F401  which loads the library

        maps = Path("/proc/self/maps").read_text()
        self._library = ctypes.CDLL(next(line.split()[-1] for line in maps.splitlines() if "librdkafka" in line))
        error = ctypes.create_string_buffer(512)
        conf = ctypes.c_void_p(self._of(ctypes.c_void_p, "conf_new"))
        self._of(ctypes.c_int, "conf_set", conf, b"log_level", b"0", error, 512)
        client = self._of(ctypes.c_void_p, "new", PRODUCER, conf, error, 512)
        self._cluster = ctypes.c_void_p(self._of(ctypes.c_void_p, "mock_cluster_new", ctypes.c_void_p(client), 1))
        self.address = self._of(ctypes.c_char_p, "mock_cluster_bootstraps", self._cluster).decode()
        # Members that join a group one after the other would wait 3 s each.
        self._of(None, "mock_group_initial_rebalance_delay_ms", self._cluster, 100)

    def obey(self, line: str) -> None:
        verb, *rest = line.split()
        if verb == "topic":
            self._of(ctypes.c_int, "mock_topic_create", self._cluster, rest[0].encode(), int(rest[1]), 1)
        else:
            assert verb in ("down", "up"), line
            self._of(ctypes.c_int, f"mock_broker_set_{verb}", self._cluster, ctypes.c_int32(BROKER))

    def _of(self, answer: Any, name: str, *arguments: Any) -> Any:
        function = getattr(self._library, f"rd_kafka_{name}")
        function.restype = answer
        return function(*arguments)


class Broker:
    """Where it is. `tell` is None where it is somebody else's."""

    def __init__(self, address: str, tell: Callable[[str], None] | None) -> None:
        self.address = address
        self._tell = tell

    def url(self, topic: str, group: str, options: str) -> str:
        """For `--streams`. Kafka allows no shorter sessions than the default, and our own cluster waits for almost two
        of them where a member died, and for one where a group's last member left."""
        hurry = "" if self._tell is None else "&session_s=1.5"
        return f"kafka://{self.address}/{topic}/{group}?{options}{hurry}"

    def topic(self, partitions: int = 2) -> str:
        """A new one."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        if self._tell is not None:
            self._tell(f"topic {name} {partitions}")
        else:
            from confluent_kafka.admin import AdminClient
            from confluent_kafka.cimpl import NewTopic

            admin = AdminClient({"bootstrap.servers": self.address})
            admin.create_topics([NewTopic(name, partitions)])[name].result(30)
        return name

    def down(self) -> None:
        assert self._tell is not None, "only our own may be stopped"
        self._tell("down")

    def up(self) -> None:
        assert self._tell is not None, "as above"
        self._tell("up")

    def fill(self, topic: str, bodies: list[bytes | None], **options: Any) -> None:
        """A message for each body, with its number as the key."""
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.address, "enable.idempotence": True})
        for number, body in enumerate(bodies):
            producer.produce(topic, body, key=str(number), **options)
        assert producer.flush(30) == 0

    def read(self, topic: str) -> "Reading":
        return Reading(self.address, topic)


class Reading:
    """All messages of a topic, from its first on."""

    def __init__(self, address: str, topic: str) -> None:
        from confluent_kafka import Consumer

        group = {"group.id": f"reader-{uuid.uuid4().hex}", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        self._consumer = Consumer({"bootstrap.servers": address, **group})
        self._consumer.subscribe([topic])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def __call__(self) -> list[Any]:
        """Those that came within a fifth of a second."""
        return [message for message in self._consumer.consume(500, timeout=0.2) if message.error() is None]


@contextlib.contextmanager
def own_broker() -> Iterator[Broker]:
    """One of our own."""
    needs_module("confluent_kafka", extra="kafka")
    command = [sys.executable, "-m", "tests.e2e.kafka_broker"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        channel, said = process.stdin, process.stdout

        def tell(line: str) -> None:
            print(line, file=channel, flush=True)
            assert said.readline().strip() == "done", line

        try:
            yield Broker(said.readline().strip(), tell)
        finally:
            channel.close()


@contextlib.contextmanager
def any_broker() -> Iterator[Broker]:
    """The one that listens at `HYPERION_TEST_KAFKA` (127.0.0.1:9092), else one of our own."""
    needs_module("confluent_kafka", extra="kafka")
    host, _, port = GIVEN.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError:
        with own_broker() as broker:
            yield broker
    else:
        yield Broker(GIVEN, None)


def main() -> None:
    cluster = Cluster()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        cluster.obey(line)
        print("done", flush=True)
    # Its threads are not waited for: nobody is left to ask for anything.
    os._exit(0)


if __name__ == "__main__":
    main()
