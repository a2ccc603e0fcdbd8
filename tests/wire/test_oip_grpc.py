"""Inference messages of gRPC: decoded to calls, encoded from answers, refused when they are wrong."""

import contextlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hyperion.schema.call import InferenceAnswer, Tensor
from hyperion.schema.errors import HyperionError, MalformedRequest, TooLarge, Unsupported
from hyperion.wire.grpc.contents import encode_contents, varint
from hyperion.wire.grpc.messages import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from hyperion.wire.limits import DEFAULT_LIMITS, WireLimits
from hyperion.wire.oip.grpc import (
    AnswerFormat,
    decode_infer,
    encode_infer,
    encode_stream_answer,
    encode_stream_error,
)
from hyperion.wire.tensor import DATATYPES, encode_elements

TYPED: dict[str, tuple[str, list[Any]]] = {
    "BOOL": ("bool_contents", [True, False, True]),
    "UINT8": ("uint_contents", [0, 7, 255]),
    "UINT16": ("uint_contents", [0, 7, 65535]),
    "UINT32": ("uint_contents", [0, 7, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 7, 2**64 - 1]),
    "INT8": ("int_contents", [-128, 0, 127]),
    "INT16": ("int_contents", [-32768, 0, 32767]),
    "INT32": ("int_contents", [-(2**31), 0, 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 0, 2**63 - 1]),
    "FP32": ("fp32_contents", [0.5, -1.25, float("inf")]),
    "FP64": ("fp64_contents", [0.1, -1e300, float("-inf")]),
    "BYTES": ("bytes_contents", [b"", b"\x00\xff", "ü".encode()]),
}


def a_message(answer: InferenceAnswer, form: AnswerFormat) -> bytes:
    """What `encode_infer` gives, without its prefix."""
    framed = encode_infer(answer, form)
    assert framed[:5] == b"\0" + (len(framed) - 5).to_bytes(4)
    return framed[5:]


def tensor_bytes(datatype: str, values: list[Any]) -> bytes:
    return encode_elements(values) if datatype == "BYTES" else np.array(values, DATATYPES[datatype].dtype).tobytes()


def a_request(**changes: Any) -> Any:
    """A good request of one raw FP32 input, with changes."""
    request = ModelInferRequest(model_name="m", raw_input_contents=[bytes(8)])
    request.inputs.add(name="x", datatype="FP32", shape=[2])
    for name, value in changes.items():
        if isinstance(value, list):
            del getattr(request, name)[:]
            getattr(request, name).extend(value)
        else:
            setattr(request, name, value)
    return request


def decode(request: Any, limits: WireLimits = DEFAULT_LIMITS) -> Any:
    return decode_infer(request.SerializeToString(), limits)


@pytest.mark.parametrize("datatype", sorted(TYPED))
def test_typed_contents_become_the_bytes_of_their_datatype(datatype: str) -> None:
    field, values = TYPED[datatype]
    request = ModelInferRequest(model_name="m", model_version="3", id="one")
    one = request.inputs.add(name="x", datatype=datatype, shape=[3, 1])
    getattr(one.contents, field).extend(values)
    call, form = decode(request)
    assert (call.model, call.version, call.id) == ("m", "3", "one")
    assert call.inputs == (Tensor("x", datatype, (3, 1), tensor_bytes(datatype, values)),)
    assert form == AnswerFormat("one", raw=False)


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
def test_raw_contents_are_the_bytes_of_the_tensor(datatype: str) -> None:
    data = encode_elements([b"a", b""]) if datatype == "BYTES" else bytes(range(2 * DATATYPES[datatype].size))
    request = ModelInferRequest(model_name="m", raw_input_contents=[data, bytes(4)])
    request.inputs.add(name="x", datatype=datatype, shape=[2])
    request.inputs.add(name="y", datatype="INT32", shape=[])
    call, form = decode(request)
    assert call.inputs == (Tensor("x", datatype, (2,), data), Tensor("y", "INT32", (), bytes(4)))
    assert form.raw


