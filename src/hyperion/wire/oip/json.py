"""Open Inference Protocol V2 over HTTP, requests: a body of JSON, or of JSON and binary tensors, to an InferenceCall.

Called by the gateway for `POST /v2/models/…/infer` and the repository extension. Answers are encoded in `answer`,
metadata in `metadata`, binary data lives in `binary`; the names the gateway calls are all found here.

The hot path is one strict decoder that knows every member of the protocol. A body with other members, which the
protocol wants tolerated, is decoded once more by a tolerant twin, after its depth was checked.
"""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

import msgspec

from hyperion.schema.call import NO_PARAMETERS, Buffer, InferenceCall, Tensor
from hyperion.schema.errors import HyperionError, MalformedRequest, TooLarge, Unsupported
from hyperion.wire.envelope import decode_envelope
from hyperion.wire.json.data import parse_data
from hyperion.wire.json.nulls import MARK, Nulls, parse_with_nulls
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip.answer import (
    ALL_JSON,
    AnswerFormat,
    encode_answer,
    encode_error,
)
from hyperion.wire.oip.binary import BinaryPart
from hyperion.wire.oip.known import KnownRequests
from hyperion.wire.oip.large import LARGE_BODY_BYTES, PLACEHOLDER, cut_data
from hyperion.wire.oip.metadata import (
    decode_index_request,
    decode_repository_parameters,
    encode_index,
    encode_model_metadata,
    encode_server_metadata,
)
from hyperion.wire.oip.request import Request, RequestInput, RequestOutput, StrictRequest
from hyperion.wire.parameters import Parameters, Scalar, check_parameter_count, take_urgency
from hyperion.wire.tensor import DATATYPES, Datatype, count_elements, datatype_of

__all__ = [
    "ALL_JSON",
    "AnswerFormat",
    "decode_index_request",
    "decode_infer",
    "decode_repository_parameters",
    "encode_answer",
    "encode_error",
    "encode_index",
    "encode_model_metadata",
    "encode_server_metadata",
]

_SHARED_MEMORY = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")
_MAYBE_MEMBERS = re.compile(rb'"\s*:')  # quick; also finds what only looks so, in a string
_MEMBERS = re.compile(rb'(?<!\\)(?:\\\\)*+"\s*:')  # an even number of backslashes leaves a quotation mark what it is
_SHAPES = re.compile(rb'"shape"\s*:\s*\[')
_SHAPE_BYTES = 1024  # of the text of one shape; far more than the largest rank needs
_REST_BYTES = 256 * 1024  # around the data of inputs
_MEMBERS_PER_TENSOR = 8  # beside its parameters: the protocol's own, and as many that it does not know


_decode_strict = msgspec.json.Decoder(StrictRequest).decode
_decode_tolerant = msgspec.json.Decoder(Request).decode
_known = KnownRequests()


