"""What a decoded call must look like by an endpoint's rules, and how the refusal reads."""

import struct
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.gateway.front.coerce import coerce
from hyperion.gateway.front.rules import SMALL_ELEMENTS, Rules
from hyperion.policy.constraints import INTEGERS, LARGEST, explain_misfit
from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.errors import NotReady, SchemaMismatch
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.protect import InputRule, SchemaRules
from hyperion.wire.tensor import DATATYPES, encode_elements, from_numpy, to_numpy

OUTPUTS = (TensorSpec("y", "FP32", (-1,)),)
BOTH = Signature((TensorSpec("X", "FP32", (-1, 4)), TensorSpec("country", "BYTES", (-1,))), OUTPUTS)
NUMERIC = [name for name in DATATYPES if name not in ("BYTES", "BOOL", "BF16")]


def floats(rows: list[list[float]], name: str = "X", datatype: str = "FP32") -> Tensor:
    return from_numpy(name, np.array(rows, np.float64 if datatype == "FP64" else np.float32), datatype)


def texts(*elements: bytes, name: str = "country") -> Tensor:
    return Tensor(name, "BYTES", (len(elements),), encode_elements(elements))


def call(*inputs: Tensor) -> InferenceCall:
    return InferenceCall("m", "1", "id", inputs, ("y",), {"a": 1}, 3, 5)


def one(datatype: str, *shape: int, batched: bool = True) -> Signature:
    return Signature((TensorSpec("X", datatype, shape),), OUTPUTS, batched=batched)


def rules(signature: Signature = BOTH, redact: tuple[str, ...] = (), **fields: Any) -> Rules:
    inputs = {name: InputRule(**rule) for name, rule in fields.pop("inputs", {}).items()}
    return Rules(SchemaRules(inputs=inputs, **fields), signature, redact)


def refusal(made: Rules, given_call: InferenceCall, signature: Signature = BOTH) -> str:
    with pytest.raises(SchemaMismatch) as caught:
        made.check(given_call, signature)
    return caught.value.message


GOOD = (floats([[1, 2, 3, 4]]), texts(b"DE"))


@pytest.mark.parametrize(
    ("rule", "bad", "message"),
    [
        (
            {"X": {"min": -10, "max": 10}},
            (floats([[0, 0, 0, 0], [0, 0, 11.5, 0]]), texts(b"", b"")),
            'input "X": row 1, column 2 is 11.5, expected a number from -10 to 10',
        ),
        (
            {"X": {"nan": "reject"}},
            (floats([[0, nan, 0, 0]]), texts(b"")),
            'input "X": row 0, column 1 is nan, expected no NaN',
        ),
        (
            {"X": {"inf": "reject", "max": 9}},
            (floats([[0, 0, 0, -inf]]), texts(b"")),
            'input "X": row 0, column 3 is -inf, expected 9 or less, no infinity',
        ),
        (
            {"X": {"max": 9}},
            (floats([[0.0] * 4] * 99 + [[0, 0, 0, 10]]), texts(*[b""] * 100)),
            'input "X": row 99, column 3 is 10, expected 9 or less',
        ),
        (
            {"country": {"enum": ("DE", "FR")}},
            (GOOD[0], texts(b"DE", b"Franconia, Upper")),
            "input \"country\": row 1 is 'Franconia, Upper', expected one of DE, FR",
        ),
        (
            {"country": {"pattern": "[A-Z]{2}"}},
            (GOOD[0], texts(b"Franconia, Middle")),
            "input \"country\": row 0 is 'Franconia, Middl…', expected a text that matches [A-Z]{2}",
        ),
        (
            {"country": {"pattern": "[A-Z]{2}"}},
            (GOOD[0], texts(b"\xff\n")),
            "input \"country\": row 0 is '\ufffd\\n', expected a text that matches [A-Z]{2}",
        ),
        (
            {"country": {"max_length": 4}},
            (GOOD[0], texts(b"Franconia")),
            'input "country": row 0 has 9 bytes, expected at most 4 bytes',
        ),
    ],
)
def test_a_refusal_names_input_row_column_what_came_and_what_was_expected(
    rule: dict[str, Any], bad: tuple[Tensor, ...], message: str
) -> None:
    made = rules(inputs=rule)
    fine = call(*GOOD)
    assert made.check(fine, BOTH) is fine
    assert refusal(made, call(*bad)) == message


@pytest.mark.parametrize(
    ("signature", "array", "where"),
    [
        (one("FP32", -1), [0, 5], "row 1"),
        (one("FP32", -1, 2, 2), [[[0, 0], [0, 5]]], "row 0, element [1][1]"),
        (one("FP32", 2, 2, batched=False), [[0, 0], [5, 0]], "element [1][0]"),
        (one("FP32", batched=False), 5, "its value"),
    ],
)
def test_places_are_named_by_the_shape(signature: Signature, array: Any, where: str) -> None:
    made = rules(signature, inputs={"X": {"max": 1}})
    tensor = from_numpy("X", np.array(array, np.float32), "FP32")
    assert refusal(made, call(tensor), signature) == f'input "X": {where} is 5, expected 1 or less'


