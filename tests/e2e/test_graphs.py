"""The examples of graphs, applied to a real platform as a person would; what `graph fit` finds; a cascade on digits."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperion.store.resource_yaml import read_resources, to_document
from tests.cli.test_commands import hyperion
from tests.e2e.admin_client import Api, wait_until
from tests.e2e.served import Answer, Served

pytest.importorskip("skl2onnx")

from tests.e2e.cascade_digits import run_fold, sum_up

pytestmark = pytest.mark.timeout(240)  # to train the models takes five seconds of a core, and minutes of a busy one

EXAMPLES = Path(__file__).parents[2] / "examples" / "graphs"
MODELS = {
    "pipeline": {"scale": "scale.onnx", "read": "read.onnx", "ink": "ink", "say": "say"},
    "ensemble": {"linear": "linear.onnx", "trees": "trees.onnx", "network": "network.onnx"},
    "switch": {"german": "german", "english": "english"},
    "cascade": {"digits-small": "small.onnx", "digits-large": "large.onnx"},
}
RUN_SCRIPTS = """
import json, runpy, sys
for script, out in json.loads(sys.argv[1]).items():
    sys.argv = [script, out]
    runpy.run_path(script, run_name="__main__")
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("graphs") / "home") as running:
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples' scripts make."""
    directory = tmp_path_factory.mktemp("models")
    # Each as a script, and all in one process: what they import takes longer than what they do.
    scripts = {str(EXAMPLES / kind / "make_models.py"): str(directory / kind) for kind in MODELS}
    subprocess.run([sys.executable, "-W", "ignore", "-c", RUN_SCRIPTS, json.dumps(scripts)], check=True)
    return directory


def apply(served: Served, made: Path, kind: str) -> str:
    """Pushes the models of an example and applies its resource; the name of the endpoint, which is ready."""
    with Api(served) as api:
        for name, path in MODELS[kind].items():
            api.push(name, "1", made / kind / path)
        (resource,) = read_resources([str(EXAMPLES / kind / f"{kind}.yaml")])
        api.ask("POST", "resources", [to_document(resource)])
        name = resource.metadata.name
    wait_until(lambda: served.get(f"/v2/models/{name}/ready").status == 200)
    return name


def infer(served: Served, name: str, **inputs: tuple[str, list[int], list[Any]]) -> Answer:
    tensors = [
        {"name": tensor, "datatype": datatype, "shape": shape, "data": data}
        for tensor, (datatype, shape, data) in inputs.items()
    ]
    answer = served.post(f"/v2/models/{name}/infer", json.dumps({"inputs": tensors}).encode())
    assert answer.status == 200, answer.body
    return answer


def post_example(served: Served, made: Path, kind: str, name: str) -> Answer:
    """What the request that the example's script wrote is answered with."""
    answer = served.post(f"/v2/models/{name}/infer", (made / kind / "request.json").read_bytes())
    assert answer.status == 200, answer.body
    return answer


def output(answer: Answer, name: str) -> list[Any]:
    return next(list(one["data"]) for one in answer.json()["outputs"] if one["name"] == name)


def digits(made: Path, count: int) -> tuple[tuple[str, list[int], list[Any]], np.ndarray]:
    """Rows that no model of the cascade has seen, and what they show."""
    with np.load(made / "cascade" / "calibration.npz") as held:
        x, y = held["x"][:count], held["digit"][:count]
    return ("FP32", [count, 64], x.ravel().tolist()), y


def test_the_pipeline_says_what_it_reads(served: Served, made: Path) -> None:
    name = apply(served, made, "pipeline")
    x, y = digits(made, 20)
    words = [sentence.split()[-1] for sentence in output(infer(served, name, x=x), "sentence")]
    expected = [["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"][digit] for digit in y]
    assert sum(one == other for one, other in zip(words, expected, strict=True)) >= 18
    assert output(post_example(served, made, "pipeline", name), "sentence") == ["a thin zero", "a bold one"]


def test_the_ensemble_averages_three_models(served: Served, made: Path) -> None:
    name = apply(served, made, "ensemble")
    x, y = digits(made, 50)
    answer = infer(served, name, x=x)
    scores = np.array(output(answer, "probabilities")).reshape(50, 10)
    assert scores.sum(axis=1) == pytest.approx(np.ones(50), abs=1e-4)
    assert (scores.argmax(axis=1) == y).mean() > 0.9
    assert "x-hyperion-missing" not in answer.headers
    assert len(output(post_example(served, made, "ensemble", name), "probabilities")) == 20


def test_the_switch_knows_the_language(served: Served, made: Path) -> None:
    name = apply(served, made, "switch")
    for language, expected in (("de", 1.0), ("en", 0.0), ("fr", 0.0)):
        text, said = ("BYTES", [1], ["danke"]), ("BYTES", [1], [language])
        assert output(infer(served, name, text=text, language=said), "friendly") == [expected]
    assert output(post_example(served, made, "switch", name), "friendly") == [2.0]


def test_the_cascade_spares_its_large_model_and_graph_fit_finds_the_same_threshold(
    served: Served, made: Path, tmp_path: Path
) -> None:
    """Fitted by hand of the command, on the rows that the example's script keeps for that."""
    name = apply(served, made, "cascade")
    x, y = digits(made, 300)
    answer = infer(served, name, x=x)
    small, large = (int(part.partition("=")[2]) for part in answer.headers["x-hyperion-cascade"].split(","))
    assert small + large == 300
    assert large < 100
    assert (np.array(output(answer, "label")) == y).mean() > 0.94
    assert len(output(post_example(served, made, "cascade", name), "label")) == 64

    path = tmp_path / "cascade.yaml"
    path.write_text((EXAMPLES / "cascade" / "cascade.yaml").read_text())
    options = ("--url", f"http://127.0.0.1:{served.admin_port}", "--home", str(served.home), "--infer-url", served.url)
    data = ("-f", str(path), "--data", str(made / "cascade" / "calibration.npz"), "--label", "digit")
    done = hyperion("graph", "fit", *data, *options, "--write", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["steps"][0]
    assert found["loss_bound"] <= 0.002
    assert found["saved"] >= 0.5
    (before,) = read_resources([str(EXAMPLES / "cascade" / "cascade.yaml")])
    (after,) = read_resources([str(path)])
    for one in (before, after):
        until = to_document(one)["spec"]["graph"]["steps"][0]["until"]
        assert until == pytest.approx(found["until"], abs=1e-3)
    done = hyperion("graph", "fit", *data, *options, "--max-loss", "0.001", cwd=tmp_path)
    assert done.returncode == 1
    assert "takes 2302 rows" in done.stderr


def test_a_cascade_that_was_calibrated_on_other_rows_saves_half_of_the_compute(served: Served, tmp_path: Path) -> None:
    """One fold of the acceptance run `tests/e2e/cascade_digits.py`; a row of it is 0.28 points."""
    with Api(served) as api:
        fold = run_fold(served, api, 0, 0, tmp_path)
    kept = fold.cascade.labels == fold.small.labels
    assert (kept | (fold.cascade.labels == fold.large.labels)).all()
    found = sum_up([fold])
    assert found["compute_saved"] >= 0.5
    assert fold.right[1] - fold.right[2] <= 1
    assert fold.escalated < fold.rows / 2
