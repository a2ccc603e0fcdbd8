"""Print tables and JSON: colours and columns for a terminal, plain columns for a pipe, JSON where a script asks."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO


def has_colour(stream: TextIO) -> bool:
    """Whether colours belong there: on a terminal that can show them, unless its user wants none."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO | None = None) -> None:
    """Print columns. `rich` is imported for a terminal only; it honours NO_COLOR."""
    out = stream or sys.stdout
    if out.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*titles, box=box.SIMPLE, show_header=any(titles))
        for row in rows:
            table.add_row(*map(Text, row))
        Console(file=out).print(table)
        return
    widths = [max(len(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows) if any(titles) else rows:
        out.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
