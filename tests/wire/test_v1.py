"""V1, invocations and generate requests become calls by the model's signature; answers are those protocols' JSON."""

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.call import InferenceAnswer, InferenceCall, Tensor
from hyperion.schema.errors import HyperionError, MalformedRequest, SchemaMismatch, TooLarge, Unsupported
from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.generate import decode_generate, encode_generate
from hyperion.wire.invocations import decode_invocations
from hyperion.wire.limits import DEFAULT_LIMITS, WireLimits
from hyperion.wire.sse import encode_event
from hyperion.wire.tensor import encode_elements, from_numpy, to_numpy
from hyperion.wire.v1 import decode_predict, encode_predict
from tests.wire.strategies import JSON_VALUES, mutations

MATRIX = Signature((TensorSpec("x", "FP32", (-1, 3)),), ())
COLUMN = Signature((TensorSpec("x", "FP32", (-1, 1)),), ())
VECTOR = Signature((TensorSpec("x", "INT64", (-1,)),), ())
TEXT = Signature((TensorSpec("s", "BYTES", (-1,)),), ())
FLAG = Signature((TensorSpec("f", "BOOL", (-1, 1)),), ())
TWO = Signature((TensorSpec("a", "FP32", (-1, 1)), TensorSpec("b", "BYTES", (-1,))), ())
IMAGE = Signature((TensorSpec("i", "UINT8", (-1, 2, -1)),), (), batched=True)
PLAIN = Signature((TensorSpec("p", "FP32", (2, 2)),), (), batched=False)


def values(call: InferenceCall) -> dict[str, Any]:
    return {one.name: to_numpy(one).tolist() for one in call.inputs}


def predict(body: Any, signature: Signature, limits: WireLimits = DEFAULT_LIMITS) -> dict[str, Any]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return values(decode_predict("m", "", text, signature, limits))


def invoke(body: Any, signature: Signature, content_type: str = "application/json") -> dict[str, Any]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return values(decode_invocations("m", "", text, content_type, signature, DEFAULT_LIMITS))


def generate(body: Any, signature: Signature, limits: WireLimits = DEFAULT_LIMITS) -> InferenceCall:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode_generate("m", "", text, signature, limits)


@pytest.mark.parametrize(
    ("body", "signature", "expected"),
    [
        ({"instances": [[1, 2, 3], [4, 5, 6.5]]}, MATRIX, {"x": [[1, 2, 3], [4, 5, 6.5]]}),
        ({"instances": [1, 2.5]}, COLUMN, {"x": [[1], [2.5]]}),
        ({"instances": [1, 2]}, VECTOR, {"x": [1, 2]}),
        ({"instances": [{"x": [1, 2, 3]}]}, MATRIX, {"x": [[1, 2, 3]]}),
        ({"instances": [{"b": "s", "a": 1}, {"a": [2], "b": "t"}][:1]}, TWO, {"b": [b"s"], "a": [[1]]}),
        ({"instances": ["é", {"b64": "/w=="}]}, TEXT, {"s": ["é".encode(), b"\xff"]}),
        ({"instances": [{"b64": "/w=="}]}, TEXT, {"s": [b"\xff"]}),
        ({"inputs": [[1, 2, 3]]}, MATRIX, {"x": [[1, 2, 3]]}),
        ({"inputs": {"a": [[1], [2]], "b": ["s", "t"]}}, TWO, {"a": [[1], [2]], "b": [b"s", b"t"]}),
        ({"inputs": {"x": [1, 2]}, "signature_name": "other"}, VECTOR, {"x": [1, 2]}),
    ],
)
def test_v1_rows_and_columns_become_tensors(body: Any, signature: Signature, expected: dict[str, Any]) -> None:
    assert predict(body, signature) == expected
    assert invoke(body, signature) == expected


