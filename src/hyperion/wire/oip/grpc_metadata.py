"""Open Inference Protocol V2 over gRPC: health and metadata of server and models, and the repository extension."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from hyperion.schema.errors import MalformedRequest, TooLarge, Unsupported
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.snapshot import ModelState
from hyperion.wire.grpc.messages import (
    HealthCheckRequest,
    HealthCheckResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    parse,
)
from hyperion.wire.limits import DEFAULT_LIMITS, WireLimits

__all__ = [
    "EXTENSIONS",
    "check_empty",
    "decode_health",
    "decode_index_request",
    "decode_model",
    "decode_repository",
    "encode_flag",
    "encode_health",
    "encode_index",
    "encode_loaded",
    "encode_model_metadata",
    "encode_server_metadata",
]

EXTENSIONS: Final = ("model_repository", "parameters")
HEALTH_STATES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


def check_empty(request: bytes) -> None:
    """ServerLive, ServerReady and ServerMetadata ask for nothing; raises MalformedRequest for what is no message."""
    parse(ServerMetadataRequest, request)


def encode_flag(flag: bool) -> bytes:
    """ServerLiveResponse, ServerReadyResponse or ModelReadyResponse: each is one boolean in field 1."""
    data: bytes = ModelReadyResponse(ready=flag).SerializeToString()
    return data


def decode_model(request: bytes, limits: WireLimits = DEFAULT_LIMITS) -> tuple[str, str]:
    """Name and version ("" for the default) of a ModelReadyRequest or a ModelMetadataRequest, which are alike."""
    message = parse(ModelMetadataRequest, request)
    name: str = message.name
    version: str = message.version
    if not name:
        raise MalformedRequest("name is empty, expected the name of a model")
    _check_length("name", name, limits)
    _check_length("version", version, limits)
    return name, version


def encode_server_metadata(name: str, version: str, extensions: Sequence[str] = EXTENSIONS) -> bytes:
    """The ServerMetadataResponse."""
    data: bytes = ServerMetadataResponse(name=name, version=version, extensions=extensions).SerializeToString()
    return data


def encode_model_metadata(name: str, versions: Sequence[str], platform: str, signature: Signature) -> bytes:
    """The ModelMetadataResponse."""
    response = ModelMetadataResponse(name=name, versions=versions, platform=platform)
    _add_specs(response.inputs, signature.inputs)
    _add_specs(response.outputs, signature.outputs)
    data: bytes = response.SerializeToString()
    return data


def _add_specs(target: Any, specs: Iterable[TensorSpec]) -> None:
    for spec in specs:
        target.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)


def decode_index_request(request: bytes) -> bool:
    """If only ready models are asked for."""
    ready: bool = parse(RepositoryIndexRequest, request).ready
    return ready


def encode_index(states: Iterable[ModelState]) -> bytes:
    """The RepositoryIndexResponse."""
    response = RepositoryIndexResponse()
    for one in states:
        response.models.add(name=one.name, version=one.version, state=one.state, reason=one.reason)
    data: bytes = response.SerializeToString()
    return data


def decode_repository(request: bytes, limits: WireLimits = DEFAULT_LIMITS) -> tuple[str, dict[str, str]]:
    """The model and the parameters (numbers and booleans as JSON would write them) of a request to load or unload.

    Raises Unsupported for a parameter of bytes: model files do not come in requests.
    """
    message = parse(RepositoryModelLoadRequest, request)
    model: str = message.model_name or message.repository_name  # KServe's clients have the model in field 1
    if not model:
        raise MalformedRequest("model_name is empty, expected the name of a model")
    _check_length("model_name", model, limits)
    if len(message.parameters) > limits.max_parameters:
        raise TooLarge(f"{len(message.parameters)} parameters, at most {limits.max_parameters} are allowed")
    return model, {name: _text(name, parameter) for name, parameter in message.parameters.items()}


def _text(name: str, parameter: Any) -> str:
    choice = parameter.WhichOneof("parameter_choice")
    if choice is None:
        raise MalformedRequest(f'parameter "{name[:64]}" has no value')
    if choice == "bytes_param":
        raise Unsupported(f'parameter "{name[:64]}": files are not taken from requests; put them into the repository')
    value = getattr(parameter, choice)
    return str(value).lower() if choice == "bool_param" else str(value)


def encode_loaded(model: str) -> bytes:
    """RepositoryModelLoadResponse or RepositoryModelUnloadResponse, which are alike: it is done."""
    data: bytes = RepositoryModelLoadResponse(model_name=model, isLoaded=True).SerializeToString()
    return data


def decode_health(request: bytes, limits: WireLimits = DEFAULT_LIMITS) -> str:
    """The service of a HealthCheckRequest; "" means the whole server."""
    service: str = parse(HealthCheckRequest, request).service
    _check_length("service", service, limits)
    return service


def encode_health(state: str) -> bytes:
    """The HealthCheckResponse for one of HEALTH_STATES."""
    data: bytes = HealthCheckResponse(status=HEALTH_STATES.index(state)).SerializeToString()
    return data


def _check_length(what: str, name: str, limits: WireLimits) -> None:
    size = len(name.encode())
    if size > limits.max_name_bytes:
        raise TooLarge(f"{what} has {size} bytes, at most {limits.max_name_bytes} are allowed")
