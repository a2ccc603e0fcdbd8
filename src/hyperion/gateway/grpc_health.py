"""The services around inference: `grpc.health.v1.Health` (Check and Watch) and server reflection, v1alpha and v1.

Health knows the server as "", the inference service by its full name, and each model by its own.
"""

import asyncio
from typing import Any, Final

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from hyperion.gateway.grpc_status import CODES, details_of
from hyperion.gateway.pipeline import Pipeline
from hyperion.schema.errors import HyperionError, UnknownModel
from hyperion.wire.grpc_descriptors import HEALTH, INFERENCE
from hyperion.wire.grpc_messages import HEALTH_SERVICE, INFERENCE_SERVICE
from hyperion.wire.oip_grpc_metadata import decode_health, encode_health

REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"


class Health:
    """Answers health checks from the pipeline's readiness."""

    def __init__(self, pipeline: Pipeline, watch_interval_s: float) -> None:
        self._pipeline = pipeline
        self._interval_s = watch_interval_s
        self._changed = asyncio.Event()
        self._stopped = False

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

    async def check(self, request: bytes, context: Any) -> bytes:
        """Health.Check"""
        service = await self._service(request, context)
        state = self.state(service)
        if state == "SERVICE_UNKNOWN":
            await context.abort(grpc.StatusCode.NOT_FOUND, f'no service or model "{service[:64]}" is served here')
        return encode_health(state)

    async def watch(self, request: bytes, context: Any) -> None:
        """Health.Watch: the state now, and again whenever it is another one."""
        service = await self._service(request, context)
        told = ""
        while True:
            changed = self._changed
            state = self.state(service)
            if state != told:
                await context.write(encode_health(state))
                told = state
            if self._stopped:
                return
            try:
                await asyncio.wait_for(changed.wait(), self._interval_s)
            except TimeoutError:
                continue  # replicas come and go without a new snapshot, so look now and then

    async def _service(self, request: bytes, context: Any) -> str:
        try:
            return decode_health(request)
        except HyperionError as error:
            refusal = error
        await context.abort(grpc.StatusCode[CODES[refusal.code]], details_of(refusal, ""))
        raise refusal


def health_handler(health: Health) -> grpc.GenericRpcHandler:
    """The health service as gRPC wants it."""
    return grpc.method_handlers_generic_handler(
        HEALTH_SERVICE,
        {
            "Check": grpc.unary_unary_rpc_method_handler(health.check),
            "Watch": grpc.unary_stream_rpc_method_handler(health.watch),
        },
    )


def reflection_handlers() -> tuple[grpc.GenericRpcHandler, ...]:
    """Server reflection, so that tools can call the services without our .proto files.

    The library knows the service by its old name only; its messages are the same under the new one.
    """
    pool = DescriptorPool()
    for descriptor in (INFERENCE, HEALTH, reflection_pb2.DESCRIPTOR.serialized_pb):
        pool.AddSerializedFile(descriptor)
    names = (INFERENCE_SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
    servicer = reflection.aio.ReflectionServicer(names, pool=pool)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return tuple(
        grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method})
        for name in (reflection.SERVICE_NAME, REFLECTION_V1)
    )