@pytest.mark.parametrize(
    ("body", "signature", "message"),
    [
        (b"", VECTOR, "not JSON"),
        (b"\xff", VECTOR, "not JSON"),
        ([], VECTOR, "not a V1 request"),
        ({}, VECTOR, "either instances .* or inputs"),
        ({"instances": [1], "inputs": [1]}, VECTOR, "either instances .* or inputs"),
        ({"instances": []}, VECTOR, "instances is empty"),
        ({"instances": 7}, VECTOR, 'input "x": expected an array'),
        ({"instances": [[1, 2], [3]]}, MATRIX, 'input "x": data is ragged'),
        ({"instances": [1]}, TWO, "several inputs are objects"),
        ({"inputs": [1]}, TWO, "object by input name"),
        ({"instances": [{"b64": "?"}]}, TEXT, 'input "s": b64 is not base64'),
        ({"instances": [{"b64": 5}]}, TEXT, 'input "s": BYTES wants strings'),
        (b'{"instances":' + b"[" * 9 + b"]" * 9 + b"}", TEXT, "more than 8 deep"),
        (b'{"instances":' + b"[" * 40 + b"]" * 40 + b"}", TEXT, "more than 32 deep"),
    ],
)
def test_wrong_v1_requests_are_refused_by_name(body: Any, signature: Signature, message: str) -> None:
    with pytest.raises(MalformedRequest, match=message):
        predict(body, signature)


@pytest.mark.parametrize(
    ("body", "signature", "message"),
    [
        ({"instances": ["a"]}, VECTOR, 'input "x": row 0 is a string, expected an integer (INT64)'),
        ({"instances": [1, 1.5]}, VECTOR, 'input "x": row 1 is a float, expected an integer (INT64)'),
        (
            {"instances": [[1, None, 3]]},
            MATRIX,
            'input "x": row 0, column 1 is null, expected a number (FP32)',
        ),
        (
            {"instances": [[1, 2, 1e39]]},
            MATRIX,
            'input "x": row 0, column 2: 1e+39 is out of range for FP32',
        ),
        ({"instances": ["a", 1]}, TEXT, 'input "s": row 1 is an integer, expected a string (BYTES)'),
        ({"instances": [{"a": 1, "b": "s"}, {"a": 1}]}, TWO, 'input "b": row 1 has none, expected one in every row'),
        ({"instances": [{"a": 1}, {"a": 1, "b": "s"}]}, TWO, 'input "b": row 0 has none, expected one in every row'),
    ],
)
def test_values_that_do_not_fit_the_signature_are_named_by_input_row_and_expectation(
    body: Any, signature: Signature, message: str
) -> None:
    for decode in (predict, invoke):
        with pytest.raises(SchemaMismatch) as caught:
            decode(body, signature)
        assert caught.value.message == message


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ({"instances": [{"a": 1, "b": "s", "c": 2}, {"b": "t", "a": 2}]}, 2),
        ({"inputs": {"b": ["s"], "c": {"d": []}, "a": [1]}}, 1),
        ({"dataframe_split": {"columns": ["c", "b", "a"], "data": [[None, "s", 1]]}}, 1),
        ({"dataframe_records": [{"a": 1, "b": "s"}, {"a": 1, "b": "s", "c": {}}]}, 2),
        (b"a,c,b\n1,?,s\n", 1),
        (b"a,c\n1,?\n2,?\n", 2),
        ({"instances": [{"c": 1}]}, 1),
    ],
)
def test_what_is_no_input_of_the_model_is_left_to_the_endpoint_to_ignore_or_refuse(body: Any, rows: int) -> None:
    media = "text/csv" if isinstance(body, bytes) else ""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    inputs = decode_invocations("m", "", text, media, TWO, DEFAULT_LIMITS).inputs
    assert [one.name for one in inputs[:-1]] in (["a", "b"], ["b", "a"], ["a"], [])
    assert inputs[-1] == Tensor("c", "BYTES", (rows,), b"")


def test_bodies_over_the_limit_are_refused_before_they_are_read() -> None:
    limits = WireLimits(max_body_bytes=3)
    with pytest.raises(TooLarge):
        predict(b"not JSON", VECTOR, limits)
    with pytest.raises(TooLarge):
        generate(b"not JSON", VECTOR, limits)
    for content_type in ("text/csv", ""):
        with pytest.raises(TooLarge):
            decode_invocations("m", "", b"1,2,3", content_type, VECTOR, limits)


def answer_of(*outputs: Tensor) -> InferenceAnswer:
    return InferenceAnswer("m", "1", "", outputs)


