"""Metadata, health and repository messages of gRPC, and the .proto files that describe all of them."""

import contextlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.errors import HyperionError, MalformedRequest, TooLarge, Unsupported
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.snapshot import ModelState
from hyperion.wire.grpc import descriptors, messages
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip.grpc_metadata import (
    EXTENSIONS,
    HEALTH_STATES,
    check_empty,
    decode_health,
    decode_index_request,
    decode_model,
    decode_repository,
    encode_flag,
    encode_health,
    encode_index,
    encode_loaded,
    encode_model_metadata,
    encode_server_metadata,
)

ROOT = Path(__file__).parent.parent.parent
NOT_A_MESSAGE = b"\x0a\x7f"


def test_the_committed_descriptors_are_those_of_the_proto_files() -> None:
    pytest.importorskip("grpc_tools")
    spec = importlib.util.spec_from_file_location("compile_protos", ROOT / "tools" / "compile_protos.py")
    assert spec is not None
    assert spec.loader is not None
    tool: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for name, committed in (("inference.proto", descriptors.INFERENCE), ("health.proto", descriptors.HEALTH)):
        compiled, ours = (FileDescriptorProto.FromString(data) for data in (tool.compile_proto(name), committed))
        assert compiled == ours, f"run tools/compile_protos.py: {name} has changed"


def fields(message: Any) -> dict[str, Any]:
    """Number, type and label of every field of a message and of the messages inside it."""
    found: dict[str, Any] = {
        f"{message.name}.{f.name}": (f.number, f.type, f.label, f.type_name) for f in message.field
    }
    for nested in message.nested_type:
        found |= {f"{message.name}/{name}": value for name, value in fields(nested).items()}
    return found


def test_every_message_has_the_numbers_and_types_of_tritons_client() -> None:
    service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2")
    theirs: Any = FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(theirs)
    ours = FileDescriptorProto.FromString(descriptors.INFERENCE)
    known = {name: value for message in theirs.message_type for name, value in fields(message).items()}
    extra = {
        "RepositoryModelLoadResponse.model_name",
        "RepositoryModelLoadResponse.isLoaded",
        "RepositoryModelUnloadResponse.model_name",
        "RepositoryModelUnloadResponse.isUnloaded",
    }
    mine = {name: value for message in ours.message_type for name, value in fields(message).items()}
    assert {name: value for name, value in mine.items() if name not in extra} == {
        name: known[name] for name in mine if name not in extra
    }
    methods = {m.name: (m.input_type, m.client_streaming, m.server_streaming) for m in theirs.service[0].method}
    for method in ours.service[0].method:
        assert methods[method.name] == (method.input_type, method.client_streaming, method.server_streaming)


def test_requests_that_ask_for_nothing_may_be_empty_but_not_garbage() -> None:
    check_empty(b"")
    with pytest.raises(MalformedRequest, match="not a message of type"):
        check_empty(NOT_A_MESSAGE)


@pytest.mark.parametrize("flag", [True, False])
def test_a_flag_is_live_and_ready_alike(flag: bool) -> None:
    assert messages.ModelReadyResponse.FromString(encode_flag(flag)).ready is flag


def test_a_model_is_named_with_an_optional_version() -> None:
    assert decode_model(messages.ModelReadyRequest(name="m", version="2").SerializeToString()) == ("m", "2")
    assert decode_model(messages.ModelMetadataRequest(name="m").SerializeToString()) == ("m", "")
    with pytest.raises(MalformedRequest, match="name is empty"):
        decode_model(b"")
    with pytest.raises(TooLarge, match="version has 5 bytes, at most 4"):
        decode_model(
            messages.ModelReadyRequest(name="m", version="12345").SerializeToString(), WireLimits(max_name_bytes=4)
        )


def test_metadata_of_server_and_model_say_what_they_were_given() -> None:
    server = messages.ServerMetadataResponse.FromString(encode_server_metadata("hyperion", "1.2"))
    assert (server.name, server.version, tuple(server.extensions)) == ("hyperion", "1.2", EXTENSIONS)
    signature = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "INT64", (-1,)),))
    model = messages.ModelMetadataResponse.FromString(encode_model_metadata("m", ["1", "2"], "onnx", signature))
    assert (model.name, list(model.versions), model.platform) == ("m", ["1", "2"], "onnx")
    assert [(one.name, one.datatype, list(one.shape)) for one in model.inputs] == [("x", "FP32", [-1, 4])]
    assert [(one.name, one.datatype, list(one.shape)) for one in model.outputs] == [("y", "INT64", [-1])]


def test_the_index_lists_models_with_state_and_reason() -> None:
    assert decode_index_request(messages.RepositoryIndexRequest(ready=True).SerializeToString()) is True
    assert decode_index_request(b"") is False
    states = (ModelState("m", "1", "READY"), ModelState("n", "", "UNAVAILABLE", "bad file"))
    response = messages.RepositoryIndexResponse.FromString(encode_index(states))
    assert [(one.name, one.version, one.state, one.reason) for one in response.models] == [
        ("m", "1", "READY", ""),
        ("n", "", "UNAVAILABLE", "bad file"),
    ]


def test_loading_understands_tritons_and_kserves_requests() -> None:
    triton = messages.RepositoryModelLoadRequest(model_name="m")
    triton.parameters["flag"].bool_param = True
    triton.parameters["number"].int64_param = -2
    triton.parameters["config"].string_param = "{}"
    expected = ("m", {"flag": "true", "number": "-2", "config": "{}"})
    assert decode_repository(triton.SerializeToString()) == expected
    assert decode_repository(b"\x0a\x01m") == ("m", {})  # KServe: string model_name = 1
    answer = messages.RepositoryModelLoadResponse.FromString(encode_loaded("m"))
    assert (answer.model_name, answer.isLoaded) == ("m", True)


def test_a_wrong_request_to_load_is_refused_by_name() -> None:
    with pytest.raises(MalformedRequest, match="model_name is empty"):
        decode_repository(b"")
    request = messages.RepositoryModelLoadRequest(model_name="m")
    request.parameters["file:1/model.onnx"].bytes_param = b"model"
    with pytest.raises(Unsupported, match=r'parameter "file:1/model.onnx": files are not taken'):
        decode_repository(request.SerializeToString())
    with pytest.raises(TooLarge, match="1 parameters, at most 0"):
        decode_repository(request.SerializeToString(), WireLimits(max_parameters=0))
    request.parameters["file:1/model.onnx"].ClearField("bytes_param")
    with pytest.raises(MalformedRequest, match="has no value"):
        decode_repository(request.SerializeToString())


def test_health_speaks_of_services_in_words() -> None:
    assert decode_health(b"") == ""
    assert decode_health(messages.HealthCheckRequest(service="m").SerializeToString()) == "m"
    for number, state in enumerate(HEALTH_STATES):
        assert messages.HealthCheckResponse.FromString(encode_health(state)).status == number


@given(st.binary(max_size=100))
def test_random_bytes_give_a_request_or_a_typed_error(data: bytes) -> None:
    for decode in (check_empty, decode_model, decode_index_request, decode_repository, decode_health):
        with contextlib.suppress(HyperionError):
            decode(data)
