"""The services around inference: `grpc.health.v1.Health` (Check and Watch) and server reflection, v1alpha and v1.

Health knows the server as "", the inference service by its full name, and each model by its own.
"""

import asyncio

from hyperion.gateway.grpc.call import Method
from hyperion.gateway.grpc.server import GrpcServer
from hyperion.gateway.grpc.stream_call import StreamCall
from hyperion.gateway.grpc.unary import UnaryCall
from hyperion.gateway.pipeline import Pipeline
from hyperion.schema.call import Buffer
from hyperion.schema.errors import HyperionError, MalformedRequest, UnknownModel
from hyperion.wire.grpc.framing import OK_FIELD, frame_message
from hyperion.wire.grpc.messages import HEALTH_SERVICE, INFERENCE_SERVICE
from hyperion.wire.grpc.reflection import answer_reflection
from hyperion.wire.oip.grpc_metadata import decode_health, encode_health


class Health:
    """Answers health checks from the pipeline's readiness."""

    def __init__(self, pipeline: Pipeline, watch_interval_s: float) -> None:
        self._pipeline = pipeline
        self._interval_s = watch_interval_s
        self._changed = asyncio.Event()
        self._stopped = False

    def methods(self) -> dict[bytes, Method]:
        """The service, by path."""
        return {
            f"/{HEALTH_SERVICE}/Check".encode(): Method(self.check),
            f"/{HEALTH_SERVICE}/Watch".encode(): Method(run=self.watch),
        }

    def state(self, service: str) -> str:
        """SERVING, NOT_SERVING, or SERVICE_UNKNOWN for what is neither a service nor a model."""
        try:
            if service in ("", INFERENCE_SERVICE):
                ready = self._pipeline.is_ready()
            else:
                ready = self._pipeline.is_model_ready(service, "")
        except UnknownModel:
            return "SERVICE_UNKNOWN"
        return "SERVING" if ready and not self._stopped else "NOT_SERVING"

    def changed(self) -> None:
        """Lets those who watch look again at once."""
        self._changed.set()
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """Nothing is served from now on; ends every watch."""
        self._stopped = True
        self.changed()

    def check(self, call: UnaryCall, message: Buffer) -> None:
        """Health.Check"""
        try:
            service = decode_health(bytes(message))
        except HyperionError as error:
            call.fail(error)
            return
        state = self.state(service)
        if state == "SERVICE_UNKNOWN":
            call.fail(UnknownModel(f'no service or model "{service[:64]}" is served here'))
        else:
            call.finish(frame_message(encode_health(state)), OK_FIELD)

    async def watch(self, call: StreamCall) -> None:
        """Health.Watch: the state now, and again whenever it is another one."""
        message = await call.read()
        if message is None:
            raise MalformedRequest("the call has no message, expected one")
        service = decode_health(bytes(message))
        told = ""
        while True:
            changed = self._changed
            state = self.state(service)
            if state != told:
                await call.write(encode_health(state))
                told = state
            if self._stopped:
                return
            try:
                await asyncio.wait_for(changed.wait(), self._interval_s)
            except TimeoutError:
                continue  # replicas come and go without a new snapshot, so look now and then


def reflect(_server: GrpcServer) -> Method:
    """Server reflection."""

    async def run(call: StreamCall) -> None:
        while (message := await call.read()) is not None:
            await call.write(answer_reflection(bytes(message)))

    return Method(run=run)