def tensor(name: str, array: Any, datatype: str) -> Tensor:
    return from_numpy(name, np.array(array), datatype)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([tensor("y", [[1.5, np.nan], [np.inf, 2]], "FP32")], [[1.5, None], [None, 2]]),
        ([tensor("y", [["é"], ["b"]], "BYTES")], [["é"], ["b"]]),
        ([Tensor("y", "BYTES", (2,), encode_elements([b"\xff", b"a"]))], [{"b64": "/w=="}, "a"]),
        ([tensor("y", [1.5, -2], "BF16")], [1.5, -2]),
        ([tensor("y", [[1, 2]], "INT64"), tensor("z", ["a"], "BYTES")], [{"y": [1, 2], "z": "a"}]),
        ([tensor("y", [1, 2], "INT64"), tensor("z", ["a"], "BYTES")], {"y": [1, 2], "z": ["a"]}),
        ([tensor("y", 1, "INT64"), tensor("z", 2, "INT64")], {"y": 1, "z": 2}),
        ([tensor("y", 1, "INT64"), tensor("z", [2], "INT64")], {"y": 1, "z": [2]}),
        ([], {}),
    ],
)
def test_v1_predictions_are_rows(outputs: list[Tensor], expected: Any) -> None:
    assert json.loads(encode_predict(answer_of(*outputs))) == {"predictions": expected}


SPLIT = {"columns": ["p", "q", "r"], "index": [0], "data": [[1, 2, 3], [4, 5, 6]]}


@pytest.mark.parametrize(
    ("body", "signature", "expected"),
    [
        ({"dataframe_split": SPLIT}, MATRIX, {"x": [[1, 2, 3], [4, 5, 6]]}),
        ({"dataframe_split": {"data": [[1, 2, 3]]}}, MATRIX, {"x": [[1, 2, 3]]}),
        (
            {"dataframe_split": {"columns": ["b", "a"], "data": [["s", 1], ["t", 2]]}},
            TWO,
            {"a": [[1], [2]], "b": [b"s", b"t"]},
        ),
        ({"dataframe_split": {"columns": ["x"], "data": [[1], [2]]}}, COLUMN, {"x": [[1], [2]]}),
        (
            {"dataframe_records": [{"p": 1, "q": 2, "r": 3}, {"r": 6, "q": 5, "p": 4}]},
            MATRIX,
            {"x": [[1, 2, 3], [4, 5, 6]]},
        ),
        ({"dataframe_records": [{"b": "s", "a": 1}]}, TWO, {"a": [[1]], "b": [b"s"]}),
        ({"instances": [1], "params": {"k": 1}}, VECTOR, {"x": [1]}),
    ],
)
def test_data_frames_become_tensors(body: Any, signature: Signature, expected: dict[str, Any]) -> None:
    assert invoke(body, signature, "") == expected
    assert invoke(body, signature, "application/json; charset=utf-8") == expected


@pytest.mark.parametrize(
    ("body", "signature", "expected"),
    [
        ({"dataframe_split": {"columns": ["p", "q", "r"], "data": [[1, None, 3]]}}, MATRIX, [[1, np.nan, 3]]),
        ({"dataframe_split": {"columns": ["x"], "data": [[None], [2]]}}, COLUMN, [[np.nan], [2]]),
        ({"dataframe_records": [{"x": None}, {"x": 2}]}, COLUMN, [[np.nan], [2]]),
        ({"dataframe_records": [{"x": None}]}, Signature((TensorSpec("x", "FP32", (-1,)),), ()), [np.nan]),
        ({"dataframe_records": [{"x": [None, 1, 2]}]}, MATRIX, [[np.nan, 1, 2]]),
    ],
)
def test_empty_cells_of_float_columns_are_nan(body: Any, signature: Signature, expected: Any) -> None:
    np.testing.assert_array_equal(invoke(body, signature)["x"], expected)


def test_params_of_an_invocation_are_for_the_model() -> None:
    body = b'{"instances":[1],"params":{"k":1}}'
    assert decode_invocations("m", "", body, "", VECTOR, DEFAULT_LIMITS).parameters == {"k": 1}
    with pytest.raises(TooLarge, match="parameters"):
        decode_invocations("m", "", body, "", VECTOR, WireLimits(max_parameters=0))


@pytest.mark.parametrize(
    ("body", "signature", "message"),
    [
        ({}, VECTOR, "just one of instances, inputs, dataframe_split, dataframe_records"),
        ({"instances": [1], "dataframe_records": [{"x": 1}]}, VECTOR, "just one of"),
        ({"dataframe_records": []}, VECTOR, "at least one row"),
        ({"dataframe_records": [1]}, VECTOR, "dataframe_records: Expected"),
        ([], VECTOR, "not a scoring request"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 1]]}}, TWO, 'column "a" is there twice'),
        ({"dataframe_records": [{"p": 1}, {"q": 1}]}, MATRIX, "is not in every row"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, "s"], [1]]}}, TWO, "row 1 has 1 cells, expected 2"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [1]}}, TWO, r"dataframe_split.data"),
        ({"dataframe_split": {"columns": ["p"], "data": [[1, None], [3]]}}, MATRIX, 'input "x": data is ragged'),
        (
            {"dataframe_split": {"columns": ["p"], "data": [[1, None], [2, [3]]]}},
            MATRIX,
            'input "x": FP32 wants numbers',
        ),
    ],
)
def test_wrong_data_frames_are_refused_by_name(body: Any, signature: Signature, message: str) -> None:
    with pytest.raises(MalformedRequest, match=message):
        invoke(body, signature)