@pytest.mark.parametrize("count", [1, SMALL_ELEMENTS + 1])
@pytest.mark.parametrize(
    ("datatype", "rule", "value", "message"),
    [
        ("BOOL", {"enum": (True,)}, False, "is false, expected one of true"),
        ("INT64", {"max": 10}, 9007199254740993, "is 9007199254740993, expected 10 or less"),
    ],
)
def test_truth_values_and_whole_numbers_are_quoted_as_they_are(
    datatype: str, rule: dict[str, Any], value: object, message: str, count: int
) -> None:
    signature = one(datatype, -1)
    tensor = from_numpy("X", np.array([value] * count, DATATYPES[datatype].dtype), datatype)
    assert refusal(rules(signature, inputs={"X": rule}), call(tensor), signature) == f'input "X": row 0 {message}'


@pytest.mark.parametrize("datatype", [*NUMERIC, "BF16"])
@pytest.mark.parametrize("count", [1, SMALL_ELEMENTS, SMALL_ELEMENTS + 1, 1000])
def test_every_datatype_is_checked_small_and_large(datatype: str, count: int) -> None:
    signature = one(datatype, -1)
    made = rules(signature, inputs={"X": {"max": 100}})
    array = np.zeros(count, np.float32 if datatype == "BF16" else DATATYPES[datatype].dtype)
    fine = call(from_numpy("X", array, datatype))
    assert made.check(fine, signature) is fine
    array[-1] = 112
    assert f"row {count - 1} is 112, expected 100 or less" in refusal(
        made, call(from_numpy("X", array, datatype)), signature
    )


def test_tensors_that_are_views_of_a_body_are_checked() -> None:
    signature = one("FP32", -1)
    made = rules(signature, inputs={"X": {"max": 1}})
    data = struct.pack("<2f", 0.0, 2.0)
    for view in (memoryview(data), bytearray(data), memoryview(b"abc" + data)[3:]):
        assert "row 1 is 2" in refusal(made, call(Tensor("X", "FP32", (2,), view)), signature)


def test_unknown_inputs_are_refused_or_left_out() -> None:
    extra = call(*GOOD, floats([[1]], name="Z"))
    assert refusal(rules(), extra) == 'input "Z" is unknown; this model takes "X", "country"'
    kept = rules(unknown_inputs="ignore").check(extra, BOTH)
    assert kept == call(*GOOD)
    assert refusal(rules(unknown_inputs="ignore"), call(GOOD[0], floats([[1]], name="Z"))) == (
        'missing input: "country" (BYTES [-1])'
    )


def test_missing_twice_given_and_misshapen_inputs_are_refused_even_where_others_are_ignored() -> None:
    made = rules(unknown_inputs="ignore", coerce=True)
    assert refusal(made, call(GOOD[0])) == 'missing input: "country" (BYTES [-1])'
    assert "unknown" in refusal(made, call(*GOOD, GOOD[0]))
    odd = floats([[1, 2, 3]], datatype="FP64")
    assert refusal(made, call(odd, GOOD[1])) == 'input "X": expected FP32 [-1, 4], got FP32 [1, 3]'


def test_another_datatype_is_refused_or_converted() -> None:
    whole = from_numpy("X", np.array([[1, 2, 3, 1 << 24]], np.int64), "INT64")
    assert refusal(rules(), call(whole, GOOD[1])) == 'input "X": expected FP32 [-1, 4], got INT64 [1, 4]'
    converted = rules(coerce=True, inputs={"X": {"max": 1 << 24}}).check(call(whole, GOOD[1]), BOTH)
    assert converted == call(floats([[1, 2, 3, 1 << 24]]), GOOD[1])


def test_a_value_that_would_change_is_refused_by_its_place() -> None:
    made = rules(coerce=True)
    array = np.array([[1, 2, 3, 4], [5, (1 << 24) + 1, 7, 8]], np.int64)
    assert refusal(made, call(from_numpy("X", array, "INT64"), GOOD[1])) == (
        'input "X": row 1, column 1 is 16777217 (INT64), which would change as FP32; send FP32'
    )


def test_texts_and_truth_values_are_never_numbers() -> None:
    made = rules(coerce=True)
    for tensor in (Tensor("X", "BYTES", (1, 4), encode_elements([b"1"] * 4)), Tensor("X", "BOOL", (1, 4), b"\1\0\1\0")):
        message = f'input "X": {tensor.datatype} cannot become FP32; only numbers are converted'
        assert refusal(made, call(tensor, GOOD[1])) == message


