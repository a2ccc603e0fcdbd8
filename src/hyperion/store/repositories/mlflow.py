"""Read an MLflow model directory: `MLmodel` says which flavors lie there, and what the model takes.

Called by `discover`, and by `mlserver` for models of its MLflow runtime. MLflow itself is not needed for the flavors
that we load natively, and these are preferred; `python_function` is what is left, and it runs code from the directory.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelSpec, Signature
from hyperion.store.names import check_name, is_valid_name
from hyperion.store.reading import MIB, resolve_inside
from hyperion.store.repositories.formats import FileFormat, check_content, require_trust
from hyperion.store.repositories.hyperion_yaml import read_hyperion_yaml
from hyperion.store.repositories.mlflow_signature import needs_frame, read_signature
from hyperion.store.repositories.onnx_files import find_external_files
from hyperion.store.repositories.options import Layers
from hyperion.store.versions.digest import digest_of
from hyperion.store.yaml_text import read_yaml_mapping

FILE = "MLmodel"
REGISTERED = "registered_model_meta"
LIMIT_BYTES = MIB
# MLflow writes this list whatever the machine has; ONNX Runtime then takes what is there, and so do we.
_PROVIDERS = ({"CUDAExecutionProvider", "CPUExecutionProvider"}, {"CPUExecutionProvider"}, {"CUDAExecutionProvider"})
_METHODS = ("predict", "predict_proba", "predict_log_proba")
_SESSION_DEFAULTS: dict[str, tuple[Any, ...]] = {"execution_mode": ("sequential",), "graph_optimization_level": (99,)}


class Flavor(msgspec.Struct, frozen=True):
    """How a flavor is served: the loader, what it opens, and the options and settings that it asks for."""

    format: str
    path: Path
    options: dict[str, Any] = {}
    settings: dict[str, str] = {}


def read_mlflow_model(folder: Path, layers: Layers, name: str | None) -> ModelSpec:
    """The model that `folder`/MLmodel describes. ModelRefused names the field that cannot be served."""
    description, _ = read_yaml_mapping(folder / FILE, LIMIT_BYTES)
    flavors = _mapping(description.get("flavors"), "flavors")
    if not flavors:
        raise ModelRefused(f"{FILE}: flavors: expected at least one")
    declared = description.get("signature")
    flavor = _choose(folder, flavors, declared, layers.options.trust_pickle)
    layers = layers.put({"labels": _labels(description), **flavor.options}, FILE, ModelRefused)
    from_file, layers = read_hyperion_yaml(folder, layers)
    registered, version = _read_registered(folder)
    chosen = name or check_name(from_file or registered or folder.name, "the model's name")
    return ModelSpec(
        name=chosen,
        version=version,
        format=flavor.format,
        path=str(flavor.path),
        digest=digest_of(folder),
        options=layers.options,
        signature=_signature_for(flavor.format, declared),
        settings=flavor.settings,
    )


def _choose(folder: Path, flavors: dict[str, Any], declared: Any, trusted: bool) -> Flavor:
    """The first flavor of ours that is there, unless only MLflow's own wrapper can feed or import the model."""
    for kind, read in _NATIVE.items():
        if kind in flavors:
            flavor = _mapping(flavors[kind], f"flavors.{kind}")
            if kind == "sklearn" and "python_function" in flavors and (flavor.get("code") or needs_frame(declared)):
                # Modules beside the model, or columns of text: MLflow imports the one and makes frames of the other.
                break
            return read(folder, flavor, flavors, trusted)
    if "python_function" not in flavors:
        raise ModelRefused(
            f"{FILE}: flavors: expected one of {', '.join(_NATIVE)} or python_function, got "
            f"{', '.join(map(str, list(flavors)[:8]))}"
        )
    if not trusted:
        raise ModelRefused(
            f"{FILE}: flavors ({', '.join(map(str, list(flavors)[:8]))}): only MLflow's own python_function fits, and "
            "loading it runs whatever code lies in the directory. If you trust who made it, start with --trust-pickle"
        )
    return Flavor("mlflow-pyfunc", folder)


def _read_onnx(folder: Path, flavor: dict[str, Any], _flavors: dict[str, Any], _trusted: bool) -> Flavor:
    path = _file(folder, flavor, "onnx", "data")
    if path.is_dir():
        path = resolve_inside(path, "model.onnx", f"{FILE}: flavors.onnx.data")
    check_content(path, "onnx")
    find_external_files(path)
    providers = flavor.get("providers")
    if providers and (not isinstance(providers, list) or set(map(str, providers)) not in _PROVIDERS):
        raise _refuse("flavors.onnx.providers", f"{providers!r:.80}", "remove it; the best of the machine is chosen")
    options: dict[str, Any] = {}
    for key, value in _mapping(flavor.get("onnx_session_options") or {}, "flavors.onnx.onnx_session_options").items():
        if key == "intra_op_num_threads" and isinstance(value, int):
            options["threads"] = value
        elif key != "inter_op_num_threads" and value not in _SESSION_DEFAULTS.get(str(key), ()):
            raise _refuse(f"flavors.onnx.onnx_session_options.{key!s:.80}", f"{value!r:.80}", "remove it")
    return Flavor("onnx", path, options)


