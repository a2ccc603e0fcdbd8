"""Apache Arrow, imported when a table is first touched: nothing else of the platform needs it."""

from importlib import import_module
from typing import Any

from hyperion.schema.errors import MissingExtra


def load_arrow(module: str = "") -> Any:
    """`pyarrow`, or its submodule of that name (`parquet`, `csv`, `json`, `compute`). Raises MissingExtra.

    >>> load_arrow("compute").sum([1, 2]).as_py()
    3
    """
    try:
        return import_module(f"pyarrow.{module}" if module else "pyarrow")
    except ImportError as error:
        raise MissingExtra(
            "batch scoring needs pyarrow, which is not installed; install it with: pip install "
            "'hyperion-inference[batch]'"
        ) from error