def test_large_raw_contents_are_views_of_the_request() -> None:
    big = bytes(range(256)) * 1024
    request = ModelInferRequest(model_name="m", id="one", raw_input_contents=[big, bytes(8)])
    request.inputs.add(name="x", datatype="UINT8", shape=[len(big)])
    request.inputs.add(name="y", datatype="FP32", shape=[2])
    request.outputs.add(name="z")
    data = request.SerializeToString()
    call, form = decode_infer(data)
    assert [bytes(tensor.data) for tensor in call.inputs] == [big, bytes(8)]
    assert all(isinstance(tensor.data, memoryview) and tensor.data.obj is data for tensor in call.inputs)
    assert (call.id, call.outputs, form) == ("one", ("z",), AnswerFormat("one"))


def field(tag: int, data: bytes) -> bytes:
    return bytes([tag]) + varint(len(data)) + data


HEAD = a_request(raw_input_contents=[]).SerializeToString()
BIG_INPUT = field(0x2A, b"\x0a\x01x\x12\x05UINT8" + field(0x1A, varint(70_000)))
UNUSUAL = {
    "raw contents before the inputs": field(0x0A, b"m") + field(0x3A, bytes(70_000)) + BIG_INPUT,
    "an unknown field": field(0x0A, b"m") + BIG_INPUT + field(0x42, b"new") + field(0x3A, bytes(70_000)),
    "a number": field(0x0A, b"m") + BIG_INPUT + b"\x40\x01" + field(0x3A, bytes(70_000)),
    "a length of many bytes": field(0x0A, b"m") + BIG_INPUT + b"\x3a\xf0\xa2\x84\x80\x00" + bytes(70_000),
}


@pytest.mark.parametrize("what", sorted(UNUSUAL))
def test_a_large_request_written_in_an_unusual_way_means_the_same(what: str) -> None:
    call, _ = decode_infer(UNUSUAL[what])
    assert call.inputs == (Tensor("x", "UINT8", (70_000,), bytes(70_000)),)


def test_a_large_typed_request_is_decoded_too() -> None:
    request = typed("FP32", [30_000], fp32_contents=[1.0] * 30_000)
    call, form = decode(request)
    assert call.inputs[0].data == struct.pack("<f", 1.0) * 30_000
    assert not form.raw


@pytest.mark.parametrize("cut", [1, 2, 3, 60_000, 70_000, 70_003])
def test_a_large_request_that_is_cut_off_is_malformed(cut: int) -> None:
    whole = field(0x0A, b"m") + BIG_INPUT + field(0x3A, bytes(70_000)) + field(0x0A, b"m" * 70_000)
    with pytest.raises(MalformedRequest):
        decode_infer(whole[:-cut])


def test_a_large_request_with_an_overlong_length_is_malformed() -> None:
    with pytest.raises(MalformedRequest, match="not a message"):
        decode_infer(field(0x0A, b"m") + BIG_INPUT + b"\x3a" + b"\x80" * 11 + bytes(70_000))


def test_a_large_request_of_very_many_raw_contents_is_refused() -> None:
    with pytest.raises(MalformedRequest, match="1 inputs but 40000 raw_input_contents"):
        decode_infer(HEAD + b"\x3a\x00" * 40_000)


def test_an_empty_tensor_needs_no_contents() -> None:
    request = ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[0, 4])
    request.inputs.add(name="y", datatype="BYTES", shape=[0])
    request.inputs.add(name="z", datatype="INT8", shape=[0])
    call, form = decode(request)
    assert [tensor.data for tensor in call.inputs] == [b"", b"", b""]
    assert form.raw


def test_unknown_fields_inside_contents_change_no_element() -> None:
    request = ModelInferRequest(model_name="m")
    one = request.inputs.add(name="x", datatype="FP32", shape=[2])
    one.contents.MergeFromString(
        b"\x32\x08" + struct.pack("<ff", 1, 2) + b"\xfa\x06\x08" + b"\xff" * 8 + b"\xf8\x06\x01"
    )
    call, _ = decode(request)
    assert call.inputs[0].data == struct.pack("<ff", 1, 2)


