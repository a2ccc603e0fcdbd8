"""Read one model of an MLServer repository: `model-settings.json`, and what counts of a `settings.json` beside it.

Called by `discover`. MLServer's runtimes are Python classes; the models of four of them are served by our loaders.
Fields that describe (`platform`, `versions`, `outputs`) change nothing; what asks for something else is refused.
"""

import re
from pathlib import Path
from typing import Any

import msgspec

from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelSpec, Signature, TensorSpec
from hyperion.store.names import check_name
from hyperion.store.reading import MIB, read_bytes, resolve_inside, suggest
from hyperion.store.repositories.formats import FileFormat, check_content, require_trust
from hyperion.store.repositories.hyperion_yaml import read_hyperion_yaml
from hyperion.store.repositories.options import Layers
from hyperion.store.versions.digest import digest_of

FILE = "model-settings.json"
SERVER_FILE = "settings.json"
LIMIT_BYTES = MIB
_DATATYPES = frozenset(
    ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES")
)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Runtime(msgspec.Struct, frozen=True):
    """Which of our loaders serves the models of an MLServer runtime, and the file names that it looks for."""

    format: str
    well_known: tuple[str, ...]


_RUNTIMES: dict[str, Runtime] = {
    "mlserver_sklearn.SKLearnModel": Runtime("sklearn", ("model.joblib", "model.pickle", "model.pkl", "model.skops")),
    "mlserver_xgboost.XGBoostModel": Runtime("xgboost", ("model.ubj", "model.json", "model.bst")),
    "mlserver_lightgbm.LightGBMModel": Runtime("lightgbm", ("model.bst", "model.txt")),
    "mlserver_mlflow.MLflowRuntime": Runtime("mlflow", ()),
}
# The long paths of the same classes, which MLServer accepts as well.
_SAME = {
    "mlserver_sklearn.sklearn.SKLearnModel": "mlserver_sklearn.SKLearnModel",
    "mlserver_xgboost.xgboost.XGBoostModel": "mlserver_xgboost.XGBoostModel",
    "mlserver_lightgbm.lightgbm.LightGBMModel": "mlserver_lightgbm.LightGBMModel",
    "mlserver_mlflow.runtime.MLflowRuntime": "mlserver_mlflow.MLflowRuntime",
}
# Fields of model-settings.json: those that are read below, and those that only describe or that hold here anyway:
# workers are always warm, and a model has a process of its own.
_READ = ("name", "implementation", "parameters", "inputs", "max_batch_size", "max_batch_time", "parallel_workers")
_HARMLESS = ("platform", "versions", "outputs", "warm_workers", "$schema")
_ADVICE: dict[str, tuple[str, str]] = {
    "cache_enabled": ("a response cache", "remove it"),
    "environment_tarball": ("a Python environment of its own", "install what the model needs beside Hyperion"),
    "environment_path": ("a Python environment of its own", "install what the model needs beside Hyperion"),
    "extra": ("parameters for the runtime", "remove it"),
    "format": ("another format for the runtime", "remove it"),
}
_PARAMETERS_READ = ("uri", "version", "content_type")
_PARAMETERS_HARMLESS = ("inference_pool_gid", "autogenerate_inference_pool_gid")


