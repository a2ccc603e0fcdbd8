"""The generate extension of the V2 protocol: a flat JSON object of input name → value, and one of output name → value.

Called by the gateway for `…/generate` and, for each answer of a stream, `…/generate_stream` (framed by `sse`).
"""

from typing import Any

import msgspec
import orjson
from msgspec import Raw

from hyperion.schema.call import NO_PARAMETERS, Buffer, InferenceAnswer, InferenceCall
from hyperion.schema.errors import MalformedRequest, SchemaMismatch, TooLarge
from hyperion.schema.model import Signature
from hyperion.wire.envelope import decode_envelope
from hyperion.wire.json.data import check_row_count
from hyperion.wire.json.nulls import Nulls
from hyperion.wire.json.text import text_or_base64
from hyperion.wire.limits import WireLimits
from hyperion.wire.parameters import Parameters, Scalar, check_parameter_count, take_urgency
from hyperion.wire.signature_values import tensor_of_one_row
from hyperion.wire.tensor import to_numpy

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_scalar = msgspec.json.Decoder(Scalar).decode
_decode_parameters = msgspec.json.Decoder(Parameters | None).decode


def decode_generate(
    model: str, version: str, body: Buffer, signature: Signature, limits: WireLimits, nulls: Nulls = None
) -> InferenceCall:
    """One generate request: a call with one row. A member that is no input of the model is a parameter for it; of those
    in `parameters`, `priority` and `timeout` are for us. `nulls` is as in `v1.decode_predict`.

    Raises MalformedRequest naming the member that is wrong, TooLarge, or Unsupported.
    """
    check_row_count(bytes(body), b":", limits)  # each member is an object to be made
    members: dict[str, Raw] = decode_envelope(_decode_members, body, limits, "a generate request")
    specs = {spec.name: spec for spec in signature.inputs}
    inputs = []
    given: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    request_id = ""
    for name, raw in members.items():
        if name in specs:
            inputs.append(tensor_of_one_row(specs[name], bytes(raw), signature.batched, limits, nulls))
        elif name == "id":
            request_id = _decode_id(raw, limits)
        elif name == "parameters":
            given = _member(_decode_parameters, raw, "parameters", "an object of single values") or {}
        else:
            what = f'"{name[:64]}" (no input of the model, so a parameter)'
            parameters[name] = _member(_decode_scalar, raw, what, "a single value")
    if not inputs:
        raise SchemaMismatch(f"no input of the model is given; its inputs are {', '.join(specs)}")
    priority, timeout_ns = take_urgency(given)
    parameters |= given
    check_parameter_count(parameters, limits)
    asked = parameters or NO_PARAMETERS
    return InferenceCall(model, version, request_id, tuple(inputs), (), asked, priority, timeout_ns)


def _member(decode: Any, raw: Raw, what: str, expected: str) -> Any:
    try:
        return decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"{what}: expected {expected}: {error}") from None


def _decode_id(raw: Raw, limits: WireLimits) -> str:
    value = _member(_decode_scalar, raw, "id", "a string")
    if not isinstance(value, str):
        raise MalformedRequest(f"id is {value!r}, expected a string")
    if len(value.encode()) > limits.max_name_bytes:
        raise TooLarge(f"id is over the limit of {limits.max_name_bytes} bytes")
    return value


def encode_generate(answer: InferenceAnswer) -> bytes:
    """`{model_name, model_version, output: value…}`: one value, or a flat array where an output has not just one.

    NaN and Infinity are null, BYTES that are not UTF-8 `{"b64": …}`.
    """
    members: dict[str, Any] = {"model_name": answer.model, "model_version": answer.version}
    for output in answer.outputs:
        values: list[Any] = to_numpy(output).ravel().tolist()
        if output.datatype == "BYTES":
            values = [text_or_base64(value) for value in values]
        members[output.name] = values[0] if len(values) == 1 else values
    return orjson.dumps(members)
