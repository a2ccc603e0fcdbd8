"""The rows by which a graph is fitted: inputs by their names, and what is true of each row. Called by `hyperion
graph fit`."""

import csv
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperion.schema.errors import MalformedRequest
from hyperion.wire.tensor import DATATYPES

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Spec = Mapping[str, Any]  # of an input, as V2 metadata has it


def read_table(path: Path) -> dict[str, Any]:
    """Columns by name: arrays of an .npz, lists of a .csv (texts) or of a .jsonl (what its objects hold). Raises
    `MalformedRequest`."""
    try:
        if path.suffix == ".npz":
            return _read_arrays(path)
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                return _turn(list(csv.DictReader(file)), path)
            if path.suffix == ".jsonl":
                return _turn([json.loads(line) for line in file if line.strip()], path)
    except (OSError, ValueError, csv.Error) as error:
        raise MalformedRequest(f"{path}: {error}") from error
    raise MalformedRequest(f"{path}: expected a file that ends in .npz, .csv or .jsonl")


def _read_arrays(path: Path) -> dict[str, Any]:
    import numpy as np

    if not zipfile.is_zipfile(path):
        raise MalformedRequest(f"{path}: expected an archive of arrays, as numpy.savez writes it")
    try:
        with np.load(path, allow_pickle=False) as held:
            return {name: np.atleast_1d(held[name]) for name in held.files}
    except (zipfile.BadZipFile, EOFError) as error:
        raise MalformedRequest(f"{path}: {error}") from error


def _turn(rows: Sequence[Mapping[str, Any]], path: Path) -> dict[str, Any]:
    """Rows as columns."""
    if not rows:
        raise MalformedRequest(f"{path}: no rows in there")
    names = list(rows[0]) if isinstance(rows[0], dict) else []
    if not names:
        raise MalformedRequest(f"{path}: row 1: expected an object with a field for each column")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or list(row) != names:
            raise MalformedRequest(f"{path}: row {number} has other fields than the first: {', '.join(names)}")
    return {name: [row[name] for row in rows] for name in names}


def take_truth(table: dict[str, Any], label: str, classes: Sequence[str], path: Path) -> "Array":
    """Takes the column of true classes out of the table, as indexes [rows]: its values are indexes already, or names
    among the `classes`. Raises `MalformedRequest`."""
    import numpy as np

    if label not in table:
        raise MalformedRequest(f'{path}: no column "{label}"; it has {", ".join(table)}')
    column = np.asarray(table.pop(label))
    if column.ndim != 1 or not len(column):
        raise MalformedRequest(f'{path}: column "{label}": expected a value for each row, got {list(column.shape)}')
    for name, other in table.items():
        if len(other) != len(column):
            raise MalformedRequest(
                f'{path}: its columns are not equally long: "{label}" has {len(column)} rows, "{name}" {len(other)}'
            )
    values = [value.decode() if isinstance(value, bytes) else value for value in column.tolist()]
    if classes:
        places = {name: index for index, name in enumerate(classes)}
        unknown = sorted({str(value) for value in values} - places.keys())
        if unknown:
            raise MalformedRequest(f'{path}: column "{label}" has "{unknown[0]}", which is not among --classes')
        return np.array([places[str(value)] for value in values])
    wrong = [value for value in values if not _is_index(value)]
    if wrong:
        raise MalformedRequest(
            f'{path}: column "{label}": expected the index of a class, from 0, got {wrong[0]!r}; name the classes '
            "in the order of the scores with --classes"
        )
    return np.array([int(float(value)) for value in values])


def _is_index(value: Any) -> bool:
    """Whether it is a whole number from 0, in whatever type files have it."""
    try:
        return float(value).is_integer() and float(value) >= 0
    except (TypeError, ValueError):
        return False


def make_inputs(table: Mapping[str, Any], specs: Sequence[Spec], path: Path) -> "dict[str, Array]":
    """The arrays of a graph's inputs, rows first. Where none of the columns is the only input, they are its elements,
    in their order. Raises `MalformedRequest`."""
    import numpy as np

    if len(specs) == 1 and specs[0]["name"] not in table and table:
        columns = [np.asarray(column) for column in table.values()]
        table = {specs[0]["name"]: np.stack(columns, axis=1)}
    inputs = {}
    for spec in specs:
        name, datatype = spec["name"], DATATYPES[spec["datatype"]]
        if name not in table:
            raise MalformedRequest(f'{path}: no column for the input "{name}"; it has {", ".join(table) or "none"}')
        try:
            array = np.asarray(table[name])
            if datatype.size:
                array = array.astype(datatype.dtype)
            # numpy, too, writes a length that it is to find as -1
            inputs[name] = array.reshape(len(array), *spec["shape"][1:])
        except (TypeError, ValueError) as error:
            wanted = f"{spec['datatype']} {spec['shape']}"
            raise MalformedRequest(f'{path}: column "{name}" is not {wanted}: {error}') from error
        if inputs[name].dtype.kind == "f" and not np.isfinite(inputs[name]).all():
            row = int(np.argwhere(~np.isfinite(inputs[name]))[0][0])
            raise MalformedRequest(f'{path}: column "{name}", row {row + 1}: expected finite numbers only')
    if len({len(array) for array in inputs.values()}) != 1:
        raise MalformedRequest(f"{path}: its columns are not equally long")
    return inputs
