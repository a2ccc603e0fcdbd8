"""Smoke requests: ask a replica directly, before any caller does, and look whether it answers as its signature says.

Synchronous, run in a thread by `probes`. It speaks to the runner as a gateway would, on a connection of its
own.
"""

import os
import socket
from collections.abc import Sequence
from typing import Final

import msgspec

from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.errors import HyperionError
from hyperion.schema.model import Signature
from hyperion.schema.resource import Smoke
from hyperion.wire.frame import GREETING, HELLO, PREDICT, RESULT, FrameError, FrameReader, encode_frame
from hyperion.wire.frame_headers import Hello, Predict, Result, TensorHead
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip.json import decode_infer
from hyperion.wire.tensor import DATATYPES

TIMEOUT_S: Final = 30.0
_RING_BYTES: Final = 4096  # room for the runner's mark; smoke requests travel inline
_READ_BYTES: Final = 64 << 10


def run_smoke(sockets: Sequence[str], smoke: Smoke) -> str:
    """Send every smoke request to every replica; "pass", or the first failure in one line."""
    for path in sockets:
        try:
            failure = _ask_replica(path, smoke)
        except (OSError, FrameError, HyperionError) as error:
            failure = f"{type(error).__name__}: {error}"
        if failure:
            return failure
    return "pass"


def make_calls(signature: Signature, smoke: Smoke) -> list[InferenceCall]:
    """The requests that were given, or `count` of zeros (empty texts) made from the signature. Raises
    `HyperionError`."""
    if smoke.requests:
        limits = WireLimits()
        return [decode_infer("smoke", "", msgspec.json.encode(one), None, limits)[0] for one in smoke.requests]
    inputs = tuple(_zeros(spec.name, spec.datatype, spec.shape) for spec in signature.inputs)
    return [InferenceCall("smoke", "", "", inputs)] * smoke.count


def _zeros(name: str, datatype: str, shape: tuple[int, ...]) -> Tensor:
    sizes = tuple(1 if size < 0 else size for size in shape)
    count = 1
    for size in sizes:
        count *= size
    # An empty text is its length, four bytes of zero.
    return Tensor(name, datatype, sizes, bytes(count * (DATATYPES[datatype].size or 4)))


def _ask_replica(path: str, smoke: Smoke) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect(path)
        ring = os.memfd_create("smoke", os.MFD_CLOEXEC)
        try:
            os.ftruncate(ring, _RING_BYTES)
            socket.send_fds(connection, [GREETING], [ring])
        finally:
            os.close(ring)
        frames = FrameReader()
        hello: Hello = _read_frame(connection, frames, HELLO)
        for number, call in enumerate(make_calls(hello.signature, smoke), 1):
            failure = _ask(connection, frames, number, call, hello.signature)
            if failure:
                return f"smoke request {number}: {failure}"
    return ""


def _ask(connection: socket.socket, frames: FrameReader, number: int, call: InferenceCall, signature: Signature) -> str:
    heads = tuple(TensorHead(t.name, t.datatype, t.shape, memoryview(t.data).nbytes) for t in call.inputs)
    rows = call.inputs[0].shape[0] if signature.batched and call.inputs and call.inputs[0].shape else 1
    request = Predict((rows,), heads, (call.outputs and tuple(str(name) for name in call.outputs)) or ())
    connection.sendall(encode_frame(PREDICT, number, request, [t.data for t in call.inputs]))
    result: Result = _read_frame(connection, frames, RESULT)
    if result.failures:
        return f"the model raised {result.failures[0].kind}"
    wanted = {spec.name: spec.datatype for spec in signature.outputs}
    for head in result.tensors:
        if head.name in wanted and head.datatype != wanted[head.name]:
            return f'output "{head.name}" is {head.datatype}, its signature says {wanted[head.name]}'
    missing = set(wanted) - {head.name for head in result.tensors}
    if missing and not request.outputs:
        return f'output "{min(missing)}" is missing'
    return ""


def _read_frame(connection: socket.socket, frames: FrameReader, kind: int):  # type: ignore[no-untyped-def]
    while True:
        data = connection.recv(_READ_BYTES)
        if not data:
            raise FrameError("the replica closed the connection")
        for frame in frames.feed(data):
            if frame.kind != kind:
                raise FrameError(f"expected a frame of kind {kind}, got {frame.kind}")
            return frame.header
