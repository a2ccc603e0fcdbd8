"""The scoring protocol of MLflow and SageMaker, `POST /invocations`: data frames, rows or columns as JSON, or CSV.

Called by the gateway when one endpoint is the default. Answers are `{"predictions": …}`, encoded as in V1.
"""

import msgspec
from msgspec import Raw, Struct

from hyperion.schema.call import NO_PARAMETERS, Buffer, InferenceCall, Tensor
from hyperion.schema.errors import MalformedRequest, Unsupported
from hyperion.schema.model import Signature
from hyperion.wire.envelope import decode_envelope
from hyperion.wire.json.nulls import Nulls
from hyperion.wire.limits import WireLimits
from hyperion.wire.parameters import Parameters, check_parameter_count
from hyperion.wire.table import tensors_of_csv, tensors_of_frame_records, tensors_of_split
from hyperion.wire.v1 import decode_columns, decode_instances, encode_predict

__all__ = ["decode_invocations", "encode_predict"]

_FORMS = "instances, inputs, dataframe_split, dataframe_records"


class _Split(Struct):
    data: Raw
    columns: list[str] | None = None


class _Request(Struct):
    instances: Raw = Raw()
    inputs: Raw = Raw()
    dataframe_split: _Split | None = None
    dataframe_records: Raw = Raw()
    params: Parameters | None = None


_decode_request = msgspec.json.Decoder(_Request).decode


def decode_invocations(
    model: str,
    version: str,
    body: Buffer,
    content_type: str,
    signature: Signature,
    limits: WireLimits,
    nulls: Nulls = None,
) -> InferenceCall:
    """One scoring request. `content_type` is the header's value; without one the body is JSON. `nulls` is as in
    `v1.decode_predict`, for what comes as there; an empty cell of a data frame is NaN, as in pandas.

    Raises MalformedRequest naming what is wrong, TooLarge, or Unsupported (for another content type, too).
    """
    media = content_type.partition(";")[0].strip().lower()
    if media == "text/csv":
        return InferenceCall(model, version, "", tensors_of_csv(body, signature, limits))
    if media not in ("", "application/json"):
        raise Unsupported(f'content type "{media[:64]}"; expected application/json or text/csv')
    request: _Request = decode_envelope(_decode_request, body, limits, "a scoring request")
    parameters = request.params or NO_PARAMETERS
    check_parameter_count(parameters, limits)
    inputs = _decode_inputs(request, signature, limits, nulls)
    return InferenceCall(model, version, "", inputs, parameters=parameters)


def _decode_inputs(request: _Request, signature: Signature, limits: WireLimits, nulls: Nulls) -> tuple[Tensor, ...]:
    instances, columns = bytes(request.instances), bytes(request.inputs)
    split, records = request.dataframe_split, bytes(request.dataframe_records)
    if bool(instances) + bool(columns) + (split is not None) + bool(records) != 1:
        raise MalformedRequest(f"expected just one of {_FORMS}")
    if instances:
        return decode_instances(instances, signature, limits, nulls)
    if columns:
        return decode_columns(columns, signature, limits, nulls)
    if split is not None:
        return tensors_of_split(split.columns, bytes(split.data), signature, limits)
    return tensors_of_frame_records(records, signature, limits)
