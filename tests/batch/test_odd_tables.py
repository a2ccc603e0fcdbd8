"""Tables as they come: lists in lists, names that are there twice, encodings, and values that a format cannot hold."""

import base64
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from onnx import TensorProto, helper

from hyperion.schema.errors import InvalidConfig, SchemaMismatch, StorageFailed
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


LISTS = pa.table({**{f"x{n}": [1.0] for n in range(4)}, "words": [["a", "b"]]})


@pytest.mark.parametrize("target", ["out.csv", "sql"])
def test_a_column_that_the_target_cannot_hold_is_refused_before_a_row_is_scored(bench: Bench, target: str) -> None:
    pyarrow.parquet.write_table(LISTS, bench.directory / "in.parquet")
    place = f"sql:sqlite:///{bench.directory}/out.db" if target == "sql" else bench.directory / target
    table = {"table": "scored"} if target == "sql" else {}
    with pytest.raises(SchemaMismatch, match=r'column "words" has the type list<.*leave it out of keep'):
        bench.score(bench.directory / "in.parquet", place, **table)
    assert bench.score(bench.directory / "in.parquet", place, keep=("x0",), **table).written == 1


def test_bytes_and_nanoseconds_come_out_of_jsonl_as_they_were(bench: Bench) -> None:
    """The same with and without pandas, whose objects are written in another way."""
    given = LISTS.append_column("raw", pa.array([b"\xff\x00"])).append_column(
        "at", pa.array([1_700_000_000_000_000_001], pa.timestamp("ns"))
    )
    pyarrow.parquet.write_table(given, bench.directory / "in.parquet")
    bench.score(bench.directory / "in.parquet", bench.directory / "out.jsonl")
    (row,) = read_table(bench.directory / "out.jsonl")
    assert (base64.b64decode(row["raw"]), row["at"]) == (b"\xff\x00", "2023-11-14T22:13:20.000000001")


def test_a_file_that_is_not_utf_8_is_named_with_the_way_to_mend_it(bench: Bench) -> None:
    source, out = bench.directory / "in.csv", bench.directory / "out.csv"
    source.write_bytes("x0,x1,x2,x3,name\n1,2,3,4,Jürgen\n".encode("latin-1"))
    with pytest.raises(SchemaMismatch, match=r'column "name" is not UTF-8: convert in\.csv'):
        bench.score(source, out)
    assert bench.score(source, out, keep=("x0",)).written == 1


@pytest.mark.parametrize("target", ["out.csv", "out.parquet", "out.jsonl"])
def test_a_postal_code_keeps_its_zeros(bench: Bench, target: str) -> None:
    source, out = bench.directory / "in.csv", bench.directory / target
    source.write_text("zip,x0,x1,x2,x3\n12345,1,2,3,4\n01067,1,2,3,007\n")
    bench.score(source, out, keep=("zip",))
    if target.endswith("csv"):
        assert out.read_text() == '"zip","y"\n"12345",10\n"01067",13\n'
    else:
        assert read_table(out) == [{"zip": "12345", "y": 10.0}, {"zip": "01067", "y": 13.0}]


def test_numbers_of_a_csv_file_may_have_blanks_around_them(bench: Bench) -> None:
    source, out = bench.directory / "in.csv", bench.directory / "out.csv"
    source.write_text("x0,x1,x2,x3\n 1 ,2 , 3,4\n")
    bench.score(source, out)
    assert read_table(out) == [{"x0": 1, "x1": 2, "x2": 3, "x3": 4, "y": 10}]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_row_of_many_megabytes_is_read_wherever_it_comes(bench: Bench, ending: str) -> None:
    long, source = "x" * (9 << 20), bench.directory / f"in.{ending}"
    rows = [{"x0": n, "x1": 0, "x2": 0, "x3": 0, "note": long if n in (0, 130) else "short"} for n in range(200)]
    with open(source, "w") as file:
        if ending == "csv":
            file.write("x0,x1,x2,x3,note\n")
        file.writelines(
            f"{','.join(map(str, row.values()))}\n" if ending == "csv" else f"{json.dumps(row)}\n" for row in rows
        )
    bench.score(source, bench.directory / "out.parquet")
    found = read_table(bench.directory / "out.parquet")
    assert [row["x0"] for row in found] == list(range(200))
    assert [row["x0"] for row in found if row["note"] == long] == [0, 130]


def test_a_quote_that_is_never_closed_is_told_as_such(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperion.batch.source_files._BLOCKS_BYTES", (1 << 10, 1 << 20))
    source = bench.directory / "in.csv"
    source.write_text('x0,x1,x2,x3,note\n1,2,3,4,"' + "1,2,3,4,a\n" * 300_000)
    with pytest.raises(SchemaMismatch, match=r"more than 1 MiB; is a quote or a brace not closed\?"):
        bench.score(source, bench.directory / "out.csv")


def test_a_target_in_the_way_of_what_is_there_is_refused_before_a_row_is_scored(bench: Bench) -> None:
    folder = bench.directory / "in"
    folder.mkdir()
    bench.table("in/a.parquet")
    with pytest.raises(InvalidConfig, match="would be one of its files the next time"):
        bench.score(folder, folder / "out.parquet")
    (bench.directory / "out.csv").mkdir()
    with pytest.raises(InvalidConfig, match=r"is a directory; say .*/out.csv/ to have parts in there"):
        bench.score(folder, bench.directory / "out.csv", restart=True)


def test_what_is_refused_leaves_nothing_behind(bench: Bench) -> None:
    before = sorted(os.listdir(bench.directory))
    with pytest.raises(SchemaMismatch):
        bench.score(bench.table("in.csv"), bench.directory / "out.csv", columns={"x": ("none",)})
    assert sorted(os.listdir(bench.directory)) == sorted([*before, "in.csv"])


def test_a_journal_that_cannot_be_written_is_a_failed_store(bench: Bench) -> None:
    out = bench.directory / "out.csv"
    (bench.directory / "out.csv.hyperion-batch" / "journal.new").mkdir(parents=True)  # as a full disk would
    with pytest.raises(StorageFailed, match="cannot be begun"):
        bench.score(bench.table("in.csv"), out)
