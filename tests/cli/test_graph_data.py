"""The rows for `graph fit`, from each kind of file; and what is wrong with them, told by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperion.cli.commands.graph import fit_steps
from hyperion.cli.graph_data import make_inputs, read_table, take_truth
from hyperion.cli.graph_members import Scored
from hyperion.schema.errors import InvalidResource, MalformedRequest
from hyperion.schema.protect import Graph, GraphStep
from tests.cli.test_commands import hyperion

X = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
TEXT = {"name": "text", "datatype": "BYTES", "shape": [-1, 1]}


def write(directory: Path, kind: str) -> Path:
    path = directory / f"rows.{kind}"
    if kind == "npz":
        np.savez(path, x=np.array([[1, 2], [3, 4]]), label=np.array([0, 1]))
    elif kind == "csv":
        path.write_text("left,right,label\n1,2,0\n3,4,1\n")
    else:
        rows = [{"x": [1, 2], "label": 0}, {"x": [3, 4], "label": 1}]
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.mark.parametrize("kind", ["npz", "csv", "jsonl"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    table = read_table(path)
    assert take_truth(table, "label", [], path).tolist() == [0, 1]
    x = make_inputs(table, [X], path)["x"]
    assert (x.dtype, x.tolist()) == (np.float32, [[1, 2], [3, 4]])


def test_inputs_are_taken_by_name_and_reshaped() -> None:
    table: dict[str, Any] = {"x": [[1, 2]], "text": ["a"]}
    inputs = make_inputs(table, [X, TEXT], Path("rows.jsonl"))
    assert inputs["text"].shape == (1, 1)
    assert inputs["x"].shape == (1, 2)


def test_classes_are_named_in_the_order_of_the_scores() -> None:
    table: dict[str, Any] = {"label": ["spam", "ham"]}
    assert take_truth(table, "label", ["ham", "spam"], Path("rows.csv")).tolist() == [1, 0]
    assert table == {}


WRONG = [
    ("rows.txt", "", "expected a file that ends in .npz, .csv or .jsonl"),
    ("rows.jsonl", "", "no rows in there"),
    ("rows.jsonl", '{"x": 1}\n{"y": 1}\n', "row 2 has other fields than the first: x"),
    ("rows.jsonl", "{\n", "rows.jsonl: Expecting"),
    ("rows.jsonl", "[1]\n", "row 1: expected an object"),
    ("rows.npz", "no zip", "rows.npz: expected an archive of arrays"),
    ("rows.npz", "", "rows.npz: expected an archive of arrays"),
]


@pytest.mark.parametrize(("name", "text", "told"), WRONG)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MalformedRequest, match=told):
        read_table(tmp_path / name)


def test_columns_that_do_not_fit_are_named() -> None:
    path = Path("rows.csv")
    with pytest.raises(MalformedRequest, match='no column "truth"; it has x'):
        take_truth({"x": [1]}, "truth", [], path)
    with pytest.raises(MalformedRequest, match='"eggs", which is not among --classes'):
        take_truth({"label": ["eggs"]}, "label", ["ham"], path)
    with pytest.raises(MalformedRequest, match="expected the index of a class"):
        take_truth({"label": ["ham"]}, "label", [], path)
    with pytest.raises(MalformedRequest, match='no column for the input "text"; it has x'):
        make_inputs({"x": [[1, 2]]}, [X, TEXT], path)
    with pytest.raises(MalformedRequest, match=r'column "x" is not FP32 \[-1, 2\]'):
        make_inputs({"x": [[1, 2, 3]]}, [X], path)
    for label in ([-1], [0.5], ["1.5"], [None], [float("nan")]):
        with pytest.raises(MalformedRequest, match=r"expected the index of a class, from 0, got "):
            take_truth({"label": label}, "label", [], path)
    with pytest.raises(MalformedRequest, match=r"expected a value for each row, got \[1, 1\]"):
        take_truth({"label": [[1]]}, "label", [], path)
    with pytest.raises(MalformedRequest, match=r"expected a value for each row, got \[0\]"):
        take_truth({"label": []}, "label", [], path)
    with pytest.raises(MalformedRequest, match='not equally long: "label" has 1 rows, "x" 2'):
        take_truth({"label": [1], "x": [1, 2]}, "label", [], path)
    with pytest.raises(MalformedRequest, match='no column for the input "x"; it has none'):
        make_inputs({}, [X], path)
    with pytest.raises(MalformedRequest, match='column "x", row 2: expected finite numbers only'):
        make_inputs({"x": [[1, 2], [3, None]]}, [X], path)
    with pytest.raises(MalformedRequest, match="not equally long"):
        make_inputs({"x": [[1, 2]], "text": ["a", "b"]}, [X, TEXT], path)


def test_a_class_that_no_score_is_for_is_refused() -> None:
    graph = Graph("cascade", (GraphStep("small", model="a@1"), GraphStep("large", model="a@2")))
    scores = np.array([[0.1, 0.9], [0.9, 0.1]])
    scored = [Scored(scores, 1.0), Scored(scores, 2.0)]
    with pytest.raises(
        InvalidResource, match='step "small" has scores for 2 classes, but a row is said to be of class 2'
    ):
        fit_steps(graph, scored, np.array([0, 2]), 0.1, 0.9)
    one_score = [Scored(scores[:, :1], 1.0), Scored(scores, 2.0)]
    with pytest.raises(InvalidResource, match="2 rows cannot show"):
        fit_steps(graph, one_score, np.array([0, 1]), 0.002, 0.9)


STEPS = "[{name: a, model: a@1%s}, {name: b, model: b@1%s}]"
REFUSED = [
    ("{kind: ensemble, steps: " + STEPS % ("", "") + "}", "only a cascade"),
    ("{kind: cascade, output: y, steps: " + STEPS % ("", ", inputs: {h: a.h}") + "}", 'step "b" reads a.h'),
]


@pytest.mark.parametrize(("graph", "told"), REFUSED)
def test_what_cannot_be_fitted_is_refused_before_anything_is_served(tmp_path: Path, graph: str, told: str) -> None:
    data = write(tmp_path, "csv")
    path = tmp_path / "e.yaml"
    path.write_text(f"apiVersion: hyperion/v1\nkind: Endpoint\nmetadata: {{name: e}}\nspec:\n  graph: {graph}\n")
    nowhere = ("--url", "http://127.0.0.1:1", "--token", "t")
    done = hyperion("graph", "fit", "-f", str(path), "--data", str(data), "--label", "label", *nowhere, cwd=tmp_path)
    assert done.returncode == 1
    assert told in done.stderr
