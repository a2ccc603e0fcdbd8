"""Tensors as bytes: the V2 datatypes, sizes with checked arithmetic, numpy views, and rows for batching.

Used by the codecs, the batcher (rows) and the runner (numpy). Never copies numeric data that it can view, and never
trusts a shape: every size is computed under a limit before anything is allocated. Imports numpy only where there is no
way around it, because a gateway answers its first requests without it.
"""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Final

from hyperion.schema.call import Buffer, Tensor
from hyperion.schema.errors import MalformedRequest, SchemaMismatch, TooLarge
from hyperion.wire.bytes_elements import (
    check_bytes_tensor,
    decode_elements,
    encode_elements,
    row_offsets_bytes,
)

__all__ = [
    "DATATYPES",
    "Datatype",
    "check_bytes_tensor",
    "check_tensor_data",
    "count_elements",
    "datatype_of",
    "datatype_of_numpy",
    "decode_elements",
    "encode_elements",
    "from_numpy",
    "join_rows",
    "name_element",
    "name_place",
    "row_offsets_bytes",
    "slice_rows",
    "split_rows",
    "tensor_size_bytes",
    "to_numpy",
]

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MAX_RANK: Final = 8
MAX_ELEMENTS: Final = 2**31


class Datatype:
    """One V2 datatype. `size` is bytes per element (0: BYTES, it varies); `dtype` is numpy's name of how it views the
    bytes (BF16 as uint16, BYTES as object); `code` is the struct letter of one element ("" where struct has none);
    `kind` says what its elements are in JSON: f numbers, i and u integers, b booleans, s strings, "" that it has no
    JSON form."""

    __slots__ = ("code", "dtype", "kind", "name", "size")

    def __init__(self, name: str, size: int, dtype: str, code: str, kind: str) -> None:
        self.name: Final = name
        self.size: Final = size
        self.dtype: Final = dtype
        self.code: Final = code
        self.kind: Final = kind


DATATYPES: dict[str, Datatype] = {
    name: Datatype(name, size, dtype, code, kind)
    for name, size, dtype, code, kind in (
        ("BOOL", 1, "|b1", "?", "b"),
        ("UINT8", 1, "|u1", "B", "u"),
        ("UINT16", 2, "<u2", "H", "u"),
        ("UINT32", 4, "<u4", "I", "u"),
        ("UINT64", 8, "<u8", "Q", "u"),
        ("INT8", 1, "|i1", "b", "i"),
        ("INT16", 2, "<i2", "h", "i"),
        ("INT32", 4, "<i4", "i", "i"),
        ("INT64", 8, "<i8", "q", "i"),
        ("FP16", 2, "<f2", "e", "f"),
        ("BF16", 2, "<u2", "", ""),
        ("FP32", 4, "<f4", "f", "f"),
        ("FP64", 8, "<f8", "d", "f"),
        ("BYTES", 0, "|O", "", "s"),
    )
}
_BY_NUMPY = {datatype.dtype: name for name, datatype in DATATYPES.items() if name not in ("BF16", "BYTES")}


def datatype_of(name: str) -> Datatype:
    """The datatype of that V2 name. Raises MalformedRequest, listing the names there are."""
    try:
        return DATATYPES[name]
    except KeyError:
        raise MalformedRequest(f'unknown datatype "{name}"; expected one of {", ".join(DATATYPES)}') from None


def datatype_of_numpy(dtype: Any) -> str:
    """The V2 name for a numpy dtype (object, str and bytes are BYTES). Raises SchemaMismatch if there is none."""
    import numpy as np

    dtype = np.dtype(dtype)
    if dtype.kind in "OSU":
        return "BYTES"
    if dtype.name == "bfloat16":
        return "BF16"
    name = _BY_NUMPY.get(dtype.newbyteorder("<").str)
    if name is None:
        raise SchemaMismatch(f"numpy dtype {dtype} has no V2 datatype; expected one of {', '.join(DATATYPES)}")
    return name


