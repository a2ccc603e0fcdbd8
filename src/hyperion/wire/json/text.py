"""Output tensors as JSON text. Used by every JSON protocol of this room.

JSON has no NaN and no Infinity. Both are written as null: tritonclient and numpy read it back as NaN, KServe's server
does the same, and one bad number does not cost the caller the whole answer. Who must tell them apart asks for binary
data.
"""

import base64
import sys
from collections.abc import Callable
from typing import Any

import orjson

from hyperion.schema.call import Buffer, Tensor
from hyperion.schema.errors import Unsupported
from hyperion.wire.json.plain import PLAIN_BYTES, encode_plain
from hyperion.wire.tensor import DATATYPES, decode_elements, to_numpy

_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_NUMERIC = {name: datatype for name, datatype in DATATYPES.items() if name not in ("BF16", "BYTES")}
_encoders: dict[str, Callable[[Buffer], bytes]] = {}  # by datatype; empty until numpy is imported
_split_encoders: dict[str, Callable[[Buffer, int], list[bytes]]] = {}  # likewise


def encode_flat(tensor: Tensor) -> bytes:
    """The elements as one flat JSON array. Raises Unsupported for BF16 and for BYTES that are not UTF-8."""
    encode = _encoders.get(tensor.datatype)
    if encode is not None:
        return encode(tensor.data)
    datatype = _NUMERIC.get(tensor.datatype)
    if datatype is None:
        return orjson.dumps(_strings(tensor))
    if "numpy" not in sys.modules and memoryview(tensor.data).nbytes <= PLAIN_BYTES:
        return encode_plain(tensor.data, datatype)
    _encoders.update([(name, _make_encoder(one.dtype)) for name, one in _NUMERIC.items()])
    _split_encoders.update([(name, _make_split_encoder(one.dtype)) for name, one in _NUMERIC.items()])
    return encode_flat(tensor)


def _make_encoder(name: str) -> Callable[[Buffer], bytes]:
    import numpy as np

    dumps, frombuffer, dtype = orjson.dumps, np.frombuffer, np.dtype(name)
    return lambda data: dumps(frombuffer(data, dtype), None, _NUMPY)


def encode_split(tensor: Tensor, pieces: int) -> list[bytes] | None:
    """The elements of each of `pieces` equal parts of the tensor as `encode_flat` writes them, but without brackets, in
    one pass. None where only `encode_flat` can: for what is no number, and until numpy is imported."""
    encode = _split_encoders.get(tensor.datatype)
    return encode(tensor.data, pieces) if encode is not None else None


def _make_split_encoder(name: str) -> Callable[[Buffer, int], list[bytes]]:
    import numpy as np

    dumps, frombuffer, dtype = orjson.dumps, np.frombuffer, np.dtype(name)

    def encode(data: Buffer, pieces: int) -> list[bytes]:
        array = frombuffer(data, dtype)
        return dumps(array.reshape(pieces, array.size // pieces), None, _NUMPY)[2:-2].split(b"],[")

    return encode


def encode_nested(tensor: Tensor) -> bytes:
    """The elements as JSON arrays nested as the shape. BYTES that are not UTF-8 become `{"b64": …}` objects."""
    if tensor.datatype == "BYTES":
        return orjson.dumps(nested_values(tensor))
    import numpy as np

    return orjson.dumps(np.ascontiguousarray(to_numpy(tensor)), None, _NUMPY)


def nested_values(tensor: Tensor) -> Any:
    """The tensor as nested lists of Python values (one value if its shape is ()). BYTES that are not UTF-8 become
    `{"b64": …}` objects, as TensorFlow Serving writes them."""
    array = to_numpy(tensor)
    if tensor.datatype != "BYTES":
        return array.tolist()
    import numpy as np

    texts = np.empty(array.size, dtype=object)
    texts[:] = [text_or_base64(element) for element in array.ravel()]
    return texts.reshape(array.shape).tolist()


def text_or_base64(element: bytes) -> str | dict[str, str]:
    """A BYTES element for JSON: text when it is UTF-8, otherwise base64."""
    try:
        return element.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(element).decode()}


def _strings(tensor: Tensor) -> list[str]:
    if tensor.datatype != "BYTES":
        raise Unsupported(
            f'output "{tensor.name}": {tensor.datatype} has no JSON form; ask for it with parameter binary_data: true'
        )
    count = 1
    for length in tensor.shape:
        count *= length
    try:
        return [element.decode() for element in decode_elements(tensor.data, count)]
    except UnicodeDecodeError:
        raise Unsupported(
            f'output "{tensor.name}": its BYTES are not UTF-8 text; ask for it with the parameter binary_data: true'
        ) from None
