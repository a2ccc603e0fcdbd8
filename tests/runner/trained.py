"""Real models of every format, trained in a second on scikit-learn's bundled data, for the loaders' tests."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris

from hyperion.schema.model import ModelOptions, ModelSpec, Signature, TensorSpec

ONE_THREAD = ModelOptions(threads=1)
TRUSTED = ModelOptions(threads=1, trust_pickle=True)


@dataclass(frozen=True)
class Case:
    """A model file, rows to feed it, the signature it must report and the framework's own answer to a matrix."""

    spec: ModelSpec
    platform: str
    rows: np.ndarray
    signature: Signature
    expect: Callable[[np.ndarray], dict[str, Any]]


def spec_of(format_name: str, path: Path, options: ModelOptions = ONE_THREAD, **fields: Any) -> ModelSpec:
    """A spec as the store would make it."""
    return ModelSpec(name=format_name, version="1", format=format_name, path=str(path), options=options, **fields)


def table_signature(width: int, **outputs: tuple[str, list[int]]) -> Signature:
    """The signature of a model of one matrix `X`."""
    return Signature(
        (TensorSpec("X", "FP32", (-1, width)),),
        tuple(TensorSpec(name, datatype, tuple(shape)) for name, (datatype, shape) in outputs.items()),
    )


def onnx_digits(directory: Path) -> Case:
    """An MLP as skl2onnx exports it, without ZipMap."""
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier

    features, labels = (array.astype(np.float32) for array in load_digits(return_X_y=True))
    model = MLPClassifier((16,), max_iter=15, random_state=0).fit(features, labels.astype(np.int64))
    path = directory / "digits.onnx"
    path.write_bytes(to_onnx(model, features[:1], options={"zipmap": False}).SerializeToString())
    signature = table_signature(64, label=("INT64", [-1]), probabilities=("FP32", [-1, 10]))

    def expect(rows: np.ndarray) -> dict[str, Any]:
        return {"label": model.predict(rows), "probabilities": model.predict_proba(rows)}

    return Case(spec_of("onnx", path), "onnxruntime_onnx", features, signature, expect)