def decode_infer(
    model: str, version: str, body: Buffer, header_length: int | None, limits: WireLimits, nulls: Nulls = None
) -> tuple[InferenceCall, AnswerFormat]:
    """One inference request, decoded and within the limits, and how its caller wants the answer.

    `header_length` is the value of the header Inference-Header-Content-Length: the bytes of JSON before the binary
    tensors; None when there is none. Binary tensors are views of `body`, which must not change while the call lives.
    `nulls` is what stands for a null among the elements of an input, by its name; in others they are refused.
    Raises MalformedRequest, TooLarge or Unsupported, naming the member that is wrong.
    """
    if len(body) > limits.max_body_bytes:
        raise TooLarge(f"the body has {len(body)} bytes, at most {limits.max_body_bytes} are allowed")
    binary = None
    if header_length is not None:
        binary = BinaryPart(body, header_length, limits)
        body = binary.json
    else:
        known = _known.decode(body, limits)
        if known is not None:
            return InferenceCall(model, version, "", (known,)), ALL_JSON
    if len(body) >= LARGE_BODY_BYTES:
        large = _decode_large(model, version, body, limits, nulls) if binary is None else None
        if large is not None:
            return large
        _check_members(body, limits)
    strict = binary is None
    try:
        request: Request = _decode_strict(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        strict = False
        request = _decode_again(body, limits)
    found = request.inputs
    if len(found) == 1:
        inputs: tuple[Tensor, ...] = (_decode_input(found[0], binary, limits, nulls),)
    else:
        _check_inputs(found, limits)
        inputs = tuple([_decode_input(one, binary, limits, nulls) for one in found])
    if binary is not None:
        binary.check_end()
    if request.id or request.parameters or request.outputs:
        return _finish(model, version, inputs, request, limits)
    if strict and len(inputs) == 1 and not found[0].parameters:
        _known.learn(body, bytes(found[0].data), inputs[0], limits)
    return InferenceCall(model, version, "", inputs), ALL_JSON


def _decode_again(body: Buffer, limits: WireLimits) -> Request:
    """Decode a body that the strict decoder refused: with unknown members ignored, or to say what is wrong."""
    request: Request = decode_envelope(_decode_tolerant, body, limits, "an inference request")
    return request


def _check_members(body: Buffer, limits: WireLimits) -> None:
    """Raises TooLarge for a body with more members, or a longer shape, than any request within the limits has: before
    an object is made for each, which takes seconds for the millions that a body has room for."""
    most = 2 * limits.max_tensors * (_MEMBERS_PER_TENSOR + limits.max_parameters)
    data = bytes(body)
    if _has_more(_MAYBE_MEMBERS, data, most) and _has_more(_MEMBERS, data, most):
        raise TooLarge(f"more than {most} members, which no request of {limits.max_tensors} inputs has")
    for found in islice(_SHAPES.finditer(data), most):
        if data.find(b"]", found.end(), found.end() + _SHAPE_BYTES) < 0:
            raise TooLarge(
                f"a shape of more than {_SHAPE_BYTES} bytes, at most {limits.max_rank} dimensions are allowed"
            )


def _has_more(pattern: re.Pattern[bytes], data: bytes, most: int) -> bool:
    return sum(1 for _ in islice(pattern.finditer(data), most + 1)) > most


def _decode_large(
    model: str, version: str, body: Buffer, limits: WireLimits, nulls: Nulls
) -> tuple[InferenceCall, AnswerFormat] | None:
    """As `decode_infer` for large bodies of JSON; None for any that it cannot do."""
    cut = cut_data(body, limits.max_tensors)
    if cut is None:
        return None
    text, arrays = cut
    if len(text) >= _REST_BYTES:
        return None
    try:
        request: Request = _decode_strict(text)
        if [bytes(one.data) for one in request.inputs] != [PLACEHOLDER] * len(arrays):
            return None
        _check_inputs(request.inputs, limits)
        inputs = tuple([_decode_input(one, arrays[index], limits, nulls) for index, one in enumerate(request.inputs)])
        return _finish(model, version, inputs, request, limits)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    except HyperionError:
        if any(one.datatype == "BYTES" for one in request.inputs):
            return None  # brackets in a string may have led the cut astray
        raise


def _decode_input(
    one: RequestInput, source: BinaryPart | bytes | None, limits: WireLimits, nulls: Nulls = None
) -> Tensor:
    """One input tensor; errors are prefixed with its name.

    Its data is JSON text in the input itself or, cut out of it, in `source`, or it comes from the binary part.
    """
    name = one.name
    try:
        if not 0 < len(name) <= limits.max_name_bytes or not name.isascii():
            _check_name("its name", name, limits)
        datatype = DATATYPES.get(one.datatype) or datatype_of(one.datatype)
        shape = one.shape
        count = count_elements(shape, limits.max_rank, limits.max_elements)
        if one.parameters:
            size = _binary_size(one.parameters, limits)
            if size is not None:
                return Tensor(name, one.datatype, shape, _take_binary(one, source, datatype, count, size))
        text = source if type(source) is bytes else bytes(one.data)
        if not text:
            raise MalformedRequest("data is missing")
        if nulls is not None and name in nulls and MARK in text:
            data = parse_with_nulls(text, datatype, shape, count, limits, nulls[name])
            return Tensor(name, one.datatype, shape, data)
        return Tensor(name, one.datatype, shape, parse_data(text, datatype, shape, count, limits))
    except HyperionError as error:
        raise type(error)(f'input "{name[:64]}": {error.message}') from None


def _take_binary(
    one: RequestInput, source: BinaryPart | bytes | None, datatype: Datatype, count: int, size: int
) -> memoryview:
    """The data of an input that says it is binary."""
    if not isinstance(source, BinaryPart):
        raise MalformedRequest("binary_data_size is given, but there is no header Inference-Header-Content-Length")
    if one.data:
        raise MalformedRequest("both data and binary_data_size are given, expected one of them")
    return source.take(datatype, one.shape, count, size)


def _check_name(what: str, name: str, limits: WireLimits) -> None:
    size = len(name.encode())
    if size > limits.max_name_bytes:
        raise TooLarge(f"{what} has {size} bytes, at most {limits.max_name_bytes} are allowed")
    if not size:
        raise MalformedRequest(f"{what} is empty")


def _check_inputs(inputs: tuple[RequestInput, ...], limits: WireLimits) -> None:
    """Raise MalformedRequest for no input, or two of the same name, TooLarge for too many."""
    if len(inputs) > limits.max_tensors:
        raise TooLarge(f"{len(inputs)} inputs, at most {limits.max_tensors} are allowed")
    if not inputs:
        raise MalformedRequest("inputs is empty, expected at least one input")
    seen: set[str] = set()
    for one in inputs:
        if one.name in seen:
            raise MalformedRequest(f'input "{one.name}" is given twice')
        seen.add(one.name)


def _check_parameters(parameters: Parameters, limits: WireLimits) -> None:
    check_parameter_count(parameters, limits)
    for name in _SHARED_MEMORY:
        if name in parameters:
            raise Unsupported(f'parameter "{name}": shared memory is not supported; send the data in the request')


def _binary_size(parameters: Parameters, limits: WireLimits) -> int | None:
    """The value of binary_data_size, or None."""
    _check_parameters(parameters, limits)
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise MalformedRequest(f"binary_data_size is {size!r}, expected a number of bytes")
    return size


def _finish(
    model: str, version: str, inputs: tuple[Tensor, ...], request: Request, limits: WireLimits
) -> tuple[InferenceCall, AnswerFormat]:
    """The call and the format of a request that has an id, parameters or requested outputs."""
    if request.id:
        _check_name("id", request.id, limits)
    outputs, overrides = _decode_outputs(request.outputs or (), limits)
    given = request.parameters
    if not given:
        call = InferenceCall(model, version, request.id, inputs, outputs)
        return call, AnswerFormat(request.id, False, overrides) if request.id or overrides else ALL_JSON
    _check_parameters(given, limits)
    parameters: dict[str, Any] = dict(given)
    binary = _boolean(parameters.pop("binary_data_output", None), "binary_data_output")
    priority, timeout_ns = take_urgency(parameters)
    call = InferenceCall(model, version, request.id, inputs, outputs, parameters or NO_PARAMETERS, priority, timeout_ns)
    return call, AnswerFormat(request.id, bool(binary), overrides)


def _decode_outputs(
    outputs: tuple[RequestOutput, ...], limits: WireLimits
) -> tuple[tuple[str, ...], Mapping[str, bool]]:
    """Names of the requested outputs, and which of them say if they are to be binary."""
    if len(outputs) > limits.max_tensors:
        raise TooLarge(f"{len(outputs)} outputs, at most {limits.max_tensors} are allowed")
    overrides: dict[str, bool] = {}
    names: dict[str, None] = {}
    for one in outputs:
        name = one.name
        _check_name("the name of an output", name, limits)
        if name in names:
            raise MalformedRequest(f'output "{name}" is requested twice')
        names[name] = None
        if one.parameters:
            try:
                _check_parameters(one.parameters, limits)
                if one.parameters.get("classification"):
                    raise Unsupported('parameter "classification" is not supported; ask for the scores themselves')
                binary = _boolean(one.parameters.get("binary_data"), "binary_data")
            except HyperionError as error:
                raise type(error)(f'output "{name[:64]}": {error.message}') from None
            if binary is not None:
                overrides[name] = binary
    return tuple(names), overrides


def _boolean(value: Scalar, name: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise MalformedRequest(f'parameter "{name}" is {value!r}, expected true or false')
    return value