def test_what_is_converted_is_checked_by_the_rules_as_well() -> None:
    made = rules(coerce=True, inputs={"X": {"max": 3}})
    whole = from_numpy("X", np.array([[1, 2, 3, 4]], np.int64), "INT64")
    assert "row 0, column 3 is 4, expected 3 or less" in refusal(made, call(whole, GOOD[1]))


def test_nothing_is_shown_of_an_input_that_the_endpoint_redacts() -> None:
    made = rules(
        redact=("input:country", "input:X"), inputs={"country": {"enum": ("DE",)}, "X": {"max": 3}}, coerce=True
    )
    hidden = "row 0 is not what it must be (the endpoint redacts it), expected one of DE"
    assert refusal(made, call(floats([[1, 2, 3, 3]]), texts(b"Secretia"))) == f'input "country": {hidden}'
    assert "99" not in refusal(made, call(floats([[99, 2, 3, 3]]), GOOD[1]))
    assert "16777217" not in refusal(made, call(from_numpy("X", np.array([[(1 << 24) + 1] * 4]), "INT64"), GOOD[1]))


def test_personal_data_is_not_shown_even_in_part() -> None:
    made = rules(inputs={"country": {"enum": ("DE",)}})
    message = refusal(made, call(GOOD[0], texts(b"jane.doe.the.third@example.com")))
    assert message == "input \"country\": row 0 is '[email]', expected one of DE"


def test_a_version_that_the_rules_do_not_fit_takes_no_calls() -> None:
    made = rules(inputs={"X": {"max": 3}})
    other = one("BYTES", -1)
    assert made.misfit(BOTH) == ""
    assert made.misfit(other) == "schema.inputs.X: max is for numbers, but the model takes BYTES"
    with pytest.raises(NotReady, match=r"rules of endpoint .* do not fit its model"):
        made.check(call(texts(b"a", name="X")), other)
    fine = call(floats([[1, 2, 3, 3]]), GOOD[1])
    assert made.check(fine, BOTH) is fine


def test_versions_with_other_signatures_have_their_own_datatypes() -> None:
    made = rules(one("FP32", -1), inputs={"X": {"max": 3}})
    for index in range(100):
        signature = one(("INT64", "FP64", "FP32")[index % 3], *([-1] * (index % 5 + 1)))
        datatype = signature.inputs[0].datatype
        array = np.full([1] * (index % 5 + 1), 4, DATATYPES[datatype].dtype)
        assert "is 4, expected 3 or less" in refusal(made, call(from_numpy("X", array, datatype)), signature)


def test_nulls_are_told_to_the_decoders_only_where_they_are_allowed() -> None:
    assert rules().nulls is None
    assert rules(inputs={"country": {"null": "empty"}}).nulls == {"country": ""}


# --- conversions ---

SAME = [
    ("INT64", "FP32", [0, 1, -1, 1 << 24, -(1 << 62)], True),
    ("INT64", "FP32", [(1 << 24) + 1], False),
    ("INT64", "FP32", [(1 << 63) - 1], False),
    ("UINT64", "FP64", [(1 << 53) + 1], False),
    ("UINT64", "FP32", [1 << 63], True),
    ("UINT64", "FP64", [(1 << 64) - 1], False),
    ("INT64", "FP16", [2048, -2048], True),
    ("INT64", "FP16", [2049], False),
    ("INT64", "FP16", [65536], False),
    ("INT64", "BF16", [256, 1 << 40], True),
    ("INT64", "BF16", [257], False),
    ("INT64", "INT8", [-128, 127], True),
    ("INT64", "INT8", [128], False),
    ("INT64", "UINT64", [0, (1 << 63) - 1], True),
    ("INT64", "UINT64", [-1], False),
    ("UINT64", "INT64", [1 << 63], False),
    ("UINT8", "INT64", [0, 255], True),
    ("FP32", "INT64", [3.0, -0.0, 2.0**62], True),
    ("FP32", "INT64", [3.5], False),
    ("FP32", "INT64", [2.0**63], False),
    ("FP32", "INT64", [nan], False),
    ("FP16", "INT64", [-inf], False),
    ("FP64", "UINT8", [256.0], False),
    ("FP64", "FP32", [0.1, -1e38, 0.0, inf, nan, 2.0**-126], True),
    ("FP64", "FP32", [1e39], False),
    ("FP64", "FP32", [1e-50], False),
    ("FP64", "FP32", [2.0**-126 * 1.0000000001 / 3], False),
    ("FP64", "FP32", [2.0**-149], True),
    ("FP64", "FP16", [0.1], False),
    ("FP64", "FP16", [0.5, inf, nan], True),
    ("FP32", "FP16", [0.1], False),
    ("FP32", "BF16", [0.5, 256.0, nan], True),
    ("FP32", "BF16", [257.0], False),
    ("FP32", "FP64", [0.1, nan, inf], True),
    ("FP16", "FP32", [0.1, 65504.0], True),
    ("BF16", "FP32", [0.1, 3.0], True),
]


