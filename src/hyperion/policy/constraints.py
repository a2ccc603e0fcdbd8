"""What an input's elements must be, by the rule that somebody declared for it: which rules fit which datatypes, and
which element is the first that breaks one. Pure.

Bounds and enumerated numbers are rounded to the datatype, as a caller's numbers were: 0.1 is not over `max: 0.1` only
because FP32 has no 0.1. `gateway/front/rules` asks for every request, control when it learns a version's signature.
"""

from collections.abc import Sequence
from math import ceil, floor, inf, isfinite, nan
from struct import pack, unpack
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from hyperion.policy.pattern import Pattern
from hyperion.schema.errors import MissingExtra
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.protect import InputRule, Scalar, SchemaRules

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# The largest finite number of each float: IEEE 754 binary16, bfloat16, binary32, binary64.
LARGEST: Final = {
    "FP16": 65504.0,
    "BF16": 2.0**128 - 2.0**120,
    "FP32": 2.0**128 - 2.0**104,
    "FP64": 1.7976931348623157e308,
}
INTEGERS: Final = {f"INT{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (8, 16, 32, 64)} | {
    f"UINT{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32, 64)
}
MAX_NAMED: Final = 8  # enumerated values in a message


class Constraint:
    """A rule made ready for one datatype. Numbers are within `low` and `high` or, where there is `allowed`, in there;
    `nan` says if NaN passes. Texts have at most `max_length` bytes (0: any) and match `pattern`. `expected` says all of
    it in words."""

    __slots__ = ("allowed", "expected", "high", "low", "max_length", "nan", "pattern", "texts", "whole")

    def __init__(self, rule: InputRule, datatype: str) -> None:
        """The rule must fit: `explain_misfit` says if it does."""
        self.whole: Final = datatype in INTEGERS or datatype == "BOOL"
        # Any, as compiled code would keep whole numbers as floats, and large ones are none of these.
        self.low: Final[Any] = _low(rule, datatype)
        self.high: Final[Any] = _high(rule, datatype)
        self.nan: Final = rule.nan == "accept" and not rule.enum
        text = datatype == "BYTES"
        numbers = [] if text else [_number(one, datatype) for one in rule.enum]
        self.allowed: Final[frozenset[Any]] = frozenset([one for one in numbers if self.low <= one <= self.high])
        self.texts: Final[frozenset[bytes]] = frozenset([str(one).encode() for one in rule.enum] if text else [])
        self.max_length: Final = rule.max_length
        self.pattern: Final = Pattern(rule.pattern) if rule.pattern else None
        self.expected: Final = _expected(rule)


def is_idle(rule: InputRule) -> bool:
    """Whether a rule asks nothing of the elements themselves.

    >>> is_idle(InputRule(null="nan")), is_idle(InputRule(max=1.0))
    (True, False)
    """
    return rule == InputRule(null=rule.null, default=rule.default)


def are_within(values: tuple[float, ...], low: float, high: float) -> bool:
    """Whether all numbers are in a range; a NaN is in none. Spelled out, as compiled this takes a tenth of what min and
    max do.

    >>> are_within((0.5, 2.0), 0.0, 2.0), are_within((0.5, float("nan")), 0.0, 2.0)
    (True, False)
    """
    for value in values:  # noqa: SIM110
        if not low <= value <= high:
            return False
    return True


def find_number(values: Sequence[Any], constraint: Constraint) -> int:
    """The place of the first number that breaks the constraint, or -1.

    >>> find_number((0.5, 11.0), Constraint(InputRule(min=-10, max=10), "FP32"))
    1
    """
    if not values:
        return -1
    if constraint.allowed:
        if constraint.allowed.issuperset(values):
            return -1
    elif constraint.whole:
        if constraint.low <= min(values) and max(values) <= constraint.high:
            return -1
    elif are_within(tuple(values), constraint.low, constraint.high):
        return -1
    for place, value in enumerate(values):
        if not admits(constraint, value):
            return place
    return -1


def find_in_array(array: "Array", constraint: Constraint) -> int:
    """As `find_number`, for the elements of a numpy array in row-major order."""
    import numpy as np

    if not array.size:
        return -1
    if constraint.allowed:
        right = np.isin(array, np.array(sorted(constraint.allowed), dtype=array.dtype))
    else:
        if constraint.low <= np.minimum.reduce(array, None) and np.maximum.reduce(array, None) <= constraint.high:
            return -1  # with a NaN both are NaN
        right = (array >= constraint.low) & (array <= constraint.high)
        if constraint.nan and array.dtype.kind == "f":
            right |= np.isnan(array)
    place = int(right.argmin())
    return -1 if right.flat[place] else place