def name_element(shape: Sequence[int], place: int, batched: bool = True) -> str:
    """Where the element at that place (row-major) is, in words: `row 2, column 3`; for other ranks than two `row 2,
    element [0][3]`, or `element [3]` where the first axis is none of rows.

    >>> name_element((2, 3), 5), name_element((2, 2, 2), 5), name_element((4,), 3, batched=False)
    ('row 1, column 2', 'row 1, element [0][1]', 'element [3]')
    """
    indices: list[int] = []
    for length in reversed(shape):
        indices.append(place % length)
        place //= length
    indices.reverse()
    return name_place(indices, batched)


def name_place(indices: Sequence[int], batched: bool = True) -> str:
    """As `name_element`, for an element by its indices.

    >>> name_place((2,)), name_place(())
    ('row 2', 'its value')
    """
    if not indices:
        return "its value"
    if not batched:
        return "element " + "".join([f"[{index}]" for index in indices])
    if len(indices) < 3:
        return f"row {indices[0]}" + (f", column {indices[1]}" if len(indices) == 2 else "")
    return f"row {indices[0]}, element " + "".join([f"[{index}]" for index in indices[1:]])


def count_elements(shape: Sequence[int], max_rank: int = MAX_RANK, max_elements: int = MAX_ELEMENTS) -> int:
    """Elements of a tensor of this shape; () is a scalar, a 0 anywhere makes it empty.

    Raises MalformedRequest for a negative dimension or too high a rank, TooLarge for more than `max_elements`.

    >>> count_elements((2, 3, 4))
    24
    """
    if len(shape) > max_rank:
        raise MalformedRequest(f"shape has {len(shape)} dimensions, at most {max_rank} are allowed")
    count = 1
    for dimension in shape:
        if dimension < 0:
            raise MalformedRequest(
                f"shape {str(list(shape))[:200]} has a negative dimension; expected sizes of 0 or more"
            )
        count *= dimension
        if count > max_elements or dimension > max_elements:
            raise TooLarge(f"shape {str(list(shape))[:200]} is over the limit of {max_elements} elements in one tensor")
    return count


def tensor_size_bytes(datatype: Datatype, count: int) -> int:
    """Bytes that `count` elements take; for BYTES the least they can take (their lengths).

    >>> tensor_size_bytes(DATATYPES["FP32"], 10)
    40
    """
    return count * (datatype.size or 4)


def check_tensor_data(tensor: Tensor) -> None:
    """Raise MalformedRequest unless the tensor's data is just what its datatype and shape ask for."""
    datatype = datatype_of(tensor.datatype)
    count = count_elements(tensor.shape)
    if not datatype.size:
        check_bytes_tensor(tensor.data, count)
    elif len(tensor.data) != count * datatype.size:
        wanted = count * datatype.size
        raise MalformedRequest(
            f"{tensor.datatype} {list(tensor.shape)} takes {wanted} bytes, got {len(tensor.data)} bytes"
        )


def to_numpy(tensor: Tensor) -> "Array":
    """The tensor as numpy sees it, without a copy where numpy has the type: such arrays are read-only and share memory.

    BYTES become an object array of bytes; BF16, which numpy lacks, float32. Raises MalformedRequest when the data is
    not what the shape asks for.
    """
    import numpy as np

    datatype = datatype_of(tensor.datatype)
    shape = tensor.shape
    if not datatype.size:
        count = prod(shape)
        elements = np.empty(count, dtype=object)
        elements[:] = decode_elements(tensor.data, count)
        return elements.reshape(shape)
    if len(tensor.data) != prod(shape) * datatype.size:
        check_tensor_data(tensor)
    array = np.frombuffer(tensor.data, dtype=datatype.dtype).reshape(shape)
    if tensor.datatype == "BF16":
        return (array.astype("<u4") << 16).view("<f4")
    return array