def read_mlserver_model(folder: Path, layers: Layers, name: str | None) -> ModelSpec:
    """The model that `folder`/model-settings.json describes. ModelRefused names the field that cannot be served."""
    settings = _read_object(folder / FILE)
    _check_fields(settings, "", _READ, _HARMLESS)
    parameters = settings.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ModelRefused(f"{FILE}: parameters: expected an object")
    _check_fields(parameters, "parameters.", _PARAMETERS_READ, _PARAMETERS_HARMLESS)
    _check_content_type(parameters.get("content_type"), settings.get("inputs"))
    runtime = _find_runtime(settings.get("implementation"))
    signature = _read_signature(settings.get("inputs"))
    layers = layers.put(_read_options(settings, folder), FILE, ModelRefused)
    from_file, layers = read_hyperion_yaml(folder, layers)
    given = settings.get("name") or ""
    if not isinstance(given, str):
        raise ModelRefused(f"{FILE}: name: expected a text")
    chosen = name or check_name(from_file or given or folder.name, "the model's name")
    version = parameters.get("version") or "1"
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ModelRefused(f"{FILE}: parameters.version: expected up to 64 letters, digits, '.', '_' or '-'")
    target = _find_target(folder, parameters.get("uri"), runtime)
    if runtime.format == "mlflow":
        from hyperion.store.repositories.mlflow import read_mlflow_model

        spec = read_mlflow_model(target, layers, chosen)
        return msgspec.structs.replace(spec, version=version, digest=digest_of(folder))
    _check_file(target, runtime.format, layers.options.trust_pickle)
    return ModelSpec(
        name=chosen,
        version=version,
        format=runtime.format,
        path=str(target),
        digest=digest_of(folder),
        options=layers.options,
        signature=signature,
    )


