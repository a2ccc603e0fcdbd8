"""Open Inference Protocol V2 over HTTP as its client speaks it: requests of ours to bytes, answers to tensors.

Called by `gateway/upstream/http`; the twin for gRPC is `grpc_upstream`. An answer is trusted as little as a
request: sizes are checked before anything is allocated, and whatever is wrong with it is an `UpstreamFailed`. What an
upstream says of an error goes to a caller only as one bounded line of plain text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from hyperion.schema.call import Buffer, Tensor
from hyperion.schema.errors import HyperionError, Unsupported, UpstreamFailed
from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.envelope import decode_envelope
from hyperion.wire.json.data import parse_data
from hyperion.wire.json.text import encode_flat
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip.binary import BinaryPart
from hyperion.wire.oip.upstream_records import Answer, AnswerOutput, Readiness, ServerMetadata
from hyperion.wire.tensor import count_elements, datatype_of

MAX_TOLD: Final = 300  # characters of an upstream's message that its caller may see
BINARY: Final = "binary_tensor_data"
_ERROR_MEMBERS: Final = ("error", "detail", "message")

_decode_answer = msgspec.json.Decoder(Answer).decode
_decode_metadata = msgspec.json.Decoder(ServerMetadata).decode
_decode_ready = msgspec.json.Decoder(Readiness).decode


def encode_infer(
    inputs: Sequence[Tensor], outputs: Sequence[str], parameters: Mapping[str, Any], request_id: str, binary: bool
) -> tuple[list[Buffer], int | None]:
    """The body of an inference request as a list of buffers and, where it is `binary`, the length of the JSON at its
    start, which goes into Inference-Header-Content-Length. `outputs` () asks for all.

    Raises Unsupported for an input that has no JSON form where it cannot go as binary data.
    """
    described: list[Any] = []
    buffers: list[Buffer] = [b""]
    for tensor in inputs:
        one: dict[str, Any] = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
        if binary:
            one["parameters"] = {"binary_data_size": memoryview(tensor.data).nbytes}
            buffers.append(tensor.data)
        else:
            one["data"] = orjson.Fragment(_encode_json(tensor))
        described.append(one)
    request: dict[str, Any] = {"id": request_id} if request_id else {}
    request["inputs"] = described
    given = dict(parameters)
    if binary and not outputs:
        given["binary_data_output"] = True
    if given:
        request["parameters"] = given
    if outputs:
        asked = {"parameters": {"binary_data": True}} if binary else {}
        request["outputs"] = [{"name": name, **asked} for name in outputs]
    text = orjson.dumps(request)
    buffers[0] = text
    return buffers, len(text) if binary else None


def _encode_json(tensor: Tensor) -> bytes:
    try:
        return encode_flat(tensor)
    except Unsupported:
        raise Unsupported(
            f'input "{tensor.name}": the server that answers for this model takes JSON only, which cannot carry '
            f"this {tensor.datatype}"
        ) from None


def decode_answer(body: bytes, header_length: bytes | None, limits: WireLimits) -> tuple[Tensor, ...]:
    """The outputs of an answer. `header_length` is the value of its header Inference-Header-Content-Length, None where
    it has none. Raises UpstreamFailed."""
    try:
        binary: BinaryPart | None = None
        text: Buffer = body
        if header_length is not None:
            if not header_length.isdigit():
                raise UpstreamFailed("its Inference-Header-Content-Length is no number")
            binary = BinaryPart(body, int(header_length[:20]), limits)
            text = binary.json
        answer: Answer = decode_envelope(_decode_answer, text, limits, "an answer to an inference request")
        if len(answer.outputs) > limits.max_tensors:
            raise UpstreamFailed(f"{len(answer.outputs)} outputs, at most {limits.max_tensors} are allowed")
        outputs = tuple([_decode_output(one, binary, limits) for one in answer.outputs])
        if binary is not None:
            binary.check_end()
        return outputs
    except HyperionError as error:
        raise UpstreamFailed(tell(error.message)) from None


def _decode_output(one: AnswerOutput, binary: BinaryPart | None, limits: WireLimits) -> Tensor:
    """One output tensor; errors are prefixed with its name."""
    try:
        datatype = datatype_of(one.datatype[:64])
        count = count_elements(one.shape, limits.max_rank, limits.max_elements)
        size = (one.parameters or {}).get("binary_data_size")
        if size is None:
            return Tensor(
                one.name, datatype.name, one.shape, parse_data(bytes(one.data), datatype, one.shape, count, limits)
            )
        if binary is None or type(size) is not int or size < 0:
            raise UpstreamFailed(f"binary_data_size is {str(size)[:20]}, but there is no such binary data")
        return Tensor(one.name, datatype.name, one.shape, bytes(binary.take(datatype, one.shape, count, size)))
    except HyperionError as error:
        raise UpstreamFailed(f'output "{one.name[:64]}": {error.message}') from None


def select_outputs(
    outputs: Sequence[Tensor], signature: Signature, wanted: Sequence[str], rows: int
) -> tuple[Tensor, ...]:
    """The outputs that were asked for (() for all of the signature), in that order, if they are what the signature says
    and, where it is batched, of `rows` rows. Raises UpstreamFailed."""
    found = {tensor.name: tensor for tensor in outputs}
    specs = {spec.name: spec for spec in signature.outputs}
    chosen = []
    for name in wanted or specs:
        tensor = found.get(name)
        if tensor is None:
            raise UpstreamFailed(f'its answer has no output "{name}"')
        if not _fits(tensor, specs[name], rows if signature.batched else -1):
            shape = [rows, *specs[name].shape[1:]] if signature.batched else list(specs[name].shape)
            raise UpstreamFailed(
                f'output "{name}": it answered {tensor.datatype} {str(list(tensor.shape))[:100]}, '
                f"expected {specs[name].datatype} {shape}"
            )
        chosen.append(tensor)
    return tuple(chosen)


def _fits(tensor: Tensor, spec: TensorSpec, rows: int) -> bool:
    shape = tensor.shape
    if tensor.datatype != spec.datatype or len(shape) != len(spec.shape):
        return False
    if rows >= 0 and (not shape or shape[0] != rows):
        return False
    return all(want in (-1, got) for want, got in zip(spec.shape, shape, strict=True))


def is_binary_server(body: bytes, limits: WireLimits) -> bool:
    """Whether the body of `GET /v2` says that the server takes binary tensors; False for anything else."""
    try:
        metadata: ServerMetadata = decode_envelope(_decode_metadata, body, limits, "metadata of a server")
    except HyperionError:
        return False
    return BINARY in metadata.extensions


def says_ready(body: bytes, limits: WireLimits) -> bool:
    """Whether the body of an answer 200 to `…/ready` does not say otherwise."""
    try:
        readiness: Readiness = decode_envelope(_decode_ready, body, limits, "readiness")
    except HyperionError:
        return True  # the protocol asks for the status alone
    return readiness.ready


def decode_error(body: bytes, limits: WireLimits) -> str:
    """What an answer that is an error says, for people: one bounded line, "" for nothing of use."""
    try:
        members = decode_envelope(msgspec.json.decode, body, limits, "an error")
    except HyperionError:
        return ""
    if isinstance(members, dict):
        for name in _ERROR_MEMBERS:
            if isinstance(members.get(name), str):
                return tell(members[name])
        return _tell_detail(members.get("detail"))
    return ""


def _tell_detail(detail: Any) -> str:
    """The first of several mistakes as FastAPI lists them, on which MLServer and KServe are built: where, and what."""
    first = detail[0] if isinstance(detail, list) and detail else None
    if not isinstance(first, dict) or not isinstance(first.get("msg"), str):
        return ""
    place = first.get("loc")
    where = ".".join([str(part) for part in place if isinstance(part, (str, int))]) if isinstance(place, list) else ""
    return tell(f"{where}: {first['msg']}" if where else first["msg"])


def tell(message: str) -> str:
    """The first line of a foreign message, bounded and without what a terminal or a log would act upon.

    >>> tell("no such model" + chr(27) + "[31m" + chr(10) + "Traceback …")
    'no such model[31m'
    """
    lines = message.strip().splitlines()
    return "".join(filter(str.isprintable, lines[0][:MAX_TOLD])) if lines else ""
