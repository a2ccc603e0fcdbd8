"""A model of an MLflow tracking store becomes a version, and the run that made it becomes its lineage.

Called by `cli` with a tracking URI: a directory, a database or a server. MLflow (`mlflow-skinny`) reads the store; the
model is downloaded, described and hashed, and never loaded.
"""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from hyperion.schema.errors import MissingExtra, ModelRefused
from hyperion.store.reading import read_text
from hyperion.store.versions.manifest import MAX_CARD, MAX_ITEMS, MAX_KEY, MAX_VALUE
from hyperion.store.versions.push import Details, Pushed, prepare_push
from hyperion.store.yaml_text import read_yaml_mapping

GIT_COMMIT = "mlflow.source.git.commit"
# Of MLflow's own tags, those that say where a run came from. The others are its bookkeeping.
_ORIGIN = {"mlflow.user": "user", "mlflow.runName": "run_name", "mlflow.source.name": "program"}
_MODEL = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>[0-9]{1,18})|@(?P<alias>[^/@]+))")
_RUN = re.compile(r"runs:/(?P<run>[0-9A-Za-z_-]{1,64})/(?P<path>.+)")
_PINNED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[A-Za-z0-9.!+_-]+)\s*(?:;.*|#.*)?")
_REQUIREMENTS_LIMIT = 1 << 20


class Found(Struct, frozen=True):
    """A model in a tracking store: where its files are downloaded from, the run ("" if unknown), and what the registry
    of MLflow says of it."""

    uri: str
    run: str = ""
    tags: dict[str, str] = {}
    source: dict[str, str] = {}
    description: str = ""


def prepare_mlflow_push(
    model: str, version: str, reference: str, into: Path, details: Details, *, tracking_uri: str = "", **options: Any
) -> Pushed:
    """`model`@`version` of the MLflow model at `reference`: `models:/NAME/VERSION`, `models:/NAME@ALIAS`,
    `runs:/ID/PATH`, or a directory with an MLmodel file.

    It is downloaded into the directory `into`, which must last until its files are stored. `tracking_uri` "" is what
    `MLFLOW_TRACKING_URI` says, and for a directory means that its run is not asked for. What `details` say goes before
    what the run says. Raises ModelRefused (no such model, unreadable store) or MissingExtra.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    directory = Path(reference)
    if (directory / "MLmodel").is_file():
        found, folder = _describe_directory(directory), directory
        if found.run and uri:
            with _opened(uri) as client:
                found, details = _add_run(client, found, details)
    else:
        with _opened(uri) as client:
            found = _find(client, reference)
            folder = _download(found.uri, into)
            if found.run:
                found, details = _add_run(client, found, details)
    source = {"kind": "mlflow", **found.source, **({"tracking_uri": _without_secrets(uri)} if uri else {})}
    details = msgspec.structs.replace(
        details,
        tags={**_texts(found.tags), **details.tags},
        source={**_texts(source), **details.source},
        card=details.card or found.description[:MAX_CARD],
        libraries=details.libraries or _libraries_of(folder),
        # That of the run, or none: the directory into which it was downloaded says nothing.
        git_commit=details.git_commit or "",
    )
    return prepare_push(model, version, folder, details, **options)


def _find(client: Any, reference: str) -> Found:
    match = _MODEL.fullmatch(reference)
    if match:
        name = match["name"]
        if match["version"]:
            row = _ask(reference, lambda: client.get_model_version(name, match["version"]))
        else:
            row = _ask(reference, lambda: client.get_model_version_by_alias(name, match["alias"]))
        uri = _ask(reference, lambda: client.get_model_version_download_uri(name, str(row.version)))
        source = {"model": f"models:/{name}/{row.version}", "run": row.run_id or ""}
        return Found(uri, row.run_id or "", dict(row.tags), source, row.description or "")
    match = _RUN.fullmatch(reference)
    if match:
        return Found(reference, match["run"], source={"model": reference, "run": match["run"]})
    raise ModelRefused(
        f"{reference[:120]}: expected models:/NAME/VERSION, models:/NAME@ALIAS, runs:/ID/PATH, or a directory with an "
        "MLmodel file in it"
    )


def _describe_directory(folder: Path) -> Found:
    description, _ = read_yaml_mapping(folder / "MLmodel", _REQUIREMENTS_LIMIT)
    run = str(description.get("run_id") or "")
    return Found(str(folder), run, source={"model": folder.resolve().name, **({"run": run} if run else {})})


def _add_run(client: Any, found: Found, details: Details) -> tuple[Found, Details]:
    """Metrics, parameters, tags, commit and data of the run. A number that is none becomes a tag."""
    run = _ask(f"run {found.run}", lambda: client.get_run(found.run))
    experiment = _ask(f"run {found.run}", lambda: client.get_experiment(run.info.experiment_id))
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    tags |= {f"metric.{key}": str(value) for key, value in run.data.metrics.items() if not math.isfinite(value)}
    origin = {_ORIGIN[key]: value for key, value in run.data.tags.items() if key in _ORIGIN}
    data = ",".join(f"{item.dataset.name}@{item.dataset.digest}" for item in run.inputs.dataset_inputs)
    metrics = {key: value for key, value in run.data.metrics.items() if math.isfinite(value)}
    _check_count(found.run, "metrics", metrics)
    _check_count(found.run, "parameters", run.data.params)
    source = {**found.source, "experiment": experiment.name, "experiment_id": run.info.experiment_id, **origin}
    found = msgspec.structs.replace(found, tags={**tags, **found.tags}, source=source)
    details = msgspec.structs.replace(
        details,
        metrics={**metrics, **details.metrics},
        parameters={**_texts(run.data.params), **details.parameters},
        git_commit=details.git_commit or run.data.tags.get(GIT_COMMIT, ""),
        data_version=details.data_version or (f"mlflow:{data}" if data else ""),
    )
    return found, details


def _check_count(run: str, field: str, values: dict[str, Any]) -> None:
    if len(values) > MAX_ITEMS:
        raise ModelRefused(f"run {run}: {len(values)} {field}; a version holds at most {MAX_ITEMS}")


def _texts(values: dict[str, Any]) -> dict[str, str]:
    """Texts that fit into a manifest: MLflow allows longer ones."""
    return {str(key)[:MAX_KEY]: str(value)[:MAX_VALUE] for key, value in list(values.items())[:MAX_ITEMS]}


def _download(artifact_uri: str, into: Path) -> Path:
    from mlflow import artifacts

    into.mkdir(parents=True, exist_ok=True)
    return Path(_ask(artifact_uri, lambda: artifacts.download_artifacts(artifact_uri=artifact_uri, dst_path=str(into))))


@contextmanager
def _opened(uri: str) -> Iterator[Any]:
    """A client of the store at `uri`, which is MLflow's global one meanwhile: parts of MLflow ask only for that, and
    would make a new database in the working directory."""
    client_class = _import(uri)
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI"), mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        yield _ask(f"--tracking-uri {_without_secrets(uri)}", lambda: client_class(uri, uri))
    finally:
        mlflow.set_tracking_uri(before[1])
        mlflow.set_registry_uri(before[2])
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if before[0] is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before[0]


def _import(uri: str) -> Any:
    """MLflow's client, for the store at `uri`, which must exist: MLflow would make an empty one."""
    if not uri:
        raise ModelRefused("which MLflow store? give --tracking-uri, or set MLFLOW_TRACKING_URI")
    local = _local_path(uri)
    if local is not None and not local.exists():
        raise ModelRefused(f"--tracking-uri {_without_secrets(uri)}: there is no such {_noun(uri)}")
    # MLflow calls stores in plain directories old and refuses them without the first; the others keep it quiet.
    for name, value in (
        ("MLFLOW_ALLOW_FILE_STORE", "true"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false"),
    ):
        os.environ.setdefault(name, value)
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise MissingExtra(
            "importing from MLflow needs mlflow-skinny, which is not installed; install it with: "
            "pip install 'hyperion-inference[mlflow]'"
        ) from error
    return MlflowClient


def _local_path(uri: str) -> Path | None:
    """The file or directory of a store on this machine."""
    if uri.startswith("sqlite:///"):
        return Path(uri.removeprefix("sqlite:///").partition("?")[0])
    if uri.startswith("file:"):
        return Path(urlsplit(uri).path)
    return Path(uri) if "://" not in uri else None


def _noun(uri: str) -> str:
    return "database" if uri.startswith("sqlite:") else "directory"


def _without_secrets(uri: str) -> str:
    """The URI without the user and password that a database's or a server's may carry."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="")) if parts.netloc else uri


def _ask(what: str, call: Any) -> Any:
    """What MLflow answers; its errors, of whatever kind, become one line."""
    try:
        return call()
    except ImportError as error:
        raise MissingExtra(
            f"{what}: MLflow needs {error.name} to read this store; install it with: pip install {error.name}"
        ) from error
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise ModelRefused(f"{what}: MLflow says: {text or type(error).__name__}") from error


def _libraries_of(folder: Path) -> dict[str, str]:
    """The versions that MLflow noted when the model was logged."""
    path = folder / "requirements.txt"
    if not path.is_file():
        return {}
    lines = read_text(path, _REQUIREMENTS_LIMIT).splitlines()
    matches = [match for line in lines if (match := _PINNED.fullmatch(line.strip()))]
    return {match["name"]: match["version"] for match in matches[:MAX_ITEMS]}