def onnx_zipmap(directory: Path) -> Case:
    """A classifier with text labels, exported with skl2onnx's defaults: its probabilities are maps."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    bunch = load_iris()
    features, names = bunch.data.astype(np.float32), bunch.target_names[bunch.target].astype(str)
    model = LogisticRegression(max_iter=200).fit(features, names)
    path = directory / "iris_zipmap.onnx"
    path.write_bytes(to_onnx(model, features[:1]).SerializeToString())
    signature = table_signature(4, output_label=("BYTES", [-1]), output_probability=("FP32", [-1, 3]))

    def expect(rows: np.ndarray) -> dict[str, Any]:
        labels = np.array([name.encode() for name in model.predict(rows)], dtype=object)
        return {"output_label": labels, "output_probability": model.predict_proba(rows)}

    return Case(spec_of("onnx", path), "onnxruntime_onnx", features, signature, expect)


def sklearn_forest(directory: Path) -> Case:
    """A random forest in the safe skops format."""
    from sklearn.ensemble import RandomForestClassifier
    from skops import io

    features, labels = load_iris(return_X_y=True)
    model = RandomForestClassifier(10, random_state=0, n_jobs=2).fit(features, labels)
    path = directory / "iris.skops"
    io.dump(model, path)
    signature = table_signature(4, predict=("INT64", [-1]), predict_proba=("FP64", [-1, 3]))

    def expect(rows: np.ndarray) -> dict[str, Any]:
        return {"predict": model.predict(rows), "predict_proba": model.predict_proba(rows)}

    return Case(spec_of("sklearn", path), "sklearn", features.astype(np.float32), signature, expect)


def sklearn_ridge(directory: Path) -> Case:
    """A regression pipeline with two targets, from a joblib file that is trusted."""
    import joblib
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, target = load_diabetes(return_X_y=True)
    model = make_pipeline(StandardScaler(), Ridge()).fit(features, np.column_stack((target, -target)))
    path = directory / "diabetes.joblib"
    joblib.dump(model, path)
    signature = table_signature(10, predict=("FP64", [-1, 2]))
    spec = spec_of("sklearn", path, TRUSTED)
    return Case(spec, "sklearn", features.astype(np.float32), signature, lambda rows: {"predict": model.predict(rows)})


def xgboost_classifier(directory: Path) -> Case:
    """A multi-class model of XGBoost's scikit-learn interface that stopped early."""
    xgboost = pytest.importorskip("xgboost", reason="needs xgboost")
    features, labels = load_iris(return_X_y=True)
    model = xgboost.XGBClassifier(n_estimators=30, max_depth=2, learning_rate=0.9, early_stopping_rounds=2, n_jobs=1)
    model.fit(features, labels, eval_set=[(features[::3], labels[::3])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    path = directory / "iris.ubj"
    model.save_model(path)
    signature = table_signature(4, predict=("INT64", [-1]), predict_proba=("FP32", [-1, 3]))

    def expect(rows: np.ndarray) -> dict[str, Any]:
        return {"predict": model.predict(rows), "predict_proba": model.predict_proba(rows)}

    return Case(spec_of("xgboost", path), "xgboost", features.astype(np.float32), signature, expect)


def xgboost_booster(directory: Path) -> Case:
    """A plain Booster for a binary objective, as JSON: it answers with a probability."""
    xgboost = pytest.importorskip("xgboost", reason="needs xgboost")
    features, labels = load_breast_cancer(return_X_y=True)
    data = xgboost.DMatrix(features, labels)
    model = xgboost.train({"objective": "binary:logistic", "max_depth": 2, "nthread": 1}, data, 5)
    path = directory / "cancer.json"
    model.save_model(path)

    def expect(rows: np.ndarray) -> dict[str, Any]:
        return {"predict": model.predict(xgboost.DMatrix(rows))}

    signature = table_signature(30, predict=("FP32", [-1]))
    return Case(spec_of("xgboost", path), "xgboost", features.astype(np.float32), signature, expect)


def lightgbm_multiclass(directory: Path) -> Case:
    """A LightGBM Booster with three classes."""
    lightgbm = pytest.importorskip("lightgbm", reason="needs lightgbm")
    features, labels = load_iris(return_X_y=True)
    parameters = {"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1, "num_leaves": 4}
    model = lightgbm.train(parameters, lightgbm.Dataset(features, labels), 5)
    path = directory / "iris.txt"
    model.save_model(path)
    signature = table_signature(4, predict=("FP64", [-1, 3]))

    def expect(rows: np.ndarray) -> dict[str, Any]:
        return {"predict": model.predict(rows)}

    return Case(spec_of("lightgbm", path), "lightgbm", features.astype(np.float32), signature, expect)


def _torch_module() -> Any:
    torch = pytest.importorskip("torch", reason="needs torch (pip install torch)")

    class Scores(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 3)

        def forward(self, x: "torch.Tensor") -> dict[str, "torch.Tensor"]:  # type: ignore[name-defined]
            scores = self.linear(x)
            return {"scores": scores, "label": scores.argmax(1)}

    torch.manual_seed(0)
    return torch, Scores().eval()


def _torch_expect(torch: Any, module: Any) -> Callable[[np.ndarray], dict[str, Any]]:
    def expect(rows: np.ndarray) -> dict[str, Any]:
        with torch.inference_mode():
            return {name: tensor.numpy() for name, tensor in module(torch.tensor(rows)).items()}

    return expect


def _torch_signature() -> Signature:
    outputs = (TensorSpec("scores", "FP32", (-1, 3)), TensorSpec("label", "INT64", (-1,)))
    return Signature((TensorSpec("x", "FP32", (-1, 4)),), outputs)


def torch_export(directory: Path) -> Case:
    """A torch.export archive with a free batch axis and a dict of results."""
    torch, module = _torch_module()
    rows = load_iris().data.astype(np.float32)
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (torch.from_numpy(rows[:2]),), dynamic_shapes={"x": {0: batch}})
    path = directory / "scores.pt2"
    torch.export.save(program, path)
    return Case(spec_of("torch", path, TRUSTED), "pytorch", rows, _torch_signature(), _torch_expect(torch, module))


def torch_script(directory: Path) -> Case:
    """A TorchScript archive that carries its signature."""
    torch, module = _torch_module()
    rows = load_iris().data.astype(np.float32)
    traced = torch.jit.trace(module, torch.from_numpy(rows[:2]), strict=False)
    path = directory / "scores.pt"
    notes = '{"inputs": {"x": ["FP32", [-1, 4]]}, "outputs": {"scores": ["FP32", [-1, 3]], "label": ["INT64", [-1]]}}'
    torch.jit.save(traced, path, _extra_files={"signature.json": notes})
    return Case(spec_of("torch", path, TRUSTED), "pytorch", rows, _torch_signature(), _torch_expect(torch, module))


NEAREST = """
import pathlib
import numpy as np
from .distance import distances

class Model:
    inputs = {"x": ("FP32", [-1, 4])}
    outputs = {"label": ("INT64", [-1]), "distance": ("FP32", [-1])}

    def load(self, directory: pathlib.Path) -> None:
        with np.load(directory / "centres.npz") as saved:
            self.centres = saved["centres"]

    def predict(self, inputs):
        all_distances = distances(inputs["x"], self.centres)
        return {"label": all_distances.argmin(axis=1), "distance": all_distances.min(axis=1)}
"""
DISTANCE = """
import numpy as np

def distances(rows, centres):
    return np.linalg.norm(rows[:, None, :] - centres[None, :, :], axis=2)
"""


def python_nearest(directory: Path) -> Case:
    """A Python model: the nearest class centre, with a module and an array beside `model.py`."""
    features, labels = load_iris(return_X_y=True)
    centres = np.array([features[labels == label].mean(axis=0) for label in range(3)])
    home = directory / "nearest"
    home.mkdir()
    (home / "model.py").write_text(NEAREST)
    (home / "distance.py").write_text(DISTANCE)
    np.savez(home / "centres.npz", centres=centres)
    outputs = (TensorSpec("label", "INT64", (-1,)), TensorSpec("distance", "FP32", (-1,)))

    def expect(rows: np.ndarray) -> dict[str, Any]:
        all_distances = np.linalg.norm(rows[:, None, :] - centres[None], axis=2)
        return {"label": all_distances.argmin(axis=1), "distance": all_distances.min(axis=1)}

    signature = Signature((TensorSpec("x", "FP32", (-1, 4)),), outputs)
    return Case(spec_of("python", home), "python", features.astype(np.float32), signature, expect)


def mlflow_pyfunc(directory: Path) -> Case:
    """An MLflow python_function with a tensor signature."""
    mlflow = pytest.importorskip("mlflow.pyfunc", reason="needs mlflow-skinny")
    from mlflow.models import ModelSignature
    from mlflow.types import Schema
    from mlflow.types import TensorSpec as MlflowTensor

    class Means(mlflow.PythonModel):  # type: ignore[misc, name-defined]
        def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
            return model_input.mean(axis=1)

    path = directory / "means"
    inputs = Schema([MlflowTensor(np.dtype(np.float32), (-1, 4))])
    outputs = Schema([MlflowTensor(np.dtype(np.float32), (-1,))])
    mlflow.save_model(path, python_model=Means(), signature=ModelSignature(inputs, outputs), pip_requirements=[])
    rows = load_iris().data.astype(np.float32)
    signature = table_signature(4, predict=("FP32", [-1]))
    spec = spec_of("mlflow-pyfunc", path, TRUSTED)
    return Case(spec, "mlflow_pyfunc", rows, signature, lambda rows: {"predict": rows.mean(axis=1)})


MAKERS: dict[str, Callable[[Path], Case]] = {
    maker.__name__: maker
    for maker in (
        onnx_digits,
        onnx_zipmap,
        sklearn_forest,
        sklearn_ridge,
        xgboost_classifier,
        xgboost_booster,
        lightgbm_multiclass,
        torch_export,
        torch_script,
        python_nearest,
        mlflow_pyfunc,
    )
}
