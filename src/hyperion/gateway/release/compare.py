"""How far the shadow's answer is from the one that was given. Pure; called by `gateway/release/shadow` for each pair.

It runs on the loop that serves, so it looks at the first rows only, and at the first values of each.
"""

import struct
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from hyperion.gateway.release.binning import LABEL, kind_of, row_width
from hyperion.policy.detectors import LONGEST
from hyperion.policy.redact import shorten
from hyperion.schema.call import Buffer, Tensor
from hyperion.wire.tensor import DATATYPES

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MAX_ROWS = 8
MAX_VALUES = 1024  # of a row
TOLERANCE = 1e-3  # of the larger of two numbers
FLOOR = 1e-6  # what is closer than that is the same, however small both are
LARGEST = 1e75  # whose square is still a number
MAX_TEXT = 64
NOTHING: frozenset[str] = frozenset()


class Difference(Struct, frozen=True, gc=False):
    """One pair: whether the classes (or labels) of the first output differ, whether anything does by more than the
    tolerance, the largest absolute difference of two numbers, and the first number of each; 0.0 where there is none or
    it is not finite."""

    flipped: bool
    disagrees: bool
    largest: float
    given: float
    shadow: float


def compare(given: Sequence[Tensor], shadow: Sequence[Tensor], hidden: Set[str] = NOTHING) -> Difference:
    """Compares outputs by name. One that is missing, or of another datatype or shape, disagrees; two NaNs are the
    same. Of those that are `hidden` no number is told, only whether they differ."""
    shown = bool(given) and given[0].name not in hidden
    first = first_number(given[0]) if shown else 0.0
    others = {tensor.name: tensor for tensor in shadow}
    flipped = disagrees = False
    largest = 0.0
    for index, one in enumerate(given):
        other = others.get(one.name)
        if other is None or other.datatype != one.datatype or other.shape != one.shape:
            flipped = flipped or not index
            disagrees = True
        elif one.data != other.data:
            flips, differs, distance = _compare_tensors(one, other)
            flipped = flipped or (flips and not index)
            disagrees = disagrees or differs
            largest = largest if one.name in hidden else max(largest, distance)
    answered = others.get(given[0].name) if shown else None
    return Difference(flipped, disagrees, largest, first, 0.0 if answered is None else first_number(answered))


def _compare_tensors(one: Tensor, other: Tensor) -> tuple[bool, bool, float]:
    """Whether classes or labels differ, whether anything does, and by how much."""
    if one.datatype == "BYTES":
        rows, width = _extent(one)
        differs = _elements(one.data, rows * width) != _elements(other.data, rows * width)
        return differs, differs, 0.0
    import numpy as np

    a, b = _numbers(one), _numbers(other)
    if not a.size:
        return False, False, 0.0
    with np.errstate(all="ignore"):
        distance = np.abs(a - b)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        near = (distance <= FLOOR) | (distance <= TOLERANCE * np.maximum(np.abs(a), np.abs(b)))
        differs = bool((~same & ~(near & np.isfinite(distance))).any())
        distance = distance[~same & (distance < LARGEST)]
    if kind_of(one) == LABEL:
        flips = not bool(same.all())
    else:
        # Where two classes are as good as equal, one or the other may be ahead without a change of mind.
        flips = differs and a.shape[1] > 1 and bool((a.argmax(axis=1) != b.argmax(axis=1)).any())
    return flips, differs, float(distance.max(initial=0.0))


def _extent(tensor: Tensor) -> tuple[int, int]:
    """Rows that are looked at, and values in a row."""
    rows = tensor.shape[0] if tensor.shape else 1
    return min(rows, MAX_ROWS), row_width(tensor)


def _numbers(tensor: Tensor) -> "Array":
    """The first rows as float64."""
    import numpy as np

    rows, width = _extent(tensor)
    array = np.frombuffer(tensor.data, DATATYPES[tensor.datatype].dtype, rows * width).reshape(rows, width)
    array = array[:, :MAX_VALUES]
    if tensor.datatype == "BF16":
        array = (array.astype("<u4") << 16).view("<f4")
    return array.astype(np.float64)


def _elements(data: Buffer, count: int) -> list[bytes]:
    """The first elements of BYTES data."""
    view = memoryview(data)
    found = []
    start = 0
    for _ in range(min(count, MAX_VALUES)):
        stop = start + 4 + int.from_bytes(view[start : start + 4], "little")
        found.append(bytes(view[start + 4 : stop]))
        start = stop
    return found


def first_number(tensor: Tensor) -> float:
    """The first value of a tensor of numbers; 0.0 for text, for none, and for what is not finite or far too large."""
    datatype = DATATYPES[tensor.datatype]
    if not datatype.size or len(tensor.data) < datatype.size:
        return 0.0
    if datatype.code:
        value = float(struct.unpack_from("<" + datatype.code, tensor.data)[0])
    else:  # BF16 is the upper half of a float
        value = float(struct.unpack("<f", b"\0\0" + bytes(memoryview(tensor.data)[:2]))[0])
    return value if abs(value) < LARGEST else 0.0


def first_text(tensor: Tensor) -> str:
    """The first value of an input as the name of a slice, without personal data; "" where there is none."""
    if tensor.datatype == "BYTES":
        first = _elements(tensor.data, 1) if len(tensor.data) >= 4 else [b""]
        return shorten(first[0][: MAX_TEXT + LONGEST].decode("utf-8", "replace"), MAX_TEXT)
    return f"{first_number(tensor):g}" if len(tensor.data) else ""