def from_numpy(name: str, array: "Array", datatype: str) -> Tensor:
    """A tensor that holds a copy of the array's values as `datatype` (a V2 name).

    Values are converted where numpy calls the types of one kind (float64 to FP32, int32 to INT64), otherwise (float to
    INT64) it raises SchemaMismatch. Floats become BF16 by rounding to nearest, ties to even.
    """
    import numpy as np

    target = datatype_of(datatype)
    if not target.size:
        return Tensor(name, datatype, array.shape, encode_elements(_element_bytes(name, array)))
    if datatype == "BF16":
        return Tensor(name, datatype, array.shape, _to_bf16(name, array).tobytes())
    dtype = np.dtype(target.dtype)
    if array.dtype != dtype:
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise SchemaMismatch(f'tensor "{name}": values of numpy type {array.dtype} are not {datatype}')
        with np.errstate(over="ignore"):
            array = array.astype(dtype)
    return Tensor(name, datatype, array.shape, array.tobytes())


def _element_bytes(name: str, array: "Array") -> list[bytes]:
    """The elements of a BYTES tensor in row-major order: bytes as they are, text as UTF-8."""
    if array.dtype.kind not in "OSU":
        raise SchemaMismatch(f'tensor "{name}": values of numpy type {array.dtype} are not BYTES')
    elements: list[bytes] = []
    for value in array.ravel().tolist():
        if isinstance(value, str):
            elements.append(value.encode("utf-8", "surrogatepass"))
        elif isinstance(value, bytes | bytearray):
            elements.append(bytes(value))
        else:
            raise SchemaMismatch(f'tensor "{name}": a BYTES element is {type(value).__name__}, expected bytes or str')
    return elements


def _to_bf16(name: str, array: "Array") -> "Array":
    """Bits of the nearest bfloat16 of each value, ties to even; a NaN stays a NaN."""
    import numpy as np

    if array.dtype.name == "bfloat16":
        return array.view("<u2")
    if not np.can_cast(array.dtype, np.float32, "same_kind"):
        raise SchemaMismatch(f'tensor "{name}": values of numpy type {array.dtype} are not BF16')
    with np.errstate(over="ignore"):
        exact = np.ascontiguousarray(array, dtype="<f4")
    bits = exact.view("<u4")
    rounded = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype("<u2")
    return np.where(np.isnan(exact), ((bits >> 16) | 0x40).astype("<u2"), rounded).astype("<u2").reshape(array.shape)


def slice_rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    """Rows start … stop of a tensor (slices along its first axis), as a view of the same memory."""
    return split_rows(tensor, (start, stop - start, tensor.shape[0] - stop))[1]


def split_rows(tensor: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """The tensor cut along its first axis into pieces of `counts` rows, which must add up: views of the same memory.

    Linear in the pieces (for BYTES in the elements), so cut a batch once, not once per caller.
    """
    name, datatype, data, shape = tensor.name, tensor.datatype, memoryview(tensor.data), tensor.shape[1:]
    size = DATATYPES[datatype].size
    row_bytes = prod(shape) * size
    offsets = None if size else row_offsets_bytes(data, tensor.shape[0], prod(shape))
    pieces: list[Tensor] = []
    row = first = 0
    for count in counts:
        row += count
        last = offsets[row] if offsets else row * row_bytes
        pieces.append(Tensor(name, datatype, (count, *shape), data[first:last]))
        first = last
    return pieces


def join_rows(tensors: Sequence[Tensor]) -> Tensor:
    """One tensor with the rows of all, in order. They must agree in name, datatype and trailing shape: the batcher
    sees to that. A single tensor is returned as it is."""
    head = tensors[0]
    if len(tensors) == 1:
        return head
    rows = sum(tensor.shape[0] for tensor in tensors)
    data: Buffer = b"".join([tensor.data for tensor in tensors])
    return Tensor(head.name, head.datatype, (rows, *head.shape[1:]), data)
