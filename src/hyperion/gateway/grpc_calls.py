"""The handlers of GRPCInferenceService: bytes to the pipeline and back.

Made by `gateway/grpc`. A malformed message is the caller's error (INVALID_ARGUMENT), not the server's; whatever else
goes wrong here is a bug, of which the log learns the cause and the caller the request id.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from msgspec import Struct

import hyperion
from hyperion.gateway.grpc_metadata import clean_id, priority_of, read_metadata, timeout_ns_of
from hyperion.gateway.grpc_status import CODES, answer_metadata, details_of, error_metadata
from hyperion.gateway.grpc_stream import InferStream, Slot
from hyperion.gateway.pending import PendingCall
from hyperion.gateway.pipeline import Pipeline
from hyperion.schema.call import InferenceAnswer
from hyperion.schema.errors import HyperionError, InternalError, Overloaded, UnknownModel, Unsupported
from hyperion.telemetry.logs import EventLog
from hyperion.wire.grpc_messages import INFERENCE_SERVICE
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip_grpc import AnswerFormat, decode_infer, encode_infer
from hyperion.wire.oip_grpc_metadata import (
    check_empty,
    decode_index_request,
    decode_model,
    decode_repository,
    encode_flag,
    encode_index,
    encode_loaded,
    encode_model_metadata,
    encode_server_metadata,
)

PROTOCOL: Final = "grpc"
SERVER_NAME: Final = "hyperion"

Answerer = Callable[[bytes], Awaitable[bytes]]
Handler = Callable[[bytes, Any], Awaitable[bytes]]


class CallLimits(Struct, frozen=True):
    """`max_calls` bounds ModelInfer and ModelStreamInfer calls at the same time; the others bound one stream."""

    max_calls: int
    inflight: int
    backlog_bytes: int


class _UnaryReply:
    """Where the pipeline puts the one answer to a ModelInfer."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[InferenceAnswer]) -> None:
        self._future = future

    def answer(self, answer: InferenceAnswer) -> None:
        if self._future.done():
            return
        if answer.final:
            self._future.set_result(answer)
        else:
            self._future.set_exception(Unsupported("this model answers in parts; call ModelStreamInfer"))

    def fail(self, error: HyperionError) -> None:
        if not self._future.done():
            self._future.set_exception(error)


