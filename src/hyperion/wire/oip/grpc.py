"""Open Inference Protocol V2 over gRPC: inference messages to an InferenceCall, an InferenceAnswer to messages.

Called by the gateway's gRPC edge; metadata and the repository extension are in `grpc_metadata`. Tensors come raw
(`raw_input_contents`, little-endian bytes) or typed (`contents`), never both in one request. An answer is raw when its
request was, or when one of its outputs is FP16 or BF16, which have no typed form; otherwise it is typed.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from msgspec import Struct

from hyperion.schema.call import NO_PARAMETERS, Buffer, InferenceAnswer, InferenceCall, Tensor
from hyperion.schema.errors import HyperionError, MalformedRequest, TooLarge, Unsupported
from hyperion.wire.bytes_elements import check_number
from hyperion.wire.grpc.contents import INTEGERS, RAW_ONLY, decode_contents, encode_contents, varint
from hyperion.wire.grpc.framing import frame_message
from hyperion.wire.grpc.messages import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse, parse
from hyperion.wire.limits import DEFAULT_LIMITS, WireLimits
from hyperion.wire.tensor import DATATYPES, check_bytes_tensor, count_elements, datatype_of

__all__ = [
    "AnswerFormat",
    "decode_infer",
    "encode_infer",
    "encode_stream_answer",
    "encode_stream_error",
]

_FINAL = "triton_final_response"
_MODEL = "model"
_SERVED_BY = "x-hyperion-served-by"
_DEGRADED = "x-hyperion-degraded"
_WANT_EMPTY_FINAL = "triton_enable_empty_final_response"
_SHARED_MEMORY = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")
_MAX_PRIORITY = 9
_MAX_TIMEOUT_US = 2**53
_LARGE = 64 * 1024  # bytes of a request from which finding its raw contents costs less than two copies of them
_SPLIT_TAGS = frozenset((0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x32, 0x3A))  # every field of ModelInferRequest
_RAW_INPUT_TAG = 0x3A  # raw_input_contents: field 7, length-delimited
_MAX_SPLIT = 4096  # pieces
RAW_OUTPUT_TAG = b"\x32"  # ModelInferResponse.raw_output_contents: field 6, length-delimited
_INFER_RESPONSE_TAG = b"\x12"  # ModelStreamInferResponse.infer_response: field 2, length-delimited


class AnswerFormat(Struct, frozen=True, gc=False):
    """How one caller wants the answer: the id to repeat ("" for none), raw or typed contents, and whether a stream is
    to end with an empty message that is marked as the last one."""

    id: str = ""
    raw: bool = True
    empty_final: bool = False


def decode_infer(request: Buffer, limits: WireLimits = DEFAULT_LIMITS) -> tuple[InferenceCall, AnswerFormat]:
    """One ModelInferRequest, decoded and within the limits, and how its caller wants the answer.

    Raises MalformedRequest, TooLarge or Unsupported, naming the field that is wrong.
    """
    if len(request) > limits.max_body_bytes:
        raise TooLarge(f"the message has {len(request)} bytes, at most {limits.max_body_bytes} are allowed")
    raw: list[Buffer] | None = None
    if len(request) >= _LARGE:
        request, raw = split_raw(request)
    message = parse(ModelInferRequest, request if isinstance(request, bytes) else bytes(request))
    model, version, request_id = message.model_name, message.model_version, message.id
    for what, name in (("model_name", model), ("model_version", version), ("id", request_id)):
        if len(name) * 4 > limits.max_name_bytes:
            _check_length(what, name, limits)
    if not model:
        raise MalformedRequest("model_name is empty, expected the name of a model")
    inputs, is_raw = _decode_inputs(message, raw, limits)
    requested = message.outputs
    outputs = _decode_outputs(requested, limits) if requested else ()
    if not message.parameters:
        return InferenceCall(model, version, request_id, inputs, outputs), AnswerFormat(request_id, is_raw)
    parameters = _decode_parameters(message.parameters, limits)
    empty_final = parameters.pop(_WANT_EMPTY_FINAL, False)
    if not isinstance(empty_final, bool):
        raise MalformedRequest(f'parameter "{_WANT_EMPTY_FINAL}" is {_show(empty_final)}, expected a boolean')
    priority = _whole(parameters.pop("priority", 0), "priority", _MAX_PRIORITY)
    timeout_ns = _whole(parameters.pop("timeout", 0), "timeout", _MAX_TIMEOUT_US) * 1000
    call = InferenceCall(model, version, request_id, inputs, outputs, parameters or NO_PARAMETERS, priority, timeout_ns)
    return call, AnswerFormat(request_id, is_raw, empty_final)


def split_raw(request: Buffer) -> tuple[Buffer, list[Buffer] | None]:
    """A ModelInferRequest without its raw_input_contents, and these as views of it, so that nobody copies them.

    None instead of views, and the whole request, where they are not just the last fields of the message: then protobuf
    takes it apart, and says what is wrong with it.
    """
    view = memoryview(request)
    raw: list[Buffer] = []
    head = position = 0
    while position < len(request):
        tag = request[position]
        size = shift = 0
        while True:
            position += 1
            if position >= len(request) or shift > 28:
                return request, None
            size |= (request[position] & 0x7F) << shift
            shift += 7
            if request[position] < 0x80:
                break
        position += 1
        end = position + size
        if tag not in _SPLIT_TAGS or end > len(request) or (raw and tag != _RAW_INPUT_TAG):
            return request, None
        if tag == _RAW_INPUT_TAG:
            raw.append(view[position:end])
        else:
            head = end
        position = end
        if len(raw) > _MAX_SPLIT:
            return request, None
    return request[:head], raw


def _decode_inputs(
    message: Any, raw: Sequence[Buffer | None] | None, limits: WireLimits
) -> tuple[tuple[Tensor, ...], bool]:
    """The input tensors, and whether they came raw. `raw` are the raw contents where they are not in the message."""
    given = message.inputs
    count = len(given)
    if not count:
        raise MalformedRequest("inputs is empty, expected at least one input")
    if count > limits.max_tensors:
        raise TooLarge(f"{count} inputs, at most {limits.max_tensors} are allowed")
    if raw is None:
        raw = message.raw_input_contents
    raw_count = len(raw)
    if not raw_count:
        is_raw = not any(one.HasField("contents") for one in given)
        raw = [None] * count
    else:
        if raw_count != count:
            _refuse_shared_memory(given)
            raise MalformedRequest(f"{count} inputs but {raw_count} raw_input_contents, expected one for each input")
        is_raw = True
    elements = 0  # of BYTES tensors
    decoded = []
    for one, data in zip(given, raw, strict=True):
        tensor = _decode_input(one, data, limits, elements)
        if tensor.datatype == "BYTES":
            elements += prod(tensor.shape)
        decoded.append(tensor)
    inputs = tuple(decoded)
    if count > 1 and len({one.name for one in inputs}) != count:
        names = [one.name for one in inputs]
        twice = next(name for name in names if names.count(name) > 1)
        raise MalformedRequest(f'input "{twice[:64]}" is given twice')
    return inputs, is_raw


def _decode_input(one: Any, raw: Buffer | None, limits: WireLimits, elements: int) -> Tensor:
    """One input tensor, from its raw data or (None) its typed contents; errors are prefixed with its name. `elements`
    are those of the BYTES tensors before it."""
    name = one.name
    try:
        _check_name("its name", name, limits)
        if one.parameters:
            _check_parameters(one.parameters, limits)
        datatype = DATATYPES.get(one.datatype) or datatype_of(one.datatype[:64])
        dimensions = one.shape
        if len(dimensions) > limits.max_rank:  # before they are copied: there may be millions
            raise MalformedRequest(f"shape has {len(dimensions)} dimensions, at most {limits.max_rank} are allowed")
        shape = tuple(dimensions)
        count = count_elements(shape, limits.max_rank, limits.max_elements)
        if not datatype.size:
            check_number(elements + count, limits.max_bytes_elements)
        elif raw is None and count > limits.max_typed_elements and datatype.name in INTEGERS:
            raise TooLarge(
                f"{count} integers in typed contents, at most {limits.max_typed_elements} are allowed; "
                "send them in raw_input_contents"
            )
        if raw is None:
            return Tensor(name, datatype.name, shape, decode_contents(one.contents, datatype, count))
        if one.HasField("contents"):
            raise MalformedRequest("contents and raw_input_contents are both given, expected one of them")
        if not datatype.size:
            check_bytes_tensor(raw, count)
        elif len(raw) != count * datatype.size:
            wanted = count * datatype.size
            raise MalformedRequest(f"{datatype.name} {list(shape)} takes {wanted} bytes, got {len(raw)} bytes")
        return Tensor(name, datatype.name, shape, raw)
    except HyperionError as error:
        raise type(error)(f'input "{name[:64]}": {error.message}') from None


def _decode_outputs(outputs: Any, limits: WireLimits) -> tuple[str, ...]:
    """The names of the requested outputs, in their order."""
    if len(outputs) > limits.max_tensors:
        raise TooLarge(f"{len(outputs)} outputs, at most {limits.max_tensors} are allowed")
    names: dict[str, None] = {}
    for one in outputs:
        name = one.name
        try:
            _check_name("its name", name, limits)
            if one.parameters:
                _check_parameters(one.parameters, limits)
                if "classification" in one.parameters:
                    raise Unsupported('parameter "classification" is not supported; ask for the scores themselves')
        except HyperionError as error:
            raise type(error)(f'output "{name[:64]}": {error.message}') from None
        if name in names:
            raise MalformedRequest(f'output "{name[:64]}" is requested twice')
        names[name] = None
    return tuple(names)


def _check_name(what: str, name: str, limits: WireLimits) -> None:
    if not name:
        raise MalformedRequest(f"{what} is empty")
    if len(name) * 4 > limits.max_name_bytes:  # a character takes up to 4 bytes
        _check_length(what, name, limits)


def _check_length(what: str, name: str, limits: WireLimits) -> None:
    size = len(name.encode())
    if size > limits.max_name_bytes:
        raise TooLarge(f"{what} has {size} bytes, at most {limits.max_name_bytes} are allowed")


def _check_parameters(parameters: Any, limits: WireLimits) -> None:
    """Refuse what would be ignored: too many parameters, or data that lies in shared memory."""
    if len(parameters) > limits.max_parameters:
        raise TooLarge(f"{len(parameters)} parameters, at most {limits.max_parameters} are allowed")
    for name in _SHARED_MEMORY:
        if name in parameters:
            raise Unsupported(f'parameter "{name}": shared memory is not supported; send the data in the request')


def _refuse_shared_memory(inputs: Any) -> None:
    """Explain the missing raw contents of inputs that lie in shared memory."""
    for one in inputs:
        if _SHARED_MEMORY[0] in one.parameters:
            raise Unsupported(f'input "{one.name[:64]}": shared memory is not supported; send the data in the request')


def _decode_parameters(parameters: Any, limits: WireLimits) -> dict[str, Any]:
    _check_parameters(parameters, limits)
    values: dict[str, Any] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise MalformedRequest(f'parameter "{name[:64]}" has no value')
        values[name] = getattr(parameter, choice)
    return values


def _whole(value: Any, name: str, maximum: int) -> int:
    """A parameter that is a whole number from 0 to `maximum`."""
    if type(value) is not int or not 0 <= value <= maximum:
        raise MalformedRequest(f'parameter "{name}" is {_show(value)}, expected a whole number from 0 to {maximum}')
    return value


def _show(value: object) -> str:
    return repr(value)[:64]


def encode_infer(answer: InferenceAnswer, form: AnswerFormat) -> bytes:
    """The ModelInferResponse for an answer, in the form that its request asks for, behind the prefix of a gRPC message:
    so its tensors are copied once."""
    return frame_message(*_response_parts(answer, form, None))


def encode_stream_answer(answer: InferenceAnswer, form: AnswerFormat, final: bool) -> bytes:
    """The ModelStreamInferResponse for one answer; `final` says whether it is the last one to its request."""
    parts = _response_parts(answer, form, final)
    return b"".join((_INFER_RESPONSE_TAG, varint(sum(map(len, parts))), *parts))


def _response_parts(answer: InferenceAnswer, form: AnswerFormat, final: bool | None) -> list[Buffer]:
    """The ModelInferResponse in pieces: the raw contents are its last field, so they can be joined without a copy
    into the message first."""
    raw = is_raw_answer(answer, form)
    head = encode_head(answer, form.id, raw, final)
    return [head, *encode_raw(answer.outputs)] if raw else [head]


def is_raw_answer(answer: InferenceAnswer, form: AnswerFormat) -> bool:
    """If the outputs are to be raw, because those of the request were or because one of them has no other form."""
    return form.raw or any(tensor.datatype in RAW_ONLY for tensor in answer.outputs)


def encode_head(answer: InferenceAnswer, request_id: str, raw: bool, final: bool | None) -> bytes:
    """The ModelInferResponse, but for its raw contents where it is `raw`. One of a stream (`final` is not None) says
    itself what is metadata of a call that has one answer: who served it, where that was not the model."""
    response = ModelInferResponse(model_name=answer.model, model_version=answer.version, id=request_id)
    if final is not None:
        response.parameters[_FINAL].bool_param = final
        if answer.served_by != _MODEL:
            response.parameters[_SERVED_BY].string_param = answer.served_by
        if answer.degraded:
            response.parameters[_DEGRADED].bool_param = True
    for tensor in answer.outputs:
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if not raw:
            output.contents.MergeFromString(encode_contents(tensor))
    data: bytes = response.SerializeToString()
    return data


def encode_raw(outputs: Sequence[Tensor]) -> list[Buffer]:
    """The field raw_output_contents, in pieces."""
    parts: list[Buffer] = []
    for tensor in outputs:
        parts += (RAW_OUTPUT_TAG, varint(len(tensor.data)), tensor.data)
    return parts


def encode_stream_error(
    message: str,
    model: str = "",
    version: str = "",
    request_id: str = "",
    metadata: tuple[tuple[str, str], ...] = (),
) -> bytes:
    """The ModelStreamInferResponse that says which request of a stream failed, and why. The stream goes on, so what is
    metadata of a call that fails alone are parameters here."""
    response = ModelStreamInferResponse(error_message=message.encode("utf-8", "replace").decode() or "failed")
    told = response.infer_response
    told.model_name, told.model_version, told.id = model, version, request_id
    told.parameters[_FINAL].bool_param = True
    for name, value in metadata:
        told.parameters[name].string_param = value
    data: bytes = response.SerializeToString()
    return data
