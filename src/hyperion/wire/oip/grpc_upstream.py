"""Open Inference Protocol V2 over gRPC as its client speaks it; the twin of `upstream`. Called by
`gateway/upstream/grpc`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hyperion.schema.call import Buffer, Tensor
from hyperion.schema.errors import HyperionError, UpstreamFailed
from hyperion.wire.grpc.contents import decode_contents, varint
from hyperion.wire.grpc.messages import (
    ModelInferRequest,
    ModelInferResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    parse,
)
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip.upstream import tell
from hyperion.wire.tensor import check_bytes_tensor, count_elements, datatype_of

_RAW_INPUT_TAG: Final = b"\x3a"  # ModelInferRequest.raw_input_contents: field 7, length-delimited


def encode_infer(
    model: str,
    version: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[str],
    parameters: Mapping[str, Any],
    request_id: str,
) -> bytes:
    """The ModelInferRequest, with raw contents: its last field, so that they are copied once."""
    request = ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for tensor in inputs:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    for name in outputs:
        request.outputs.add(name=name)
    for name, value in parameters.items():
        if isinstance(value, bool):
            request.parameters[name].bool_param = value
        elif isinstance(value, int):
            request.parameters[name].int64_param = value
        elif isinstance(value, float):
            request.parameters[name].double_param = value
        else:
            request.parameters[name].string_param = str(value)
    parts: list[Buffer] = [request.SerializeToString()]
    for tensor in inputs:
        parts += (_RAW_INPUT_TAG, varint(memoryview(tensor.data).nbytes), tensor.data)
    return b"".join(parts)


def decode_answer(data: bytes, limits: WireLimits) -> tuple[Tensor, ...]:
    """The outputs of a ModelInferResponse, raw or typed. Raises UpstreamFailed."""
    try:
        response = parse(ModelInferResponse, data)
        raw = response.raw_output_contents
        if len(response.outputs) > limits.max_tensors:
            raise UpstreamFailed(f"{len(response.outputs)} outputs, at most {limits.max_tensors} are allowed")
        if raw and len(raw) != len(response.outputs):
            raise UpstreamFailed(f"{len(response.outputs)} outputs but {len(raw)} raw_output_contents")
        return tuple(
            [_decode_output(one, raw[index] if raw else None, limits) for index, one in enumerate(response.outputs)]
        )
    except HyperionError as error:
        raise UpstreamFailed(tell(error.message)) from None


def _decode_output(one: Any, raw: bytes | None, limits: WireLimits) -> Tensor:
    """One output tensor; errors are prefixed with its name."""
    try:
        datatype = datatype_of(one.datatype[:64])
        if len(one.shape) > limits.max_rank:  # before they are copied: there may be millions
            raise UpstreamFailed(f"shape has {len(one.shape)} dimensions, at most {limits.max_rank} are allowed")
        shape = tuple(one.shape)
        count = count_elements(shape, limits.max_rank, limits.max_elements)
        if raw is None:
            return Tensor(one.name, datatype.name, shape, decode_contents(one.contents, datatype, count))
        if not datatype.size:
            check_bytes_tensor(raw, count)
        elif len(raw) != count * datatype.size:
            raise UpstreamFailed(
                f"{datatype.name} {list(shape)} takes {count * datatype.size} bytes, got {len(raw)} bytes"
            )
        return Tensor(one.name, datatype.name, shape, raw)
    except HyperionError as error:
        raise UpstreamFailed(f'output "{one.name[:64]}": {error.message}') from None


def encode_ready(model: str, version: str) -> bytes:
    """The ModelReadyRequest."""
    data: bytes = ModelReadyRequest(name=model, version=version).SerializeToString()
    return data


def decode_ready(data: bytes) -> bool:
    """Whether a ModelReadyResponse says ready. Raises UpstreamFailed."""
    try:
        return bool(parse(ModelReadyResponse, data).ready)
    except HyperionError as error:
        raise UpstreamFailed(f"gives an answer that cannot be used: {tell(error.message)}") from None