def find_text(elements: Sequence[bytes], constraint: Constraint) -> int:
    """The place of the first text that breaks the constraint, or -1.

    >>> find_text((b"DE", b"de"), Constraint(InputRule(enum=("DE", "FR")), "BYTES"))
    1
    """
    texts, most, pattern = constraint.texts, constraint.max_length, constraint.pattern
    for place, element in enumerate(elements):
        if most and len(element) > most:
            return place
        if texts and element not in texts:
            return place
        if pattern is not None and not pattern.matches(element):
            return place
    return -1


def admits(constraint: Constraint, value: Any) -> bool:
    """Whether one number is within a constraint; what `find_number` asks where it is in doubt.

    >>> admits(Constraint(InputRule(max=0.1), "FP32"), 0.10000000149011612)
    True
    """
    if value != value:
        return constraint.nan
    if constraint.allowed:
        return value in constraint.allowed
    return bool(constraint.low <= value <= constraint.high)


def nearest(value: float, datatype: str) -> float:
    """The number of a float datatype that is nearest to a finite one, never an infinity.

    >>> nearest(0.1, "FP32"), nearest(1e9, "FP16")
    (0.10000000149011612, 65504.0)
    """
    largest = LARGEST[datatype]
    value = max(-largest, min(largest, float(value)))
    if datatype == "FP64":
        return value
    if datatype == "BF16":
        bits: int = unpack("<I", pack("<f", value))[0]
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000  # ties to even
        return float(unpack("<f", pack("<I", bits))[0])
    code = "<e" if datatype == "FP16" else "<f"
    return float(unpack(code, pack(code, value))[0])


def null_values(rules: SchemaRules) -> dict[str, Scalar]:
    """What stands for a JSON null, by input; of inputs that are not in there nulls are refused.

    >>> null_values(SchemaRules(inputs={"country": InputRule(null="default", default="DE"), "age": InputRule()}))
    {'country': 'DE'}
    """
    return {name: _null_value(rule) for name, rule in rules.inputs.items() if rule.null != "reject"}


def explain_misfit(rules: SchemaRules, signature: Signature) -> str:
    """Why rules cannot be kept with a model of this signature; "" where they can.

    >>> signature = Signature((TensorSpec("age", "UINT8", (-1,)),), ())
    >>> explain_misfit(SchemaRules(inputs={"age": InputRule(pattern="[0-9]+")}), signature)
    'schema.inputs.age: pattern is for BYTES, but the model takes UINT8'
    """
    specs = {spec.name: spec for spec in signature.inputs}
    for name, rule in rules.inputs.items():
        spec = specs.get(name)
        if spec is None:
            return f"schema.inputs.{name}: the model has no such input; it takes {', '.join(specs)}"
        why = _explain_rule(rule, spec)
        if why:
            return f"schema.inputs.{name}: {why}"
    return ""


def explain_contradiction(rule: InputRule) -> str:
    """Why a rule cannot be kept with any model: nothing is left of its enumeration, or it refuses what it puts in a
    null's place. "" where some datatype may fit.

    >>> explain_contradiction(InputRule(max=130, null="default", default=999))
    'what stands for null is not 130 or less'
    >>> explain_contradiction(InputRule(enum=("DEU", "FRA"), max_length=2))
    'enum has nothing that is at most 2 bytes'
    """
    values = (*rule.enum, *(() if rule.default is None else (rule.default,)))
    datatype = "BOOL" if any(isinstance(value, bool) for value in values) else "FP64"
    if rule.pattern or rule.max_length or rule.null == "empty" or any(isinstance(value, str) for value in values):
        datatype = "BYTES"
    return _explain_null(rule, "FP64" if rule.min is not None or rule.max is not None else datatype)


def _explain_rule(rule: InputRule, spec: TensorSpec) -> str:
    datatype = spec.datatype
    number = datatype in INTEGERS or datatype in LARGEST
    asked = (
        ("min", rule.min is not None, number, "numbers"),
        ("max", rule.max is not None, number, "numbers"),
        ("nan: reject", rule.nan == "reject", datatype in LARGEST, "floats"),
        ("inf: reject", rule.inf == "reject", datatype in LARGEST, "floats"),
        ("pattern", bool(rule.pattern), datatype == "BYTES", "BYTES"),
        ("max_length", bool(rule.max_length), datatype == "BYTES", "BYTES"),
        ("null: nan", rule.null == "nan", datatype in LARGEST, "floats"),
        ("null: empty", rule.null == "empty", datatype == "BYTES", "BYTES"),
        ("null", rule.null != "reject", datatype != "BF16", "datatypes that JSON carries"),
    )
    for name, wanted, fits, what in asked:
        if wanted and not fits:
            return f"{name} is for {what}, but the model takes {datatype}"
    for value in rule.enum:
        if not _is_of(value, datatype):
            return f"enum has {value!r:.40}, which is no {datatype}"
    if number and not (
        isfinite(rule.min or 0.0) and isfinite(rule.max or 0.0) and _low(rule, datatype) <= _high(rule, datatype)
    ):
        return f"no {datatype} is {_range(rule)}"
    return _explain_null(rule, datatype)


