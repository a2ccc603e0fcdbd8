"""The binary tensor extension: tensors are views of the body, and sizes that do not add up are refused."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.call import InferenceAnswer, InferenceCall
from hyperion.schema.errors import HyperionError, MalformedRequest, TooLarge, Unsupported
from hyperion.wire.limits import DEFAULT_LIMITS, WireLimits
from hyperion.wire.oip.json import AnswerFormat, decode_infer, encode_answer
from hyperion.wire.tensor import encode_elements, from_numpy, to_numpy
from tests.wire.strategies import NUMERIC, arrays, mutations


def with_binary(inputs: list[dict[str, Any]], data: bytes, **members: Any) -> tuple[bytes, int]:
    head = json.dumps({"inputs": inputs, **members}).encode()
    return head + data, len(head)


def decode(body: bytes, header_length: int, limits: WireLimits = DEFAULT_LIMITS) -> tuple[InferenceCall, AnswerFormat]:
    return decode_infer("m", "", body, header_length, limits)


def described(name: str, shape: list[int], datatype: str, size: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}


@given(st.data())
def test_binary_tensors_of_every_datatype_arrive_and_go_back_with_their_bytes(data: st.DataObject) -> None:
    datatypes = data.draw(st.lists(st.sampled_from([*NUMERIC, "BYTES", "BF16"]), min_size=1, max_size=3))
    tensors = []
    for index, datatype in enumerate(datatypes):
        array = data.draw(arrays("FP32" if datatype == "BF16" else datatype, finite=False))
        tensors.append(from_numpy(f"x{index}", array, datatype))
    inputs = [described(one.name, list(one.shape), one.datatype, len(one.data)) for one in tensors]
    body, length = with_binary(inputs, b"".join(one.data for one in tensors), parameters={"binary_data_output": True})
    call, form = decode(body, length)
    assert [(one.name, one.datatype, one.shape, bytes(one.data)) for one in call.inputs] == [
        (one.name, one.datatype, one.shape, bytes(one.data)) for one in tensors
    ]
    buffers, json_length = encode_answer(InferenceAnswer("m", "1", "", call.inputs), form)
    assert json_length == len(buffers[0])
    outputs = json.loads(bytes(buffers[0]))["outputs"]
    assert [one["parameters"]["binary_data_size"] for one in outputs] == [len(one.data) for one in tensors]
    assert b"".join(buffers[1:]) == b"".join(one.data for one in tensors)


def test_texts_are_limited_over_all_tensors_of_a_request() -> None:
    """Each has a length of its own to be read; a tensor of numbers has not."""
    text = encode_elements([b"a"] * 2)
    inputs = [described(name, [2], "BYTES", len(text)) for name in "ab"]
    body, length = with_binary([*inputs, described("n", [4], "INT8", 4)], text * 2 + bytes(4))
    assert len(decode(body, length, WireLimits(max_bytes_elements=4))[0].inputs) == 3
    with pytest.raises(TooLarge, match="4 BYTES elements, at most 3 are allowed in one request"):
        decode(body, length, WireLimits(max_bytes_elements=3))


def test_binary_data_is_a_view_of_the_body() -> None:
    body, length = with_binary([described("x", [3], "FP32", 12)], np.arange(3, dtype="<f4").tobytes())
    call, _ = decode(body, length)
    assert np.shares_memory(to_numpy(call.inputs[0]), np.frombuffer(body, "u1"))


def test_json_and_binary_inputs_may_be_mixed() -> None:
    small = {"name": "j", "shape": [2], "datatype": "INT8", "data": [1, 2]}
    body, length = with_binary([small, described("b", [1], "INT8", 1)], b"\7")
    assert [bytes(one.data) for one in decode(body, length)[0].inputs] == [b"\1\2", b"\7"]


def test_a_header_length_of_the_whole_body_is_json_alone() -> None:
    body, length = with_binary([{"name": "j", "shape": [1], "datatype": "INT8", "data": [1]}], b"")
    assert bytes(decode(body, length)[0].inputs[0].data) == b"\1"


ONE = described("x", [2], "FP32", 8)
WRONG = [
    ([ONE], b"1234567", None, "binary_data_size is 8, 7 bytes of the body are left"),
    ([ONE], b"123456789", None, "1 bytes that belong to no tensor"),
    ([described("x", [3], "FP32", 8)], b"12345678", None, r"FP32 \[3\] takes 12 bytes, binary_data_size is 8"),
    ([described("x", [2], "FP32", -8)], b"12345678", None, "binary_data_size is -8"),
    ([described("x", [2], "FP32", True)], b"12345678", None, "binary_data_size is True"),
    ([described("x", [2], "FP32", "8")], b"12345678", None, "binary_data_size is '8'"),
    ([ONE | {"data": [1, 2]}], b"12345678", None, "both data and binary_data_size"),
    ([{"name": "x", "shape": [2], "datatype": "FP32"}], b"12345678", None, "data is missing"),
    ([described("x", [2], "BOOL", 2)], b"\1\2", None, "BOOL data has bytes other than 0 and 1"),
    ([described("x", [2], "BYTES", 4)], b"\0\0\0\0", None, "BYTES data of 4 bytes cannot hold 2"),
    ([described("x", [1], "BYTES", 5)], encode_elements([b"ab"])[:5], None, "BYTES element 0"),
    ([ONE], b"12345678", 10_000, "Inference-Header-Content-Length is 10000, the body has"),
    ([ONE], b"12345678", -1, "Inference-Header-Content-Length is -1"),
    ([ONE], b"12345678", 5, "not JSON"),
    ([ONE, ONE], b"1234567812345678", None, 'input "x" is given twice'),
]


@pytest.mark.parametrize(("inputs", "data", "length", "message"), WRONG, ids=range(len(WRONG)))
def test_sizes_that_do_not_add_up_are_refused(
    inputs: list[dict[str, Any]], data: bytes, length: int | None, message: str
) -> None:
    body, right = with_binary(inputs, data)
    with pytest.raises(MalformedRequest, match=message):
        decode(body, right if length is None else length)


def test_more_inputs_than_allowed_are_refused() -> None:
    body, length = with_binary([described(f"x{i}", [1], "INT8", 1) for i in range(100)], b"0" * 100)
    with pytest.raises(TooLarge, match="100 inputs, at most 64"):
        decode(body, length)


def test_raw_binary_requests_are_not_supported_and_say_so() -> None:
    with pytest.raises(Unsupported, match="raw binary"):
        decode(b"12345678", 0)


@given(st.data())
def test_mutated_binary_requests_give_a_call_or_a_typed_error(data: st.DataObject) -> None:
    inputs = [described("x", [2], "FP32", 8), described("s", [2], "BYTES", 11)]
    body, length = with_binary(inputs, b"12345678" + encode_elements([b"ab", b"c"]))
    body = data.draw(mutations(body))
    length = data.draw(st.just(length) | st.integers(-5, len(body) + 5))
    try:
        call, _ = decode(body, length)
    except HyperionError:
        return
    for tensor in call.inputs:
        assert to_numpy(tensor).shape == tensor.shape