def test_long_names_within_the_limit_are_kept() -> None:
    request = a_request(id="i" * 1024, inputs=[an_input(name="x" * 1000)])
    call, _ = decode(request)
    assert call.id == "i" * 1024
    assert call.inputs[0].name == "x" * 1000


def test_requested_outputs_are_named_in_their_order() -> None:
    request = a_request()
    request.outputs.add(name="b")
    request.outputs.add(name="a").parameters["binary_data"].bool_param = True
    assert decode(request)[0].outputs == ("b", "a")


def test_parameters_of_every_type_reach_the_model_and_the_platforms_own_do_not() -> None:
    request = a_request(id="7")
    request.parameters["b"].bool_param = True
    request.parameters["i"].int64_param = -3
    request.parameters["s"].string_param = "text"
    request.parameters["d"].double_param = 0.5
    request.parameters["u"].uint64_param = 2**64 - 1
    request.parameters["priority"].uint64_param = 9
    request.parameters["timeout"].int64_param = 1500
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    call, form = decode(request)
    assert call.parameters == {"b": True, "i": -3, "s": "text", "d": 0.5, "u": 2**64 - 1}
    assert (call.priority, call.timeout_ns) == (9, 1_500_000)
    assert form == AnswerFormat("7", raw=True, empty_final=True)


def an_input(**fields: Any) -> Any:
    return ModelInferRequest.InferInputTensor(**({"name": "x", "datatype": "FP32", "shape": [2]} | fields))


