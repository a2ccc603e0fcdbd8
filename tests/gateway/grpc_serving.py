"""A gRPC edge on a loop of its own thread, over a pipeline that computes with numpy instead of runner processes."""

import asyncio
import io
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvloop
from msgspec.structs import replace

from hyperion.gateway.front.caller import Peer
from hyperion.gateway.grpc.edge import GrpcEdge, GrpcTuning, start_grpc
from hyperion.gateway.pending import PendingCall, Reply
from hyperion.schema import errors
from hyperion.schema.call import InferenceAnswer, InferenceCall, Tensor
from hyperion.schema.config import GatewayConfig
from hyperion.schema.errors import DeadlineExceeded, HyperionError, UnknownModel
from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from hyperion.schema.snapshot import ModelState, ServedVersion
from hyperion.telemetry.logs import EventLog
from hyperion.wire.grpc.messages import ModelInferRequest
from hyperion.wire.limits import WireLimits
from hyperion.wire.tensor import from_numpy, to_numpy

SERVICE = "/inference.GRPCInferenceService/"
DIGEST = "sha256:" + "0" * 64
ERRORS = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, HyperionError) and kind is not HyperionError
}
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("x", "FP32", (-1, 2)),))


def a_request(model: str = "double", rows: int = 1, **parameters: int) -> bytes:
    request = ModelInferRequest(model_name=model, id="the-id", raw_input_contents=[bytes(8 * rows)])
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 2])
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    data: bytes = request.SerializeToString()
    return data


def double(tensor: Tensor) -> Tensor:
    """Twice the numbers, the opposite of booleans, text backwards."""
    values = to_numpy(tensor)
    if tensor.datatype == "BYTES":
        reverse = np.array([value[::-1] for value in values.ravel()], dtype=object).reshape(values.shape)
        return from_numpy(tensor.name, reverse, "BYTES")
    return from_numpy(tensor.name, ~values if tensor.datatype == "BOOL" else values + values, tensor.datatype)


