"""Real model files of every kind, trained once per session on scikit-learn's bundled data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.services import needs_module
from tests.store.places import place  # noqa: F401


@pytest.fixture(scope="session")
def iris() -> tuple[Any, Any]:
    datasets = needs_module("sklearn.datasets", extra="sklearn")
    features, labels = datasets.load_iris(return_X_y=True)
    return features.astype(np.float32), labels


@pytest.fixture(scope="session")
def classifier(iris: tuple[Any, Any]) -> Any:
    linear_model = needs_module("sklearn.linear_model", extra="sklearn")
    return linear_model.LogisticRegression(max_iter=500).fit(*iris)


@pytest.fixture(scope="session")
def onnx_model(classifier: Any, iris: tuple[Any, Any]) -> Any:
    """A classifier as an onnx.ModelProto: input X FP32 [-1, 4], outputs label and probabilities."""
    skl2onnx = needs_module("skl2onnx", extra="examples")
    return skl2onnx.to_onnx(classifier, iris[0][:1], options={"zipmap": False})


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, classifier: Any, onnx_model: Any, iris: tuple[Any, Any]) -> Path:
    """A directory with one file of each format: m.onnx, m.ubj, m.json, m.txt, m.skops, m.joblib, m.pkl."""
    import pickle

    import joblib

    lightgbm = needs_module("lightgbm", extra="lightgbm")
    xgboost = needs_module("xgboost", extra="xgboost")
    skops = needs_module("skops.io", extra="sklearn")
    folder = tmp_path_factory.mktemp("files")
    (folder / "m.onnx").write_bytes(onnx_model.SerializeToString())
    booster = xgboost.XGBClassifier(n_estimators=2, max_depth=2, n_jobs=1).fit(*iris)
    booster.save_model(folder / "m.ubj")
    booster.save_model(folder / "m.json")
    trees = lightgbm.LGBMClassifier(n_estimators=2, num_leaves=4, n_jobs=1, verbose=-1).fit(*iris)
    trees.booster_.save_model(folder / "m.txt")
    skops.dump(classifier, folder / "m.skops")
    joblib.dump(classifier, folder / "m.joblib")
    (folder / "m.pkl").write_bytes(pickle.dumps(classifier))
    return folder