def _explain_null(rule: InputRule, datatype: str) -> str:
    """Why what stands for null would be refused itself, or cannot be an element; "" where it is fine."""
    try:
        constraint = Constraint(rule, datatype)
    except (MissingExtra, ValueError) as error:
        return f"pattern: {error}"
    if rule.enum and not _is_possible(constraint):
        return f"enum has nothing that is {_expected(replace(rule, enum=()))}"
    if rule.null == "reject":
        return ""
    value = _null_value(rule)
    if rule.null == "default" and not _is_of(value, datatype):
        return f"default is {value!r:.40}, which is no {datatype}"
    if datatype == "BYTES":
        right = find_text((str(value).encode(),), constraint) < 0
    else:
        right = admits(constraint, _number(value, datatype))
    return "" if right else f"what stands for null is not {constraint.expected}"


def _is_possible(constraint: Constraint) -> bool:
    """Whether anything that is enumerated keeps to the rest of the constraint."""
    return bool(constraint.allowed) or any(find_text((text,), constraint) < 0 for text in constraint.texts)


def show_value(value: Any) -> str:
    """A value as a message has it: truth values as JSON writes them, floats with nine digits.

    >>> show_value(True), show_value(9007199254740993), show_value(0.10000000149011612)
    ('true', '9007199254740993', '0.100000001')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _name(value: Scalar) -> str:
    """An enumerated value as a message has it: floats as they were written."""
    return show_value(value) if isinstance(value, bool) else str(value)[:40]


def _null_value(rule: InputRule) -> Scalar:
    if rule.null == "default" and rule.default is not None:
        return rule.default
    return "" if rule.null == "empty" else nan


def _is_of(value: Scalar, datatype: str) -> bool:
    """Whether a value of a resource can be an element of the datatype (floats are rounded)."""
    if datatype == "BYTES":
        return isinstance(value, str)
    if isinstance(value, bool) or datatype == "BOOL":
        return isinstance(value, bool) and datatype == "BOOL"
    if isinstance(value, str) or not isfinite(value):
        return False
    if datatype in INTEGERS:
        lowest, highest = INTEGERS[datatype]
        return value == int(value) and lowest <= value <= highest
    return abs(value) <= LARGEST[datatype]


def _number(value: Scalar, datatype: str) -> Any:
    if datatype in LARGEST:
        number = float(value)
        return nearest(number, datatype) if isfinite(number) else number
    return int(value)


def _low(rule: InputRule, datatype: str) -> Any:
    if datatype in LARGEST:
        lowest = -inf if rule.inf == "accept" else -LARGEST[datatype]
        return lowest if rule.min is None else max(lowest, nearest(rule.min, datatype))
    lowest_integer = INTEGERS.get(datatype, (0, 1))[0]
    return lowest_integer if rule.min is None else max(lowest_integer, ceil(rule.min))


def _high(rule: InputRule, datatype: str) -> Any:
    if datatype in LARGEST:
        highest = inf if rule.inf == "accept" else LARGEST[datatype]
        return highest if rule.max is None else min(highest, nearest(rule.max, datatype))
    highest_integer = INTEGERS.get(datatype, (0, 1))[1]
    return highest_integer if rule.max is None else min(highest_integer, floor(rule.max))


def _range(rule: InputRule) -> str:
    if rule.min is not None and rule.max is not None:
        return f"from {rule.min:.15g} to {rule.max:.15g}"
    return f"{rule.min:.15g} or more" if rule.min is not None else f"{rule.max:.15g} or less"


def _expected(rule: InputRule) -> str:
    """The rule in words."""
    parts: list[str] = []
    if rule.min is not None or rule.max is not None:
        parts.append(f"a number {_range(rule)}" if rule.min is not None and rule.max is not None else _range(rule))
    if rule.enum:
        named = ", ".join([_name(value) for value in rule.enum[:MAX_NAMED]])
        parts.append(f"one of {named}" + (f" … ({len(rule.enum)} in all)" if len(rule.enum) > MAX_NAMED else ""))
    if rule.pattern:
        parts.append(f"a text that matches {rule.pattern[:80]}")
    if rule.max_length:
        parts.append(f"at most {rule.max_length} bytes")
    parts += [f"no {name}" for name, word in (("NaN", rule.nan), ("infinity", rule.inf)) if word == "reject"]
    return ", ".join(parts)