class NumpyPipeline:
    """What the edge needs of `Pipeline`. Models: `double`; `parts` (one answer per row, `empty end` closes with none);
    `hold` (answers when it is cancelled or let go); `bug` (breaks the pipeline); and every error code is the name of a
    model that fails with it."""

    def __init__(self) -> None:
        self.ready = True
        self.listing = self
        self.submitted: list[dict[str, Any]] = []
        self.refusals: list[HyperionError] = []
        self.held: list[tuple[InferenceCall, Reply]] = []
        self.loaded: list[tuple[str, Mapping[str, Any] | None]] = []
        self.arrived = threading.Semaphore(0)
        self.cancelled = threading.Semaphore(0)
        self._count = 0

    def new_request_id(self) -> str:
        self._count += 1
        return f"id-{self._count}"

    def refused(self, protocol: str, model: str, request_id: str, received_ns: int, error: HyperionError) -> None:
        assert (protocol, model) == ("grpc", "")
        assert request_id
        assert received_ns > 0
        self.refusals.append(error)

    def submit(self, call: InferenceCall, reply: Reply, **how: Any) -> PendingCall:
        self.submitted.append({"call": call, **how})
        pending = PendingCall(
            call, reply, how["protocol"], how["request_id"], how["received_ns"], 0, 1, 0, how.get("stream", False)
        )
        if call.model == "bug":
            raise ZeroDivisionError("a secret of the platform")
        if call.model in ERRORS:
            reply.fail(ERRORS[call.model]("it went wrong", retry_after_s=1.5 if call.model == "overloaded" else 0))
        elif call.model == "stand-in":
            reply.add_fields(((b"x-hyperion-degraded", b"true"),))
            stood_in = replace(self.answer_to(call, tuple(map(double, call.inputs))), served_by="fallback:static")
            asyncio.get_running_loop().call_soon(reply.answer, stood_in)
        elif call.model == "hold":
            self._hold(call, reply, pending, how["timeout_ns"])
        elif call.model == "parts":
            self._answer_in_parts(call, reply)
        elif call.model == "double":
            outputs = [double(tensor) for tensor in call.inputs]
            wanted = call.outputs or [tensor.name for tensor in outputs]
            kept = tuple(tensor for tensor in outputs if tensor.name in wanted)
            asyncio.get_running_loop().call_soon(reply.answer, self.answer_to(call, kept))
        else:
            reply.fail(UnknownModel(f'no model "{call.model}"'))
        return pending

    def answer_to(self, call: InferenceCall, outputs: tuple[Tensor, ...], final: bool = True) -> InferenceAnswer:
        return InferenceAnswer(
            call.model, call.version or "1", DIGEST, outputs, "model", final, 1_000_000, 0, 2_500_000
        )

    def _hold(self, call: InferenceCall, reply: Reply, pending: PendingCall, timeout_ns: int) -> None:
        def cancel(pending: PendingCall) -> None:
            pending.done = True
            self.cancelled.release()

        pending.on_cancel = cancel
        self.held.append((call, reply))
        if timeout_ns:
            late = DeadlineExceeded("too late")
            asyncio.get_running_loop().call_later(timeout_ns / 1e9, reply.fail, late)
        self.arrived.release()

    def _answer_in_parts(self, call: InferenceCall, reply: Reply) -> None:
        rows = to_numpy(call.inputs[0])
        empty_end = bool(call.parameters.get("empty end"))
        for index, row in enumerate(rows):
            final = index == len(rows) - 1 and not empty_end
            reply.answer(self.answer_to(call, (from_numpy("y", row[None], call.inputs[0].datatype),), final))
        if empty_end:
            reply.answer(self.answer_to(call, ()))

    def is_ready(self) -> bool:
        return self.ready

    def is_model_ready(self, model: str, version: str) -> bool:
        self.describe(model, version)
        return self.ready

    def check_right(self, scope: str, headers: Mapping[bytes, bytes], peer: Peer) -> None:
        """Everybody may."""

    def show(
        self, model: str, version: str, headers: Mapping[bytes, bytes], peer: Peer
    ) -> tuple[ServedVersion, tuple[str, ...]]:
        return self.describe(model, version)

    def describe(self, model: str, version: str) -> tuple[ServedVersion, tuple[str, ...]]:
        if model not in ("double", "parts", "hold") or version not in ("", "1"):
            raise UnknownModel(f'no model "{model}" of version "{version}"')
        signature = Signature(SIGNATURE.inputs, SIGNATURE.outputs, streams=model == "parts")
        return ServedVersion("1", DIGEST, 1, "numpy", signature, ModelOptions(), ()), ("1",)

    def index(self, _headers: Mapping[bytes, bytes], _peer: Peer) -> list[ModelState]:
        return [ModelState("double", "1", "READY"), ModelState("broken", "1", "UNAVAILABLE", "bad file")]

    async def load(self, model: str, parameters: Mapping[str, Any]) -> None:
        if model == "broken":
            raise errors.ModelRefused("the file is broken")
        self.loaded.append((model, parameters))

    async def unload(self, model: str) -> None:
        self.loaded.append((model, None))


class Serving:
    """A running edge: where it listens, what its pipeline saw, and its loop for what must happen there."""

    def __init__(
        self, edge: GrpcEdge, pipeline: NumpyPipeline, loop: asyncio.AbstractEventLoop, log: io.StringIO
    ) -> None:
        self.edge = edge
        self.pipeline = pipeline
        self.loop = loop
        self.log = log
        self.url = f"127.0.0.1:{edge.port}"

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Runs a function on the edge's loop and waits until it is done."""
        self.wait(_run(function, *arguments))

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine on the edge's loop to its end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)


async def _run(function: Callable[..., object], *arguments: object) -> None:
    function(*arguments)


@contextmanager
def serving(
    limits: WireLimits | None = None, tuning: GrpcTuning | None = None, **configuration: Any
) -> Iterator[Serving]:
    """An edge that listens on a free port until the block ends."""
    pipeline: Any = NumpyPipeline()
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    log = io.StringIO()
    config = GatewayConfig(run_dir="", home="", **configuration)
    starting = start_grpc(
        pipeline, config, limits or WireLimits(), EventLog("gateway 0", "json", log), tuning or GrpcTuning()
    )
    try:
        edge = asyncio.run_coroutine_threadsafe(starting, loop).result(20)
        serving = Serving(edge, pipeline, loop, log)
        yield serving
        serving.wait(edge.stop(0))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
