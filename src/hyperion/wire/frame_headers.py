"""The records in the headers of `wire/frame`. In a file of their own, which is not compiled: msgspec reads the
annotations, and those of compiled classes do not say what is inside of a tuple.
"""

from typing import Any, Final

from msgspec import Struct

from hyperion.schema.model import Signature

INLINE: Final = -1


class TensorHead(Struct, frozen=True, array_like=True, gc=False):
    """Where a tensor's bytes are: inline (`offset` -1), or `offset` bytes into the ring."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size_bytes: int
    offset: int = INLINE


class Hello(Struct, frozen=True, array_like=True):
    """The runner's first frame on each connection: what it serves and how long each warmed-up batch took."""

    protocol: int
    replica: str
    model: str
    version: str
    digest: str
    platform: str
    signature: Signature
    max_rows: int
    bucket_seconds: dict[int, float]
    memory_bytes: int
    pid: int


class Predict(Struct, frozen=True, array_like=True, gc=False):
    """One batch: `rows` holds the number of rows of each request in it, in order. With `stream`, one request whose
    answers come as PART frames before the final RESULT. Outputs may be written to the ring's reply area."""

    rows: tuple[int, ...]
    tensors: tuple[TensorHead, ...]
    outputs: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    stream: bool = False
    reply_offset: int = 0
    reply_bytes: int = 0


class Failure(Struct, frozen=True, array_like=True, gc=False):
    """Request number `index` of the batch failed: the exception's type, which its caller may see, and its message,
    which is for the log only."""

    index: int
    kind: str
    message: str


class Result(Struct, frozen=True, array_like=True, gc=False):
    """Answer to one batch: tensors hold the rows of the requests that did not fail, joined in order."""

    tensors: tuple[TensorHead, ...]
    failures: tuple[Failure, ...] = ()
    compute_ns: int = 0
    memory_bytes: int = 0


class Cancel(Struct, frozen=True, array_like=True, gc=False):
    """Nobody waits for this stream any more."""

    reason: str = ""
