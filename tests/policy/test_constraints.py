"""Which elements a rule admits: tables, and a slow reference that every fast way must agree with."""

import struct
from math import inf, isinf, isnan, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy import pattern as pattern_module
from hyperion.policy.constraints import (
    INTEGERS,
    LARGEST,
    Constraint,
    admits,
    explain_contradiction,
    explain_misfit,
    find_in_array,
    find_number,
    find_text,
    is_idle,
    nearest,
    null_values,
)
from hyperion.policy.pattern import Pattern
from hyperion.schema.errors import MissingExtra
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.protect import InputRule, SchemaRules

CODES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
INTS = {
    f"{sign}INT{bits}": f"<{letter}{bits // 8}" for bits in (8, 16, 32, 64) for sign, letter in (("", "i"), ("U", "u"))
}


def signature(datatype: str) -> Signature:
    return Signature((TensorSpec("x", datatype, (-1,)),), ())


def misfit(datatype: str, **fields: Any) -> str:
    return explain_misfit(SchemaRules(inputs={"x": InputRule(**fields)}), signature(datatype))


@pytest.mark.parametrize(
    ("datatype", "rule", "good", "bad"),
    [
        ("FP32", InputRule(min=-10, max=10), (-10.0, 0.0, 10.0, nan), (-10.000001, 10.000001, inf, -inf)),
        ("FP32", InputRule(max=10), (-inf, 10.0, nan), (11.0, inf)),
        ("FP32", InputRule(min=0), (inf, 0.0, -0.0), (-1e-30,)),
        ("FP32", InputRule(min=0, inf="reject"), (0.0, LARGEST["FP32"], nan), (inf,)),
        ("FP32", InputRule(nan="reject"), (inf, -inf, 0.0), (nan,)),
        ("FP32", InputRule(inf="reject"), (nan, 0.0), (inf, -inf)),
        ("FP64", InputRule(nan="reject", inf="reject"), (0.0, LARGEST["FP64"]), (nan, inf, -inf)),
        ("FP32", InputRule(max=0.1), (nearest(0.1, "FP32"),), (nearest(0.10001, "FP32"),)),
        ("FP64", InputRule(max=0.1), (0.1,), (nearest(0.1, "FP32"),)),
        ("FP32", InputRule(enum=(0.1, 2)), (nearest(0.1, "FP32"), 2.0), (0.2, nan, inf)),
        ("FP32", InputRule(enum=(1, 2, 30), max=10), (1.0, 2.0), (30.0,)),
        ("INT8", InputRule(min=1.5), (2, 127), (1, -128)),
        ("INT64", InputRule(max=2.0**53), (2**53,), (2**53 + 1,)),
        ("UINT64", InputRule(min=2.0**63), (2**63, 2**64 - 1), (2**63 - 1,)),
        ("UINT8", InputRule(max=1e9), (0, 255), ()),
        ("INT32", InputRule(enum=(1, 2.0)), (1, 2), (3,)),
        ("BOOL", InputRule(enum=(True,)), (True,), (False,)),
    ],
)
def test_the_table_of_numbers(datatype: str, rule: InputRule, good: tuple[float, ...], bad: tuple[float, ...]) -> None:
    assert misfit(datatype) == explain_misfit(SchemaRules(inputs={"x": rule}), signature(datatype)) == ""
    constraint = Constraint(rule, datatype)
    dtype = CODES.get(datatype) or INTS.get(datatype) or "?"
    assert find_number(good, constraint) == find_in_array(np.array(good, dtype), constraint) == -1
    for value in bad:
        assert find_number((*good, value), constraint) == len(good), value
        assert find_in_array(np.array((*good, value), dtype), constraint) == len(good), value


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (InputRule(enum=("DE", "FR")), (b"DE", b"FR"), (b"de", b"", b"DE ")),
        (InputRule(max_length=3), (b"", b"abc", "€".encode()), (b"abcd", "€€".encode())),
        (InputRule(pattern="[a-z]+"), (b"abc",), (b"", b"abc1", b"Abc", b"abc\n")),
        (InputRule(pattern=".*"), (b"", "ä".encode()), (b"\xff", b"a\nb")),
        (InputRule(pattern="a*", max_length=2), (b"aa",), (b"aaa", b"b")),
        (InputRule(enum=("a", "b"), pattern="[b-z]"), (b"b",), (b"a", b"c")),
    ],
)
def test_the_table_of_texts(rule: InputRule, good: tuple[bytes, ...], bad: tuple[bytes, ...]) -> None:
    assert explain_misfit(SchemaRules(inputs={"x": rule}), signature("BYTES")) == ""
    constraint = Constraint(rule, "BYTES")
    assert find_text(good, constraint) == -1
    for element in bad:
        assert find_text((*good, element), constraint) == len(good), element


