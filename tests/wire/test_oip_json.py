"""V2 requests over HTTP are decoded to the letter, and whatever is wrong with one is said by name."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.call import InferenceCall
from hyperion.schema.errors import HyperionError, MalformedRequest, SchemaMismatch, TooLarge, Unsupported
from hyperion.wire.limits import DEFAULT_LIMITS, WireLimits
from hyperion.wire.oip.json import ALL_JSON, AnswerFormat, decode_infer
from hyperion.wire.oip.large import LARGE_BODY_BYTES, PLACEHOLDER, cut_data
from hyperion.wire.tensor import DATATYPES, encode_elements, from_numpy, to_numpy
from tests.wire.strategies import JSON_VALUES, NUMERIC, arrays, mutations, request_body


def decode(
    body: bytes | bytearray | memoryview, header_length: int | None = None, limits: WireLimits = DEFAULT_LIMITS
) -> tuple[InferenceCall, AnswerFormat]:
    return decode_infer("m", "2", body, header_length, limits)


def input_x(**changes: Any) -> dict[str, Any]:
    one = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]} | changes
    return {name: value for name, value in one.items() if value is not None}


def body_of(*inputs: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({"inputs": inputs or [input_x()], **members}).encode()


@given(st.data(), st.booleans())
def test_tensors_of_every_datatype_arrive_with_their_values(data: st.DataObject, nested: bool) -> None:
    datatype = data.draw(st.sampled_from([*NUMERIC, "BYTES"]))
    array = data.draw(arrays(datatype))
    call, form = decode(request_body(array, datatype, nested))
    assert form is ALL_JSON
    assert call == InferenceCall("m", "2", "", (from_numpy("x", array, datatype),))


@pytest.mark.parametrize("datatype", [*NUMERIC, "BYTES"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shape", [(2, 2000), (2000, 2), (1, 3, 40, 40)])
def test_large_tensors_arrive_with_their_values(datatype: str, nested: bool, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).integers(0, 2, shape)
    dtype = "S1" if datatype == "BYTES" else DATATYPES[datatype].dtype
    array = np.array(values.astype(dtype), dtype=object if datatype == "BYTES" else dtype)
    body = request_body(array, datatype, nested)
    assert len(body) > LARGE_BODY_BYTES
    call, _ = decode(body)
    assert call.inputs == (from_numpy("x", array, datatype),)
    assert decode(memoryview(bytearray(body)))[0].inputs == call.inputs


def test_several_inputs_outputs_id_and_parameters_are_taken_apart() -> None:
    body = body_of(
        input_x(),
        input_x(name="s", datatype="BYTES", data=["a", "bé"], parameters={"content_type": "str"}),
        id="42",
        outputs=[
            {"name": "y", "parameters": {"binary_data": True}},
            {"name": "z", "parameters": {"binary_data": False, "classification": 0}},
            {"name": "w", "parameters": {"k": 1}},
            {"name": "v", "parameters": {}},
        ],
        parameters={"priority": 3, "timeout": 1500, "binary_data_output": True, "k": "v", "n": 2, "f": 0.5, "b": True},
    )
    call, form = decode(body)
    assert [one.name for one in call.inputs] == ["x", "s"]
    assert bytes(call.inputs[1].data) == encode_elements([b"a", "bé".encode()])
    assert (call.id, call.outputs, call.priority, call.timeout_ns) == ("42", ("y", "z", "w", "v"), 3, 1_500_000)
    assert call.parameters == {"k": "v", "n": 2, "f": 0.5, "b": True}
    assert form == AnswerFormat("42", True, {"y": True, "z": False})
    assert [form.is_binary(name) for name in "yzw"] == [True, False, True]


@pytest.mark.parametrize("filler", [0, 2000])
def test_members_that_the_protocol_does_not_know_are_tolerated(filler: int) -> None:
    more = {"model_name": "other", "model_version": 7, "extra": {"deep": [[1]]}, "fill": [0] * filler}
    call, _ = decode(body_of(input_x(unknown={"a": "["}), **more))
    assert call.inputs[0].shape == (1, 2)
    assert call.model == "m"


def test_unknown_members_that_nest_too_deep_are_refused() -> None:
    with pytest.raises(MalformedRequest, match="nested more than 32 deep"):
        decode(b'{"inputs":[],"extra":' + b"[" * 40 + b"]" * 40 + b"}")
    with pytest.raises(MalformedRequest, match="nested more than 32 deep"):
        decode(b'{"inputs":[],"extra":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@pytest.mark.parametrize(
    "members", [{"id": ""}, {"parameters": {}}, {"outputs": []}, {"parameters": None, "outputs": None}]
)
def test_empty_members_are_as_good_as_none(members: dict[str, Any]) -> None:
    assert decode(body_of(**members)) == decode(body_of())


def test_only_an_id_or_outputs_make_a_format_of_their_own() -> None:
    assert decode(body_of(id="i"))[1] == AnswerFormat("i")
    assert decode(body_of(outputs=[{"name": "y"}]))[0].outputs == ("y",)
    assert decode(body_of(parameters={"timeout": None, "priority": 9}))[0].priority == 9


LONG = "n" * 1025
WRONG: list[tuple[bytes, type[HyperionError], str]] = [
    (b"", MalformedRequest, "not JSON"),
    (b"{", MalformedRequest, "not JSON"),
    (b"\xff", MalformedRequest, "not JSON"),
    (b"[]", MalformedRequest, "not an inference request: Expected `object`"),
    (b"{}", MalformedRequest, "missing required field `inputs`"),
    (b'{"inputs":[]}', MalformedRequest, "inputs is empty"),
    (b'{"inputs":{}}', MalformedRequest, r"\$.inputs"),
    (b'{"inputs":[1]}', MalformedRequest, r"\$.inputs"),
    (b'{"inputs":[],"id":7}', MalformedRequest, r"\$.id"),
    (b'{"inputs":[{"name":"\xff"}]}', MalformedRequest, "not JSON"),
    (body_of(outputs=[{}]), MalformedRequest, r"missing required field `name` - at `\$.outputs"),
    (body_of(parameters={"a": [1]}), MalformedRequest, r"\$.parameters"),
    (body_of(parameters={"a": 2**63}), MalformedRequest, r"<= 9223372036854775807"),
    (body_of(parameters={"priority": 10}), MalformedRequest, '"priority" is 10, expected a whole number from 0 to 9'),
    (body_of(parameters={"priority": True}), MalformedRequest, '"priority" is True'),
    (body_of(parameters={"timeout": -1}), MalformedRequest, '"timeout" is -1'),
    (body_of(parameters={"timeout": 1.5}), MalformedRequest, '"timeout" is 1.5'),
    (body_of(parameters={"binary_data_output": 1}), MalformedRequest, '"binary_data_output" is 1, expected true'),
    (body_of(parameters={f"p{i}": 1 for i in range(65)}), TooLarge, "65 parameters"),
    (body_of(id=LONG), TooLarge, "id has 1025 bytes"),
    (body_of(id="é" * 513), TooLarge, "id has 1026 bytes"),
    (body_of(outputs=[{"name": f"y{i}"} for i in range(65)]), TooLarge, "65 outputs"),
    (body_of(outputs=[{"name": "y"}] * 2), MalformedRequest, 'output "y" is requested twice'),
    (body_of(outputs=[{"name": ""}]), MalformedRequest, "name of an output is empty"),
    (body_of(outputs=[{"name": LONG}]), TooLarge, "name of an output has 1025 bytes"),
    (
        body_of(outputs=[{"name": "y", "parameters": {"classification": 3}}]),
        Unsupported,
        'output "y".*"classification"',
    ),
    (body_of(outputs=[{"name": "y", "parameters": {"binary_data": 1}}]), MalformedRequest, 'output "y".*"binary_data"'),
    (
        body_of(outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]),
        Unsupported,
        'output "y".*"shared_memory_region"',
    ),
    (body_of(input_x(parameters={"shared_memory_region": "r"})), Unsupported, 'input "x".*"shared_memory_region"'),
    (body_of(input_x(parameters={f"p{i}": 1 for i in range(65)})), TooLarge, 'input "x": 65 parameters'),
    (body_of(*[input_x(name=f"x{i}") for i in range(65)]), TooLarge, "65 inputs"),
    (body_of(input_x(), input_x()), MalformedRequest, 'input "x" is given twice'),
    (body_of(input_x(name="")), MalformedRequest, "its name is empty"),
    (body_of(input_x(name=LONG)), TooLarge, "its name has 1025 bytes"),
    (body_of(input_x(name="é" * 513)), TooLarge, "its name has 1026 bytes"),
    (body_of(input_x(name=7)), MalformedRequest, r"\$.inputs\[0\].name"),
    (body_of(input_x(datatype="FLOAT")), MalformedRequest, 'input "x": unknown datatype "FLOAT"; expected one of BOOL'),
    (body_of(input_x(datatype="BF16")), Unsupported, 'input "x": BF16'),
    (body_of(input_x(shape=[-1, 2])), MalformedRequest, 'input "x": shape .* negative'),
    (body_of(input_x(shape=[1.5])), MalformedRequest, r"shape"),
    (body_of(input_x(shape="1,2")), MalformedRequest, r"shape"),
    (body_of(input_x(shape=[1] * 9)), MalformedRequest, "9 dimensions, at most 8"),
    (body_of(input_x(shape=[2**40, 2**40])), TooLarge, 'input "x".*over the limit'),
    (body_of(input_x(shape=[2**23 + 1])), TooLarge, "send them as binary data"),
    (body_of(input_x(shape=[1, 20])), MalformedRequest, r'input "x": shape \[1, 20\] wants 20 elements, got 2'),
    (body_of(input_x(data=None)), MalformedRequest, 'input "x": data is missing'),
    (body_of(input_x(data="ab")), MalformedRequest, 'input "x": shape'),
    (
        body_of(input_x(parameters={"binary_data_size": 8})),
        MalformedRequest,
        "no header Inference-Header-Content-Length",
    ),
    (body_of(input_x(shape=[3000], data=[1] * 2999)), MalformedRequest, r"wants 3000 elements, got 2999"),
    (body_of(input_x(shape=[3000], datatype="BYTES", data=["1"] * 2999)), MalformedRequest, "elements, got 2999"),
    (body_of(input_x(shape=[3000], data=["1"] * 3000)), SchemaMismatch, 'input "x": row 0 is a string, expected a'),
    (
        body_of(input_x(shape=[1, 2], data=[1, None])),
        SchemaMismatch,
        'input "x": row 0, column 1 is null, expected a num',
    ),
    (body_of(input_x(shape=[1, 2], data=[[1, None]])), SchemaMismatch, 'input "x": row 0, column 1 is null, expected'),
    (body_of(input_x(shape=[3000], data=[1] * 3000), input_x(shape=[1], data=[1])), MalformedRequest, "given twice"),
]


@pytest.mark.parametrize(("body", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_request_is_refused_by_name(body: bytes, error: type[HyperionError], message: str) -> None:
    with pytest.raises(error, match=message):
        decode(body)


def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLarge, match="the body has 11 bytes, at most 10"):
        decode(b"not JSON at", limits=WireLimits(max_body_bytes=10))


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[{"name":"[1,2]","shape":[2],"datatype":"FP32","data":-0.0e-0}]}',
        b'{"inputs":[{"name":"\\"data\\":[1,2]","shape":[2],"datatype":"FP32","data":null}]}',
        b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":1,"id":"\\"data\\":[1,2]"}]}',
        b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2],"data":[1,2]}],"id":7}',
        b'{"inputs":[{"name":"x","datatype":"FP32","data":[1],"shape":[2]}],"x":2}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":5}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[5}]}',
    ],
)
def test_large_and_small_bodies_are_refused_alike(body: bytes) -> None:
    """Blanks make the body large, and take it through the path that cuts the data out."""
    with pytest.raises(HyperionError) as small:
        decode(body)
    with pytest.raises(type(small.value)):
        decode(body + b" " * LARGE_BODY_BYTES)


def test_a_member_given_twice_counts_the_last_time_in_large_bodies_too() -> None:
    body = b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2],"data":[3,4]}]}'
    assert decode(body)[0] == decode(body + b" " * LARGE_BODY_BYTES)[0]


@given(st.data())
def test_cutting_the_data_out_never_changes_what_is_decoded(data: st.DataObject) -> None:
    """A mutated body gives the same call, or the same refusal, on the path for large bodies as on the other."""
    datatype = data.draw(st.sampled_from(["FP32", "INT8", "BYTES", "BOOL"]))
    body = data.draw(mutations(request_body(data.draw(arrays(datatype)), datatype, data.draw(st.booleans()), id="7")))

    def outcome(text: bytes) -> Any:
        try:
            return decode(text)
        except HyperionError as error:
            return type(error)

    assert outcome(body) == outcome(body + b" " * LARGE_BODY_BYTES)


@pytest.mark.parametrize("data", [b"[[, []]", b"[[] []]", b"[" * 100_000])
def test_no_data_at_all_is_still_json_in_large_bodies(data: bytes) -> None:
    body = b'{"inputs":[{"name":"x","shape":[2,0],"datatype":"FP32","data":%b}]}' % data
    with pytest.raises(MalformedRequest):
        decode(body + b" " * LARGE_BODY_BYTES)


def test_more_arrays_than_allowed_are_not_cut() -> None:
    assert cut_data(b'"data":[1]' * 3, 3) is not None
    assert cut_data(b'"data":[1]' * 3, 2) is None


def test_a_string_that_looks_like_the_end_of_the_data_does_not_end_it() -> None:
    """The brackets in these strings lead the cut astray; the exact decoder then takes the request."""
    texts = ["a]", '"data":[', "]" * 9, "[["] * 1000
    call, _ = decode(body_of(input_x(shape=[4000], datatype="BYTES", data=texts)))
    assert to_numpy(call.inputs[0]).tolist() == [text.encode() for text in texts]


MEMBERS = 2 * 64 * (8 + 64)  # what a request within the limits may have, generously


def test_more_inputs_than_allowed_in_a_large_body_are_refused() -> None:
    with pytest.raises(TooLarge, match="100 inputs"):
        decode(body_of(*[input_x(name=f"x{i}", data=[1] * 20) for i in range(100)]))


@pytest.mark.parametrize("blank", ["", " ", "\n\t "])
@pytest.mark.parametrize(
    "members",
    [
        '"parameters":{' + ",".join(f'"p{i}"BLANK:1' for i in range(4 * MEMBERS)) + "}",
        '"parameters":{' + ",".join(f'"p{i}\\\\"BLANK:1' for i in range(4 * MEMBERS)) + "}",
        '"outputs":[' + ",".join(['{"name"BLANK:"y"}'] * (4 * MEMBERS)) + "]",
        '"more":[' + ",".join(['{"name"BLANK:"y"}'] * (4 * MEMBERS)) + "]",
    ],
    ids=["parameters", "names that end with a backslash", "outputs", "unknown members"],
)
def test_more_members_than_any_request_has_are_refused_before_an_object_is_made_of_each(
    members: str, blank: str
) -> None:
    body = body_of(input_x())[:-1] + b"," + members.replace("BLANK", blank).encode() + b"}"
    with pytest.raises(TooLarge, match=f"more than {MEMBERS} members"):
        decode(body)


@pytest.mark.parametrize("text", ['{"a":1,"b" :[]}', '\\"a\\":', '\\\\":"'])
def test_texts_with_many_quotes_and_colons_are_no_members(text: str) -> None:
    call, _ = decode(body_of(input_x(shape=[MEMBERS], datatype="BYTES", data=[text] * MEMBERS)))
    assert to_numpy(call.inputs[0]).tolist() == [text.encode()] * MEMBERS


def test_a_shape_longer_than_any_rank_needs_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(TooLarge, match="a shape of more than 1024 bytes, at most 8 dimensions"):
        decode(body_of(input_x(shape=[1] * 200_000)))


def test_much_text_around_the_data_is_decoded_as_exactly_as_little() -> None:
    body = body_of(input_x(), more=["x" * 1000] * 300)
    assert len(body) > 300_000
    assert decode(body)[0].inputs[0].name == "x"


def test_large_numeric_data_over_a_mebibyte_is_refused_without_the_exact_decoders() -> None:
    good = [1.25] * 300_000
    assert decode(body_of(input_x(shape=[300_000], data=good)))[0].inputs[0].shape == (300_000,)
    for wrong in (good[:-1], [*good[:-1], "x"], [*good[:-1], 1e300], [*good[:-1], [1.25]]):
        with pytest.raises(SchemaMismatch, match="wants 300000 numbers in the range of FP32"):
            decode(body_of(input_x(shape=[300_000], data=wrong)))


def test_bytes_elements_are_limited_as_json() -> None:
    body = body_of(input_x(shape=[400], datatype="BYTES", data=["a"] * 400))
    with pytest.raises(TooLarge, match="400 BYTES elements as JSON, at most 399"):
        decode(body, limits=WireLimits(max_json_rows=399))
    assert decode(body, limits=WireLimits(max_json_rows=400))[0].inputs[0].shape == (400,)


def test_rows_that_must_be_visited_one_by_one_are_limited() -> None:
    limits = WireLimits(max_json_rows=2000)
    body = body_of(input_x(shape=[2000, 1], datatype="BOOL", data=[[True]] * 2000))
    with pytest.raises(TooLarge, match="more than 2000 rows"):
        decode(body, limits=limits)
    assert decode(body)[0].inputs[0].shape == (2000, 1)


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b'"data":',
        b'"data":[',
        b'"data":[[1]',
        PLACEHOLDER + b'"data":[1]',
        b'"data":[["]"',
        b'"data":' + b"[" * 99 + b"]" * 99,
    ],
)
def test_nothing_is_cut_where_no_array_is_plain_to_see(text: bytes) -> None:
    assert cut_data(text, 64) is None


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_a_typed_error(body: bytes) -> None:
    with pytest.raises(HyperionError):
        decode(body)


@given(JSON_VALUES)
def test_arbitrary_json_is_refused_with_a_typed_error(value: Any) -> None:
    with pytest.raises(HyperionError):
        decode(json.dumps(value).encode())


@given(st.data())
def test_requests_with_arbitrary_members_give_a_call_or_a_typed_error(data: st.DataObject) -> None:
    names = st.sampled_from(["name", "shape", "datatype", "data", "parameters"])
    one = input_x() | data.draw(st.dictionaries(names, JSON_VALUES, max_size=2))
    tops = st.sampled_from(["inputs", "id", "outputs", "parameters"])
    members = {"inputs": [one]} | data.draw(st.dictionaries(tops, JSON_VALUES, max_size=2))
    try:
        call, _ = decode(json.dumps(members).encode())
    except HyperionError:
        return
    assert all(to_numpy(tensor).shape == tensor.shape for tensor in call.inputs)
