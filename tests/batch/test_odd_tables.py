"""Tables as they come: lists in lists, names that are there twice, encodings, and values that a format cannot hold."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from onnx import TensorProto, helper

from hyperion.schema.errors import SchemaMismatch
from tests.batch.bench import Bench, save_onnx
from tests.batch.tables import read_table

pytestmark = pytest.mark.timeout(120)


def _save_square(directory: Path) -> str:
    """A model of rows of the shape [2, 3], which it negates."""
    square = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, 3]) for name in ("x", "y")]
    return save_onnx(directory / "square.onnx", square[:1], square[1:], [helper.make_node("Neg", ["x"], ["y"])])


ONE, TWO = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[7.0, 8.0, 9.0], [1.0, 1.0, 1.0]]
FLAT = [[*ONE[0], *ONE[1]], [*TWO[0], *TWO[1]]]
NEGATED = [[[-value for value in line] for line in row] for row in (ONE, TWO)]
TENSORS = pa.ExtensionArray.from_storage(
    pa.fixed_shape_tensor(pa.float32(), [2, 3]), pa.array(FLAT, pa.list_(pa.float32(), 6))
)


@pytest.mark.parametrize(
    "column",
    [pa.array([ONE, TWO]), pa.array([ONE, TWO], pa.list_(pa.list_(pa.float32(), 3), 2)), pa.array(FLAT), TENSORS],
    ids=["lists", "fixed lists", "flat", "tensors"],
)
def test_lists_in_lists_and_tensors_are_rows_of_a_higher_rank(bench: Bench, column: pa.Array) -> None:
    """So what a run wrote can be the source of another."""
    model, source, out = _save_square(bench.directory), bench.directory / "in.parquet", bench.directory / "out.parquet"
    pyarrow.parquet.write_table(pa.table({"x": column}), source)
    bench.score(source, out, model=model, columns={}, keep=())
    assert [row["y"] for row in read_table(out)] == NEGATED
    back = bench.directory / "back.jsonl"
    bench.score(out, back, model=model, columns={"x": ("y",)}, keep=())
    assert [row["y"] for row in read_table(back)] == [ONE, TWO]


def test_a_list_of_another_length_is_named_however_deep_it_lies(bench: Bench) -> None:
    rows = [
        *(ONE, [[1.0], [2.0]], None, [[1.0, 2.0, 3.0], None], [[1.0, 2.0, 3.0]]),
        *([[1.0, 2.0, 3.0], [1.0, None, 3.0]], TWO),
    ]
    source, out = bench.directory / "in.parquet", bench.directory / "out.jsonl"
    pyarrow.parquet.write_table(pa.table({"x": pa.array(rows, pa.list_(pa.list_(pa.float32())))}), source)
    model = _save_square(bench.directory)
    done = bench.score(source, out, model=model, columns={}, keep=(), on_error="skip")
    assert [row["y"] for row in read_table(out)] == NEGATED
    errors = [json.loads(line) for line in Path(done.errors).read_text().splitlines()]
    assert [(error["row"], error["error"]) for error in errors] == [
        (1, "list 0 in it has 1 elements, the model takes 3"),
        (2, "is null"),
        (3, "list 1 in it is null"),
        (4, "has 1 elements, the model takes 2"),
        (5, "element 4 is null"),
    ]


def test_a_table_none_of_whose_rows_fit_is_a_table_without_rows(bench: Bench) -> None:
    source, out = bench.directory / "in.parquet", bench.directory / "out.jsonl"
    pyarrow.parquet.write_table(pa.table({"x": pa.array([None, [[1.0]]], pa.list_(pa.list_(pa.float32())))}), source)
    done = bench.score(source, out, model=_save_square(bench.directory), columns={}, keep=(), on_error="skip")
    assert (done.rows, done.written, read_table(out)) == (2, 0, [])


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (pa.list_(pa.list_(pa.list_(pa.float32()))), "3 deep"),
        (pa.list_(pa.list_(pa.float32(), 2), 3), "holds some of the shape"),
        (pa.fixed_shape_tensor(pa.float32(), [3, 2]), "holds some of the shape"),
        (pa.list_(pa.list_(pa.string())), "has the type"),
    ],
    ids=str,
)
def test_lists_that_can_be_no_row_of_an_input_are_refused_before_a_row_is_read(
    bench: Bench, kind: pa.DataType, why: str
) -> None:
    pyarrow.parquet.write_table(pa.schema([("x", kind)]).empty_table(), bench.directory / "in.parquet")
    model = _save_square(bench.directory)
    with pytest.raises(SchemaMismatch, match=why):
        bench.score(bench.directory / "in.parquet", bench.directory / "out.jsonl", model=model, columns={})


def test_a_name_that_several_columns_have_is_refused_where_it_is_needed(bench: Bench) -> None:
    table = pa.table([pa.array([1.0])] * 6, names=["x0", "x1", "x2", "x3", "note", "note"])
    pyarrow.parquet.write_table(table, bench.directory / "in.parquet")
    with pytest.raises(SchemaMismatch, match='several columns of the name "note"'):
        bench.score(bench.directory / "in.parquet", bench.directory / "out.csv")
    assert bench.score(bench.directory / "in.parquet", bench.directory / "out.csv", keep=("x0",)).written == 1
