"""Typed contents of gRPC tensors: InferTensorContents to the bytes of a tensor, and back.

Protobuf packs BOOL, FP32 and FP64 contents just as our tensors hold them, so these are cut out of the message's own
bytes; integers are variable-length there and go through numpy.
"""

from typing import Any, Final

import numpy as np

from hyperion.schema.call import Tensor
from hyperion.schema.errors import MalformedRequest
from hyperion.wire.bytes_elements import encode_elements
from hyperion.wire.grpc.messages import InferTensorContents
from hyperion.wire.tensor import DATATYPES, Datatype, decode_elements

RAW_ONLY: Final = frozenset({"FP16", "BF16"})

_FIELDS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_PACKED_TAGS: Final = {"BOOL": b"\x0a", "FP32": b"\x32", "FP64": b"\x3a"}  # of fields 1, 6 and 7, length-delimited
_FIELD_TYPES: Final = {"int_contents": "<i4", "int64_contents": "<i8", "uint_contents": "<u4", "uint64_contents": "<u8"}
INTEGERS: Final = frozenset([name for name, field in _FIELDS.items() if field in _FIELD_TYPES])  # converted one by one


def varint(value: int) -> bytes:
    """A number of 0 or more as protobuf's base-128 varint.

    >>> varint(300)
    b'\\xac\\x02'
    """
    if value < 0x80:
        return bytes((value,))
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def decode_contents(contents: Any, datatype: Datatype, count: int) -> bytes:
    """The bytes of a tensor of `count` elements from its InferTensorContents.

    Raises MalformedRequest for elements in the wrong field, of the wrong number, or out of the datatype's range.
    Messages are to be put after the name of the tensor.
    """
    if datatype.name in RAW_ONLY:
        raise MalformedRequest(f"{datatype.name} has no typed contents; send it in raw_input_contents")
    field = _FIELDS[datatype.name]
    given = [descriptor.name for descriptor, _ in contents.ListFields()]
    if given and given != [field]:
        raise MalformedRequest(f"{datatype.name} belongs into {field}, got {', '.join(given)}")
    values = getattr(contents, field)
    if len(values) != count:
        raise MalformedRequest(f"the shape wants {count} elements, {field} has {len(values)}")
    if not count:
        return b""
    if not datatype.size:
        return encode_elements(values)
    if datatype.name in _PACKED_TAGS:
        contents.DiscardUnknownFields()
        packed: bytes = contents.SerializeToString()
        return packed[len(packed) - count * datatype.size :]
    return _integers(values, field, datatype)


def _integers(values: Any, field: str, datatype: Datatype) -> bytes:
    """Integers of a field, which may be wider than the datatype, as the datatype's bytes."""
    wide = np.fromiter(values, _FIELD_TYPES[field], len(values))
    narrow = wide.astype(datatype.dtype)
    if narrow.dtype != wide.dtype:
        wrong = np.flatnonzero(narrow != wide)
        if wrong.size:
            index = int(wrong[0])
            raise MalformedRequest(f"element {index}: {wide[index]} is out of range for {datatype.name}")
    return narrow.tobytes()


def encode_contents(tensor: Tensor) -> bytes:
    """The serialized InferTensorContents of a tensor that has them (any datatype but FP16 and BF16)."""
    name = tensor.datatype
    data = tensor.data
    if name == "BYTES":
        count = 1
        for dimension in tensor.shape:
            count *= dimension
        elements: bytes = InferTensorContents(bytes_contents=decode_elements(data, count)).SerializeToString()
        return elements
    if name in _PACKED_TAGS:
        if not data:
            return b""
        if name == "BOOL":  # a byte over 1 is true for numpy, but over 127 it would not be one whole varint
            data = np.frombuffer(data, "u1").astype("?").tobytes()
        return b"".join((_PACKED_TAGS[name], varint(len(data)), data))
    values = np.frombuffer(data, DATATYPES[name].dtype).tolist()
    integers: bytes = InferTensorContents(**{_FIELDS[name]: values}).SerializeToString()
    return integers
