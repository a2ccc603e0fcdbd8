"""What generic gRPC tools ask: reflection and the health service."""

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.e2e.served import Served

METHODS = {
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "ModelStreamInfer",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
}


def test_reflection_lists_the_services_and_describes_every_method(clients: Served) -> None:
    with grpc.insecure_channel(clients.grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(database.get_services())
        service = DescriptorPool(database).FindServiceByName("inference.GRPCInferenceService")
        assert {method.name for method in service.methods} >= METHODS


@pytest.mark.parametrize("service", [b"", b"inference.GRPCInferenceService"])
def test_the_health_service_says_serving(service: bytes, clients: Served) -> None:
    # HealthCheckRequest{string service = 1} and HealthCheckResponse{status = 1: SERVING}, by hand.
    request = b"\x0a" + bytes([len(service)]) + service if service else b""
    with grpc.insecure_channel(clients.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(request, timeout=30) == b"\x08\x01"
