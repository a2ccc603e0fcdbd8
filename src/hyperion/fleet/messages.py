"""What is said over `run/supervisor.sock`, as bytes: start, stop and list children. Sans-I/O.

Called by the supervisor and by its clients (`fleet.local`). A message is a u32 little-endian length and that many
bytes of JSON; every request gets one answer, in order. Never here: sockets, processes.
"""

from typing import Any

import msgspec
from msgspec import Struct

from hyperion.schema.errors import MalformedRequest, TooLarge

MAX_MESSAGE_BYTES = 16 << 20
HEADER_BYTES = 4
STARTING, READY, BACKOFF, STOPPING, FAILED = "starting", "ready", "backoff", "stopping", "failed"
STORE_OPEN = "the store is open"  # control's status, once everything that it was configured with has been looked at


class Confinement(Struct, frozen=True):
    """What the supervisor does around a child that runs other people's code: it gets only harmless variables of the
    environment; a private directory `scratch` in which its files may take `scratch_bytes` (more ends it); where that
    can be done, control groups with at most `memory_bytes` (0: no limit). When it is gone, so are its scratch directory
    and its `leftovers`."""

    scratch: str
    scratch_bytes: int
    memory_bytes: int = 0
    leftovers: tuple[str, ...] = ()


class ChildSpec(Struct, frozen=True):
    """A process to keep running. `name` is unique; `env` is added to the supervisor's; `label` is the client's note.

    On shutdown, children of a lower `wave` are stopped, and gone, before those of a higher one. `pass_fds` are file
    descriptors of the supervisor, so only the process that holds them can name them. `output_bytes_s` 0 passes its
    output through as it is; otherwise each line is prefixed with its name and what exceeds the rate is dropped.
    One that is ready and gives no sign of life for `silence_s` is killed and started again; 0 waits for ever.
    """

    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = {}
    label: str = ""
    wave: int = 0
    pass_fds: tuple[int, ...] = ()
    output_bytes_s: int = 0
    confinement: Confinement | None = None
    silence_s: float = 0.0


class Child(Struct, frozen=True):
    """A child as it is now. `state` is starting, ready, backoff (waits to be started again), stopping or failed (it
    refused to start and is left alone). `pid` 0: no process now. `exit` and `reason` tell of the last death: how it
    ended, and the last error line it gave. Times are seconds of the Unix epoch, 0 for not yet."""

    name: str
    state: str
    pid: int = 0
    restarts: int = 0
    exit: str = ""
    reason: str = ""
    status: str = ""
    started_at: float = 0.0
    ready_at: float = 0.0
    wave: int = 0
    label: str = ""


class Start(Struct, frozen=True, tag="start"):
    """Start this child and keep it running. A child of that name that already exists is left as it is."""

    child: ChildSpec


class Stop(Struct, frozen=True, tag="stop"):
    """SIGTERM now, SIGKILL after `grace_s`, then forget it. Answered at once; no such child is fine."""

    name: str
    grace_s: float = 30.0


class List(Struct, frozen=True, tag="list"):
    """All children, once the revision exceeds `since` or `wait_s` have passed."""

    since: int = -1
    wait_s: float = 0.0


class Ok(Struct, frozen=True, tag="ok"):
    """Start or stop accepted."""


class Refused(Struct, frozen=True, tag="refused"):
    """Start or stop refused, and why."""

    error: str


class Children(Struct, frozen=True, tag="children"):
    """The children in the order they were started. `revision` grows with every change of any of them."""

    revision: int
    children: tuple[Child, ...]


Request = Start | Stop | List
Answer = Ok | Refused | Children

_ENCODER = msgspec.json.Encoder()
_REQUESTS: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_ANSWERS: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def encode(message: Request | Answer) -> bytes:
    """Return the message as bytes, length included. Raises `TooLarge`."""
    body = _ENCODER.encode(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise TooLarge(f"supervisor message: {len(body)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    return len(body).to_bytes(HEADER_BYTES, "little") + body


def body_bytes(header: bytes) -> int:
    """Return the length that a header announces. Raises `TooLarge` before anything is allocated for it."""
    size = int.from_bytes(header, "little")
    if size > MAX_MESSAGE_BYTES:
        raise TooLarge(f"supervisor message: {size} bytes announced, the limit is {MAX_MESSAGE_BYTES}")
    return size


def decode_request(body: bytes) -> Request:
    """Raises `MalformedRequest`."""
    request: Request = _decode(_REQUESTS, body)
    return request


def decode_answer(body: bytes) -> Answer:
    """Raises `MalformedRequest`."""
    answer: Answer = _decode(_ANSWERS, body)
    return answer


def _decode(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise MalformedRequest(f"supervisor message: {error}") from error
