"""The signature in an MLmodel: tensors, or the columns of a data frame, as JSON texts in YAML.

Called by `mlflow`. A column is an input of its own, [-1], under its own name; a tensor without a name is `X`, as every
matrix of features is called here. A column that may be left out (`"required": false`, which MLflow also notes for
columns with gaps) must be sent; a request without it is refused by name.
"""

from typing import Any

import msgspec

from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import Signature, TensorSpec

MAX_TENSORS = 10_000
_COLUMNS: dict[str, str] = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
}
_NUMPY: dict[str, str] = {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "object": "BYTES",
    "str": "BYTES",
    "bytes": "BYTES",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def read_signature(declared: Any) -> Signature | None:
    """The signature of the `signature` mapping of an MLmodel; None when it declares no inputs.

    ModelRefused names the input or output whose type has no equal here, and parameters per request.
    """
    if declared is None:
        return None
    if not isinstance(declared, dict):
        raise ModelRefused(f"MLmodel: signature: expected a mapping, got {type(declared).__name__}")
    inputs = _decode(declared.get("inputs"), "inputs")
    if not inputs:
        return None
    if _decode(declared.get("params"), "params"):
        raise ModelRefused(
            'MLmodel: field "signature.params" asks for parameters with each request, which Hyperion does not do; '
            "log the model without them"
        )
    outputs = _decode(declared.get("outputs"), "outputs")
    taken = tuple(_read_tensor(item, "input", index) for index, item in enumerate(inputs))
    given = tuple(_read_tensor(item, "output", index) for index, item in enumerate(outputs))
    return Signature(taken, given, batched=all(spec.shape[:1] == (-1,) for spec in (*taken, *given)))


def needs_frame(declared: Any) -> bool:
    """True when the inputs are columns of which some are no numbers: an estimator then expects a data frame."""
    signature = read_signature(declared)
    return signature is not None and len(signature.inputs) > 1 and any(s.datatype == "BYTES" for s in signature.inputs)


def _decode(text: Any, field: str) -> list[Any]:
    if text is None:
        return []
    try:
        items = msgspec.json.decode(text) if isinstance(text, str) else text
    except (msgspec.DecodeError, RecursionError) as error:
        raise ModelRefused(f"MLmodel: signature.{field}: not valid JSON: {error}") from error
    if not isinstance(items, list) or len(items) > MAX_TENSORS:
        raise ModelRefused(f"MLmodel: signature.{field}: expected a list of at most {MAX_TENSORS}")
    return items


def _read_tensor(item: Any, side: str, index: int) -> TensorSpec:
    if not isinstance(item, dict):
        raise ModelRefused(f"MLmodel: signature.{side}s: entry {index}: expected an object")
    name = item.get("name")
    name = name if isinstance(name, str) and name else f"X_{index}" if index else "X"
    kind = item.get("type")
    if kind == "tensor":
        return _read_array(item.get("tensor-spec"), name, side)
    datatype = _COLUMNS.get(kind) if isinstance(kind, str) else None
    if datatype is None:
        raise ModelRefused(
            f'MLmodel: signature.{side}s "{name[:80]}": a column of type {kind!r:.80} has no equal among tensors; '
            f"expected tensor, {', '.join(_COLUMNS)}"
        )
    return TensorSpec(name, datatype, (-1,))


def _read_array(spec: Any, name: str, side: str) -> TensorSpec:
    where = f'MLmodel: signature.{side}s "{name[:80]}"'
    dtype, shape = (spec.get("dtype"), spec.get("shape")) if isinstance(spec, dict) else (None, None)
    datatype = _NUMPY.get(dtype) if isinstance(dtype, str) else None
    if datatype is None:
        raise ModelRefused(f"{where}: dtype {dtype!r:.80} has no equal; expected one of {', '.join(_NUMPY)}")
    if not isinstance(shape, list) or len(shape) > 8 or not all(type(size) is int and size >= -1 for size in shape):
        raise ModelRefused(f"{where}: expected a shape of at most 8 sizes, each -1 or more")
    return TensorSpec(name, datatype, tuple(shape))
