"""Small tensors of numbers as JSON text without numpy, whose import takes as long as a small model.

Used by `text` for the first answers of a process only: some 20 times slower than numpy and orjson, same numbers.
"""

from collections.abc import Sequence
from math import isfinite
from struct import Struct as Packer

import orjson

from hyperion.schema.call import Buffer
from hyperion.wire.tensor import Datatype

PLAIN_BYTES = 1024  # larger tensors are worth the import

_pack_float = Packer("<f").pack


def encode_plain(data: Buffer, datatype: Datatype) -> bytes:
    """Numbers of any datatype that has a struct code as a flat JSON array; NaN and Infinity are null.

    >>> from hyperion.wire.tensor import DATATYPES
    >>> encode_plain(bytes.fromhex("cdcccc3d0000c07f"), DATATYPES["FP32"])
    b'[0.1,null]'
    """
    data = bytes(data)
    values: Sequence[float] = Packer(f"<{len(data) // datatype.size}{datatype.code}").unpack(data)
    if datatype.kind == "f" and datatype.size < 8:
        values = [_shorten(value) for value in values]
    return orjson.dumps(values)


def _shorten(value: float) -> float:
    """The number with the fewest digits, from 6 on, that is the same float32: 0.1 for 0.10000000149011612."""
    if not isfinite(value):
        return value
    exact = _pack_float(value)
    short = (float(f"{value:.{digits}g}") for digits in (6, 7, 8))
    return next((number for number in short if _pack_float(number) == exact), float(f"{value:.9g}"))
