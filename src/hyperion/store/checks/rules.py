"""What the rules of an endpoint's `schema` may be, as far as that can be said without its model. Called by
`endpoint`; pure: raises or returns nothing.

Which rules fit which datatypes is said where they meet a signature: `policy.constraints.explain_misfit`.
"""

from hyperion.policy.constraints import explain_contradiction
from hyperion.policy.pattern import Pattern
from hyperion.schema.errors import MissingExtra
from hyperion.schema.protect import InputRule, SchemaRules
from hyperion.store.checks.ranges import Path, Refuse, check_within

MAX_INPUTS = 64  # as many as a request may have
MAX_NAME = 256
MAX_ENUM = 1_024
MAX_ENUM_TEXT = 256
_TEXT_FIELDS = ("pattern", "max_length")
_NUMBER_FIELDS = ("min", "max")


def check_rules(rules: SchemaRules, refuse: Refuse) -> None:
    """Refuse rules that contradict themselves, expressions that are none, and what is too long. Raises what `refuse`
    makes."""
    at: Path = ("spec", "schema", "inputs")
    if len(rules.inputs) > MAX_INPUTS:
        raise refuse(at, f"at most {MAX_INPUTS}, got {len(rules.inputs)}")
    for name, rule in rules.inputs.items():
        if not 1 <= len(name) <= MAX_NAME:
            raise refuse((*at, name), f"expected an input's name of 1 to {MAX_NAME} characters")
        _check_input(rule, (*at, name), refuse)


def _check_input(rule: InputRule, at: Path, refuse: Refuse) -> None:
    if rule.min is not None and rule.max is not None and rule.max < rule.min:
        raise refuse((*at, "max"), f"expected min ({rule.min:g}) or more, got {rule.max:g}")
    texts = [name for name in _TEXT_FIELDS if getattr(rule, name)]
    numbers = [name for name in _NUMBER_FIELDS if getattr(rule, name) is not None]
    if texts and numbers:
        raise refuse((*at, texts[0]), f"is for texts, but {numbers[0]} is for numbers; an input is one or the other")
    check_within(rule.max_length, 0, 1 << 31, (*at, "max_length"), refuse)
    if rule.pattern:
        try:
            Pattern(rule.pattern)
        except (ValueError, MissingExtra) as error:
            raise refuse((*at, "pattern"), str(error)) from error
    _check_enum(rule, (*at, "enum"), refuse)
    if rule.null == "default" and rule.default is None:
        raise refuse((*at, "default"), "is missing: null: default puts it in a null's place")
    if rule.null != "default" and rule.default is not None:
        raise refuse((*at, "default"), f"means nothing with null: {rule.null} (only with null: default)")
    if rule.null == "nan" and rule.nan == "reject":
        raise refuse((*at, "null"), "nan would make of a null what nan: reject refuses")
    if why := explain_contradiction(rule):
        raise refuse(at, why)


def _check_enum(rule: InputRule, at: Path, refuse: Refuse) -> None:
    if len(rule.enum) > MAX_ENUM:
        raise refuse(at, f"at most {MAX_ENUM} values, got {len(rule.enum)}")
    kinds = {
        "a text" if isinstance(value, str) else "true or false" if isinstance(value, bool) else "a number"
        for value in rule.enum
    }
    if len(kinds) > 1:
        raise refuse(at, f"expected values of one kind, got {' and '.join(sorted(kinds))}")
    for index, value in enumerate(rule.enum):
        if isinstance(value, str) and len(value) > MAX_ENUM_TEXT:
            raise refuse((*at, index), f"expected at most {MAX_ENUM_TEXT} characters, got {len(value)}")
