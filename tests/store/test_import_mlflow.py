"""A model of a real MLflow store (directory or database) is imported with the run that made it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyperion.schema.errors import ModelRefused
from hyperion.schema.registry import Manifest
from hyperion.store.import_mlflow import prepare_mlflow_push
from hyperion.store.push import Details
from tests.services import needs_installed, needs_module

needs_installed("mlflow", extra="mlflow")
needs_module("sqlalchemy", extra="tests")
COMMIT = "c0ffee" + "0" * 34
# In a process of its own, as a user's training is: MLflow keeps the store in globals of its module.
TRAIN = """
import os, sys
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
import mlflow, mlflow.data, mlflow.sklearn
from mlflow.tracking import MlflowClient
import numpy as np
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
commit, root = sys.argv[1:]
X, y = load_iris(return_X_y=True)
fitted = LogisticRegression(max_iter=300).fit(X, y)
for uri in (f"file://{root}/mlruns", f"sqlite:///{root}/mlflow.db"):
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("fraud-detection", f"file://{root}/{uri[:4]}"))
    with mlflow.start_run() as run:
        mlflow.log_metric("auc", 0.5, step=1)
        mlflow.log_metric("auc", 0.9, step=2)
        mlflow.log_metric("bad", float("nan"))
        mlflow.log_param("depth", 3)
        mlflow.set_tags({"team": "risk", "mlflow.source.git.commit": commit})
        mlflow.log_input(mlflow.data.from_numpy(X, name="iris"), context="training")
        mlflow.sklearn.log_model(
            fitted, name="model", registered_model_name="fraud", signature=mlflow.models.infer_signature(X, y),
            pip_requirements=["scikit-learn==1.2.3", "numpy"], serialization_format="skops")
    client = MlflowClient()
    client.set_registered_model_alias("fraud", "champion", "1")
    client.update_model_version("fraud", "1", description="# Card of fraud")
    client.set_model_version_tag("fraud", "1", "approved", "yes")
    print(uri, run.info.run_id)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """By the kind of store: a tracking URI and the id of the run in it."""
    root = tmp_path_factory.mktemp("mlflow")
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
    command = [sys.executable, "-W", "ignore", "-c", TRAIN, COMMIT, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    directory, database = (tuple(line.split()) for line in done.stdout.splitlines() if ":///" in line)
    return {"directory": directory, "database": database}


@pytest.fixture(params=["directory", "database"])
def store(request: pytest.FixtureRequest, runs: dict[str, tuple[str, str]]) -> tuple[str, str]:
    return runs[request.param]


def check_lineage(manifest: Manifest, run: str) -> None:
    assert (manifest.format, manifest.metrics, manifest.parameters) == ("sklearn", {"auc": 0.9}, {"depth": "3"})
    assert manifest.tags["team"] == "risk"
    assert manifest.tags["metric.bad"] == "nan"
    assert manifest.lineage.git_commit == COMMIT
    assert manifest.lineage.data_version.startswith("mlflow:iris@")
    source = manifest.lineage.source
    assert (source["kind"], source["run"], source["experiment"]) == ("mlflow", run, "fraud-detection")
    assert manifest.libraries["scikit-learn"] == "1.2.3"
    assert "MLmodel" in {file.path for file in manifest.files}
    assert manifest.entry == "model.skops"
    assert manifest.signature is not None


@pytest.mark.parametrize("reference", ["models:/fraud/1", "models:/fraud@champion"])
def test_a_registered_model_is_imported_with_its_run(store: tuple[str, str], tmp_path: Path, reference: str) -> None:
    uri, run = store
    pushed = prepare_mlflow_push("fraud", "4", reference, tmp_path / "into", Details(owner="ada"), tracking_uri=uri)
    check_lineage(pushed.manifest, run)
    assert (pushed.manifest.model, pushed.manifest.version, pushed.manifest.owner) == ("fraud", "4", "ada")
    assert pushed.manifest.card == "# Card of fraud"
    assert pushed.manifest.tags["approved"] == "yes"
    assert pushed.manifest.lineage.source["model"] == "models:/fraud/1"
    assert all(path.is_file() for _, path in pushed.sources)


def test_a_model_of_a_run_is_imported_and_what_is_said_goes_first(store: tuple[str, str], tmp_path: Path) -> None:
    uri, run = store
    details = Details(metrics={"auc": 0.1}, tags={"team": "mine"}, git_commit="mine")
    manifest = prepare_mlflow_push("m", "1", f"runs:/{run}/model", tmp_path, details, tracking_uri=uri).manifest
    assert (manifest.metrics["auc"], manifest.tags["team"], manifest.lineage.git_commit) == (0.1, "mine", "mine")
    assert manifest.lineage.source["model"] == f"runs:/{run}/model"


def test_a_directory_is_imported_with_or_without_its_store(store: tuple[str, str], tmp_path: Path) -> None:
    uri, run = store
    pushed = prepare_mlflow_push("m", "1", "models:/fraud/1", tmp_path / "a", Details(), tracking_uri=uri)
    folder = next(path.parent for file, path in pushed.sources if file.path == "MLmodel")
    check_lineage(prepare_mlflow_push("m", "1", str(folder), tmp_path / "b", Details(), tracking_uri=uri).manifest, run)
    alone = prepare_mlflow_push("m", "1", str(folder), tmp_path / "b", Details()).manifest
    assert (alone.metrics, alone.lineage.source["run"], alone.digest) == ({}, run, pushed.manifest.digest)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("models:/absent/1", "models:/absent/1: MLflow says: "),
        ("models:/fraud/99", "models:/fraud/99: MLflow says: "),
        ("models:/fraud@none", "models:/fraud@none: MLflow says: "),
        ("runs:/0123/model", "runs:/0123/model: MLflow says: "),
        ("fraud", "expected models:/NAME/VERSION"),
    ],
)
def test_what_is_not_there_is_refused(store: tuple[str, str], tmp_path: Path, reference: str, said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        prepare_mlflow_push("m", "1", reference, tmp_path, Details(), tracking_uri=store[0])


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def refuse(uri: str) -> str:
        with pytest.raises(ModelRefused) as caught:
            prepare_mlflow_push("m", "1", "models:/m/1", tmp_path / "into", Details(), tracking_uri=uri)
        return caught.value.message

    assert "there is no such database" in refuse(f"sqlite:///{tmp_path}/absent.db")
    assert "there is no such directory" in refuse(f"file://{tmp_path}/absent")
    assert "there is no such directory" in refuse(str(tmp_path / "absent"))
    assert "give --tracking-uri" in refuse("")
    assert os.listdir(tmp_path) == []
