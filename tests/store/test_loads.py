"""What `discover` describes, the runner loads: one model of each kind of source, from the path to a prediction."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperion.runner.load import load_model
from hyperion.runner.model import LoadedModel
from hyperion.schema.model import ModelOptions
from hyperion.store.repositories.discover import discover
from tests.store.layout import lay_out

TRUSTING = ModelOptions(trust_pickle=True, threads=1)
PYTHON = """
class Model:
    inputs = {"X": ("FP32", [-1, 4])}
    outputs = {"label": ("INT64", [-1])}
    def predict(self, inputs):
        return {"label": inputs["X"].argmax(axis=1)}
"""
CONFIG = """
backend: "onnxruntime"  max_batch_size: 32
input { name: "X" data_type: TYPE_FP32 dims: 4 }
output { name: "probabilities" data_type: TYPE_FP32 dims: 3 }
"""


def load(path: Path) -> LoadedModel:
    (spec,) = discover(path, TRUSTING)
    return load_model(spec)


def predict(model: LoadedModel, rows: Any) -> dict[str, Any]:
    """The outputs for `rows`, sent as the signature says: one matrix, or a column per input."""
    specs = model.signature.inputs
    types = {"FP32": np.float32, "FP64": np.float64}
    if len(specs) == 1:
        return model.predict({specs[0].name: rows.astype(types[specs[0].datatype])}, ())
    columns = {spec.name: rows[:, index].astype(types[spec.datatype]) for index, spec in enumerate(specs)}
    return model.predict(columns, ())


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("m.onnx", ["label", "probabilities"]),
        ("m.ubj", ["predict", "predict_proba"]),
        ("m.json", ["predict", "predict_proba"]),
        ("m.txt", ["predict"]),
        ("m.skops", ["predict", "predict_proba"]),
        ("m.joblib", ["predict", "predict_proba"]),
        ("m.pkl", ["predict", "predict_proba"]),
    ],
)
def test_every_file_that_is_known_loads_and_predicts(
    files: Path, iris: tuple[Any, Any], name: str, outputs: list[str]
) -> None:
    answer = predict(load(files / name), iris[0][:5])
    assert list(answer) == outputs
    assert all(len(values) == 5 for values in answer.values())


def test_a_python_directory_loads_and_predicts(tmp_path: Path, iris: tuple[Any, Any]) -> None:
    answer = predict(load(lay_out(tmp_path / "m", {"model.py": PYTHON})), iris[0][:3])
    assert answer["label"].tolist() == iris[0][:3].argmax(axis=1).tolist()


def test_a_triton_model_answers_with_the_outputs_that_it_declares(
    tmp_path: Path, files: Path, classifier: Any, iris: tuple[Any, Any]
) -> None:
    model = load(lay_out(tmp_path / "m", {"config.pbtxt": CONFIG, "1/model.onnx": files / "m.onnx"}))
    answer = predict(model, iris[0][:5])
    assert list(answer) == ["probabilities"]
    np.testing.assert_allclose(answer["probabilities"], classifier.predict_proba(iris[0][:5]), atol=1e-5)


@pytest.mark.parametrize(
    ("runtime", "file", "source"),
    [
        ("mlserver_sklearn.SKLearnModel", "model.joblib", "m.joblib"),
        ("mlserver_xgboost.XGBoostModel", "model.json", "m.json"),
        ("mlserver_lightgbm.LightGBMModel", "model.bst", "m.txt"),
    ],
)
def test_an_mlserver_model_takes_its_input_under_the_declared_name(
    tmp_path: Path, files: Path, iris: tuple[Any, Any], runtime: str, file: str, source: str
) -> None:
    inputs = [{"name": "rows", "datatype": "FP64", "shape": [-1, 4]}]
    settings = json.dumps({"implementation": runtime, "inputs": inputs})
    model = load(lay_out(tmp_path / "m", {"model-settings.json": settings, file: files / source}))
    assert [spec.name for spec in model.signature.inputs] == ["rows"]
    assert len(predict(model, iris[0][:5])["predict"]) == 5


COLUMNS = json.dumps([{"type": "double", "name": name} for name in "abcd"])
MATRIX = json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 4]}}])


@pytest.mark.parametrize(
    ("flavors", "inputs", "names", "outputs"),
    [
        ("{onnx: {data: m.onnx}}", MATRIX, ["X"], ["label", "probabilities"]),
        ("{xgboost: {data: m.ubj}}", MATRIX, ["X"], ["predict", "predict_proba"]),
        ("{lightgbm: {data: m.txt}}", COLUMNS, list("abcd"), ["predict"]),
        ("{sklearn: {pickled_model: m.pkl}}", COLUMNS, list("abcd"), ["predict", "predict_proba"]),
        (
            "{sklearn: {pickled_model: m.skops, serialization_format: skops}, "
            "python_function: {predict_fn: predict_proba}}",
            MATRIX,
            ["X"],
            ["predict_proba"],
        ),
    ],
)
def test_an_mlflow_model_takes_what_it_declares(
    tmp_path: Path, files: Path, iris: tuple[Any, Any], flavors: str, inputs: str, names: list[str], outputs: list[str]
) -> None:
    entries: dict[str, Any] = {path.name: path for path in files.iterdir()}
    text = f"flavors: {flavors}\nsignature: {{inputs: '{inputs}'}}"
    model = load(lay_out(tmp_path / "m", {"MLmodel": text, **entries}))
    assert [spec.name for spec in model.signature.inputs] == names
    answer = predict(model, iris[0][:5])
    assert list(answer) == outputs
    assert all(len(values) == 5 for values in answer.values())
