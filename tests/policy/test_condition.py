"""What a switch's condition means, and what is none."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.graph.condition import OPERATORS, Condition, Value, holds, parse_condition


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ('country == "DE"', Condition("country", "==", "DE")),
        ('country=="D\\u00e9 < 2"', Condition("country", "==", "Dé < 2")),
        ("  amount>=1e3  ", Condition("amount", ">=", 1000.0)),
        ("a.b/c-d < -3", Condition("a.b/c-d", "<", -3)),
        ("premium != true", Condition("premium", "!=", True)),
    ],
)
def test_a_comparison_is_read(text: str, condition: Condition) -> None:
    assert parse_condition(text) == condition


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected NAME OPERATOR VALUE"),
        ("country", "expected NAME OPERATOR VALUE"),
        ('== "DE"', "expected NAME OPERATOR VALUE"),
        ("country == DE", "DE: expected a number, true, false or a text in quotes"),
        ("x == null", "null: expected a number"),
        ("x == [1]", "expected a number"),
        ("x == NaN", "NaN: expected a number"),
        ("x === 1", "expected a number"),
        ('x < "a"', "< compares numbers only"),
        ("x >= true", ">= compares numbers only"),
        ("a b == 1", "expected NAME OPERATOR VALUE"),
        ("x == 1 and y == 2", "expected a number"),
        (f"{'n' * 300} == 1", "expected NAME OPERATOR VALUE"),
    ],
)
def test_what_is_no_comparison_is_told(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse_condition(text)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "given", "true"),
    [
        ('x == "DE"', b"DE", True),
        ('x == "DE"', b"\xff", False),
        ('x != "DE"', "FR", True),
        ('x == "1"', 1, False),
        ("x == 1", "1", False),
        ("x == true", True, True),
        ("x == true", 1, True),
        ("x == false", 1, False),
        ("x < 2", 1, True),
        ("x <= 2", 2.0, True),
        ("x > 2", 2, False),
        ("x >= 2", True, False),
        ("x < 2", "1", False),
        ("x < 2", None, False),
        ("x != 2", None, True),
        ("x == 2", math.nan, False),
        ("x != 2", math.nan, True),
        ("x >= 2", math.nan, False),
    ],
)
def test_a_comparison_holds_or_not(text: str, given: Value | bytes | None, true: bool) -> None:
    assert holds(parse_condition(text), given) is true


@given(st.sampled_from(OPERATORS), st.integers(-5, 5), st.integers(-5, 5) | st.floats(allow_nan=False))
def test_an_operator_and_its_opposite_never_agree(operator: str, value: int, given: float) -> None:
    opposite = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}[operator]
    assert holds(Condition("x", operator, value), given) != holds(Condition("x", opposite, value), given)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        condition = parse_condition(text)
    except ValueError:
        return
    assert condition.operator in OPERATORS
    assert condition.name in text
