"""Tables and models of the batch tests: rows whose answers are known, in every format, and models that sum them."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

_CODE = """
import time


class Model:
    inputs = {{"x": ("FP32", [-1, 4])}}
    outputs = {{"y": ("FP32", [-1, 1])}}

    def predict(self, inputs):
        x = inputs["x"]
        {before}
        return {{"y": x.sum(axis=1, keepdims=True)}}
"""
Row = dict[str, Any]


class TinyModels:
    """Models of four columns that answer with their sum: `plain`; `slow`, 50 ms a batch; `picky`, which
    raises for rows whose first column is 20; `fatal`, which ends its process for them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.plain = self._write("plain", "pass")
        self.slow = self._write("slow", "time.sleep(0.05)")
        self.picky = self._write("picky", 'if (x[:, 0] == 20).any(): raise ValueError("cannot read this one")')
        self.fatal = self._write("fatal", "if (x[:, 0] == 20).any(): import os; os._exit(9)")

    def _write(self, name: str, before: str) -> Path:
        folder = self._directory / name
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(_CODE.format(before=before))
        return folder


def make_rows(count: int, first: int = 0) -> list[Row]:
    """Rows with an id, four numbers that float32 holds exactly, a text, and what the models answer."""
    return [
        {
            "id": number,
            **{f"x{column}": float(number + 0.25 * column) for column in range(4)},
            "name": f"row, {number}",
            "sum": float(4 * number + 1.5),
        }
        for number in range(first, first + count)
    ]


def write_table(path: Path, rows: Sequence[Row], row_group: int = 70) -> Path:
    """The rows without their sums, in the format that the name says."""
    given = [{name: value for name, value in row.items() if name != "sum"} for row in rows]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in given))
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.Table.from_pylist(given), path)
    else:
        pyarrow.parquet.write_table(pa.Table.from_pylist(given), path, row_group_size=row_group)
    return path


def read_table(path: Path) -> list[Row]:
    """The rows of a file, in their order."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        found: list[Row] = pyarrow.csv.read_csv(path).to_pylist()
        return found
    found = pyarrow.parquet.read_table(path).to_pylist()
    return found


def wait_for_parts(out: Path, count: int) -> int:
    """How many parts the journal of an unfinished run notes, once there are so many."""
    journal = out.with_name(out.name + ".hyperion-batch") / "journal.jsonl"
    deadline = time.monotonic() + 60.0
    while (found := journal.read_text().count("part {") if journal.exists() else 0) < count:
        assert time.monotonic() < deadline, f"{found} parts after a minute"
        time.sleep(0.01)
    return found


def read_ids_and_answers(path: Path) -> dict[int, float]:
    """What the models answered, by id; a doubled row fails."""
    rows = read_table(path)
    answers = {row["id"]: row["y"] for row in rows}
    assert len(answers) == len(rows), "a row is there twice"
    return answers