class InferenceCalls:
    """The handlers of GRPCInferenceService."""

    def __init__(
        self,
        pipeline: Pipeline,
        limits: WireLimits,
        bounds: CallLimits,
        log: EventLog,
        clock_ns: Callable[[], int],
    ) -> None:
        self._pipeline = pipeline
        self._limits = limits
        self._bounds = bounds
        self._running = 0
        self._log = log
        self._clock_ns = clock_ns
        self._streams: set[InferStream] = set()
        self._draining = False

    def handler(self) -> grpc.GenericRpcHandler:
        """The service as gRPC wants it: names to functions of bytes."""
        answerers: dict[str, Answerer] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            name: grpc.unary_unary_rpc_method_handler(self._simple(answerer)) for name, answerer in answerers.items()
        }
        methods["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self.model_infer)
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self.model_stream_infer)
        return grpc.method_handlers_generic_handler(INFERENCE_SERVICE, methods)

    def drain(self) -> None:
        """Lets open streams end with the requests that they hold."""
        self._draining = True
        for stream in self._streams:
            stream.drain()

    # --- inference ---

    async def model_infer(self, request: bytes, context: Any) -> bytes:
        """ModelInfer"""
        received_ns = self._clock_ns()
        metadata = read_metadata(context)
        request_id = clean_id(metadata.get("x-request-id", "")) or self._pipeline.new_request_id()
        pending: PendingCall | None = None
        self._running += 1
        try:
            self._check_running()
            timeout_ns = timeout_ns_of(context, metadata)
            priority = priority_of(metadata)
            call, form = decode_infer(request, self._limits)
            future: asyncio.Future[InferenceAnswer] = asyncio.get_running_loop().create_future()
            pending = self._pipeline.submit(
                call,
                _UnaryReply(future),
                protocol=PROTOCOL,
                request_id=request_id,
                received_ns=received_ns,
                timeout_ns=timeout_ns,
                priority=priority,
            )
            answer = await future
            data = encode_infer(answer, form)
            context.set_trailing_metadata(answer_metadata(answer, request_id))
            return data
        except asyncio.CancelledError:
            if pending is not None:
                pending.cancel()
            raise
        except Exception as error:
            refusal = self._as_refusal(error, request_id)
        finally:
            self._running -= 1
        if pending is None:
            self._pipeline.refused(PROTOCOL, "", request_id, received_ns, refusal)
        else:
            pending.cancel()  # does nothing, unless it is our side that gave up
        return await self._abort(context, refusal, request_id)

    async def model_stream_infer(self, _requests: Any, context: Any) -> None:
        """ModelStreamInfer"""
        stream = InferStream(context, self, self._bounds.inflight, self._bounds.backlog_bytes)
        self._streams.add(stream)
        self._running += 1
        try:
            self._check_running()
            if self._draining:
                stream.drain()
            await stream.run()
            return
        except Overloaded as error:
            refusal = error
        finally:
            self._running -= 1
            self._streams.discard(stream)
        await self._abort(context, refusal, self._pipeline.new_request_id())

    def submit_streamed(self, request: bytes, stream: InferStream) -> None:
        """For a stream: decodes one of its requests and hands it to the pipeline. Never raises."""
        received_ns = self._clock_ns()
        request_id = self._pipeline.new_request_id()
        slot: Slot | None = None
        try:
            metadata = read_metadata(stream.context)
            timeout_ns = timeout_ns_of(stream.context, metadata)
            priority = priority_of(metadata)
            call, form = decode_infer(request, self._limits)
            streams = self._streams_answers(call.model, call.version)
            slot = stream.open_slot(call.model, call.version, form, request_id, ordered=not streams)
            slot.pending = self._pipeline.submit(
                call,
                slot,
                protocol=PROTOCOL,
                request_id=request_id,
                received_ns=received_ns,
                stream=streams,
                timeout_ns=timeout_ns,
                priority=priority,
            )
        except Exception as error:
            refusal = self._as_refusal(error, request_id)
            self._pipeline.refused(PROTOCOL, "", request_id, received_ns, refusal)
            slot = slot or stream.open_slot("", "", AnswerFormat(), request_id, ordered=True)
            slot.fail(refusal)

    def _streams_answers(self, model: str, version: str) -> bool:
        """If the model can answer one request with several answers; False for one that is not served."""
        try:
            return self._pipeline.describe(model, version)[0].signature.streams
        except HyperionError:
            return False  # submitting the call says what is wrong, and records it

    # --- everything else ---

    def _simple(self, answerer: Answerer) -> Handler:
        """The handler of a method that says nothing but its answer."""

        async def handle(request: bytes, context: Any) -> bytes:
            request_id = self._pipeline.new_request_id()
            try:
                return await answerer(request)
            except Exception as error:
                refusal = self._as_refusal(error, request_id)
            return await self._abort(context, refusal, request_id)

        return handle

    async def _server_live(self, request: bytes) -> bytes:
        check_empty(request)
        return encode_flag(True)

    async def _server_ready(self, request: bytes) -> bytes:
        check_empty(request)
        return encode_flag(self._pipeline.is_ready())

    async def _server_metadata(self, request: bytes) -> bytes:
        check_empty(request)
        return encode_server_metadata(SERVER_NAME, hyperion.__version__)

    async def _model_ready(self, request: bytes) -> bytes:
        model, version = decode_model(request, self._limits)
        try:
            return encode_flag(self._pipeline.is_model_ready(model, version))
        except UnknownModel:  # as Triton answers; its clients would raise where they promise a boolean
            return encode_flag(False)

    async def _model_metadata(self, request: bytes) -> bytes:
        model, version = decode_model(request, self._limits)
        served, versions = self._pipeline.describe(model, version)
        return encode_model_metadata(model, versions, served.platform, served.signature)

    async def _index(self, request: bytes) -> bytes:
        only_ready = decode_index_request(request)
        return encode_index([row for row in self._pipeline.index() if row.state == "READY" or not only_ready])

    async def _load(self, request: bytes) -> bytes:
        model, parameters = decode_repository(request, self._limits)
        await self._pipeline.load(model, parameters)
        return encode_loaded(model)

    async def _unload(self, request: bytes) -> bytes:
        model, _ = decode_repository(request, self._limits)
        await self._pipeline.unload(model)
        return encode_loaded(model)

    # --- errors ---

    def _check_running(self) -> None:
        """Raises Overloaded when this call is one too many. gRPC's own limit would say neither why nor for how long."""
        if self._running > self._bounds.max_calls:
            raise Overloaded(f"{self._bounds.max_calls} calls are open on this server", retry_after_s=1.0)

    def _as_refusal(self, error: Exception, request_id: str) -> HyperionError:
        """The error for the caller; one that is not ours to begin with goes to the log."""
        if isinstance(error, HyperionError):
            return error
        self._log.write("error", "gRPC handler failed", request_id=request_id, error=f"{type(error).__name__}: {error}")
        return InternalError("internal error")

    def details(self, error: HyperionError, request_id: str) -> str:
        """For a stream: what the caller is told."""
        return details_of(error, request_id)

    async def _abort(self, context: Any, error: HyperionError, request_id: str) -> bytes:
        """Ends the call with the error's status; does not return."""
        await context.abort(
            grpc.StatusCode[CODES[error.code]], details_of(error, request_id), error_metadata(error, request_id)
        )
        raise error