def test_nothing_breaks_no_rule() -> None:
    constraint = Constraint(InputRule(min=1, enum=(2,)), "FP32")
    assert find_number((), constraint) == find_in_array(np.zeros((0, 3), "<f4"), constraint) == -1
    assert find_text((), constraint) == -1


def test_numbers_whose_sum_is_no_number_are_looked_at_one_by_one() -> None:
    assert find_number((inf, -inf, 1.0), Constraint(InputRule(nan="reject"), "FP64")) == -1
    assert find_number((inf, -inf, nan), Constraint(InputRule(nan="reject"), "FP64")) == 2


def reference(rule: InputRule, datatype: str, value: float) -> bool:
    """The rule as it reads, with bounds rounded as numpy rounds."""
    if datatype in CODES:
        with np.errstate(over="ignore"):
            rounded = [
                np.array(bound, CODES[datatype]).astype(float).item() for bound in (rule.min or 0.0, rule.max or 0.0)
            ]
            listed = {np.array(float(one), CODES[datatype]).astype(float).item() for one in rule.enum}
        low, high = (max(-LARGEST[datatype], min(LARGEST[datatype], bound)) for bound in rounded)
    else:
        low, high, listed = rule.min or 0, rule.max or 0, set(rule.enum)
    if isnan(value):
        return rule.nan == "accept" and not rule.enum
    if isinf(value) and rule.inf == "reject":
        return False
    if rule.min is not None and value < low:
        return False
    if rule.max is not None and value > high:
        return False
    return not rule.enum or value in listed


bounds = (
    st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, 0.1, 1.0, -1.0, 127.0, 2.0**53])
)


@st.composite
def number_rules(draw: st.DrawFn) -> tuple[InputRule, str]:
    """A rule and a datatype that it fits."""
    datatype = draw(st.sampled_from([*CODES, *INTS]))
    policy = st.sampled_from(["accept", "reject"]) if datatype in CODES else st.just("accept")
    enum = st.lists(st.integers(0, 100) if datatype in INTS else st.floats(-1e4, 1e4), max_size=4)
    rule = InputRule(min=draw(bounds), max=draw(bounds), nan=draw(policy), inf=draw(policy), enum=tuple(draw(enum)))
    return rule, datatype