@pytest.mark.parametrize(
    ("body", "signature", "message"),
    [
        ({"dataframe_records": [{"c": 1}]}, TWO, "expected the columns a, b, got c"),
        ({"dataframe_split": {"data": [[1]]}}, TWO, "expected the columns a, b, got no column names"),
        (
            {"dataframe_split": {"columns": ["p"], "data": [["s", None]]}},
            MATRIX,
            'input "x": row 0, column 0 is a string, expected a number (FP32)',
        ),
        (
            {"dataframe_split": {"columns": ["p", "q"], "data": [[1, None], [2, 1e39]]}},
            MATRIX,
            'input "x": row 1, column 1: 1e+39 is out of range for FP32',
        ),
        ({"dataframe_records": [{"x": None}]}, VECTOR, 'input "x": row 0 is null, expected an integer (INT64)'),
        ({"dataframe_records": [{"a": 1, "b": "s"}, {"b": "t"}]}, TWO, 'input "a": row 1 has none, expected one'),
        (b"p,q,r\n1,2,3\n1,2,z\n", MATRIX, 'input "x": row 1, column 2 is "z", which is not FP32'),
        (b"x\n1\n1.5\n", VECTOR, 'input "x": row 1 is "1.5", which is not INT64'),
        (b"x\n1\njane@example.com\n", VECTOR, 'input "x": row 1 is "[email]", which is not INT64'),
        (b"f\nmaybe\n", FLAG, 'input "f": row 0, column 0 is "maybe", which is not BOOL'),
        (b"p,q,r\n1e39,2,3\n", MATRIX, 'input "x": row 0, column 0: 1e+39 is out of range for FP32'),
        (b"1,2\n", TWO, "expected the columns a, b, got no column names"),
    ],
)
def test_cells_and_columns_that_do_not_fit_the_signature_are_named(
    body: Any, signature: Signature, message: str
) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        invoke(body, signature, "text/csv" if isinstance(body, bytes) else "")
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("text", "signature", "expected"),
    [
        ("p,q,r\n1,2,3\n4,5,6\n", MATRIX, {"x": [[1, 2, 3], [4, 5, 6]]}),
        ("\ufeff1,2,3\r\n4,5,6e0", MATRIX, {"x": [[1, 2, 3], [4, 5, 6]]}),
        ('b,a\n"s, t",1\n\nu,2\n', TWO, {"a": [[1], [2]], "b": [b"s, t", b"u"]}),
        ("x\n1\n2\n", VECTOR, {"x": [1, 2]}),
        ("1\n2\n", VECTOR, {"x": [1, 2]}),
        ("x\n7\n", COLUMN, {"x": [[7]]}),
        ("f\ntrue\nFalse\n1\n", FLAG, {"f": [[True], [False], [True]]}),
        ("s\né\n", TEXT, {"s": ["é".encode()]}),
    ],
)
def test_csv_with_and_without_a_header_becomes_tensors(
    text: str, signature: Signature, expected: dict[str, Any]
) -> None:
    assert invoke(text.encode(), signature, "text/csv; charset=utf-8") == expected


def test_empty_and_nan_cells_of_csv_are_nan() -> None:
    np.testing.assert_array_equal(invoke(b"p,q,r\n,nan,3\n", MATRIX, "text/csv")["x"], [[np.nan, np.nan, 3]])


@pytest.mark.parametrize(
    ("text", "signature", "message"),
    [
        (b"", MATRIX, "the CSV has no rows"),
        (b"a,b,c\n", MATRIX, "the CSV has no rows"),
        (b"p,q,r\n1,2\n", MATRIX, "row 0 has 2 cells, expected 3"),
        (b"a,b,a\n1,s,2\n", TWO, 'column "a" is there twice'),
        (b'a,b\n"1,2\n', TWO, "not CSV"),
        (b"a,b\n\xff,2\n", TWO, "not UTF-8"),
    ],
)
def test_wrong_csv_is_refused_and_the_message_says_where(text: bytes, signature: Signature, message: str) -> None:
    with pytest.raises(MalformedRequest, match=message):
        invoke(text, signature, "text/csv")