@pytest.mark.parametrize(("source", "datatype", "values", "same"), SAME)
def test_the_table_of_conversions(source: str, datatype: str, values: list[float], same: bool) -> None:
    dtype = np.float32 if source == "BF16" else DATATYPES[source].dtype
    before = from_numpy("x", np.array(values, dtype), source)
    after, place = coerce(before, datatype)
    assert (place == -1) is same
    assert after.datatype == (datatype if same else source)
    if same:
        np.testing.assert_allclose(to_numpy(after).astype(float), to_numpy(before).astype(float), rtol=2.0**-24)


@given(st.sampled_from([*INTEGERS, *LARGEST]), st.sampled_from([*INTEGERS, *LARGEST]), st.data())
def test_what_is_converted_is_the_same_number(source: str, datatype: str, data: st.DataObject) -> None:
    if source in INTEGERS:
        values: list[Any] = data.draw(st.lists(st.integers(*INTEGERS[source]), min_size=1, max_size=8))
    else:
        values = data.draw(st.lists(st.floats(-1e5, 1e5, width=32), min_size=1, max_size=8))
    with np.errstate(over="ignore"):
        before = from_numpy(
            "x", np.array(values).astype(np.float32 if source == "BF16" else DATATYPES[source].dtype), source
        )
    after, place = coerce(before, datatype)
    if place >= 0:
        return
    for old, new in zip(to_numpy(before).tolist(), to_numpy(after).tolist(), strict=True):
        assert new == old or (abs(new - old) <= abs(old) * 2.0**-24 and (source, datatype) == ("FP64", "FP32"))


# --- anything against anything ---

any_rule = st.builds(
    InputRule,
    min=st.none() | st.floats(-10, 10),
    max=st.none() | st.floats(-10, 10),
    nan=st.sampled_from(["accept", "reject"]),
    inf=st.sampled_from(["accept", "reject"]),
    enum=st.just(()) | st.lists(st.integers(-5, 5) | st.text(max_size=3), max_size=3).map(tuple),
    pattern=st.sampled_from(["", "[a-c]*", ".+"]),
    max_length=st.sampled_from([0, 2]),
)
any_rules = st.builds(
    SchemaRules,
    unknown_inputs=st.sampled_from(["reject", "ignore"]),
    coerce=st.booleans(),
    inputs=st.dictionaries(st.sampled_from(["a", "b"]), any_rule, max_size=2),
)


@st.composite
def tensors(draw: st.DrawFn, name: str) -> Tensor:
    datatype = draw(st.sampled_from(list(DATATYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=3)))
    count = int(np.prod(shape))
    if datatype == "BYTES":
        return Tensor(name, datatype, shape, encode_elements([draw(st.binary(max_size=4)) for _ in range(count)]))
    size = count * DATATYPES[datatype].size
    return Tensor(name, datatype, shape, draw(st.binary(min_size=size, max_size=size)))


specs = st.builds(
    TensorSpec, st.just("a"), st.sampled_from(list(DATATYPES)), st.sampled_from([(-1,), (-1, -1), (-1, 3)])
)


@given(any_rules, specs, st.booleans(), st.data())
def test_random_tensors_against_random_rules_fit_or_are_a_mismatch(
    given_rules: SchemaRules, spec: TensorSpec, batched: bool, data: st.DataObject
) -> None:
    signature = Signature((spec,), OUTPUTS, batched=batched)
    names = data.draw(st.lists(st.sampled_from(["a", "b", "c"]), max_size=3))
    request = call(*[data.draw(tensors(name)) for name in names])
    made = Rules(given_rules, signature)
    if explain_misfit(given_rules, signature):
        with pytest.raises(NotReady):
            made.check(request, signature)
        return
    try:
        checked = made.check(request, signature)
    except SchemaMismatch:
        return
    only = [tensor for tensor in checked.inputs if tensor.name == "a"]
    assert [tensor.datatype for tensor in checked.inputs] == [spec.datatype] == [tensor.datatype for tensor in only]
    rule = given_rules.inputs.get("a", InputRule())
    for value in to_numpy(only[0]).ravel().tolist():
        if isinstance(value, bytes):
            assert not rule.max_length or len(value) <= rule.max_length
            assert not rule.enum or value.decode("utf-8", "replace") in rule.enum
        elif value == value:
            slack = abs(value) * 2.0**-7
            assert rule.min is None or value >= rule.min - slack - 2.0**-24
            assert rule.max is None or value <= rule.max + slack + 2.0**-24
            assert not rule.enum or value in rule.enum
        else:
            assert rule.nan == "accept"
            assert not rule.enum
