"""The link between a gateway and control: what they say to each other over `run/control.sock`, as bytes. Sans-I/O.

Called by `gateway` (client side) and `control` (server side). A message is a u32 little-endian length followed by that
many bytes of JSON. A gateway keeps a connection each to poll for snapshots, to ask for loads and unloads, and to report
what it has counted; each request is answered, in order, on the connection it came on. Never here: sockets, timeouts.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from hyperion.schema.errors import MalformedRequest, TooLarge
from hyperion.schema.job import Answer, ClaimedJob, Request
from hyperion.schema.release import GatewayReport
from hyperion.schema.snapshot import Snapshot
from hyperion.schema.usage import OthersUsage

MAX_MESSAGE_BYTES = 64 << 20
_HEADER_BYTES = 4


class Poll(Struct, frozen=True, tag="poll"):
    """Gateway `worker` runs snapshot version `have` (0: none) and asks for one that is newer than `seen`, which it has
    got and is about to run: all that can change at once has changed, but some reloaded replicas do not answer yet.

    `draining` names the replicas that this snapshot no longer lists but that the gateway still holds open, so that
    control stops none of them too early. `rejected` says of which endpoints it could not follow the snapshot in full,
    and why. A gateway may poll again before it has its answer, when any of this has changed.
    """

    worker: int
    have: int
    draining: tuple[str, ...] = ()
    seen: int = 0
    rejected: dict[str, str] = {}


class Publish(Struct, frozen=True, tag="publish"):
    """The answer to a poll: the newest snapshot, or None when nothing newer came within control's waiting time."""

    snapshot: Snapshot | None = None


class Load(Struct, frozen=True, tag="load"):
    """Load the model, or load it again from where it lies, with the parameters of the repository extension."""

    model: str
    parameters: dict[str, Any] = {}


class Unload(Struct, frozen=True, tag="unload"):
    """Stop serving the model."""

    model: str


class UnknownKey(Struct, frozen=True, tag="unknown_key"):
    """A caller showed a token of this issuer (its `iss`) that is signed with a key which nobody knows yet: read its
    keys again, soon. Answered by `Done` at once; the keys come with a snapshot."""

    issuer: str


class Report(Struct, frozen=True, tag="report"):
    """What a gateway has counted; answered by `Done` once control has taken it."""

    report: GatewayReport


class Done(Struct, frozen=True, tag="done"):
    """The answer to a load, an unload or a report; `error` is "" or one line saying why it failed.

    `code` is the error's stable code (`hyperion.schema.errors`), "" when all is well. `version` is that of the snapshot
    with the change in it: the gateway that asked answers its caller once it runs that one. `usage` answers a report:
    what the other gateways counted of tenants that have quotas.
    """

    error: str = ""
    code: str = ""
    version: int = 0
    usage: tuple[OthersUsage, ...] = ()


class Ask(Struct, frozen=True, tag="ask"):
    """What a gateway wants of jobs and idempotent calls: everything that has come together since its last message, so
    that control can do it in one transaction."""

    requests: tuple[Request, ...]


class Told(Struct, frozen=True, tag="told"):
    """The answers to an `Ask`, in its order."""

    answers: tuple[Answer, ...]


class Claim(Struct, frozen=True, tag="claim"):
    """The gateway can run this many jobs now."""

    most: int


class Work(Struct, frozen=True, tag="work"):
    """The answer to a claim: jobs, or none when none came due within control's waiting time."""

    jobs: tuple[ClaimedJob, ...] = ()


Message = Poll | Publish | Load | Unload | UnknownKey | Report | Done | Ask | Told | Claim | Work

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return the message as bytes, length included. Raises `TooLarge` over `MAX_MESSAGE_BYTES`."""
    body = _ENCODER.encode(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise TooLarge(f"link message: {len(body)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    return len(body).to_bytes(_HEADER_BYTES, "little") + body


class Decoder:
    """Turns a stream of bytes back into messages, whatever the pieces it arrives in."""

    def __init__(self, limit_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are complete with `data`.

        Raises `TooLarge` for a length over the limit (before anything is allocated for it) and `MalformedRequest` for
        a body that is no message; the connection is then useless and must be closed.
        """
        self._buffer += data
        return list(self._take())

    def _take(self) -> Iterator[Message]:
        while len(self._buffer) >= _HEADER_BYTES:
            size = int.from_bytes(self._buffer[:_HEADER_BYTES], "little")
            if size > self._limit_bytes:
                raise TooLarge(f"link message: {size} bytes announced, the limit is {self._limit_bytes}")
            end = _HEADER_BYTES + size
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEADER_BYTES:end])
            del self._buffer[:end]
            try:
                yield _DECODER.decode(body)
            except msgspec.MsgspecError as error:
                raise MalformedRequest(f"link message: {error}") from error
