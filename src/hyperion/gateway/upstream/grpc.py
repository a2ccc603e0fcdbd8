"""V2 inference over gRPC with another server, by `grpc.aio` (the extra `grpc`): one channel for all requests, raw
tensors. Made by `gateway/upstream/site`.
"""

import asyncio
import re
from pathlib import Path
from typing import Any, Final

from hyperion.gateway.upstream.link import Ask, Done
from hyperion.gateway.upstream.site import SOURCE, Site
from hyperion.gateway.upstream.status import MARK, SERVED_BY, read_stand_in, retry_after_s
from hyperion.schema.errors import (
    DeadlineExceeded,
    HyperionError,
    InvalidConfig,
    MalformedRequest,
    MissingExtra,
    ModelFailed,
    TooLarge,
    UpstreamBusy,
    UpstreamFailed,
)
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip.grpc_upstream import decode_answer, decode_ready, encode_infer, encode_ready
from hyperion.wire.oip.upstream import tell

SERVICE: Final = "/inference.GRPCInferenceService/"
MAX_HEADERS_BYTES: Final = 16 * 1024
NAME: Final = re.compile(rb"[0-9a-z_.-]+")
READY_S: Final = 2.0
CALLERS: Final = frozenset(("INVALID_ARGUMENT", "OUT_OF_RANGE", "FAILED_PRECONDITION"))
MODELS: Final = frozenset(("INTERNAL", "UNKNOWN", "DATA_LOSS"))
REASONS: Final = {
    "NOT_FOUND": "does not have the model",
    "UNAUTHENTICATED": "does not accept the credentials of this gateway",
    "PERMISSION_DENIED": "does not accept the credentials of this gateway",
    "UNAVAILABLE": "cannot be reached, or is not available",
}


class GrpcService:
    """One upstream over gRPC."""

    def __init__(self, site: Site, limits: WireLimits) -> None:
        """Raises MissingExtra."""
        try:
            import grpc
            import grpc.aio
        except ImportError:
            raise MissingExtra("an upstream over gRPC needs grpcio: pip install 'hyperion-inference[grpc]'") from None
        self.site = site
        self.limits = limits
        options = [
            ("grpc.max_receive_message_length", limits.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", MAX_HEADERS_BYTES),
            ("grpc.enable_retries", 0),  # retries are the gateway's, from one budget
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if site.tls is not None:
            root = Path(site.ca_file).read_bytes() if site.ca_file else None
            credentials = grpc.ssl_channel_credentials(root)
            self._channel = grpc.aio.secure_channel(site.authority, credentials, options)
        else:
            self._channel = grpc.aio.insecure_channel(site.authority, options)
        self.infer: Any = self._channel.unary_unary(SERVICE + "ModelInfer")
        self._ready: Any = self._channel.unary_unary(SERVICE + "ModelReady")
        self.rpc_error: Any = grpc.aio.AioRpcError

    def make_carrier(self) -> "GrpcCarrier":
        return GrpcCarrier(self)

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """The credentials. Raises InvalidConfig for what gRPC does not carry."""
        for name, value in self.site.headers.items():
            if not NAME.fullmatch(name) or name.startswith(b"grpc-") or name.endswith(b"-bin") or not value.isascii():
                raise InvalidConfig(f"{SOURCE}: gRPC carries names of a-z, 0-9, - and _, and values in ASCII only")
        return [(name.decode(), value.decode()) for name, value in self.site.headers.items()]

    async def look(self) -> str:
        try:
            request = encode_ready(self.site.model, self.site.version)
            answer = await self._ready(request, timeout=READY_S, metadata=self.metadata)
        except self.rpc_error as error:
            code = error.code().name
            if code == "DEADLINE_EXCEEDED":
                return f"did not say within {READY_S:.0f} s whether it is ready"
            return REASONS.get(code, f"answered with status {code}")
        return "" if decode_ready(answer) else "says that its model is not ready"

    async def close(self) -> None:
        await self._channel.close()


class GrpcCarrier:
    """One request at a time on the shared channel."""

    def __init__(self, service: GrpcService) -> None:
        self._service = service
        self._task: asyncio.Task[None] | None = None

    def infer(self, ask: Ask, done: Done) -> None:
        site = self._service.site
        request = encode_infer(site.model, site.version, ask.inputs, ask.outputs, ask.parameters, ask.request_id)
        metadata = self._service.metadata
        metadata += [(name.decode(), value.decode()) for name, value in ask.trace if name not in site.headers]
        self._task = asyncio.get_running_loop().create_task(self._run(request, metadata, ask.timeout_ns * 1e-9, done))

    async def _run(self, request: bytes, metadata: list[tuple[str, str]], timeout_s: float, done: Done) -> None:
        service = self._service
        try:
            call = service.infer(request, timeout=timeout_s, metadata=metadata)
            answer = await call
            said = {name.encode(): value for name, value in await call.trailing_metadata() if isinstance(value, str)}
        except service.rpc_error as error:
            self._task = None
            done((), _error_of(error.code().name, error.details() or "", error.trailing_metadata() or ()), "")
            return
        except Exception as error:  # of the library: nobody else would end the call before its deadline
            self._task = None
            done((), UpstreamFailed(f"the upstream cannot be asked ({type(error).__name__})"), "")
            return
        self._task = None
        try:
            outputs = decode_answer(answer, service.limits)
        except HyperionError as error:
            done((), UpstreamFailed(f"the upstream's answer cannot be used: {error.message}"), "")
            return
        done(outputs, None, read_stand_in(said.get(MARK, "").encode(), said.get(SERVED_BY, "").encode()))

    def abort(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def close(self) -> None:
        self.abort()


def _error_of(code: str, details: str, trailers: Any) -> HyperionError:
    """What a status means for the caller; as `gateway/upstream/status` has it for HTTP."""
    told = tell(details)
    tail = f": {told}" if told else ""
    after_s = 0.0
    for name, value in trailers:
        if name == "retry-after":
            after_s = retry_after_s(value.encode() if isinstance(value, str) else value)
    if code in CALLERS:
        return MalformedRequest(f"the server that answers for this model refused the request{tail}")
    if code == "RESOURCE_EXHAUSTED" and "message" in details.lower():  # as gRPC says that a message is too large
        return TooLarge(f"the server that answers for this model refused the request{tail}")
    if code == "RESOURCE_EXHAUSTED" or (code == "UNAVAILABLE" and after_s):
        return UpstreamBusy(
            "the server that answers for this model is too busy; try again later", retry_after_s=after_s
        )
    if code == "DEADLINE_EXCEEDED":
        return DeadlineExceeded("the server that answers for this model did not answer in its own time")
    if code in MODELS:
        return ModelFailed(f"the server that answers for this model failed on the request{tail}")
    return UpstreamFailed(f"the server that answers for this model {REASONS.get(code, f'answered with status {code}')}")
