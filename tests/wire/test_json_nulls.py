"""Null among the elements of an input: refused, unless an endpoint says what stands for it."""

import struct
from math import isnan, nan
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.errors import MalformedRequest, SchemaMismatch, TooLarge, Unsupported
from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.generate import decode_generate
from hyperion.wire.invocations import decode_invocations
from hyperion.wire.json.data import parse_data
from hyperion.wire.json.nulls import Nulls, parse_any_with_nulls, parse_with_nulls
from hyperion.wire.limits import DEFAULT_LIMITS, WireLimits
from hyperion.wire.oip.json import decode_infer
from hyperion.wire.tensor import DATATYPES, to_numpy
from hyperion.wire.v1 import decode_predict

SIGNATURE = Signature(
    (TensorSpec("age", "FP32", (-1,)), TensorSpec("country", "BYTES", (-1,)), TensorSpec("visits", "INT64", (-1,))),
    (TensorSpec("y", "FP32", (-1,)),),
)
ONE = Signature((TensorSpec("x", "FP32", (-1, 2)),), SIGNATURE.outputs)
TEXT = Signature((TensorSpec("x", "BYTES", (-1,)),), SIGNATURE.outputs)
NULLS: Nulls = {"age": nan, "country": "", "visits": 7, "x": nan}


def infer(inputs: list[dict[str, Any]], nulls: Nulls = NULLS) -> tuple[Tensor, ...]:
    return decode_infer("m", "", orjson.dumps({"inputs": inputs}), None, DEFAULT_LIMITS, nulls)[0].inputs


def values(call: InferenceCall) -> dict[str, Any]:
    return {tensor.name: to_numpy(tensor).tolist() for tensor in call.inputs}


def same(found: Any, wanted: Any) -> bool:
    """Equal, with NaN equal to itself."""
    return repr(found) == repr(wanted)


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "value", "wanted"),
    [
        ("FP32", [3], [1, None, 2.5], nan, [1.0, nan, 2.5]),
        ("FP64", [1, 2], [[None, None]], -1, [[-1.0, -1.0]]),
        ("FP16", [1, 2], [None, 1], 0.5, [[0.5, 1.0]]),
        ("INT64", [2], [None, 3], 7, [7, 3]),
        ("UINT8", [2, 2], [[1, 2], [3, None]], 255, [[1, 2], [3, 255]]),
        ("BOOL", [2], [None, False], True, [True, False]),
        ("BYTES", [3], ["a", None, "null"], "", [b"a", b"", b"null"]),
        ("BYTES", [1, 1, 1], [[[None]]], "ü", [[["ü".encode()]]]),
        ("FP32", [], None, 2, 2.0),
        ("FP32", [1, 2], [None, None], nan, [[nan, nan]]),
    ],
)
def test_what_stands_for_a_null_is_put_in_its_place(
    datatype: str, shape: list[int], data: Any, value: Any, wanted: Any
) -> None:
    given_input = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
    (tensor,) = infer([given_input], {"x": value})
    assert (tensor.datatype, tensor.shape) == (datatype, tuple(shape))
    assert same(to_numpy(tensor).tolist(), wanted)
    for nulls in (None, {"z": value}):
        with pytest.raises(SchemaMismatch, match=r'input "x": (row \d.*|its value) is null, expected .* \('):
            infer([given_input], nulls)


def test_each_input_has_its_own() -> None:
    found = infer(
        [
            {"name": "age", "datatype": "FP32", "shape": [2], "data": [None, 1]},
            {"name": "country", "datatype": "BYTES", "shape": [2], "data": [None, "DE"]},
            {"name": "visits", "datatype": "INT64", "shape": [2], "data": [None, 1]},
        ]
    )
    assert same([to_numpy(tensor).tolist() for tensor in found], [[nan, 1.0], [b"", b"DE"], [7, 1]])


def test_large_requests_may_have_nulls_as_well() -> None:
    data: list[float | None] = [float(index) for index in range(5000)]
    data[4321] = None
    (tensor,) = infer([{"name": "x", "datatype": "FP32", "shape": [100, 50], "data": data}])
    assert np.isnan(to_numpy(tensor).ravel()).nonzero()[0].tolist() == [4321]


def test_a_request_that_was_seen_before_may_have_a_null_the_next_time() -> None:
    for element in (1.0, None, 2.0, None):
        (tensor,) = infer([{"name": "x", "datatype": "FP32", "shape": [1], "data": [element]}])
        assert same(to_numpy(tensor).tolist(), [nan if element is None else element])


