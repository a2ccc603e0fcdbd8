"""The V1 protocol of TensorFlow Serving and KServe: `instances` (rows) or `inputs` (columns) in, `predictions` out.

Called by the gateway for `POST /v1/models/…:predict`. Datatypes and names come from the model's signature.
"""

from typing import Any

import msgspec
import orjson
from msgspec import Raw, Struct

from hyperion.schema.call import Buffer, InferenceAnswer, InferenceCall, Tensor
from hyperion.schema.errors import MalformedRequest
from hyperion.schema.model import Signature
from hyperion.wire.envelope import decode_envelope
from hyperion.wire.json.data import check_row_count
from hyperion.wire.json.nulls import Nulls
from hyperion.wire.json.text import encode_nested, nested_values
from hyperion.wire.limits import WireLimits
from hyperion.wire.signature_values import (
    tensor_of_rows,
    tensors_of_columns,
    tensors_of_records,
    total_rows,
)


class _Request(Struct):
    instances: Raw = Raw()
    inputs: Raw = Raw()


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_records = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_decode_columns = msgspec.json.Decoder(dict[str, Raw]).decode


def decode_predict(
    model: str, version: str, body: Buffer, signature: Signature, limits: WireLimits, nulls: Nulls = None
) -> InferenceCall:
    """One V1 request. A model with one input takes its values as they are, one with several takes objects by name.
    `nulls` is what stands for a null among the elements of an input, by its name; in others they are refused.

    Raises MalformedRequest or SchemaMismatch naming the input or row that is wrong, TooLarge, or Unsupported.
    """
    request = decode_envelope(_decode_request, body, limits, "a V1 request")
    instances, columns = bytes(request.instances), bytes(request.inputs)
    if bool(instances) == bool(columns):
        raise MalformedRequest("expected either instances (rows) or inputs (columns)")
    if instances:
        return InferenceCall(model, version, "", decode_instances(instances, signature, limits, nulls))
    return InferenceCall(model, version, "", decode_columns(columns, signature, limits, nulls))


def decode_instances(text: bytes, signature: Signature, limits: WireLimits, nulls: Nulls = None) -> tuple[Tensor, ...]:
    """Input tensors of a JSON array of rows: values for a model with one input, or objects of input name → value."""
    if text.translate(None, b" \t\r\n") == b"[]":
        raise MalformedRequest("instances is empty, expected at least one row")
    if len(signature.inputs) == 1 and not _is_by_name(text, signature.inputs[0].name):
        return (tensor_of_rows(signature.inputs[0], text, limits, nulls),)
    check_row_count(text, b"{", limits)
    try:
        records = _decode_records(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedRequest(f"instances of a model with several inputs are objects by input name: {error}") from None
    return tensors_of_records(records, signature, lambda spec, values: tensor_of_rows(spec, values, limits, nulls))


def decode_columns(text: bytes, signature: Signature, limits: WireLimits, nulls: Nulls = None) -> tuple[Tensor, ...]:
    """Input tensors of a JSON object of input name → all rows, or for a model with one input of all its rows."""
    if text.startswith(b"{"):
        return tensors_of_columns(_decode_columns(text), signature, limits, nulls)
    if len(signature.inputs) > 1:
        raise MalformedRequest("inputs of a model with several inputs is an object by input name")
    return (tensor_of_rows(signature.inputs[0], text, limits, nulls),)


def _is_by_name(text: bytes, name: str) -> bool:
    """If rows are objects by input name, and not the `{"b64": …}` that stands for a BYTES value."""
    start = text[:64].translate(None, b" \t\r\n")
    return start.startswith(b"[{") and (not start.startswith(b'[{"b64":') or name == "b64")


def encode_predict(answer: InferenceAnswer) -> bytes:
    """`{"predictions": rows}`: values for a model with one output, otherwise an object by output name for each row.

    Outputs that do not have the same number of rows come as one object of output name → values. NaN and Infinity are
    null, BYTES that are not UTF-8 `{"b64": …}`.
    """
    outputs = answer.outputs
    if len(outputs) == 1:
        return b'{"predictions":%b}' % encode_nested(outputs[0])
    columns: dict[str, Any] = {output.name: nested_values(output) for output in outputs}
    if len(total_rows(outputs)) != 1 or not all(output.shape for output in outputs):
        return orjson.dumps({"predictions": columns})
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return orjson.dumps({"predictions": rows})