@given(number_rules(), st.data())
def test_python_numpy_and_a_slow_reference_agree(case: tuple[InputRule, str], data: st.DataObject) -> None:
    rule, datatype = case
    if explain_misfit(SchemaRules(inputs={"x": rule}), signature(datatype)):
        return
    near = [bound for bound in (rule.min, rule.max, *rule.enum) if bound is not None]
    if datatype in CODES:
        width = struct.calcsize({"FP16": "e", "FP32": "f", "FP64": "d"}[datatype]) * 8
        numbers = st.floats(width=width) | st.sampled_from([nearest(one, datatype) for one in near] or [0.0])
        dtype = CODES[datatype]
    else:
        lowest, highest = INTEGERS[datatype]
        inside = [max(lowest, min(highest, int(one) + step)) for one in near for step in (-1, 0, 1)]
        numbers = st.integers(lowest, highest) | st.sampled_from(inside or [0])
        dtype = INTS[datatype]
    values = tuple(data.draw(st.lists(numbers, max_size=12)))
    wanted = next((place for place, value in enumerate(values) if not reference(rule, datatype, value)), -1)
    constraint = Constraint(rule, datatype)
    assert find_number(values, constraint) == wanted
    assert find_in_array(np.array(values, dtype), constraint) == wanted
    assert [admits(constraint, value) for value in values] == [reference(rule, datatype, value) for value in values]


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["FP16", "FP32"]))
def test_rounding_is_that_of_ieee_754(value: float, datatype: str) -> None:
    with np.errstate(over="ignore"):
        rounded = float(np.array(value).astype(CODES[datatype]))
    assert nearest(value, datatype) == (rounded if not isinf(rounded) else LARGEST[datatype] * (1 if value > 0 else -1))


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_bfloat16_is_no_further_than_half_a_step(value: float) -> None:
    rounded = nearest(value, "BF16")
    assert struct.unpack("<I", struct.pack("<f", rounded))[0] & 0xFFFF == 0
    assert abs(rounded - max(-LARGEST["BF16"], min(LARGEST["BF16"], value))) <= max(abs(value) * 2.0**-8, 2.0**-134)


@pytest.mark.parametrize(
    ("datatype", "fields", "why"),
    [
        ("BYTES", {"min": 1}, "min is for numbers, but the model takes BYTES"),
        ("BOOL", {"max": 1}, "max is for numbers, but the model takes BOOL"),
        ("INT8", {"nan": "reject"}, "nan: reject is for floats, but the model takes INT8"),
        ("BYTES", {"inf": "reject"}, "inf: reject is for floats, but the model takes BYTES"),
        ("FP32", {"max_length": 3}, "max_length is for BYTES, but the model takes FP32"),
        ("INT8", {"null": "nan"}, "null: nan is for floats, but the model takes INT8"),
        ("INT8", {"null": "empty"}, "null: empty is for BYTES, but the model takes INT8"),
        (
            "BF16",
            {"null": "default", "default": 1},
            "null is for datatypes that JSON carries, but the model takes BF16",
        ),
        ("INT8", {"enum": ("a",)}, "enum has 'a', which is no INT8"),
        ("INT8", {"enum": (True,)}, "enum has True, which is no INT8"),
        ("INT8", {"enum": (1.5,)}, "enum has 1.5, which is no INT8"),
        ("INT8", {"enum": (300,)}, "enum has 300, which is no INT8"),
        ("FP16", {"enum": (1e6,)}, "enum has 1000000.0, which is no FP16"),
        ("FP32", {"enum": (nan,)}, "enum has nan, which is no FP32"),
        ("BOOL", {"enum": (1,)}, "enum has 1, which is no BOOL"),
        ("BYTES", {"enum": (1,)}, "enum has 1, which is no BYTES"),
        ("FP32", {"enum": (20,), "max": 10}, "enum has nothing that is 10 or less"),
        ("BYTES", {"enum": ("DEU",), "max_length": 2}, "enum has nothing that is at most 2 bytes"),
        ("UINT8", {"min": 300}, "no UINT8 is 300 or more"),
        ("UINT8", {"max": -1}, "no UINT8 is -1 or less"),
        ("INT8", {"min": 1.2, "max": 1.8}, "no INT8 is from 1.2 to 1.8"),
        ("FP32", {"min": inf}, "no FP32 is inf or more"),
        ("BYTES", {"pattern": "("}, "pattern: missing ): ("),
        ("BYTES", {"null": "default", "default": 3}, "default is 3, which is no BYTES"),
        ("BYTES", {"null": "empty", "pattern": "a+"}, "what stands for null is not a text that matches a+"),
        ("FP32", {"null": "nan", "nan": "reject"}, "what stands for null is not no NaN"),
        ("FP32", {"null": "default", "default": 11, "max": 10}, "what stands for null is not 10 or less"),
        ("FP32", {"null": "default", "default": 10, "max": 10}, ""),
        ("BYTES", {"null": "empty"}, ""),
        ("BOOL", {"null": "default", "default": True}, ""),
        ("FP64", {"null": "nan"}, ""),
    ],
)
def test_a_rule_that_does_not_fit_a_datatype_is_named(datatype: str, fields: dict[str, Any], why: str) -> None:
    assert misfit(datatype, **fields) == (f"schema.inputs.x: {why}" if why else "")


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (InputRule(), ""),
        (InputRule(enum=(True, False), null="default", default=False), ""),
        (InputRule(enum=(True,), null="default", default=False), "what stands for null is not one of true"),
        (InputRule(min=0, null="default", default="none"), "default is 'none', which is no FP64"),
        (InputRule(null="default", default=2**63), ""),
        (InputRule(pattern="a*", null="empty"), ""),
        (InputRule(pattern="a+", null="empty"), "what stands for null is not a text that matches a+"),
        (InputRule(enum=("DE", "FRA"), max_length=2), ""),
    ],
)
def test_a_rule_that_no_datatype_can_keep_is_named_without_a_model(rule: InputRule, why: str) -> None:
    assert explain_contradiction(rule) == why


