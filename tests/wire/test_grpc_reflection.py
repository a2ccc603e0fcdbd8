"""Reflection tells a stranger what there is, and says what there is not."""

from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from hyperion.schema.errors import MalformedRequest
from hyperion.wire.grpc.messages import ServerReflectionRequest, ServerReflectionResponse
from hyperion.wire.grpc.reflection import answer_reflection


def ask(**what: Any) -> Any:
    request = ServerReflectionRequest(host="here", **what)
    answer = ServerReflectionResponse.FromString(answer_reflection(request.SerializeToString()))
    assert answer.valid_host == "here"
    assert answer.original_request == request
    return answer


def test_the_services_are_listed() -> None:
    assert [one.name for one in ask(list_services="").list_services_response.service] == [
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ]


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("inference.GRPCInferenceService", "inference.proto"),
        ("inference.GRPCInferenceService.ModelInfer", "inference.proto"),
        ("inference.ModelInferRequest", "inference.proto"),
        ("inference.ModelInferRequest.model_name", "inference.proto"),
        ("inference.ModelInferRequest.InferInputTensor.name", "inference.proto"),
        ("inference.InferParameter.parameter_choice", "inference.proto"),
        ("grpc.health.v1.HealthCheckResponse.ServingStatus", "health.proto"),
        ("grpc.health.v1.HealthCheckResponse.SERVING", "health.proto"),
        ("grpc.reflection.v1.ServerReflection", "reflection_v1.proto"),
        ("grpc.reflection.v1alpha.ErrorResponse", "reflection_v1alpha.proto"),
    ],
)
def test_a_symbol_is_found_in_its_file(symbol: str, file: str) -> None:
    (data,) = ask(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto
    assert FileDescriptorProto.FromString(data).name == file
    assert list(ask(file_by_filename=file).file_descriptor_response.file_descriptor_proto) == [data]


def test_messages_have_no_extensions() -> None:
    answer = ask(all_extension_numbers_of_type="inference.ModelInferRequest").all_extension_numbers_response
    assert (answer.base_type_name, list(answer.extension_number)) == ("inference.ModelInferRequest", [])


@pytest.mark.parametrize(
    "what",
    [
        {"file_by_filename": "absent.proto"},
        {"file_containing_symbol": "inference.Absent"},
        {"all_extension_numbers_of_type": "inference.Absent"},
        {"file_containing_extension": {"containing_type": "inference.ModelInferRequest", "extension_number": 7}},
    ],
)
def test_what_is_not_there_is_not_found(what: dict[str, Any]) -> None:
    assert ask(**what).error_response.error_code == 5


def test_who_asks_for_nothing_or_nonsense_is_told() -> None:
    assert ask().error_response.error_code == 3
    with pytest.raises(MalformedRequest):
        answer_reflection(b"\xff")
