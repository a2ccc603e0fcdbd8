"""V2 answers, errors, metadata and the repository extension's bodies are the protocol's, and always JSON."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.call import BatchAnswer, InferenceAnswer, Tensor
from hyperion.schema.errors import MalformedRequest, TooLarge, Unsupported
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.snapshot import ModelState
from hyperion.wire.limits import DEFAULT_LIMITS, WireLimits
from hyperion.wire.oip import answer as oip_answer
from hyperion.wire.oip.answer import encode_together
from hyperion.wire.oip.json import (
    ALL_JSON,
    AnswerFormat,
    decode_index_request,
    decode_repository_parameters,
    encode_answer,
    encode_error,
    encode_index,
    encode_model_metadata,
    encode_server_metadata,
)
from hyperion.wire.tensor import encode_elements, from_numpy, split_rows
from tests.wire.strategies import NUMERIC, arrays


def answer_of(*outputs: Tensor) -> InferenceAnswer:
    return InferenceAnswer("m", "1", "sha256:0", outputs)


def no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


def read(answer: InferenceAnswer, form: AnswerFormat = ALL_JSON) -> Any:
    buffers, length = encode_answer(answer, form)
    assert length is None
    return json.loads(b"".join(bytes(one) for one in buffers), parse_constant=no_constant)


@given(st.data())
def test_a_batch_is_written_as_each_of_its_answers_alone(data: st.DataObject) -> None:
    calls, rows = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    outputs = []
    for index in range(data.draw(st.integers(1, 3))):
        datatype = data.draw(st.sampled_from(NUMERIC))
        trailing = data.draw(st.lists(st.integers(0, 3), max_size=2))
        array = data.draw(arrays(datatype, False, st.just((calls * rows, *trailing))))
        outputs.append(from_numpy(f"y{index}", array, datatype))
    pieces = [split_rows(output, [rows] * calls) for output in outputs]
    alone = [encode_answer(answer_of(*one), ALL_JSON)[0][0] for one in zip(*pieces, strict=True)]
    batch = BatchAnswer("m", "1", "sha256:0", tuple(outputs), rows, [0] * calls)
    assert encode_together(batch) == alone


def test_a_batch_with_an_output_that_is_no_number_is_not_written_together() -> None:
    words = Tensor("y", "BYTES", (2,), encode_elements([b"a", b"b"]))
    assert encode_together(BatchAnswer("m", "1", "", (words,), 1, [0, 0])) is None


def test_the_shapes_that_batches_were_written_for_are_forgotten_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(oip_answer, "_TEMPLATES_KEPT", 2)
    for columns in range(1, 6):
        output = from_numpy("y", np.zeros((2, columns), "<f4"), "FP32")
        encode_answer(answer_of(output), ALL_JSON)
        bodies = encode_together(BatchAnswer("m", "1", "", (output,), 1, [0, 0]))
        assert bodies is not None
        assert [json.loads(body)["outputs"][0]["data"] for body in bodies] == [[0.0] * columns] * 2


@given(st.data())
def test_outputs_of_every_datatype_are_flat_json_with_their_values(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(NUMERIC))
    array = data.draw(arrays(datatype, finite=False))
    (output,) = read(answer_of(from_numpy("y", array, datatype)))["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("y", datatype, list(array.shape))
    expected = [None if isinstance(v, float) and not math.isfinite(v) else v for v in array.ravel().tolist()]
    if datatype in ("FP16", "FP32"):
        back = np.array(output["data"], dtype=array.dtype)
        np.testing.assert_array_equal(back, np.array(expected, dtype=array.dtype))
    else:
        assert output["data"] == expected


def test_nan_and_infinity_are_null() -> None:
    values = np.array([1.5, np.nan, np.inf, -np.inf], "f4")
    assert read(answer_of(from_numpy("y", values, "FP32")))["outputs"][0]["data"] == [1.5, None, None, None]


def test_names_need_no_care() -> None:
    """Percent signs, quotes and control characters in names and ids come through."""
    name = '100% "sure"\n%s %b é'
    answer = InferenceAnswer(name, name, "", (from_numpy(name, np.zeros(1, "i1"), "INT8"),))
    for form in (ALL_JSON, AnswerFormat(name), ALL_JSON):
        found = read(answer, form)
        assert (
            found.get("id", name)
            == found["model_name"]
            == found["model_version"]
            == found["outputs"][0]["name"]
            == name
        )


def test_an_id_is_repeated_and_none_is_made_up() -> None:
    answer = answer_of(from_numpy("y", np.zeros(1, "i1"), "INT8"))
    assert read(answer, AnswerFormat("7"))["id"] == "7"
    assert "id" not in read(answer, AnswerFormat())
    assert "id" not in read(answer)


@pytest.mark.parametrize("count", [0, 2, 3])
def test_several_outputs_and_none_are_answered(count: int) -> None:
    outputs = [from_numpy(f"y{i}", np.full((1, i), i, "i4"), "INT32") for i in range(count)]
    for _ in range(2):
        found = read(answer_of(*outputs))
        assert [one["data"] for one in found["outputs"]] == [[i] * i for i in range(count)]


def test_shapes_that_keep_changing_do_not_fill_the_memory() -> None:
    for columns in range(2100):
        read(answer_of(Tensor("y", "INT8", (columns, 0), b"")))
    assert len(oip_answer._templates) <= 1024


def test_bytes_are_text_when_they_are_utf8_and_an_error_that_suggests_binary_when_not() -> None:
    good = Tensor("y", "BYTES", (1, 2), encode_elements(["é".encode(), b""]))
    assert read(answer_of(good))["outputs"][0]["data"] == ["é", ""]
    bad = Tensor("y", "BYTES", (1,), encode_elements([b"\xff"]))
    with pytest.raises(Unsupported, match=r'output "y": its BYTES are not UTF-8.*binary_data'):
        encode_answer(answer_of(bad), ALL_JSON)
    buffers, _ = encode_answer(answer_of(bad), AnswerFormat(binary=True))
    assert buffers[1] == bad.data


def test_bf16_goes_as_binary_only() -> None:
    tensor = from_numpy("y", np.ones(2, "f4"), "BF16")
    with pytest.raises(Unsupported, match='output "y": BF16 has no JSON form'):
        encode_answer(answer_of(tensor), ALL_JSON)
    assert encode_answer(answer_of(tensor), AnswerFormat(binary=True))[0][1] == tensor.data


def test_each_output_goes_as_its_caller_asked() -> None:
    outputs = [from_numpy(name, np.array([1, 2], "i2"), "INT16") for name in "abc"]
    buffers, length = encode_answer(answer_of(*outputs), AnswerFormat("7", False, {"b": True, "c": False}))
    assert length == len(buffers[0])
    found = json.loads(bytes(buffers[0]))
    assert found["id"] == "7"
    a, b, c = found["outputs"]
    assert a["data"] == c["data"] == [1, 2]
    assert b["parameters"] == {"binary_data_size": 4}
    assert "data" not in b
    assert bytes(buffers[1]) == outputs[1].data


def test_binary_asked_for_outputs_that_are_not_there_leaves_plain_json() -> None:
    answer = answer_of(from_numpy("a", np.array([1], "i2"), "INT16"))
    assert read(answer, AnswerFormat("", False, {"zz": True}))["outputs"][0]["data"] == [1]


@pytest.mark.parametrize("message", ['a "quoted" é\n', "\ud800 alone"])
def test_errors_are_the_protocols_object_whatever_the_message(message: str) -> None:
    assert json.loads(encode_error(message)).keys() == {"error"}
    assert json.loads(encode_error('say "é"')) == {"error": 'say "é"'}


def test_metadata_of_server_and_model() -> None:
    server = json.loads(encode_server_metadata("hyperion", "0.1"))
    assert (server["name"], server["version"]) == ("hyperion", "0.1")
    assert "binary_tensor_data" in server["extensions"]
    signature = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "BYTES", (-1,)),))
    assert json.loads(encode_model_metadata("m", ("1", "2"), "onnx", signature)) == {
        "name": "m",
        "versions": ["1", "2"],
        "platform": "onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1]}],
    }


def test_the_repository_index() -> None:
    assert json.loads(encode_index([ModelState("m", "1", "READY"), ModelState("n", "", "UNAVAILABLE", "why")])) == [
        {"name": "m", "version": "1", "state": "READY", "reason": ""},
        {"name": "n", "version": "", "state": "UNAVAILABLE", "reason": "why"},
    ]


@pytest.mark.parametrize(("body", "ready"), [(b"", False), (b"{}", False), (b'{"ready":true,"other":[1]}', True)])
def test_index_requests(body: bytes, ready: bool) -> None:
    assert decode_index_request(body, DEFAULT_LIMITS) is ready


@pytest.mark.parametrize(
    ("body", "parameters"),
    [(b"", {}), (b"{}", {}), (b'{"parameters":{"unload_dependents":true}}', {"unload_dependents": True})],
)
def test_load_and_unload_requests(body: bytes, parameters: dict[str, Any]) -> None:
    assert decode_repository_parameters(body, DEFAULT_LIMITS) == parameters


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"x", "not JSON"), (b'{"ready":1}', r"\$.ready"), (b"\xff", "not JSON"), (b"[" * 99, "nested more than 32")],
)
def test_wrong_repository_requests_are_refused(body: bytes, message: str) -> None:
    with pytest.raises(MalformedRequest, match=message):
        decode_index_request(body, DEFAULT_LIMITS)


def test_repository_requests_over_the_limit_are_refused() -> None:
    with pytest.raises(TooLarge):
        decode_repository_parameters(b"{}   ", WireLimits(max_body_bytes=4))