def test_a_rule_for_an_input_that_the_model_does_not_have_is_named() -> None:
    rules = SchemaRules(inputs={"y": InputRule()})
    assert explain_misfit(rules, signature("FP32")) == "schema.inputs.y: the model has no such input; it takes x"


def test_a_null_has_what_stands_for_it() -> None:
    rules = SchemaRules(
        inputs={
            "a": InputRule(),
            "b": InputRule(null="nan"),
            "c": InputRule(null="empty"),
            "d": InputRule(null="default", default=False),
        }
    )
    found = null_values(rules)
    assert list(found) == ["b", "c", "d"]
    assert isnan(float(found["b"]))
    assert (found["c"], found["d"]) == ("", False)


def test_a_rule_says_in_words_what_it_expects() -> None:
    rule = InputRule(min=0, max=1, nan="reject", inf="reject")
    assert Constraint(rule, "FP32").expected == "a number from 0 to 1, no NaN, no infinity"
    many = InputRule(enum=tuple(f"v{index}" for index in range(10)), pattern="v.", max_length=9)
    assert Constraint(many, "BYTES").expected == (
        "one of v0, v1, v2, v3, v4, v5, v6, v7 … (10 in all), a text that matches v., at most 9 bytes"
    )


def test_what_asks_nothing_of_elements_is_idle() -> None:
    assert is_idle(InputRule())
    assert is_idle(InputRule(null="default", default=1))
    assert not is_idle(InputRule(nan="reject"))


@pytest.mark.parametrize("text", ["(a)\\1", "(?=a)", "[", "a{1001}", "x" * 2000, "((a{100}){100}){100}", "(?P<a"])
def test_an_expression_that_cannot_be_done_in_linear_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Pattern(text)


@pytest.mark.parametrize("text", ["(a+)+$", "(a|aa)+", "(.*)*b", "(a*)*c"])
def test_no_expression_takes_long(text: str) -> None:
    """A backtracking engine would take longer than the universe."""
    assert not Pattern(text).matches(b"a" * 100_000 + b"!")


def test_without_the_engine_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise MissingExtra("`pattern` needs RE2: pip install 'hyperion-inference[patterns]'")

    monkeypatch.setattr(pattern_module, "_engine", missing)
    assert "hyperion-inference[patterns]" in misfit("BYTES", pattern="a")


def test_an_engine_that_is_not_there_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "re2", None)
    with pytest.raises(MissingExtra, match="patterns"):
        Pattern("a")
