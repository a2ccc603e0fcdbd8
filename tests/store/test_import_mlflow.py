"""A model of a real MLflow store (directory or database) is imported with the run that made it."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperion.schema.errors import ModelRefused
from hyperion.schema.registry import Manifest
from hyperion.store.versions.import_mlflow import prepare_mlflow_push
from hyperion.store.versions.push import Details
from tests.services import needs_installed, needs_module

needs_installed("mlflow", extra="mlflow")
needs_module("sqlalchemy", extra="tests")
COMMIT = "c0ffee" + "0" * 34
# Importing MLflow and making its database takes seconds, and many on a busy machine.
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, classifier: Any, iris: tuple[Any, Any]
) -> dict[str, tuple[str, str]]:
    """By the kind of store: a tracking URI and the id of the run in it."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
            patch.setenv(name, "true")
        patch.setenv("MLFLOW_TRACKING_URI", "")
        import mlflow

        before = mlflow.get_tracking_uri()
        root = tmp_path_factory.mktemp("mlflow")
        uris = {"directory": f"file://{root}/mlruns", "database": f"sqlite:///{root}/mlflow.db"}
        made = {kind: (uri, log_model(uri, root / kind, classifier, *iris)) for kind, uri in uris.items()}
        mlflow.set_tracking_uri(before)
    return made


def log_model(uri: str, artifacts: Path, model: Any, rows: Any, labels: Any) -> str:
    """What a training script does: a run with all that MLflow keeps, and a registered model. Returns the run's id."""
    import mlflow.data
    import mlflow.sklearn

    mlflow.set_tracking_uri(uri)
    experiment = mlflow.create_experiment("fraud-detection", f"file://{artifacts}")
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_metric("auc", 0.5, step=1)
        mlflow.log_metric("auc", 0.9, step=2)
        mlflow.log_metric("bad", float("nan"))
        mlflow.log_param("depth", 3)
        mlflow.set_tags({"team": "risk", "mlflow.source.git.commit": COMMIT})
        mlflow.log_input(mlflow.data.from_numpy(rows, name="iris"), context="training")
        mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name="fraud",
            signature=mlflow.models.infer_signature(rows, labels),
            pip_requirements=["scikit-learn==1.2.3", "numpy"],
            serialization_format="cloudpickle",
        )
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("fraud", "champion", "1")
    client.update_model_version("fraud", "1", description="# Card of fraud")
    client.set_model_version_tag("fraud", "1", "approved", "yes")
    return str(run.info.run_id)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow likes to make a database in the working directory: an import must not."""
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert os.listdir(folder) == []


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
    assert manifest.entry == "model.pkl"
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
    assert os.listdir(tmp_path) == ["working"]