@pytest.mark.parametrize(
    ("datatype", "shape", "text", "message"),
    [
        ("FP32", (2,), b"[null]", "shape [2] does not fit data nested as [1]"),
        ("FP32", (2, 2), b"[[null,1,2,3]]", "shape [2, 2] does not fit data nested as [1, 4]"),
        ("FP32", (2,), b"[null,[1]]", "FP32: Expected float | null, got array - at $[1]"),
        ("FP32", (2,), b"[null,true]", "row 1 is a boolean, expected a number (FP32)"),
        ("INT8", (2,), b"[null,1.5]", "row 1 is a float, expected an integer (INT8)"),
        ("INT8", (2,), b"[null,300]", "row 1: 300 is out of range for INT8"),
        ("INT8", (2, 2), b"[null,1,2,300]", "row 1, column 1: 300 is out of range for INT8"),
        ("INT8", (2, 2), b"[null,1,2,true]", "row 1, column 1 is a boolean, expected an integer (INT8)"),
        ("FP32", (2, 1), b"[null,[1]]", "FP32: Expected float | null"),
        ("FP32", (2, 1), b"[[1],null]", "FP32: Expected array, got null - at $[1]"),
        ("FP32", (2, 1), b"[[1],[null,1]]", "data is ragged"),
        ("FP32", (2,), b"[null,", "FP32: Input data was truncated"),
        ("FP32", (2,), b"[null,nul]", "FP32: JSON is malformed"),
        ("FP32", (1,), b"[" * 9 + b"null" + b"]" * 9, "nested more than 8 deep"),
    ],
)
def test_what_else_is_wrong_is_said(datatype: str, shape: tuple[int, ...], text: bytes, message: str) -> None:
    fits_not = message.startswith("row ")
    with pytest.raises(SchemaMismatch if fits_not else MalformedRequest) as caught:
        parse_with_nulls(text, DATATYPES[datatype], shape, int(np.prod(shape)), DEFAULT_LIMITS, 0)
    assert caught.value.message.startswith(message) or message in caught.value.message


def test_the_limits_hold_for_nulls_as_well() -> None:
    small = WireLimits(max_json_elements=100, max_json_rows=100)
    many = b"[" + b"null," * 200 + b"null]"
    with pytest.raises(TooLarge):
        parse_with_nulls(many, DATATYPES["FP32"], (201,), 201, small, 0.0)
    with pytest.raises(TooLarge):
        parse_any_with_nulls(many, DATATYPES["FP32"], small, 0.0)
    with pytest.raises(TooLarge):
        parse_any_with_nulls(b"[" + b"[null]," * 200 + b"[1]]", DATATYPES["FP32"], small, 0.0)


def test_bfloat16_has_no_json_form_with_nulls_either() -> None:
    with pytest.raises(Unsupported):
        parse_with_nulls(b"[null]", DATATYPES["BF16"], (1,), 1, DEFAULT_LIMITS, 0.0)


@given(st.lists(st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20), st.booleans())
def test_text_with_nulls_is_read_as_the_text_with_what_stands_for_them(row: list[float | None], nested: bool) -> None:
    shape = (1, len(row)) if nested else (len(row),)
    rows = [row] if nested else row
    filled = [5.0 if element is None else element for element in row]
    text = orjson.dumps(rows)
    wanted = parse_data(
        orjson.dumps([filled] if nested else filled), DATATYPES["FP32"], shape, len(row), DEFAULT_LIMITS
    )
    assert parse_with_nulls(text, DATATYPES["FP32"], shape, len(row), DEFAULT_LIMITS, 5.0) == wanted
    assert parse_any_with_nulls(text, DATATYPES["FP32"], DEFAULT_LIMITS, 5.0) == (shape, wanted)


RECORDS = [{"age": None, "country": None, "visits": None}, {"age": 3, "country": "DE", "visits": 2}]
WANTED = {"age": [nan, 3.0], "country": [b"", b"DE"], "visits": [7, 2]}


@pytest.mark.parametrize(
    "body",
    [
        {"instances": RECORDS},
        {"inputs": {"age": [None, 3], "country": [None, "DE"], "visits": [None, 2]}},
    ],
)
def test_v1_and_invocations_take_nulls(body: Any) -> None:
    text = orjson.dumps(body)
    assert same(values(decode_predict("m", "", text, SIGNATURE, DEFAULT_LIMITS, NULLS)), WANTED)
    assert same(values(decode_invocations("m", "", text, "", SIGNATURE, DEFAULT_LIMITS, NULLS)), WANTED)
    with pytest.raises(SchemaMismatch, match='input "age": row 0 is null, expected a number'):
        decode_predict("m", "", text, SIGNATURE, DEFAULT_LIMITS)


@pytest.mark.parametrize("body", [{"instances": [[1, None]]}, {"inputs": [[1, None]]}])
def test_a_model_with_one_input_takes_nulls_in_its_rows(body: Any) -> None:
    assert same(values(decode_predict("m", "", orjson.dumps(body), ONE, DEFAULT_LIMITS, NULLS)), {"x": [[1.0, nan]]})


def test_texts_and_base64_stand_beside_nulls() -> None:
    body = orjson.dumps({"instances": ["a", None, {"b64": "/w=="}]})
    assert values(decode_predict("m", "", body, TEXT, DEFAULT_LIMITS, {"x": "?"})) == {"x": [b"a", b"?", b"\xff"]}


def test_generate_takes_nulls() -> None:
    call = decode_generate("m", "", b'{"x": [null, 2], "top": null}', ONE, DEFAULT_LIMITS, NULLS)
    assert same(values(call), {"x": [[nan, 2.0]]})
    assert call.parameters == {"top": None}
    with pytest.raises(SchemaMismatch, match="row 0, column 0 is null"):
        decode_generate("m", "", b'{"x": [null, 2]}', ONE, DEFAULT_LIMITS)


def test_an_empty_cell_of_a_data_frame_is_nan_whatever_the_rule() -> None:
    body = orjson.dumps({"dataframe_split": {"columns": ["a", "b"], "data": [[1, None]]}})
    found = decode_invocations("m", "", body, "", ONE, DEFAULT_LIMITS, {"x": 9.0}).inputs[0]
    assert isnan(struct.unpack("<2f", found.data)[1])
