"""The `when` of a switch's step: one comparison of a row's first value of an input, or of a request parameter, with a
constant. Pure. `store` refuses what is none before it is kept; `gateway` asks with each request.

>>> condition = parse_condition('country == "DE"')
>>> holds(condition, "DE"), holds(condition, b"FR"), holds(condition, None)
(True, False, False)
"""

import json
import re
from typing import Final

from msgspec import Struct

OPERATORS: Final = ("==", "!=", "<=", ">=", "<", ">")
_FORM: Final = re.compile(r"\s*([^\s=!<>\"]{1,256})\s*(==|!=|<=|>=|<|>)\s*(\S.*?)\s*", re.DOTALL)
Value = str | int | float | bool


class Condition(Struct, frozen=True):
    """`name` is an input, or a request parameter where no input has that name."""

    name: str
    operator: str
    value: Value


def parse_condition(text: str) -> Condition:
    """The comparison that a text means. Raises ValueError, which says what was expected.

    >>> parse_condition("amount >= 1000")
    Condition(name='amount', operator='>=', value=1000)
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError(f'expected NAME OPERATOR VALUE, such as country == "DE"; operators: {", ".join(OPERATORS)}')
    name, operator, written = form.groups()
    try:
        value = json.loads(written, parse_constant=_refuse)
    except ValueError:
        value = None
    if not isinstance(value, str | int | float):
        raise ValueError(f'{written[:80]}: expected a number, true, false or a text in quotes, such as "DE"')
    if isinstance(value, str | bool) and operator not in ("==", "!="):
        raise ValueError(f"{operator} compares numbers only; expected == or != with {written[:80]}")
    return Condition(name, operator, value)


def holds(condition: Condition, given: Value | bytes | None) -> bool:
    """Whether a comparison is true of what the request has under its name. What is not there (None), not of the same
    kind or not a number (NaN) fulfils only `!=`.

    >>> holds(parse_condition("amount < 2.5"), 2), holds(parse_condition("amount != 2"), None)
    (True, True)
    """
    value, operator = condition.value, condition.operator
    if isinstance(given, bytes):
        given = given.decode("utf-8", "replace")
    if operator in ("==", "!="):
        return (_is_alike(given, value) and given == value) == (operator == "==")
    if not _is_alike(given, value):
        return False
    left, right = float(given), float(value)  # type: ignore[arg-type]
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator]


def _is_alike(given: Value | None, value: Value) -> bool:
    """A truth value is no number, although Python has it for one; a model may well answer 1 for true."""
    if isinstance(given, str) or isinstance(value, str):
        return isinstance(given, str) and isinstance(value, str)
    return given is not None


def _refuse(constant: str) -> None:
    raise ValueError(constant)