def _read_xgboost(folder: Path, flavor: dict[str, Any], _flavors: dict[str, Any], _trusted: bool) -> Flavor:
    path = _file(folder, flavor, "xgboost", "data")
    check_content(path, "xgboost")
    return Flavor("xgboost", path)


def _read_lightgbm(folder: Path, flavor: dict[str, Any], flavors: dict[str, Any], trusted: bool) -> Flavor:
    path = _file(folder, flavor, "lightgbm", "data")
    if str(flavor.get("model_class", "lightgbm.basic.Booster")) == "lightgbm.basic.Booster":
        check_content(path, "lightgbm")
        return Flavor("lightgbm", path)
    # LightGBM's scikit-learn classes are saved as scikit-learn's are.
    return _estimator(path, str(flavor.get("serialization_format") or "cloudpickle"), flavors, trusted)


def _read_sklearn(folder: Path, flavor: dict[str, Any], flavors: dict[str, Any], trusted: bool) -> Flavor:
    path = _file(folder, flavor, "sklearn", "pickled_model")
    return _estimator(path, str(flavor.get("serialization_format") or "pickle"), flavors, trusted)


def _estimator(path: Path, serialization: str, flavors: dict[str, Any], trusted: bool) -> Flavor:
    if serialization == "skops":
        check_content(path, "sklearn", "skops")
    else:
        check_content(path, "sklearn")
        require_trust(path, FileFormat("sklearn", executable=True), trusted)
    function = flavors.get("python_function")
    method = function.get("predict_fn") if isinstance(function, dict) else None
    if method in (None, "predict"):
        return Flavor("sklearn", path)
    if method not in _METHODS:
        raise _refuse("flavors.python_function.predict_fn", f"{method!r:.80}", f"log it with {' or '.join(_METHODS)}")
    # What MLflow's own server would answer with.
    return Flavor("sklearn", path, settings={"outputs": method})


_NATIVE: dict[str, Callable[[Path, dict[str, Any], dict[str, Any], bool], Flavor]] = {
    "onnx": _read_onnx,
    "xgboost": _read_xgboost,
    "lightgbm": _read_lightgbm,
    "sklearn": _read_sklearn,
}


def _signature_for(loader: str, declared: Any) -> Signature | None:
    """What MLmodel declares, where the loader cannot know it: an ONNX model says it more exactly, and MLflow's own
    wrapper reads it itself. Outputs are named by the loader (`predict`), because MLflow gives them no names."""
    if loader == "onnx":
        return None
    # Read for the wrapper, too: what has no equal here must be refused before a runner is started.
    signature = read_signature(declared)
    return None if signature is None or loader == "mlflow-pyfunc" else Signature(signature.inputs, ())


def _read_registered(folder: Path) -> tuple[str, str]:
    """Name and version that MLflow's registry noted when the model was downloaded from it; ("", "1") otherwise."""
    if not (folder / REGISTERED).is_file():
        return "", "1"
    noted, _ = read_yaml_mapping(folder / REGISTERED, LIMIT_BYTES)
    name, version = str(noted.get("model_name") or ""), str(noted.get("model_version") or "1")
    if not (version.isascii() and version.isdecimal() and len(version) < 19):
        raise ModelRefused(f"{REGISTERED}: model_version: expected a number, got {version[:40]!r}")
    return (name if is_valid_name(name) else ""), version


def _labels(description: Mapping[str, Any]) -> dict[str, str]:
    keys = ("run_id", "model_id", "model_uuid", "utc_time_created", "mlflow_version")
    return {f"mlflow.{key}": str(description[key])[:256] for key in keys if description.get(key)}


def _mapping(value: Any, field: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise ModelRefused(f"{FILE}: {field}: expected a mapping, got {type(value).__name__}")
    return value or {}


def _file(folder: Path, flavor: dict[str, Any], kind: str, key: str) -> Path:
    value = flavor.get(key)
    if not isinstance(value, str) or not value:
        raise ModelRefused(f"{FILE}: flavors.{kind}.{key}: expected the name of the model's file")
    return resolve_inside(folder, value, f"{FILE}: flavors.{kind}.{key}")


def _refuse(field: str, asks: str, advice: str) -> ModelRefused:
    return ModelRefused(f'{FILE}: field "{field}" asks for {asks}, which Hyperion does not do; {advice}')
