"""The protobuf messages of the gRPC services, as classes. Read by `oip/grpc` and by the gateway's gRPC edge.

They live in a descriptor pool of their own, because every client library of the protocol registers the same names in
protobuf's default pool, and two files with one name cannot share a pool (in one process: tests, or a user's model that
calls another server).
"""

from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from hyperion.schema.errors import MalformedRequest
from hyperion.wire.grpc.descriptors import HEALTH, INFERENCE, REFLECTION_V1, REFLECTION_V1ALPHA

INFERENCE_SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"
REFLECTION_SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

POOL = DescriptorPool()
POOL.AddSerializedFile(INFERENCE)
POOL.AddSerializedFile(HEALTH)
POOL.AddSerializedFile(REFLECTION_V1)
POOL.AddSerializedFile(REFLECTION_V1ALPHA)


def _message(name: str) -> Any:
    """The class of one message. `Any`: it is built at run time, no type checker can see into it."""
    return GetMessageClass(POOL.FindMessageTypeByName(name))


ServerLiveRequest = _message("inference.ServerLiveRequest")
ServerReadyRequest = _message("inference.ServerReadyRequest")
ModelReadyRequest = _message("inference.ModelReadyRequest")
ModelReadyResponse = _message("inference.ModelReadyResponse")
ServerMetadataRequest = _message("inference.ServerMetadataRequest")
ServerMetadataResponse = _message("inference.ServerMetadataResponse")
ModelMetadataRequest = _message("inference.ModelMetadataRequest")
ModelMetadataResponse = _message("inference.ModelMetadataResponse")
InferTensorContents = _message("inference.InferTensorContents")
ModelInferRequest = _message("inference.ModelInferRequest")
ModelInferResponse = _message("inference.ModelInferResponse")
ModelStreamInferResponse = _message("inference.ModelStreamInferResponse")
RepositoryIndexRequest = _message("inference.RepositoryIndexRequest")
RepositoryIndexResponse = _message("inference.RepositoryIndexResponse")
RepositoryModelLoadRequest = _message("inference.RepositoryModelLoadRequest")
RepositoryModelLoadResponse = _message("inference.RepositoryModelLoadResponse")
HealthCheckRequest = _message("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = _message("grpc.health.v1.HealthCheckResponse")
ServerReflectionRequest = _message("grpc.reflection.v1.ServerReflectionRequest")
ServerReflectionResponse = _message("grpc.reflection.v1.ServerReflectionResponse")


def parse(message: Any, data: bytes) -> Any:
    """`data` as a message of that class. Raises MalformedRequest when it is not one."""
    try:
        return message.FromString(data)
    except (DecodeError, ValueError):  # ValueError: text that is not UTF-8, in protobuf's pure Python runtime
        name = message.DESCRIPTOR.full_name
        raise MalformedRequest(f"the {len(data)} bytes received are not a message of type {name}") from None
