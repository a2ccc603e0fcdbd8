"""What a stream is: the URL that names it, the job that one of its messages is, and what brokers have in common.

Read by `streams`; `stream_nats` and `stream_kafka` speak to the brokers.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Struct

from hyperion.schema.errors import InvalidConfig
from hyperion.schema.job import StoredRequest, Submission

BATCH: Final = 64
RETRY_S: Final = 2.0
SESSION_S: Final = 6.0  # the shortest that Kafka's brokers allow by default
LONGEST_SESSION_S: Final = 300.0  # `max.poll.interval.ms`
KEPT_HEADERS: Final = ("content-type", "inference-header-content-length", "x-request-id", "traceparent", "tracestate")
SASL: Final = {"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"}
_FORMS: Final = (
    "nats://HOST:PORT/STREAM/CONSUMER?endpoint=NAME[&path=…][&tenant=…][&reply=SUBJECT]",
    "kafka://HOST:PORT/TOPIC/GROUP?endpoint=NAME[&path=…][&tenant=…][&reply=TOPIC]"
    "[&tls=true][&ca=FILE][&sasl=…][&session_s=6]",
)

Tell = Callable[[str, str], None]


class Source(Struct, frozen=True):
    """A durable consumer whose messages are requests (V2 JSON, or what `path` takes) to an endpoint: in NATS a pull
    consumer of a `stream`, in Kafka a group, `consumer`, of a topic, `stream`. Where `reply` is given, a subject of a
    stream or a topic, answers are published there. `server` is a URL, maybe with credentials.

    For Kafka, `sasl` is how credentials are shown, a key of `SASL`; `ca` is a file of who vouches for brokers, "" for
    the system's; a process that died is in the group for `session_s`."""

    server: str
    stream: str
    consumer: str
    endpoint: str
    path: str
    tenant: str = ""
    reply: str = ""
    sasl: str = ""
    ca: str = ""
    session_s: float = SESSION_S

    @property
    def kind(self) -> str:
        """The broker's: nats or kafka."""
        return urlsplit(self.server).scheme.partition("+")[0]

    @property
    def place(self) -> str:
        """The server's URL without credentials: what jobs may say of it, which are kept and shown."""
        return f"{self.kind}://{urlsplit(self.server).netloc.rpartition('@')[2]}"

    @property
    def callback(self) -> str:
        """Where answers go, as jobs say it; "" where nowhere."""
        return f"{self.place}/{self.reply}" if self.reply else ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log may say: the password, or the token in its place, as it is written here and as it is meant."""
        parts = urlsplit(self.server)
        secret = parts.password or parts.username or ""
        return tuple({secret, unquote(secret)} - {""})


class Arrived(Struct, frozen=True):
    """A message and its place in the stream, for people."""

    where: str
    job: Submission


class Reply(Struct, frozen=True):
    """An answer on its way. `message_id` is the same each time it is published; `request` is what was asked."""

    body: bytes
    headers: Mapping[str, str]
    message_id: str
    request: StoredRequest | None


class Reader(Protocol):
    """One source, open. One call at a time, but for `close`."""

    async def take(self) -> list[Arrived]:
        """Up to `BATCH` messages; none where none came within some seconds."""

    async def acknowledge(self) -> None:
        """All that was taken is kept: it need not be delivered again."""

    async def rest(self) -> None:
        """Stay in the broker's books for about `RETRY_S` without taking anything."""

    async def close(self) -> None:
        """What was not acknowledged goes to others."""


class Broker(Protocol):
    """All servers of one kind. Its library is imported when it is made, which raises `MissingExtra`. Other errors have
    no common base: whoever calls tries again."""

    async def open(self, source: Source, tell: Tell) -> Reader:
        """`tell(kind, text)` hears of what goes wrong and is tried again by itself, on the loop's thread."""

    async def publish(self, source: Source, reply: Reply) -> None:
        """Publish to `source.reply`; returns once the broker has it for good."""


def read_source(url: str) -> Source:
    """Raises `InvalidConfig`.

    >>> read_source("nats://broker:4222/ORDERS/scorer?endpoint=fraud&reply=scores").path
    '/v2/models/fraud/infer'
    >>> read_source("kafka://ada:secret@broker:9092/orders/scorer?endpoint=fraud&tls=true").server
    'kafka+tls://ada:secret@broker:9092'
    """
    try:
        source = _read(url)
    except ValueError:  # a port or a number that is none
        source = None
    if source is None:
        hidden = re.sub(r"//.*@", "//***@", url)
        raise InvalidConfig(f"--streams: expected {_FORMS['kafka' in url[:5]]}, got {hidden!r}")
    return source


def _read(url: str) -> Source | None:
    parts = urlsplit(url)
    names = [unquote(name) for name in parts.path.strip("/").split("/")]
    given = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    endpoint = given.pop("endpoint", "")
    path = given.pop("path", f"/v2/models/{endpoint}/infer")
    tenant, reply = given.pop("tenant", ""), given.pop("reply", "")
    scheme, sasl, ca, session_s = parts.scheme, "", "", SESSION_S
    if scheme in ("kafka", "kafka+tls"):
        tls = given.pop("tls", "true" if scheme == "kafka+tls" else "false")
        scheme = {"true": "kafka+tls", "false": "kafka"}.get(tls, "")
        sasl, ca = given.pop("sasl", "plain" if parts.username else ""), given.pop("ca", "")
        session_s = float(given.pop("session_s", session_s))
        # A name without its password, or a way to show what is not there, is a slip.
        if bool(parts.username) != bool(parts.password) or (sasl in SASL) != bool(parts.username):
            return None
        if sasl not in ("", *SASL) or (ca and scheme != "kafka+tls") or not 1 <= session_s <= LONGEST_SESSION_S:
            return None
    elif scheme != "nats":
        return None
    if (
        not scheme
        or not parts.hostname
        or parts.port == 0
        or len(names) != 2
        or not all(names)
        or not endpoint
        or given
    ):
        return None
    server = f"{scheme}://{parts.netloc}"
    return Source(server, names[0], names[1], endpoint, path, tenant, reply, sasl, ca, session_s)


def source_of(callback: str) -> Source:
    """Where a job's answer goes whose source is no longer named: no credentials are known.

    >>> source_of("kafka://broker:9092/scores").reply
    'scores'
    """
    kind, _, rest = callback.partition("://")
    server, _, reply = rest.partition("/")
    return Source(f"{kind}://{server}", "", "", "", "", reply=reply)


def submission(
    source: Source, name: str, headers: Mapping[str, str], body: bytes, *more: tuple[str, str]
) -> Submission:
    """The job of the message with this `name`, the same however often it is delivered. `headers` have lower-case
    names; `more` are kept with the request, too."""
    kept = tuple((key, headers[key]) for key in KEPT_HEADERS if key in headers)
    return Submission(
        hashlib.sha256(name.encode()).hexdigest()[:32],
        source.tenant,
        source.endpoint,
        StoredRequest("POST", source.path, kept + more, body),
        callback=source.callback,
    )
