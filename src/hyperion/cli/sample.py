"""A request that fits a model, for the curl line that `serve` prints and for `bench`. Pure."""

import math
from typing import Any

from hyperion.schema.model import Signature, TensorSpec

_NUMBERS = (0.5, 1.2, 3.4, 0.7, 2.1, 5.9, 1.6, 4.8)


def make_request(signature: Signature) -> dict[str, Any]:
    """Return a V2 request of one row: `{"inputs": [...]}`. Lengths that the model leaves open become 1.

    >>> from hyperion.schema.model import Signature, TensorSpec
    >>> make_request(Signature((TensorSpec("x", "FP32", (-1, 2)),), ()))["inputs"][0]["data"]
    [0.5, 1.2]
    """
    return {"inputs": [_make_input(spec) for spec in signature.inputs]}


def count_elements(signature: Signature) -> int:
    """Return how many numbers such a request holds."""
    return sum(math.prod(_fix_shape(spec)) for spec in signature.inputs)


def _make_input(spec: TensorSpec) -> dict[str, Any]:
    shape = _fix_shape(spec)
    data = [_make_element(spec.datatype, position) for position in range(math.prod(shape))]
    return {"name": spec.name, "shape": shape, "datatype": spec.datatype, "data": data}


def _fix_shape(spec: TensorSpec) -> list[int]:
    return [length if length >= 0 else 1 for length in spec.shape]


def _make_element(datatype: str, position: int) -> str | int | float | bool:
    if datatype == "BYTES":
        return "text"
    if datatype == "BOOL":
        return True
    number = _NUMBERS[position % len(_NUMBERS)]
    return number if datatype.startswith(("FP", "BF")) else int(number)
