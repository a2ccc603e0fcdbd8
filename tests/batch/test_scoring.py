"""Tables of every format through a real runner: what comes out, what is refused, and what a second run does."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import sqlalchemy
from onnx import TensorProto, helper

from hyperion.batch.run import Run
from hyperion.schema.errors import Conflict, HyperionError, InvalidConfig, ModelFailed, SchemaMismatch, StorageFailed
from tests.batch.bench import ROWS, Bench, save_onnx
from tests.batch.tables import make_rows, read_ids_and_answers, read_table, write_table
from tests.services import needs_postgres

pytestmark = pytest.mark.timeout(120)
FORMATS = ("parquet", "csv", "jsonl")


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_every_format_goes_into_every_other_with_its_columns_and_in_its_order(
    bench: Bench, source: str, target: str
) -> None:
    out = bench.directory / f"out.{target}"
    done = bench.score(bench.table(f"in.{source}"), out)
    assert (done.rows, done.written, done.skipped, done.errors) == (ROWS, ROWS, 0, "")
    rows = read_table(out)
    assert [(row["id"], row["name"], row["x3"]) for row in rows] == [
        (row["id"], row["name"], row["x3"]) for row in make_rows(ROWS)
    ]
    assert read_ids_and_answers(out) == {row["id"]: row["sum"] for row in make_rows(ROWS)}


def test_a_target_that_ends_in_a_slash_is_a_directory_of_parts(bench: Bench) -> None:
    out = bench.directory / "out"
    bench.score(bench.table("in.parquet"), f"{out}/", keep=("id",))
    parts = sorted(out.glob("*.parquet"))
    assert len(parts) > 1
    rows = pyarrow.parquet.read_table(out).to_pylist()
    assert {row["id"]: row["y"] for row in rows} == {row["id"]: row["sum"] for row in make_rows(ROWS)}
    assert not bench.score(bench.table("in.parquet"), f"{out}/", restart=True, keep=("id",)).skipped


def test_a_directory_of_files_is_one_source_in_the_order_of_names(bench: Bench) -> None:
    folder = bench.directory / "many"
    folder.mkdir()
    write_table(folder / "b.csv", make_rows(50, 50))
    write_table(folder / "a.csv", make_rows(50))
    (folder / "_SUCCESS").touch()
    bench.score(folder, bench.directory / "out.csv")
    assert [row["id"] for row in read_table(bench.directory / "out.csv")] == list(range(100))


def test_a_table_without_rows_makes_a_table_without_rows(bench: Bench) -> None:
    schema = pa.schema([("id", pa.int64()), *((f"x{n}", pa.float64()) for n in range(4))])
    pyarrow.parquet.write_table(schema.empty_table(), bench.directory / "in.parquet")
    assert bench.score(bench.directory / "in.parquet", bench.directory / "out.parquet").rows == 0
    assert pyarrow.parquet.read_table(bench.directory / "out.parquet").column_names == [
        "id",
        "x0",
        "x1",
        "x2",
        "x3",
        "y",
    ]


def test_a_run_that_was_stopped_goes_on_and_computes_only_what_is_left(bench: Bench) -> None:
    source, out = bench.table("in.parquet"), bench.directory / "out.parquet"
    bench.stop_at = 40
    assert bench.try_score(source, out, model=str(bench.models.slow)) is None
    assert not out.exists(), "nothing is there before everything is"
    bench.stop_at = 0
    done = bench.score(source, out, model=str(bench.models.slow))
    assert 0 < done.scored_rows < done.rows == ROWS
    assert read_ids_and_answers(out) == {row["id"]: row["sum"] for row in make_rows(ROWS)}


def test_a_finished_run_is_not_done_again_unless_its_result_is_gone(bench: Bench) -> None:
    source, out = bench.table("in.csv"), bench.directory / "out.csv"
    assert bench.score(source, out).scored_rows == ROWS
    written = out.stat().st_mtime_ns
    assert bench.score(source, out).scored_rows == 0
    assert out.stat().st_mtime_ns == written
    out.unlink()
    assert bench.score(source, out).scored_rows == ROWS


def test_a_torn_journal_and_a_torn_part_cost_their_chunk_and_no_more(bench: Bench) -> None:
    source, out = bench.table("in.parquet"), bench.directory / "out.jsonl"
    bench.score(source, bench.directory / "whole.jsonl")
    bench.stop_at = 40
    assert bench.try_score(source, out, model=str(bench.models.slow)) is None
    bench.stop_at = 0
    aside = bench.directory / "out.jsonl.hyperion-batch"
    journal = aside / "journal.jsonl"
    lines = journal.read_bytes().split(b"\n")
    assert len(lines) > 2, "it was stopped before the first part"
    journal.write_bytes(b"\n".join(lines[:-2]) + b"\n" + lines[-2][:9])
    (aside / "parts" / ".part-00000007.jsonl.new").write_bytes(b'{"id"')
    done = bench.score(source, out, model=str(bench.models.slow))
    assert done.rows == ROWS
    assert out.read_bytes() == (bench.directory / "whole.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda bench: write_table(bench.directory / "in.parquet", make_rows(ROWS + 1)), "the source has changed"),
        (lambda bench: {"keep": ("id",)}, r"keep was \['\*'\], is \['id'\]"),
        (lambda bench: {"model": str(bench.models.picky)}, "the model was"),
        (lambda bench: {"chunk_rows": 41}, "chunk rows was 40, is 41"),
    ],
)
def test_another_run_with_the_same_target_is_refused_until_it_may_replace_the_first(
    bench: Bench, change: Callable[[Bench], Any], why: str
) -> None:
    source, out = bench.table("in.parquet"), bench.directory / "out.parquet"
    bench.score(source, out)
    changed = change(bench)
    spec = changed if isinstance(changed, dict) else {}
    with pytest.raises((Conflict, ModelFailed), match=why):
        bench.score(source, out, **spec)
    assert read_ids_and_answers(out), "what is there is left alone"
    if "model" not in spec:
        assert bench.score(source, out, restart=True, **spec).scored_rows >= ROWS


def test_what_lies_where_the_target_is_to_be_is_not_replaced_unasked(bench: Bench) -> None:
    out = bench.directory / "out.csv"
    out.write_text("mine")
    with pytest.raises(Conflict, match="is there already"):
        bench.score(bench.table("in.csv"), out)
    assert out.read_text() == "mine"


def test_two_processes_never_work_at_one_target(bench: Bench) -> None:
    source, out = bench.table("in.parquet"), bench.directory / "out.parquet"
    refused: list[HyperionError] = []

    def meanwhile(_run: Run) -> None:
        bench.started = lambda _run: None
        try:
            bench.score(source, out)
        except HyperionError as error:
            refused.append(error)

    bench.started = meanwhile
    bench.score(source, out)
    assert "another process is at this run" in refused[0].message


def test_a_row_that_does_not_fit_is_named_or_skipped_with_its_reason(bench: Bench) -> None:
    rows = make_rows(100)
    rows[7]["x2"] = None
    rows[60]["x0"] = 1e300
    source = write_table(bench.directory / "in.parquet", rows)
    out = bench.directory / "out.parquet"
    with pytest.raises(SchemaMismatch, match='row 7, column "x2": is null; --on-error skip'):
        bench.score(source, out)
    done = bench.score(source, out, restart=True, on_error="skip")
    assert (done.rows, done.written, done.skipped) == (100, 98, 2)
    assert set(read_ids_and_answers(out)) == set(range(100)) - {7, 60}
    errors = [json.loads(line) for line in Path(done.errors).read_text().splitlines()]
    assert [(error["row"], error["column"]) for error in errors] == [(7, "x2"), (60, "x0")]
    assert "too large for float" in errors[1]["error"]


def test_a_cell_of_a_csv_file_that_is_no_number_is_found_by_its_row(bench: Bench) -> None:
    source = bench.table("in.csv", 90)
    lines = source.read_text().splitlines()
    lines[51] = lines[51].replace("50.5", "fifty")
    source.write_text("\n".join(lines) + "\n")
    with pytest.raises(SchemaMismatch, match=r'row 50, column "x2": .*fifty'):
        bench.score(source, bench.directory / "out.csv", keep=("id",))
    done = bench.score(source, bench.directory / "out.csv", restart=True, on_error="skip", keep=("id",))
    assert (done.written, done.skipped) == (89, 1)


def test_a_row_for_which_the_model_fails_takes_no_other_with_it(bench: Bench) -> None:
    source, out = bench.table("in.parquet", 100), bench.directory / "out.parquet"
    picky = str(bench.models.picky)
    with pytest.raises(ModelFailed, match="row 20: the model failed: ValueError: cannot read this one"):
        bench.score(source, out, model=picky)
    done = bench.score(source, out, restart=True, model=picky, on_error="skip")
    assert (done.written, done.skipped) == (99, 1)
    assert set(read_ids_and_answers(out)) == set(range(100)) - {20}


def test_after_a_row_that_failed_the_run_goes_on_without_it_but_not_back(bench: Bench) -> None:
    source, out = bench.table("in.parquet"), bench.directory / "out.parquet"
    picky = {"model": str(bench.models.picky), "chunk_rows": 10, "batch_rows": 10}
    with pytest.raises(ModelFailed, match="row 20"):
        bench.score(source, out, **picky)
    bench.started = lambda run: threading.Timer(0.0, run.stop).start() and None  # type: ignore[func-returns-value]
    bench.try_score(source, out, on_error="skip", **picky)
    bench.started = lambda _run: None
    done = bench.score(source, out, on_error="skip", **picky)
    assert (done.written, done.skipped) == (ROWS - 1, 1)
    assert done.scored_rows < ROWS, "what was done before the failure was done again"


def test_a_model_that_dies_of_a_row_ends_the_run_and_says_where(bench: Bench) -> None:
    with pytest.raises(ModelFailed, match="died 3 times in rows 0 to 39: exit code 9"):
        bench.score(bench.table("in.parquet"), bench.directory / "out.parquet", model=str(bench.models.fatal))


@pytest.mark.parametrize(
    ("spec", "error", "why"),
    [
        ({"columns": {"x": ("x0", "x1")}}, SchemaMismatch, 'input "x" takes 4 columns, 2 were given'),
        ({"columns": {"x": ("x0", "x1", "x2", "y9")}}, SchemaMismatch, 'no column "y9"'),
        ({"columns": {"z": ("x0",)}}, SchemaMismatch, 'no input "z"'),
        ({"columns": {}}, SchemaMismatch, "takes 4 columns, the table has 5 numeric ones"),
        ({"columns": {"x": ("x0", "x1", "x2", "name")}}, SchemaMismatch, 'column "name" has the type string'),
        ({"columns": {"x": ("x0", "x0", "x1", "x2")}}, SchemaMismatch, "given twice"),
        ({"keep": ("ids",)}, SchemaMismatch, 'no column "ids"; did you mean "id"'),
        ({"query": "select 1"}, InvalidConfig, "--query is for a source that begins with sql:"),
        ({"table": "t"}, InvalidConfig, "--table is for a target that begins with sql:"),
    ],
)
def test_what_cannot_be_is_refused_before_a_row_is_read(
    bench: Bench, spec: dict[str, Any], error: type[HyperionError], why: str
) -> None:
    with pytest.raises(error, match=why):
        bench.score(bench.table("in.parquet"), bench.directory / "out.parquet", **spec)


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        ("none.parquet", "out.parquet", "no such file"),
        ("in.txt", "out.parquet", "cannot tell the format"),
        ("in.csv", "out.txt", "expected a name that ends in"),
        ("broken.parquet", "out.parquet", "no Parquet file"),
    ],
)
def test_files_that_are_none_are_refused_by_name(bench: Bench, source: str, target: str, why: str) -> None:
    bench.table("in.csv")
    (bench.directory / "in.txt").write_text("x")
    (bench.directory / "broken.parquet").write_bytes(b"PAR1 nothing more")
    with pytest.raises(HyperionError, match=why):
        bench.score(bench.directory / source, bench.directory / target)


def test_inputs_find_their_columns_by_name_in_every_datatype_and_texts_come_back(bench: Bench) -> None:
    kinds = {"a": TensorProto.INT64, "b": TensorProto.BOOL, "c": TensorProto.STRING, "d": TensorProto.UINT8}
    inputs = [helper.make_tensor_value_info(name, kind, ["n"]) for name, kind in kinds.items()]
    outputs = [helper.make_tensor_value_info(f"{name}_out", kind, ["n"]) for name, kind in kinds.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds]
    model = save_onnx(bench.directory / "same.onnx", inputs, outputs, nodes)
    table = pa.table(
        {
            "a": pa.array([1, 2**62, -5], pa.int64()),
            "b": [True, False, True],
            "c": pa.array(["x", "żółw", "x"]).dictionary_encode(),
            "d": pa.array([0, 7, 255], pa.int32()),
        }
    )
    pyarrow.parquet.write_table(table, bench.directory / "in.parquet")
    out = bench.directory / "out.parquet"
    bench.score(bench.directory / "in.parquet", out, model=model, columns={}, keep=())
    assert pyarrow.parquet.read_table(out).to_pydict() == {
        "a_out": [1, 2**62, -5],
        "b_out": [True, False, True],
        "c_out": ["x", "żółw", "x"],
        "d_out": [0, 7, 255],
    }
    pyarrow.parquet.write_table(table.set_column(3, "d", pa.array([0, 256, 1])), bench.directory / "in.parquet")
    with pytest.raises(SchemaMismatch, match='row 1, column "d"'):
        bench.score(bench.directory / "in.parquet", out, model=model, columns={}, keep=(), restart=True)


@pytest.mark.parametrize("target", ["out.parquet", "out.jsonl", "out.csv"])
def test_lists_are_inputs_and_wide_outputs_are_lists_or_columns(bench: Bench, target: str) -> None:
    wide = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y")]
    model = save_onnx(bench.directory / "wide.onnx", wide[:1], wide[1:], [helper.make_node("Neg", ["x"], ["y"])])
    values = np.arange(30, dtype=np.float32).reshape(10, 3)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 3)
    pyarrow.parquet.write_table(pa.table({"x": lists, "id": range(10)}), bench.directory / "in.parquet")
    out = bench.directory / target
    bench.score(bench.directory / "in.parquet", out, model=model, columns={}, keep=("id",))
    rows = read_table(out)
    if target.endswith("csv"):
        assert [[row["y_0"], row["y_1"], row["y_2"]] for row in rows] == (-values).tolist()
    else:
        assert [row["y"] for row in rows] == (-values).tolist()


def test_lists_of_the_wrong_length_are_skipped_by_row(bench: Bench) -> None:
    wide = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y")]
    model = save_onnx(bench.directory / "wide.onnx", wide[:1], wide[1:], [helper.make_node("Neg", ["x"], ["y"])])
    write = bench.directory / "in.jsonl"
    write.write_text('{"x": [1, 2, 3]}\n{"x": [1, 2]}\n{"x": null}\n{"x": [4, 5, 6]}\n')
    out = bench.directory / "out.jsonl"
    done = bench.score(write, out, model=model, columns={}, keep=(), on_error="skip")
    assert [row["y"] for row in read_table(out)] == [[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]
    errors = [json.loads(line)["error"] for line in Path(done.errors).read_text().splitlines()]
    assert errors == ["has 2 elements, the model takes 3", "is null"]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with a table `given`."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'some.db'}"
        schema = ""
    else:
        schema = f"batch_{abs(hash(str(tmp_path)))}"
        url = f"{needs_postgres()}?options=-csearch_path%3D{schema}"
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        if schema:
            connection.execute(sqlalchemy.text(f"create schema {schema}"))
        columns = ", ".join(f"x{number} double precision" for number in range(4))
        connection.execute(sqlalchemy.text(f"create table given (id bigint primary key, {columns}, name text)"))
        plain = [{name: value for name, value in row.items() if name != "sum"} for row in make_rows(ROWS)]
        names = "id, x0, x1, x2, x3, name"
        values = ", ".join(f":{name}" for name in names.split(", "))
        connection.execute(sqlalchemy.text(f"insert into given ({names}) values ({values})"), plain)
    yield url
    with engine.begin() as connection:
        if schema:
            connection.execute(sqlalchemy.text(f"drop schema {schema} cascade"))
    engine.dispose()


QUERY = "select id, x0, x1, x2, x3 from given order by id"


def test_a_query_is_scored_into_a_table_exactly_once_however_often_it_is_interrupted(
    bench: Bench, database: str
) -> None:
    slow = {"query": QUERY, "table": "scored", "keep": ("id",), "model": str(bench.models.slow)}
    place = f"sql:{database}"
    if database.startswith("sqlite"):
        with pytest.raises(InvalidConfig, match="cannot be read and written at once"):
            bench.score(place, place, **slow)
    target = place.replace("some.db", "other.db")
    for rows in (40, 120):
        bench.stop_at = rows
        assert bench.try_score(place, target, **slow) is None
    bench.stop_at = 0
    done = bench.score(place, target, **slow)
    assert 0 < done.scored_rows < done.rows == ROWS
    engine = sqlalchemy.create_engine(target.removeprefix("sql:"))
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.text("select id, y from scored")).all()
    engine.dispose()
    assert len(found) == ROWS
    assert dict(map(tuple, found)) == {row["id"]: row["sum"] for row in make_rows(ROWS)}
    assert bench.score(place, target, **slow).scored_rows == 0


def test_rows_of_a_query_that_changed_since_they_were_scored_are_noticed(bench: Bench, database: str) -> None:
    spec = {"query": QUERY, "keep": ("id",), "model": str(bench.models.slow)}
    out = bench.directory / "out.parquet"
    bench.stop_at = 40
    assert bench.try_score(f"sql:{database}", out, **spec) is None
    bench.stop_at = 0
    engine = sqlalchemy.create_engine(database)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("update given set x1 = 9 where id = 3"))
    engine.dispose()
    with pytest.raises(Conflict, match=r"the rows of chunk 0 \(from row 0 on\) are not those that were scored before"):
        bench.score(f"sql:{database}", out, **spec)


def test_queries_without_an_order_and_databases_that_fail_are_refused_without_a_password(
    bench: Bench, tmp_path: Path
) -> None:
    sqlite3.connect(tmp_path / "a.db").close()
    place = f"sql:sqlite:///{tmp_path / 'a.db'}"
    out = bench.directory / "out.csv"
    with pytest.raises(InvalidConfig, match="has no ORDER BY"):
        bench.score(place, out, query="select 1")
    with pytest.raises(StorageFailed, match="no such table: nowhere"):
        bench.score(place, out, query="select id from nowhere order by 1")
    with pytest.raises(StorageFailed) as failed:
        bench.score("sql:postgresql://ada:secret@127.0.0.1:9/x", out, query="select 1 order by 1")
    assert "secret" not in failed.value.message


def test_what_was_done_is_written_down_with_the_version_that_did_it(bench: Bench) -> None:
    out = bench.directory / "out.csv"
    done = bench.score(bench.table("in.csv"), out)
    header, *parts, end = (bench.directory / "out.csv.hyperion-batch" / "journal.jsonl").read_text().splitlines()
    facts = msgspec.json.decode(header)
    assert facts["digest"] == done.digest
    assert done.digest.startswith("sha256:")
    assert len(parts) == -(-ROWS // 40)
    assert end.startswith("end ")