def typed(datatype: str, shape: list[int], **contents: Any) -> Any:
    request = ModelInferRequest(model_name="m")
    one = request.inputs.add(name="x", datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(one.contents, field).extend(values)
    return request


WRONG: list[tuple[Any, type[HyperionError], str]] = [
    (a_request(model_name=""), MalformedRequest, "model_name is empty"),
    (a_request(model_name="m" * 2000), TooLarge, "model_name has 2000 bytes"),
    (a_request(model_version="ü" * 700), TooLarge, "model_version has 1400 bytes"),
    (a_request(id="i" * 1025), TooLarge, "id has 1025 bytes"),
    (a_request(inputs=[]), MalformedRequest, "inputs is empty"),
    (a_request(inputs=[an_input()] * 65), TooLarge, "65 inputs, at most 64"),
    (a_request(inputs=[an_input(name="")]), MalformedRequest, 'input "": its name is empty'),
    (a_request(inputs=[an_input(name="x" * 1025)]), TooLarge, "its name has 1025 bytes"),
    (a_request(inputs=[an_input(datatype="FP8")]), MalformedRequest, 'input "x": unknown datatype "FP8"'),
    (a_request(inputs=[an_input(shape=[1] * 9)]), MalformedRequest, "shape has 9 dimensions, at most 8"),
    (a_request(inputs=[an_input(shape=[-1])]), MalformedRequest, "negative dimension"),
    (a_request(inputs=[an_input(shape=[2**62, 2**62])]), TooLarge, "over the limit"),
    (a_request(inputs=[an_input(shape=[3])]), MalformedRequest, r"FP32 \[3\] takes 12 bytes, got 8 bytes"),
    (a_request(inputs=[an_input(datatype="BYTES")], raw_input_contents=[b"\5"]), MalformedRequest, "cannot hold 2"),
    (a_request(inputs=[an_input(), an_input()]), MalformedRequest, "2 inputs but 1 raw_input_contents"),
    (
        a_request(inputs=[an_input(), an_input()], raw_input_contents=[bytes(8)] * 2),
        MalformedRequest,
        'input "x" is given twice',
    ),
    (
        a_request(inputs=[an_input(contents={"fp32_contents": [1, 2]})]),
        MalformedRequest,
        "contents and raw_input_contents are both given",
    ),
    (typed("FP16", [1], fp32_contents=[1]), MalformedRequest, "FP16 has no typed contents"),
    (typed("BF16", [1], fp32_contents=[1]), MalformedRequest, "BF16 has no typed contents"),
    (typed("FP32", [2], fp32_contents=[1]), MalformedRequest, "the shape wants 2 elements, fp32_contents has 1"),
    (typed("FP32", [2]), MalformedRequest, "the shape wants 2 elements, fp32_contents has 0"),
    (typed("FP32", [1], fp64_contents=[1]), MalformedRequest, "FP32 belongs into fp32_contents, got fp64_contents"),
    (typed("BOOL", [1], bool_contents=[True], int_contents=[1]), MalformedRequest, "got bool_contents, int_contents"),
    (typed("INT8", [2], int_contents=[1, 128]), MalformedRequest, "element 1: 128 is out of range for INT8"),
    (typed("UINT16", [1], uint_contents=[2**16]), MalformedRequest, "element 0: 65536 is out of range for UINT16"),
]


@pytest.mark.parametrize(("request_", "error", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_a_wrong_request_is_refused_by_name(request_: Any, error: type[HyperionError], message: str) -> None:
    with pytest.raises(error, match=message):
        decode(request_)


def test_texts_are_limited_over_all_tensors_of_a_request_raw_or_typed() -> None:
    """Each has a length of its own to be read; a tensor of numbers has not."""
    text = b"\1\0\0\0a"
    names = [an_input(name=name, datatype="BYTES", shape=[2]) for name in "ab"]
    raw = a_request(inputs=[*names, an_input(name="n")], raw_input_contents=[text * 2, text * 2, bytes(8)])
    assert len(decode(raw, limits=WireLimits(max_bytes_elements=4))[0].inputs) == 3
    with pytest.raises(TooLarge, match='input "b": 4 BYTES elements, at most 3 are allowed in one request'):
        decode(raw, limits=WireLimits(max_bytes_elements=3))
    with pytest.raises(TooLarge, match="3 BYTES elements, at most 2"):
        decode(typed("BYTES", [3], bytes_contents=[b"a"] * 3), limits=WireLimits(max_bytes_elements=2))


def test_integers_in_typed_contents_are_limited_and_numbers_that_are_copied_are_not() -> None:
    limits = WireLimits(max_typed_elements=2)
    assert decode(typed("FP32", [3], fp32_contents=[1, 2, 3]), limits=limits)[0].inputs[0].shape == (3,)
    assert decode(typed("INT8", [2], int_contents=[1, 2]), limits=limits)[0].inputs[0].shape == (2,)
    with pytest.raises(TooLarge, match="3 integers in typed contents, at most 2 are allowed; send them in raw_input"):
        decode(typed("INT8", [3], int_contents=[1, 2, 3]), limits=limits)


def parameter(kind: str, value: Any) -> Any:
    request = a_request()
    setattr(request.parameters["p"], kind, value)
    return request.parameters["p"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("priority", parameter("int64_param", 10)),
        ("priority", parameter("int64_param", -1)),
        ("priority", parameter("bool_param", True)),
        ("timeout", parameter("double_param", 1.0)),
        ("timeout", parameter("uint64_param", 2**60)),
        ("triton_enable_empty_final_response", parameter("int64_param", 1)),
        ("anything", ModelInferRequest().parameters["unset"]),
    ],
)
def test_a_parameter_of_the_wrong_type_or_range_is_refused_by_name(name: str, value: Any) -> None:
    request = a_request()
    request.parameters[name].CopyFrom(value)
    with pytest.raises(MalformedRequest, match=f'parameter "{name}"'):
        decode(request)


def test_shared_memory_is_refused_wherever_it_is_asked_for() -> None:
    region = parameter("string_param", "region")
    for holder in ("input", "output", "request", "input without data"):
        request = a_request()
        if holder == "request":
            request.parameters["shared_memory_region"].CopyFrom(region)
        elif holder == "output":
            request.outputs.add(name="y").parameters["shared_memory_region"].CopyFrom(region)
        else:
            one = request.inputs[0]
            if holder == "input without data":
                one = request.inputs.add(name="y", datatype="FP32", shape=[2])
            one.parameters["shared_memory_region"].CopyFrom(region)
        with pytest.raises(Unsupported, match="shared memory is not supported"):
            decode(request)


def test_too_many_or_unsupported_or_repeated_outputs_are_refused() -> None:
    request = a_request()
    for index in range(65):
        request.outputs.add(name=f"y{index}")
    with pytest.raises(TooLarge, match="65 outputs"):
        decode(request)
    with pytest.raises(MalformedRequest, match='output "y" is requested twice'):
        decode(a_request(outputs=[ModelInferRequest.InferRequestedOutputTensor(name="y")] * 2))
    with pytest.raises(MalformedRequest, match='output "": its name is empty'):
        decode(a_request(outputs=[ModelInferRequest.InferRequestedOutputTensor()]))
    request = a_request()
    request.outputs.add(name="y").parameters["classification"].int64_param = 3
    with pytest.raises(Unsupported, match='output "y": parameter "classification"'):
        decode(request)


def test_too_many_parameters_are_refused() -> None:
    request = a_request()
    for index in range(65):
        request.parameters[str(index)].bool_param = True
    with pytest.raises(TooLarge, match="65 parameters"):
        decode(request)


def test_a_message_over_the_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(TooLarge, match="the message has 101 bytes, at most 100"):
        decode_infer(b"\xff" * 101, WireLimits(max_body_bytes=100))


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05m", b"\x0a\x02\xff\xfe", b"\x2a\x02\x0a\x09", b"\x0b" * 200])
def test_bytes_that_are_no_message_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedRequest, match=r"not a message of type inference\.ModelInferRequest"):
        decode_infer(data)


def an_answer(*outputs: Tensor) -> InferenceAnswer:
    return InferenceAnswer("m", "3", "sha256:0", outputs)


def test_a_raw_answer_carries_the_tensors_bytes_in_order() -> None:
    big = bytes(range(256)) * 200
    data = a_message(
        an_answer(Tensor("y", "UINT8", (len(big),), memoryview(big)), Tensor("z", "FP16", (1,), b"ab")),
        AnswerFormat("id", raw=True),
    )
    response = ModelInferResponse.FromString(data)
    assert (response.model_name, response.model_version, response.id) == ("m", "3", "id")
    assert list(response.raw_output_contents) == [big, b"ab"]
    assert [(one.name, one.datatype, list(one.shape)) for one in response.outputs] == [
        ("y", "UINT8", [len(big)]),
        ("z", "FP16", [1]),
    ]
    assert not any(one.HasField("contents") for one in response.outputs)
    assert not response.parameters


@pytest.mark.parametrize("datatype", sorted(TYPED))
def test_a_typed_answer_carries_the_elements(datatype: str) -> None:
    field, values = TYPED[datatype]
    tensor = Tensor("y", datatype, (3,), tensor_bytes(datatype, values))
    empty = Tensor("z", datatype, (0,), b"")
    response = ModelInferResponse.FromString(a_message(an_answer(tensor, empty), AnswerFormat(raw=False)))
    assert list(getattr(response.outputs[0].contents, field)) == values
    assert list(getattr(response.outputs[1].contents, field)) == []
    assert not response.raw_output_contents


def test_an_answer_with_an_output_that_has_no_typed_form_is_raw() -> None:
    outputs = Tensor("y", "FP32", (1,), bytes(4)), Tensor("z", "BF16", (1,), b"ab")
    response = ModelInferResponse.FromString(a_message(an_answer(*outputs), AnswerFormat(raw=False)))
    assert list(response.raw_output_contents) == [bytes(4), b"ab"]


def test_any_byte_but_zero_is_true_in_a_typed_answer() -> None:
    contents = encode_contents(Tensor("y", "BOOL", (3,), b"\x00\x01\xff"))
    assert contents == b"\x0a\x03\x00\x01\x01"


@pytest.mark.parametrize("final", [True, False])
def test_a_streams_answer_says_if_it_is_the_last(final: bool) -> None:
    tensor = Tensor("y", "UINT8", (300,), bytes(300))
    data = encode_stream_answer(an_answer(tensor), AnswerFormat("id"), final)
    response = ModelStreamInferResponse.FromString(data)
    assert response.error_message == ""
    assert response.infer_response.id == "id"
    assert list(response.infer_response.raw_output_contents) == [bytes(300)]
    assert response.infer_response.parameters["triton_final_response"].bool_param is final
    assert "triton_final_response" in response.infer_response.parameters


@pytest.mark.parametrize(("served_by", "degraded"), [("model", False), ("cache", False), ("fallback:static", True)])
def test_a_streams_answer_says_who_served_it_where_that_was_not_the_model(served_by: str, degraded: bool) -> None:
    answer = replace(an_answer(Tensor("y", "UINT8", (1,), b"a")), served_by=served_by, degraded=degraded)
    told = ModelStreamInferResponse.FromString(encode_stream_answer(answer, AnswerFormat("id"), False)).infer_response
    expected = {"triton_final_response"}
    if served_by != "model":
        expected.add("x-hyperion-served-by")
        assert told.parameters["x-hyperion-served-by"].string_param == served_by
    if degraded:
        expected.add("x-hyperion-degraded")
        assert told.parameters["x-hyperion-degraded"].bool_param
    assert set(told.parameters) == expected
    alone = ModelInferResponse.FromString(a_message(answer, AnswerFormat("id")))
    assert not alone.parameters  # it has metadata


def test_a_streams_error_names_its_request_and_is_never_empty() -> None:
    metadata = (("retry-after", "2"),)
    response = ModelStreamInferResponse.FromString(encode_stream_error("no \udcff", "m", "3", "id", metadata))
    assert response.error_message == "no ?"
    told = response.infer_response
    assert (told.model_name, told.model_version, told.id) == ("m", "3", "id")
    assert told.parameters["triton_final_response"].bool_param
    assert told.parameters["retry-after"].string_param == "2"
    assert ModelStreamInferResponse.FromString(encode_stream_error("")).error_message


@given(st.integers(0, 2**63))
def test_a_varint_is_protobufs(value: int) -> None:
    request = a_request()
    request.parameters["p"].uint64_param = value
    serialized = request.parameters["p"].SerializeToString()
    assert serialized == b"\x28" + varint(value)


@given(st.binary(max_size=300))
def test_random_bytes_give_a_call_or_a_typed_error(data: bytes) -> None:
    with contextlib.suppress(HyperionError):
        decode_infer(data)


@st.composite
def hostile_requests(draw: st.DrawFn) -> bytes:
    """Well-formed messages that lie about everything, some of them with a byte changed."""
    numbers = st.one_of(st.integers(0, 4), st.integers(-(2**63), 2**63 - 1))
    request = ModelInferRequest(model_name=draw(st.text(max_size=3)), id=draw(st.text(max_size=3)))
    for _ in range(draw(st.integers(0, 3))):
        one = request.inputs.add(
            name=draw(st.sampled_from(["x", "y", ""])),
            datatype=draw(st.sampled_from([*DATATYPES, "FP8", ""])),
            shape=draw(st.lists(numbers, max_size=9)),
        )
        field, values = draw(st.sampled_from(sorted(TYPED.values())))
        if draw(st.booleans()):
            getattr(one.contents, field).extend(values[: draw(st.integers(0, 3))])
        if draw(st.booleans()):
            one.parameters[draw(st.text(max_size=3))].string_param = draw(st.text(max_size=3))
    request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=16), max_size=3)))
    for name in draw(st.lists(st.sampled_from(["timeout", "priority", "q"]), max_size=3)):
        request.parameters[name].int64_param = draw(numbers)
    for name in draw(st.lists(st.text(max_size=2), max_size=3)):
        request.outputs.add(name=name)
    data = bytearray(request.SerializeToString())
    if data and draw(st.booleans()):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@given(hostile_requests())
def test_a_hostile_request_gives_a_call_whose_data_fits_its_shapes_or_a_typed_error(data: bytes) -> None:
    try:
        call, form = decode_infer(data)
    except HyperionError:
        return
    for tensor in call.inputs:
        size = DATATYPES[tensor.datatype].size
        assert all(dimension >= 0 for dimension in tensor.shape)
        if size:
            assert len(tensor.data) == int(np.prod(tensor.shape, dtype=object)) * size
    assert ModelInferResponse.FromString(a_message(an_answer(*call.inputs), form)).id == call.id
