"""What another server says of a model: the V2 metadata in JSON or as a gRPC message, to specs of tensors.

Called by `control` when it looks at an upstream. The answer is trusted as little as a request: counts, ranks and names
are bounded, and whatever is wrong with it is an `UpstreamFailed` that says what.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from hyperion.schema.errors import MalformedRequest, UpstreamFailed
from hyperion.schema.model import TensorSpec
from hyperion.wire.grpc.messages import ModelMetadataRequest, ModelMetadataResponse, parse
from hyperion.wire.limits import DEFAULT_LIMITS, WireLimits

MAX_VERSIONS: Final = 1_000
# As in `wire/tensor`, which brings NumPy; control does without.
DATATYPES: Final = frozenset(
    {"BOOL", "BYTES", "FP16", "BF16", "FP32", "FP64"}
    | {f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)}
)


class ModelMetadata(Struct, frozen=True):
    """A model as its server describes it; some say nothing of inputs and outputs."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    versions: tuple[str, ...] = ()
    platform: str = ""


class _Answer(Struct):
    """As servers write it: some leave out what they do not know, some say null."""

    name: str
    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None
    versions: tuple[str, ...] | None = None
    platform: str | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def decode_model_metadata(body: bytes, limits: WireLimits = DEFAULT_LIMITS) -> ModelMetadata:
    """The answer to `GET /v2/models/{name}`. Raises UpstreamFailed."""
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UpstreamFailed(f"its metadata is not as the protocol says: {error}") from error
    inputs, outputs = answer.inputs or (), answer.outputs or ()
    return _check(ModelMetadata(answer.name, inputs, outputs, answer.versions or (), answer.platform or ""), limits)


def encode_model_request(name: str, version: str) -> bytes:
    """The ModelMetadataRequest; version "" asks for the server's choice."""
    data: bytes = ModelMetadataRequest(name=name, version=version).SerializeToString()
    return data


def decode_model_message(message: bytes, limits: WireLimits = DEFAULT_LIMITS) -> ModelMetadata:
    """The ModelMetadataResponse. Raises UpstreamFailed."""
    try:
        response = parse(ModelMetadataResponse, message)
    except MalformedRequest as error:
        raise UpstreamFailed(f"its metadata is not as the protocol says: {error.message}") from error
    inputs, outputs = _read_specs(response.inputs), _read_specs(response.outputs)
    versions = tuple(response.versions)
    return _check(ModelMetadata(response.name, inputs, outputs, versions, response.platform), limits)


def _read_specs(tensors: Iterable[Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(one.name, one.datatype, tuple(one.shape)) for one in tensors)


def _check(metadata: ModelMetadata, limits: WireLimits) -> ModelMetadata:
    for kind, specs in (("input", metadata.inputs), ("output", metadata.outputs)):
        if len(specs) > limits.max_tensors:
            raise UpstreamFailed(f"its metadata has {len(specs)} {kind}s, expected up to {limits.max_tensors}")
        for spec in specs:
            _check_spec(kind, spec, limits)
        if len({spec.name for spec in specs}) < len(specs):
            raise UpstreamFailed(f"its metadata has two {kind}s of one name")
    if len(metadata.versions) > MAX_VERSIONS:
        raise UpstreamFailed(f"its metadata has {len(metadata.versions)} versions, at most {MAX_VERSIONS} are allowed")
    for text in (metadata.name, metadata.platform, *metadata.versions):
        if len(text) > limits.max_name_bytes:
            raise UpstreamFailed(f"a text of its metadata has {len(text)} characters")
    return metadata


def _check_spec(kind: str, spec: TensorSpec, limits: WireLimits) -> None:
    if not 1 <= len(spec.name) <= limits.max_name_bytes:
        raise UpstreamFailed(f"the name of an {kind} in its metadata has {len(spec.name)} characters")
    if spec.datatype not in DATATYPES:
        raise UpstreamFailed(f'its {kind} "{spec.name[:64]}" has the datatype {spec.datatype[:32]!r}, which V2 has not')
    if len(spec.shape) > limits.max_rank or any(not -1 <= size <= limits.max_elements for size in spec.shape):
        raise UpstreamFailed(f'its {kind} "{spec.name[:64]}" has the shape {list(spec.shape)[:16]}')
