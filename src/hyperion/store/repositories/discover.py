"""What is this PATH? A model file, a Python model, or somebody's model repository: the answer is a list of ModelSpec.

Called by `control` when a source is loaded or reloaded, and by `cli`. Reads descriptions and first bytes only; never
loads a model, never imports a framework, never writes.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from hyperion.schema.errors import HyperionError, ModelRefused
from hyperion.schema.model import ModelOptions, ModelSpec
from hyperion.store.names import check_name
from hyperion.store.reading import list_entries
from hyperion.store.repositories.formats import format_of, is_model_file, require_trust
from hyperion.store.repositories.onnx_files import find_external_files
from hyperion.store.repositories.options import Layers, check_options
from hyperion.store.repositories.python_model import check_python_model
from hyperion.store.versions.digest import digest_of, digest_of_files

MAX_MODELS = 1_000
MAX_DEPTH = 3
_LOOKED_FOR = (
    "a model file (.onnx, .ubj, .json of XGBoost, .txt of LightGBM, .skops, .joblib, .pkl, .pt2, .pt), model.py, "
    "config.pbtxt or a numbered folder with model.onnx (Triton), model-settings.json (MLServer), MLmodel (MLflow), "
    "or folders of these"
)
# The descriptions that make a directory a model of some kind; the first that is there decides.
_DESCRIPTIONS = ("config.pbtxt", "model-settings.json", "MLmodel", "model.py")


def discover(
    path: Path, defaults: ModelOptions, *, name: str | None = None, pinned: frozenset[str] = frozenset()
) -> tuple[ModelSpec, ...]:
    """The model versions that lie at `path`, one spec each; several only for a repository or a model with versions.

    `defaults` are the options where nothing at `path` says otherwise; fields of them that are named in `pinned` were
    set by the operator and win over any file. `name` overrides the name of the one model that is there.
    Raises ModelRefused (nothing known, unsafe, or asks for what we do not do) or InvalidConfig (`hyperion.yaml`).
    """
    layers = Layers(check_options(msgspec.structs.asdict(defaults), "options"), pinned)
    if name is not None:
        check_name(name, "--name")
    root = Path(os.path.abspath(path))
    if root.is_dir():
        sources = split_repository(root)
        if name is not None and len(sources) > 1:
            raise ModelRefused(f"{root.name}: --name is for one model, and there are {len(sources)} in this repository")
        specs = tuple(spec for source in sources for spec in _discover_source(root, source, layers, name))
    elif root.exists():
        specs = (_describe_file(root, layers, name),)
    else:
        raise ModelRefused(f"{path}: no such file or directory")
    _refuse_twins(specs)
    return specs


def split_repository(path: Path) -> tuple[Path, ...]:
    """The folders of the models in a repository, sorted; `path` alone for anything that is one model.

    For whoever keeps a row per model: each of these can be given to `discover` on its own. A folder among the models
    that is none is one of them, so that it is refused by name and alone. Raises ModelRefused where there is no model.
    """
    if not path.is_dir() or _is_model(path):
        return (path,)
    folders = _find_models(path, MAX_DEPTH)
    if not folders:
        raise _refuse_empty(path)
    return tuple(folders)


def _find_models(folder: Path, depth: int) -> list[Path]:
    """The folders in `folder`, and in those, because MLServer allows it, of theirs; [] when none of them is a model."""
    folders: list[Path] = []
    any_model = False
    for entry in list_entries(folder):
        # `__pycache__` appears wherever somebody ran Python.
        if not entry.is_dir() or entry.name == "__pycache__":
            continue
        models = [entry] if _is_model(entry) else _find_models(entry, depth - 1) if depth > 1 else []
        any_model |= bool(models)
        folders += models or [entry]
        if len(folders) > MAX_MODELS:
            raise ModelRefused(f"{_name_of(folder)}: more than {MAX_MODELS} folders; serve parts of it")
    return folders if any_model else []


def _refuse_empty(folder: Path) -> ModelRefused:
    return ModelRefused(f"{_name_of(folder)}: nothing here that can be served; looked for {_LOOKED_FOR}")


def _name_of(path: Path) -> str:
    """The last part of a path, also of `.`."""
    return os.path.basename(os.path.abspath(path)) or "/"


def _is_model(folder: Path) -> bool:
    if any((folder / description).is_file() for description in _DESCRIPTIONS):
        return True
    return _has_numbered_version(folder) or any(is_model_file(entry) for entry in list_entries(folder))


def _has_numbered_version(folder: Path) -> bool:
    """A Triton model without a config.pbtxt: `N/model.onnx`."""
    return any(
        entry.name.isascii() and entry.name.isdecimal() and (entry / "model.onnx").exists()
        for entry in list_entries(folder)
    )


def _discover_source(root: Path, source: Path, layers: Layers, name: str | None) -> tuple[ModelSpec, ...]:
    try:
        return _discover_directory(source, layers, name)
    except HyperionError as error:
        if source == root or error.message.startswith(f"{source.name}: "):
            raise
        # In a repository of many, the message must say which model it is about.
        raise type(error)(f"{source.name}: {error.message}") from error


def _discover_directory(folder: Path, layers: Layers, name: str | None) -> tuple[ModelSpec, ...]:
    found = [description for description in _DESCRIPTIONS if (folder / description).is_file()]
    if {"config.pbtxt", "model-settings.json"} <= set(found):
        raise ModelRefused(
            f"{folder.name}: both config.pbtxt (Triton) and model-settings.json (MLServer) are here; "
            "keep the one that counts"
        )
    read = _READERS[found[0]] if found else _read_triton if _has_numbered_version(folder) else _read_lone_file
    return read(folder, layers, name)


def _read_triton(folder: Path, layers: Layers, name: str | None) -> tuple[ModelSpec, ...]:
    # Imported when needed, here and below: a plain ONNX file must not wait for protobuf's or YAML's import.
    from hyperion.store.repositories.triton import read_triton_model

    return read_triton_model(folder, layers, name)


def _read_mlserver(folder: Path, layers: Layers, name: str | None) -> tuple[ModelSpec, ...]:
    from hyperion.store.repositories.mlserver import read_mlserver_model

    return (read_mlserver_model(folder, layers, name),)


def _read_mlflow(folder: Path, layers: Layers, name: str | None) -> tuple[ModelSpec, ...]:
    from hyperion.store.repositories.mlflow import read_mlflow_model

    return (read_mlflow_model(folder, layers, name),)


def _read_python(folder: Path, layers: Layers, name: str | None) -> tuple[ModelSpec, ...]:
    check_python_model(folder / "model.py")
    chosen, layers = _read_options(folder, layers, name)
    return (ModelSpec(chosen, "1", "python", str(folder), digest_of(folder), layers.options),)


def _read_lone_file(folder: Path, layers: Layers, name: str | None) -> tuple[ModelSpec, ...]:
    files = [entry for entry in list_entries(folder) if is_model_file(entry)]
    if not files:
        raise _refuse_empty(folder)
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:8])
        raise ModelRefused(
            f"{folder.name}: more than one model file ({names}); give the file itself, or a directory each"
        )
    chosen, layers = _read_options(folder, layers, name)
    known = format_of(files[0])
    require_trust(files[0], known, layers.options.trust_pickle)
    if known.format == "onnx":
        find_external_files(files[0])
    # Over the whole directory: what lies beside the model (weights, tokenisers, options) is part of it.
    digest = digest_of(folder)
    return (ModelSpec(chosen, "1", known.format, str(files[0]), digest, layers.options),)


def _describe_file(path: Path, layers: Layers, name: str | None) -> ModelSpec:
    known = format_of(path)
    chosen = name or check_name(path.stem, "the file's name")
    require_trust(path, known, layers.options.trust_pickle)
    external = find_external_files(path) if known.format == "onnx" else ()
    digest = digest_of_files(path.parent, (path.name, *external)) if external else digest_of(path)
    return ModelSpec(chosen, "1", known.format, str(path), digest, layers.options)


def _read_options(folder: Path, layers: Layers, name: str | None) -> tuple[str, Layers]:
    """The name (--name, else `hyperion.yaml`'s, else the directory's) and the options with those of `hyperion.yaml`."""
    from_file = ""
    if os.path.lexists(folder / "hyperion.yaml"):
        from hyperion.store.repositories.hyperion_yaml import read_hyperion_yaml

        from_file, layers = read_hyperion_yaml(folder, layers)
    if name:
        return name, layers
    if from_file:
        return check_name(from_file, "hyperion.yaml: name"), layers
    return check_name(folder.name, "the directory's name"), layers


def _refuse_twins(specs: tuple[ModelSpec, ...]) -> None:
    seen: set[tuple[str, str]] = set()
    for spec in specs:
        if (spec.name, spec.version) in seen:
            raise ModelRefused(f"two models of this repository are both called {spec.name!r} version {spec.version}")
        seen.add((spec.name, spec.version))


_READERS: dict[str, Callable[[Path, Layers, str | None], tuple[ModelSpec, ...]]] = {
    "config.pbtxt": _read_triton,
    "model-settings.json": _read_mlserver,
    "MLmodel": _read_mlflow,
    "model.py": _read_python,
}
