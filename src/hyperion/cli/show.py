"""Print tables and JSON: colours and columns for a terminal, plain columns for a pipe, JSON where a script asks."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any, TextIO

_LEAST_LAST = 16  # columns of a terminal: under that, folded text is worse than lines that the terminal wraps


def has_colour(stream: TextIO) -> bool:
    """Whether colours belong there: on a terminal that can show them, unless its user wants none."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO | None = None) -> None:
    """Print columns, whole. `rich` is imported for a terminal only, of which the last column can be the rest; it
    honours NO_COLOR."""
    out = stream or sys.stdout
    widths = [max(len(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    if out.isatty() and sum(widths[:-1]) + 3 * len(widths) + _LEAST_LAST <= shutil.get_terminal_size().columns:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE, show_header=any(titles))
        for at, title in enumerate(titles):
            table.add_column(title, no_wrap=at + 1 < len(titles), overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        Console(file=out).print(table)
        return
    for row in (titles, *rows) if any(titles) else rows:
        out.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
