"""The methods of GRPCInferenceService: messages to the pipeline and back.

Made by `gateway/grpc`. A malformed message is the caller's error (INVALID_ARGUMENT), not the server's; whatever else
goes wrong here is a bug, of which the log learns the cause and the caller the request id.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import hyperion
from hyperion.gateway.grpc.call import Method
from hyperion.gateway.grpc.once import GrpcOnce
from hyperion.gateway.grpc.server import PROTOCOL, GrpcServer
from hyperion.gateway.grpc.status import details_of
from hyperion.gateway.grpc.stream import InferStream, Slot
from hyperion.gateway.grpc.stream_call import StreamCall
from hyperion.gateway.grpc.unary import UnaryCall
from hyperion.gateway.http.jobs import KEY
from hyperion.gateway.pipeline import Pipeline
from hyperion.schema.call import Buffer
from hyperion.schema.errors import HyperionError, UnknownModel, Unsupported
from hyperion.wire.grpc.framing import OK_FIELD, frame_message
from hyperion.wire.grpc.messages import INFERENCE_SERVICE
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip.grpc import AnswerFormat
from hyperion.wire.oip.grpc_metadata import (
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

SERVER_NAME: Final = "hyperion"


class InferenceCalls:
    """The service's methods."""

    def __init__(self, pipeline: Pipeline, server: GrpcServer, limits: WireLimits, clock_ns: Callable[[], int]) -> None:
        self._pipeline = pipeline
        self._server = server
        self._limits = limits
        self._clock_ns = clock_ns
        self._codec = server.codec
        self.once: GrpcOnce | None = None  # where nothing is remembered
        self._streams: set[InferStream] = set()
        self._draining = False

    def methods(self) -> dict[bytes, Method]:
        """The service, by path."""
        methods = {
            "ServerLive": _quick(self._server_live),
            "ServerReady": _quick(self._server_ready),
            "ServerMetadata": self._for("", _quick(self._server_metadata)),
            "ModelReady": _quick(self._model_ready),
            "ModelMetadata": Method(self._model_metadata),
            "RepositoryIndex": self._for("", Method(self._index)),
            "RepositoryModelLoad": self._for("deploy", _slow(self._load)),
            "RepositoryModelUnload": self._for("deploy", _slow(self._unload)),
            "ModelInfer": Method(self.model_infer, counted=True),
            "ModelStreamInfer": Method(run=self.model_stream_infer, counted=True),
        }
        return {f"/{INFERENCE_SERVICE}/{name}".encode(): method for name, method in methods.items()}

    def drain(self) -> None:
        """Lets open streams end with the requests that they hold."""
        self._draining = True
        for stream in self._streams:
            stream.drain()

    # --- inference ---

    def model_infer(self, call: UnaryCall, message: Buffer) -> None:
        """ModelInfer"""
        head = call.head
        if KEY in head.headers and self.once is not None:
            self.once.infer(call, message)
            return
        try:
            inference, call.form = self._codec.decode(message)
            pending = self._pipeline.submit(
                inference,
                call,
                protocol=PROTOCOL,
                request_id=call.request_id,
                received_ns=call.received_ns,
                timeout_ns=head.timeout_ns,
                priority=head.priority,
                headers=head.headers,
                peer=call.connection.peer,
            )
        except Exception as error:
            call.refuse(self._server.as_refusal(error, call.request_id))
            return
        if call.over:
            pending.cancel()  # does nothing, unless it is our side that gave up
        else:
            call.pending = pending

    async def model_stream_infer(self, call: StreamCall) -> None:
        """ModelStreamInfer"""
        if KEY in call.head.headers:
            raise Unsupported("a stream cannot be kept under an idempotency-key; use ModelInfer")
        tuning = self._server.tuning
        stream = InferStream(call, self, tuning.inflight, tuning.backlog_bytes)
        self._streams.add(stream)
        try:
            if self._draining:
                stream.drain()
            await stream.run()
        finally:
            self._streams.discard(stream)

    def submit_streamed(self, request: Buffer, stream: InferStream) -> None:
        """For a stream: decodes one of its requests and hands it to the pipeline. Never raises."""
        received_ns = self._clock_ns()
        request_id = self._pipeline.new_request_id()
        head = stream.call.head
        timeout_ns = head.timeout_ns
        if head.deadline_ns:
            left_ns = max(1, stream.call.received_ns + head.deadline_ns - received_ns)
            timeout_ns = min(timeout_ns, left_ns)
        slot: Slot | None = None
        try:
            call, form = self._codec.decode(request)
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
                priority=head.priority,
                headers=head.headers,
                peer=stream.call.connection.peer,
            )
        except Exception as error:
            refusal = self._server.as_refusal(error, request_id)
            self._pipeline.refused(PROTOCOL, "", request_id, received_ns, refusal)
            slot = slot or stream.open_slot("", "", AnswerFormat(), request_id, ordered=True)
            slot.fail(refusal)

    def details(self, error: HyperionError, request_id: str) -> str:
        """For a stream: what the caller is told."""
        return details_of(error, request_id)

    def _streams_answers(self, model: str, version: str) -> bool:
        """If the model can answer one request with several answers; False for one that is not served."""
        try:
            return self._pipeline.describe(model, version)[0].signature.streams
        except HyperionError:
            return False  # submitting the call says what is wrong, and records it

    # --- everything else ---

    def _for(self, scope: str, method: Method) -> Method:
        """The method, for those who have shown who they are and have the scope, where that is required at all."""
        serve = method.serve
        assert serve is not None

        def guarded(call: UnaryCall, message: Buffer) -> None:
            try:
                self._pipeline.check_right(scope, call.head.headers, call.connection.peer)
            except HyperionError as error:
                call.fail(error)
            else:
                serve(call, message)

        return Method(guarded)

    def _server_live(self, request: bytes) -> bytes:
        check_empty(request)
        return encode_flag(True)

    def _server_ready(self, request: bytes) -> bytes:
        check_empty(request)
        return encode_flag(self._pipeline.is_ready())

    def _server_metadata(self, request: bytes) -> bytes:
        check_empty(request)
        return encode_server_metadata(SERVER_NAME, hyperion.__version__)

    def _model_ready(self, request: bytes) -> bytes:
        model, version = decode_model(request, self._limits)
        try:
            return encode_flag(self._pipeline.is_model_ready(model, version))
        except UnknownModel:  # as Triton answers; its clients would raise where they promise a boolean
            return encode_flag(False)

    def _model_metadata(self, call: UnaryCall, message: Buffer) -> None:
        def answer(request: bytes) -> bytes:
            model, version = decode_model(request, self._limits)
            served, versions = self._pipeline.show(model, version, call.head.headers, call.connection.peer)
            return encode_model_metadata(model, versions, served.platform, served.signature)

        _answer(call, message, answer)

    def _index(self, call: UnaryCall, message: Buffer) -> None:
        def answer(request: bytes) -> bytes:
            only_ready = decode_index_request(request)
            rows = self._pipeline.listing.index(call.head.headers, call.connection.peer)
            return encode_index([row for row in rows if row.state == "READY" or not only_ready])

        _answer(call, message, answer)

    async def _load(self, request: bytes) -> bytes:
        model, parameters = decode_repository(request, self._limits)
        await self._pipeline.load(model, parameters)
        return encode_loaded(model)

    async def _unload(self, request: bytes) -> bytes:
        model, _ = decode_repository(request, self._limits)
        await self._pipeline.unload(model)
        return encode_loaded(model)


def _quick(answer: Callable[[bytes], bytes]) -> Method:
    """The method of a plain function from request to answer."""
    return Method(lambda call, message: _answer(call, message, answer))


def _answer(call: UnaryCall, message: Buffer, answer: Callable[[bytes], bytes]) -> None:
    try:
        data = answer(bytes(message))
    except Exception as error:
        call.fail(call.connection.server.as_refusal(error, call.request_id))
    else:
        call.finish(frame_message(data), OK_FIELD)


def _slow(answer: Callable[[bytes], Awaitable[bytes]]) -> Method:
    """The method of a coroutine from request to answer."""

    def serve(call: UnaryCall, message: Buffer) -> None:
        call.spawn(answer(bytes(message)))

    return Method(serve)
