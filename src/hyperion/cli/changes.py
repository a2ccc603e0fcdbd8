"""Show what changes from one resource to another, field by field."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from hyperion.cli.show import has_colour

_MARKS = {"created": "+", "configured": "~", "unchanged": " ", "deleted": "-"}
_COLOURS = {"+": "\x1b[32m", "~": "\x1b[33m", "-": "\x1b[31m"}


def print_changes(changes: Sequence[dict[str, Any]], *, dry_run: bool = False) -> None:
    """Print each change, in colour on a terminal."""
    out = sys.stdout
    colour = has_colour(out)
    for change in changes:
        mark = _MARKS[change["action"]]
        word = change["action"] + (" (dry run)" if dry_run else "")
        out.write(_paint(mark, f"{mark} {change['kind']} {change['name']}: {word}", colour) + "\n")
        for field in change["fields"]:
            for line in write_field(field):
                out.write(_paint(line.strip()[0], line, colour) + "\n")
    out.flush()


def write_field(field: dict[str, Any]) -> list[str]:
    """Lines about one field.

    >>> write_field({"path": "spec.deadline_ms", "before": 500, "after": 900})
    ['    - spec.deadline_ms: 500', '    + spec.deadline_ms: 900']
    """
    lines = []
    for mark, value in (("-", field["before"]), ("+", field["after"])):
        if value is not None:
            lines.append(f"    {mark} {field['path']}: {value if isinstance(value, str) else json.dumps(value)}")
    return lines or [f"    ~ {field['path']}"]


def _paint(mark: str, text: str, colour: bool) -> str:
    return f"{_COLOURS[mark]}{text}\x1b[0m" if colour and mark in _COLOURS else text
