"""Hypothesis strategies for arrays of every V2 datatype and for bodies that are nearly requests."""

import json
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hyperion.wire.tensor import DATATYPES

NUMERIC = [name for name in DATATYPES if name not in ("BF16", "BYTES")]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
Array = np.ndarray[Any, Any]


def arrays(datatype: str, finite: bool = True, shapes: st.SearchStrategy[tuple[int, ...]] = SHAPES) -> Any:
    """Arrays of the numpy type of a numeric datatype, or of str or bytes objects for BYTES."""
    if datatype == "BYTES":
        return hnp.arrays(object, shapes, elements=st.text(max_size=6).map(str.encode))
    dtype = np.dtype(DATATYPES[datatype].dtype)
    if dtype.kind == "f" and finite:
        return hnp.arrays(dtype, shapes, elements=hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False))
    return hnp.arrays(dtype, shapes)


def json_values(array: Array, nested: bool) -> Any:
    """What a client puts into `data` for an array: flat, or nested as its shape."""
    if array.dtype == object:
        texts = np.empty(array.shape, dtype=object)
        texts.ravel()[:] = [element.decode() for element in array.ravel()]
        array = np.array(texts, dtype=object)
    return array.tolist() if nested and array.ndim else array.ravel().tolist()


def request_body(array: Array, datatype: str, nested: bool = False, **members: Any) -> bytes:
    """A V2 request with one input x that holds the array."""
    one = {"name": "x", "shape": list(array.shape), "datatype": datatype, "data": json_values(array, nested)}
    return json.dumps({"inputs": [one], **members}).encode()


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


@st.composite
def mutations(draw: st.DrawFn, body: bytes) -> bytes:
    """The body with up to four edits: bytes replaced, cut out, doubled or put in."""
    text = bytearray(body)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(0, 8)))
        edit = draw(st.sampled_from(["cut", "double", "put", "swap"]))
        piece = bytes(text[start:stop])
        if edit == "cut":
            text[start:stop] = b""
        elif edit == "double":
            text[start:start] = piece
        elif edit == "put":
            tokens = [
                b"[",
                b"]",
                b"{",
                b"}",
                b",",
                b":",
                b'"',
                b"-",
                b"1e999",
                b"null",
                b"true",
                b"\\",
                b"\xff",
                b"9" * 30,
            ]
            text[start:start] = draw(st.sampled_from(tokens))
        else:
            text[start:stop] = draw(st.binary(min_size=len(piece), max_size=len(piece)))
    return bytes(text)