def test_csv_with_more_cells_than_allowed_is_refused() -> None:
    with pytest.raises(TooLarge, match="over the limit of 1 cells"):
        decode_invocations("m", "", b"1,2,3", "text/csv", MATRIX, WireLimits(max_json_elements=1))


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"x\n1\n2\n", "text/csv"),
        (b'{"instances":[{"x":1},{"x":2}]}', ""),
        (b'{"instances":[[1]]}', ""),
        (b'{"dataframe_records":[{"x":1},{"x":2}]}', ""),
        (b'{"dataframe_split":{"columns":["x"],"data":[[1]]}}', ""),
    ],
)
def test_rows_over_the_limit_are_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(TooLarge, match="more than 1 rows"):
        decode_invocations("m", "", body, content_type, VECTOR, WireLimits(max_json_rows=1))


def test_strings_and_members_over_the_limit_are_refused() -> None:
    with pytest.raises(TooLarge, match="more than 1 strings"):
        predict({"instances": ["a", "b"]}, TEXT, WireLimits(max_json_rows=1))
    with pytest.raises(TooLarge, match="more than 1 rows or members"):
        generate({"s": "a", "k": 1}, TEXT, WireLimits(max_json_rows=1))


def test_other_content_types_are_not_supported() -> None:
    with pytest.raises(Unsupported, match='"application/x-npy"'):
        invoke(b"", MATRIX, "application/x-npy")


@pytest.mark.parametrize(
    ("body", "signature", "shape"),
    [
        ({"x": [1, 2, 3]}, MATRIX, (1, 3)),
        ({"x": 5}, VECTOR, (1,)),
        ({"x": [5]}, VECTOR, (1,)),
        ({"x": 5}, COLUMN, (1, 1)),
        ({"s": "text"}, TEXT, (1,)),
        ({"i": [[1, 2, 3], [4, 5, 6]]}, IMAGE, (1, 2, 3)),
        ({"i": [1, 2, 3, 4]}, IMAGE, (1, 2, 2)),
        ({"p": [1, 2, 3, 4]}, PLAIN, (2, 2)),
        ({"p": [[1, 2], [3, 4]]}, PLAIN, (2, 2)),
        ({"t": [1, 2]}, Signature((TensorSpec("t", "INT8", (-1, -1, -1)),), ()), (1, 1, 2)),
        ({"t": []}, Signature((TensorSpec("t", "INT8", (-1, -1)),), ()), (1, 0)),
    ],
)
def test_a_generate_request_is_one_row(body: Any, signature: Signature, shape: tuple[int, ...]) -> None:
    assert generate(body, signature).inputs[0].shape == shape


def test_members_that_are_no_inputs_are_parameters_for_the_model() -> None:
    call = generate({"s": "hi", "id": "7", "parameters": {"stream": False}, "temperature": 0.5, "stop": None}, TEXT)
    assert call.parameters == {"stream": False, "temperature": 0.5, "stop": None}
    assert (call.id, values(call)) == ("7", {"s": [b"hi"]})
    assert generate({"s": "hi", "parameters": None}, TEXT).parameters == {}


def test_among_the_parameters_of_a_generate_request_priority_and_timeout_are_for_the_platform() -> None:
    call = generate({"s": "hi", "parameters": {"priority": 3, "timeout": 250, "k": 1}, "timeout": 30}, TEXT)
    assert (call.priority, call.timeout_ns, call.parameters) == (3, 250_000, {"k": 1, "timeout": 30})
    for parameters in ({"priority": 10}, {"timeout": -1}, {"timeout": "1"}):
        with pytest.raises(
            MalformedRequest, match=f'parameter "{next(iter(parameters))}" is .*, expected a whole number'
        ):
            generate({"s": "hi", "parameters": parameters}, TEXT)


