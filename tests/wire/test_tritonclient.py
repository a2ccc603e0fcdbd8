"""NVIDIA's own client builds requests that we decode, and reads the answers that we encode, for every datatype."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.call import InferenceAnswer
from hyperion.wire.limits import DEFAULT_LIMITS
from hyperion.wire.oip.json import decode_infer, encode_answer
from hyperion.wire.tensor import from_numpy, to_numpy
from tests.wire.strategies import NUMERIC, arrays

http = pytest.importorskip("tritonclient.http")


def exchange(array: Any, datatype: str, binary_in: bool, binary_out: bool | None, **options: Any) -> Any:
    """Send the array as the client does, answer with the tensor that arrived, and read it as the client does."""
    one = http.InferInput("x", list(array.shape), datatype)
    one.set_data_from_numpy(array, binary_data=binary_in)
    outputs = None if binary_out is None else [http.InferRequestedOutput("x", binary_data=binary_out)]
    body, length = http.InferenceServerClient.generate_request_body([one], outputs=outputs, **options)
    call, form = decode_infer("m", "1", body, length, DEFAULT_LIMITS)
    np.testing.assert_array_equal(to_numpy(call.inputs[0]), array)
    buffers, json_length = encode_answer(InferenceAnswer("m", "1", "", call.inputs), form)
    assert (json_length is not None) == (binary_out is not False)
    text = b"".join(bytes(one) for one in buffers)
    result = http.InferenceServerClient.parse_response_body(text, header_length=json_length)
    return call, result


@given(st.data(), st.booleans(), st.sampled_from([None, False, True]))
def test_every_datatype_goes_there_and_back(data: st.DataObject, binary_in: bool, binary_out: bool | None) -> None:
    datatype = data.draw(st.sampled_from([*NUMERIC, "BYTES"]))
    array = data.draw(arrays(datatype, finite=not binary_in))
    _call, result = exchange(array, datatype, binary_in, binary_out)
    found = result.as_numpy("x")
    assert found.shape == array.shape
    if datatype == "BYTES":
        texts = [one if isinstance(one, bytes) else one.encode() for one in found.ravel()]
        assert texts == array.ravel().tolist()
    else:
        expected = array
        if binary_out is False and array.dtype.kind == "f":
            expected = np.where(np.isfinite(array), array, np.nan).astype(array.dtype)
        np.testing.assert_array_equal(found, expected)


def test_bf16_goes_there_and_back_as_binary() -> None:
    array = np.array([[1.0, -2.5, 0.0]], dtype=ml_dtypes.bfloat16)
    _, result = exchange(array, "BF16", True, True)
    np.testing.assert_array_equal(result.as_numpy("x").astype("f4"), array.astype("f4"))


def test_its_options_arrive() -> None:
    call, result = exchange(
        np.ones((1, 2), "f4"), "FP32", True, None, request_id="abc", priority=4, timeout=2500, parameters={"k": "v"}
    )
    assert (call.id, call.priority, call.timeout_ns, call.parameters) == ("abc", 4, 2_500_000, {"k": "v"})
    assert result.get_response()["id"] == "abc"
    assert result.get_response()["model_name"] == "m"


def test_sequence_parameters_reach_the_model() -> None:
    call, _ = exchange(np.ones((1, 2), "f4"), "FP32", True, None, sequence_id=5, sequence_start=True)
    assert call.parameters == {"sequence_id": 5, "sequence_start": True, "sequence_end": False}


def test_several_inputs_in_both_forms_arrive_in_their_order() -> None:
    arrays_in = {"a": np.arange(4, dtype="i8"), "b": np.array([b"x", b"\xff"], object), "c": np.ones((2, 2), "f4")}
    inputs = []
    for (name, array), datatype in zip(arrays_in.items(), ("INT64", "BYTES", "FP32"), strict=True):
        one = http.InferInput(name, list(array.shape), datatype)
        one.set_data_from_numpy(array, binary_data=name != "c")
        inputs.append(one)
    outputs = [http.InferRequestedOutput("b", binary_data=True), http.InferRequestedOutput("c", binary_data=False)]
    body, length = http.InferenceServerClient.generate_request_body(inputs, outputs=outputs)
    call, form = decode_infer("m", "1", body, length, DEFAULT_LIMITS)
    assert call.outputs == ("b", "c")
    for tensor in call.inputs:
        np.testing.assert_array_equal(to_numpy(tensor), arrays_in[tensor.name])
    answer = InferenceAnswer("m", "1", "", tuple(one for one in call.inputs if one.name in call.outputs))
    buffers, json_length = encode_answer(answer, form)
    result = http.InferenceServerClient.parse_response_body(b"".join(map(bytes, buffers)), header_length=json_length)
    assert result.as_numpy("b").tolist() == [b"x", b"\xff"]
    assert result.as_numpy("c").tolist() == [[1, 1], [1, 1]]
    assert from_numpy("c", arrays_in["c"], "FP32") == call.inputs[2]
