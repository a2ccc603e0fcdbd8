"""How the tensors of a request become a pandas DataFrame, for models that address their columns by name.

Used by `sklearn` (pipelines that begin with a ColumnTransformer, columns of text) and `mlflow_pyfunc`.
"""

from importlib import import_module
from typing import Any

from hyperion.runner.formats.features import Features, Table, default_input, order_columns
from hyperion.runner.model import Array, Arrays
from hyperion.schema.errors import MissingExtra
from hyperion.schema.model import Signature


def plan_frame(model: str, table: Table, declared: Signature | None) -> Features:
    """How to feed a model that wants the table's columns by name: one input per column, or one matrix of them all.

    Raises MissingExtra without pandas, and ModelRefused where the declared inputs are not the table's columns.
    """
    pandas = import_pandas(model)
    if declared is None or (len(declared.inputs) == 1 and len(declared.inputs[0].shape) == 2 and table.width > 1):
        spec = declared.inputs[0] if declared else default_input(table)

        def collect_matrix(inputs: Arrays) -> Any:
            return pandas.DataFrame(inputs[spec.name].astype(table.dtype), columns=list(table.names))

        return Features((spec,), collect_matrix)
    names = tuple(spec.name for spec in order_columns(model, table, declared.inputs))

    def collect(inputs: Arrays) -> Any:
        return pandas.DataFrame({name: read_column(inputs[name]) for name in names})

    return Features(declared.inputs, collect)


def read_column(array: Array) -> Any:
    """One column of a table: texts as a list of str, numbers as they are."""
    flat = array.reshape(-1)
    return [element.decode("utf-8", "replace") for element in flat] if flat.dtype.kind == "O" else flat


def import_pandas(model: str) -> Any:
    """The module; MissingExtra says how to get it."""
    try:
        return import_module("pandas")
    except ImportError as error:
        raise MissingExtra(
            f"{model} needs pandas, because it was trained on named columns; install it with: pip install pandas"
        ) from error