@pytest.mark.parametrize(
    ("body", "signature", "error", "message"),
    [
        ([], TEXT, MalformedRequest, "not a generate request"),
        ({}, TEXT, SchemaMismatch, "no input of the model is given; its inputs are s"),
        ({"s": 5}, TEXT, SchemaMismatch, 'input "s": row 0 is an integer, expected a string'),
        ({"x": [1, None, 3]}, MATRIX, SchemaMismatch, 'input "x": row 0, column 1 is null, expected a number'),
        ({"x": [1, 1e39, 3]}, MATRIX, SchemaMismatch, 'input "x": row 0, column 1: 1e.39 is out of range'),
        ({"s": "a", "id": 5}, TEXT, MalformedRequest, "id is 5"),
        ({"s": "a", "id": [5]}, TEXT, MalformedRequest, "id: expected a string"),
        ({"s": "a", "id": "x" * 2000}, TEXT, TooLarge, "id is over"),
        ({"s": "a", "parameters": 5}, TEXT, MalformedRequest, "parameters: expected an object of single values"),
        ({"s": "a", "k": [5]}, TEXT, MalformedRequest, '"k" .no input of the model.*: expected a single value'),
        ({"s": "a", **{f"k{i}": 1 for i in range(65)}}, TEXT, TooLarge, "65 parameters"),
        ({"x": [1, 2]}, MATRIX, SchemaMismatch, r'input "x": a row has the shape \[3\], got \[2\]'),
        ({"x": [[1, 2, 3]]}, MATRIX, SchemaMismatch, r"got \[1, 3\]"),
        ({"i": [1, 2, 3]}, IMAGE, SchemaMismatch, r"a row has the shape \[2, -1\], got \[3\]"),
        ({"t": [1]}, Signature((TensorSpec("t", "INT8", (-1, 0, -1)),), ()), SchemaMismatch, r"got \[1\]"),
        ({"t": 1}, Signature((TensorSpec("t", "BF16", (-1,)),), ()), Unsupported, 'input "t": BF16'),
    ],
)
def test_wrong_generate_requests_are_refused_by_name(
    body: Any, signature: Signature, error: type[HyperionError], message: str
) -> None:
    with pytest.raises(error, match=message):
        generate(body, signature)


def test_generate_answers_are_flat() -> None:
    outputs = [tensor("text", [["hé"]], "BYTES"), tensor("p", [[0.5, np.nan]], "FP64"), Tensor("n", "INT8", (0,), b"")]
    outputs.append(Tensor("raw", "BYTES", (1,), encode_elements([b"\xff"])))
    assert json.loads(encode_generate(answer_of(*outputs))) == {
        "model_name": "m",
        "model_version": "1",
        "text": "hé",
        "p": [0.5, None],
        "n": [],
        "raw": {"b64": "/w=="},
    }


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (b"[DONE]", b"data: [DONE]\n\n"),
        (b"a\nb\r\nc\rd", b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (b"", b"data: \n\n"),
    ],
)
def test_events_frame_their_data(data: bytes, event: bytes) -> None:
    assert encode_event(data) == event


SIGNATURES = [MATRIX, COLUMN, VECTOR, TEXT, FLAG, TWO, IMAGE, PLAIN]
MEMBERS = st.sampled_from(
    ["instances", "inputs", "dataframe_split", "dataframe_records", "params", "x", "s", "a", "b", "id", "parameters"]
)


@given(st.sampled_from(SIGNATURES), st.dictionaries(MEMBERS, JSON_VALUES, max_size=3))
def test_arbitrary_json_gives_a_call_or_a_typed_error(signature: Signature, body: dict[str, Any]) -> None:
    for decode in (predict, invoke, generate):
        with contextlib.suppress(HyperionError):
            decode(body, signature)


@given(st.sampled_from(SIGNATURES), st.data())
def test_mutated_bodies_give_a_call_or_a_typed_error(signature: Signature, data: st.DataObject) -> None:
    bodies = [
        b'{"instances":[{"a":1,"b":"s"},{"a":2,"b":"t"}]}',
        b'{"inputs":{"a":[1,2],"b":["s","t"]}}',
        b'{"instances":[[1,2,3],[4,5,6]]}',
        b'{"dataframe_split":{"columns":["b","a"],"data":[["s",1],["t",null]]}}',
        b'{"dataframe_records":[{"x":1},{"x":null}],"params":{"k":1}}',
        b'{"s":"text","id":"7","parameters":{"k":1}}',
    ]
    body = data.draw(mutations(data.draw(st.sampled_from(bodies))))
    for decode in (predict, invoke, generate):
        with contextlib.suppress(HyperionError):
            decode(body, signature)


@given(st.sampled_from(SIGNATURES), st.text(alphabet='abx,"\n\r1.e-\0é', max_size=40))
def test_arbitrary_csv_gives_a_call_or_a_typed_error(signature: Signature, text: str) -> None:
    with contextlib.suppress(HyperionError):
        invoke(text.encode(), signature, "text/csv")