def _check_content_type(content: Any, inputs: Any) -> None:
    """Tensors as they are (`np`), or a frame whose columns are the declared inputs (`pd`): both are what we do."""
    if content == "pd" and not inputs:
        raise ModelRefused(f'{FILE}: parameters.content_type: "pd" needs the columns; declare each of them in inputs')
    if content not in (None, "np", "pd"):
        raise _refuse("parameters.content_type", f"{content!r:.80}", "send plain tensors, or use np or pd")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(read_bytes(path, LIMIT_BYTES))
    except (msgspec.DecodeError, RecursionError) as error:
        raise ModelRefused(f"{path.name}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelRefused(f"{path.name}: expected an object")
    return value


def _check_fields(given: dict[str, Any], prefix: str, read: tuple[str, ...], harmless: tuple[str, ...]) -> None:
    for field, value in given.items():
        if field in read or field in harmless or value in (None, False, "", {}, []):
            continue
        if field in _ADVICE:
            asks, advice = _ADVICE[field]
            raise _refuse(prefix + field, asks, advice)
        known = (*read, *harmless)
        raise ModelRefused(f'{FILE}: unknown field "{prefix}{field[:80]}"{suggest(field, known)}')


def _find_runtime(implementation: Any) -> Runtime:
    if not isinstance(implementation, str) or not implementation:
        raise ModelRefused(f"{FILE}: implementation: expected one of {', '.join(_RUNTIMES)}")
    runtime = _RUNTIMES.get(_SAME.get(implementation, implementation))
    if runtime is None:
        raise ModelRefused(
            f"{FILE}: implementation: {implementation[:120]!r} is a class for MLServer; expected one of "
            f"{', '.join(_RUNTIMES)}. Write it as a Python model: a directory with a model.py that has a class Model"
        )
    return runtime


def _read_options(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Batching and workers. MLServer batches only when both the size and the time are set; we always may."""
    options: dict[str, Any] = {}
    size = _number(settings, "max_batch_size")
    if size > 1:
        options["max_batch_size"] = int(size)
    seconds = _number(settings, "max_batch_time")
    if seconds > 0:
        options["max_delay_ms"] = seconds * 1000
    workers = _number(settings, "parallel_workers") or _read_server_workers(folder)
    if workers > 1:
        options["replicas"] = int(workers)
    return options


def _number(settings: dict[str, Any], field: str, file: str = FILE) -> float:
    value = settings.get(field)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise ModelRefused(f"{file}: {field}: expected a number of at least 0, got {value!r:.40}")
    return value


def _read_server_workers(folder: Path) -> float:
    """`parallel_workers` of the server's settings, beside the model or in the repository above it; 0 when not given.

    Every worker of MLServer loads every model, so it is a number of replicas. What else stands there concerns the
    server (ports, logs, metrics), which Hyperion is instead, but for the two that would change what is answered.
    """
    settings = _read_server_settings(folder)
    if settings.get("cache_enabled"):
        raise _refuse("cache_enabled", "a response cache", "remove it", SERVER_FILE)
    if settings.get("kafka_enabled"):
        raise _refuse("kafka_enabled", "requests from Kafka", "remove it", SERVER_FILE)
    return _number(settings, "parallel_workers", SERVER_FILE)


def _read_server_settings(folder: Path) -> dict[str, Any]:
    """The settings beside the model; else those above it, unless that file is somebody else's of the same name."""
    if (folder / SERVER_FILE).is_file():
        return _read_object(folder / SERVER_FILE)
    above = folder.parent / SERVER_FILE
    if not above.is_file():
        return {}
    try:
        return _read_object(above)
    except ModelRefused:
        return {}


def _find_target(folder: Path, uri: Any, runtime: Runtime) -> Path:
    """The file (for MLflow: the directory) that the settings point at. As in MLServer, a folder is searched for the
    names that its runtime knows; without a uri, the folder of the settings is."""
    if uri is not None and not isinstance(uri, str):
        raise ModelRefused(f"{FILE}: parameters.uri: expected a text")
    if uri and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", uri):
        raise _refuse("parameters.uri", f"{uri[:80]!r}", "download the model and give a path relative to this file")
    target = resolve_inside(folder, uri or ".", f"{FILE}: parameters.uri")
    if runtime.format == "mlflow":
        if not (target / "MLmodel").is_file():
            raise ModelRefused(f"{FILE}: parameters.uri: expected a directory with an MLmodel in it")
        return target
    if target.is_file():
        return target
    for known in runtime.well_known:
        if (target / known).is_file():
            return resolve_inside(folder, f"{uri or '.'}/{known}", f"{FILE}: parameters.uri")
    known_names = " or ".join(runtime.well_known)
    raise ModelRefused(f"{FILE}: parameters.uri: expected a model file, or a folder with {known_names} in it")


def _check_file(path: Path, loader: str, trusted: bool) -> None:
    if loader == "sklearn":
        safe = path.suffix == ".skops"
        check_content(path, "sklearn", "skops" if safe else "")
        require_trust(path, FileFormat("sklearn", executable=not safe), trusted)
        return
    check_content(path, loader)


def _read_signature(inputs: Any) -> Signature | None:
    """The declared inputs, with the first axis free: MLServer does not hold requests to it, and its models take rows.

    No outputs: they are the model's own, and MLServer's metadata of them only describes."""
    if not inputs:
        return None
    if not isinstance(inputs, list):
        raise ModelRefused(f"{FILE}: inputs: expected a list")
    specs = []
    for index, item in enumerate(inputs):
        where = f"{FILE}: inputs[{index}]"
        if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"]:
            raise ModelRefused(f"{where}: expected an object with a name")
        if item.get("datatype") not in _DATATYPES:
            raise ModelRefused(f"{where}.datatype: expected one of {', '.join(sorted(_DATATYPES))}")
        shape = item.get("shape")
        if not isinstance(shape, list) or not 1 <= len(shape) <= 8:
            raise ModelRefused(f"{where}.shape: expected a list of 1 to 8 sizes")
        if not all(type(size) is int and size >= -1 for size in shape):
            raise ModelRefused(f"{where}.shape: expected whole numbers, -1 for any")
        parameters = item.get("parameters")
        content = parameters.get("content_type") if isinstance(parameters, dict) else None
        if content not in (None, "np", "pd") and (content, item["datatype"]) != ("str", "BYTES"):
            raise _refuse(f"inputs[{index}].parameters.content_type", f"{content!r:.40}", "send plain tensors")
        specs.append(TensorSpec(item["name"], item["datatype"], (-1, *shape[1:])))
    return Signature(tuple(specs), ())


def _refuse(field: str, asks: str, advice: str, file: str = FILE) -> ModelRefused:
    return ModelRefused(f'{file}: field "{field}" asks for {asks}, which Hyperion does not do; {advice}')
