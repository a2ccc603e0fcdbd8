"""Rules that contradict themselves are refused where they are written, by field."""

from pathlib import Path as File
from typing import Any

import pytest

from hyperion.schema.errors import InvalidResource
from hyperion.schema.protect import InputRule, SchemaRules
from hyperion.schema.resource import Endpoint
from hyperion.store.checks.ranges import Path
from hyperion.store.checks.rules import check_rules
from hyperion.store.resource_yaml import read_resources, write_path


def refuse(path: Path, message: str) -> InvalidResource:
    return InvalidResource(f"{write_path(path)}: {message}")


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"min": 1, "max": 1},
        {"min": -10, "nan": "reject", "inf": "reject", "null": "default", "default": 0},
        {"enum": ("DE", "FR"), "pattern": "[A-Z]+", "max_length": 2, "null": "default", "default": "DE"},
        {"pattern": "[A-Z]*", "max_length": 2, "null": "empty"},
        {"enum": (True, False), "null": "default", "default": True},
        {"enum": (1, 2.5)},
        {"enum": (True,)},
        {"null": "nan"},
        {"null": "default", "default": False},
    ],
)
def test_rules_that_make_sense_pass(rule: dict[str, Any]) -> None:
    check_rules(SchemaRules(inputs={"x": InputRule(**rule)}), refuse)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"min": 2, "max": 1}, ".max: expected min (2) or more, got 1"),
        ({"min": 2, "pattern": "a"}, ".pattern: is for texts, but min is for numbers; an input is one or the other"),
        ({"max": 2, "max_length": 1}, ".max_length: is for texts, but max is for numbers"),
        ({"max_length": -1}, ".max_length: expected 0 to 2147483648, got -1"),
        ({"pattern": "(a"}, ".pattern: missing ): (a"),
        ({"pattern": r"(a)\1"}, r".pattern: invalid escape sequence: \1"),
        ({"pattern": "a" * 2000}, ".pattern: it has 2000 characters, at most 1024 are allowed"),
        ({"enum": tuple(range(2000))}, ".enum: at most 1024 values, got 2000"),
        ({"enum": (1, "a")}, ".enum: expected values of one kind, got a number and a text"),
        ({"enum": (1, True)}, ".enum: expected values of one kind, got a number and true or false"),
        ({"enum": ("a", "b" * 300)}, ".enum[1]: expected at most 256 characters, got 300"),
        ({"null": "default"}, ".default: is missing: null: default puts it in a null's place"),
        ({"default": 1}, ".default: means nothing with null: reject (only with null: default)"),
        ({"null": "nan", "nan": "reject"}, ".null: nan would make of a null what nan: reject refuses"),
        ({"max": 130, "null": "default", "default": 999}, ": what stands for null is not 130 or less"),
        ({"min": 0, "null": "default", "default": "none"}, ": default is 'none', which is no FP64"),
        ({"enum": ("DE", "FR"), "null": "empty"}, ": what stands for null is not one of DE, FR"),
        ({"pattern": "[A-Z]{2}", "null": "default", "default": "de"}, ": what stands for null is not a text that"),
        ({"enum": (True,), "null": "default", "default": False}, ": what stands for null is not one of true"),
        ({"enum": ("DEU", "FRA"), "max_length": 2}, ": enum has nothing that is at most 2 bytes"),
        ({"enum": (5, 6), "max": 3}, ": enum has nothing that is 3 or less"),
    ],
)
def test_rules_that_contradict_themselves_are_refused_by_field(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidResource) as caught:
        check_rules(SchemaRules(inputs={"x": InputRule(**rule)}), refuse)
    assert caught.value.message.startswith(f"spec.schema.inputs.x{message}")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"": InputRule()}, "expected an input's name of 1 to 256 characters"),
        ({"n" * 257: InputRule()}, "expected an input's name of 1 to 256 characters"),
        ({f"x{index}": InputRule() for index in range(65)}, "spec.schema.inputs: at most 64, got 65"),
    ],
)
def test_names_and_their_number_are_bounded(inputs: dict[str, InputRule], message: str) -> None:
    with pytest.raises(InvalidResource, match=message):
        check_rules(SchemaRules(inputs=inputs), refuse)


def test_a_rule_for_nulls_needs_no_quotes_in_yaml(tmp_path: File) -> None:
    file = tmp_path / "e.yaml"
    rules = "{inputs: {x: {null: default, default: 0}, y: {null: nan}}}"
    file.write_text(f"kind: Endpoint\nmetadata: {{name: e}}\nspec:\n  model: e@1\n  schema: {rules}\n")
    (resource,) = read_resources([str(file)])
    assert isinstance(resource, Endpoint)
    assert resource.spec.schema is not None
    assert [rule.null for rule in resource.spec.schema.inputs.values()] == ["default", "nan"]
