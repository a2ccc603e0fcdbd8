"""Read one model of a Triton repository: `config.pbtxt`, numbered version folders with ONNX models in them.

Called by `discover`. What the configuration asks for and we do not do is refused by name (`triton_options`). Without a
configuration, or without inputs and outputs in it, the model speaks for itself, as in Triton.

Where we differ: batches are formed whether `dynamic_batching` is there or not, because merging rows does not change
the answers of a model that declares a batch axis.
"""

import os
from pathlib import Path
from typing import Any

from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelSpec
from hyperion.store.names import check_name
from hyperion.store.reading import MIB, list_entries, read_text, resolve_inside
from hyperion.store.repositories.formats import check_content
from hyperion.store.repositories.hyperion_yaml import read_hyperion_yaml
from hyperion.store.repositories.onnx_files import find_external_files
from hyperion.store.repositories.options import Layers
from hyperion.store.repositories.triton_options import (
    FILE,
    read_options,
    read_signature,
    refuse_unsupported,
    warmup_shapes,
)
from hyperion.store.repositories.triton_schema import parse_model_config
from hyperion.store.versions.digest import digest_of

LIMIT_BYTES = MIB
PLATFORM = "onnxruntime_onnx"
DEFAULT_FILE = "model.onnx"


def read_triton_model(folder: Path, layers: Layers, name: str | None) -> tuple[ModelSpec, ...]:
    """One spec per version that the version policy selects, oldest first. ModelRefused names the field at fault."""
    path = folder / FILE
    config = parse_model_config(read_text(path, LIMIT_BYTES) if path.is_file() else "", FILE)
    _check_backend(config)
    refuse_unsupported(config)
    signature = read_signature(config)
    layers = layers.put(read_options(config, signature), FILE, ModelRefused)
    from_file, layers = read_hyperion_yaml(folder, layers)
    chosen = name or check_name(from_file or config.name or folder.name, "the model's name")
    shapes = warmup_shapes(config)
    settings = {"warmup_shapes": shapes} if shapes else {}
    specs = []
    for version in _select_versions(config, folder):
        file = _find_file(config, folder / str(version))
        specs.append(
            ModelSpec(
                name=chosen,
                version=str(version),
                format="onnx",
                path=str(file),
                digest=digest_of(folder / str(version)),
                options=layers.options,
                signature=signature,
                settings=settings,
                platform=PLATFORM,
            )
        )
    return tuple(specs)


def _check_backend(config: Any) -> None:
    if config.backend == "python":
        raise ModelRefused(
            f'{FILE}: backend "python": a TritonPythonModel talks to Triton\'s own Python API (pb_utils), which is not '
            "here; write its computation as a Python model: a directory with a model.py that has a class Model"
        )
    if config.platform not in ("", PLATFORM) or config.backend not in ("", "onnxruntime"):
        asked = f'backend "{config.backend[:40]}"' if config.backend else f'platform "{config.platform[:40]}"'
        raise ModelRefused(
            f'{FILE}: {asked} is not supported; of Triton repositories, models with backend "onnxruntime" are. Serve '
            "other model files directly, or export them to ONNX"
        )
    # Without either, Triton guesses from the file's name.
    if not config.backend and not config.platform and (config.default_model_filename or DEFAULT_FILE)[-5:] != ".onnx":
        raise ModelRefused(f'{FILE}: default_model_filename: expected a .onnx file, or backend: "onnxruntime"')


def _select_versions(config: Any, folder: Path) -> list[int]:
    """The version numbers to serve. Like Triton, ignores folders that are not numbers or begin with 0."""
    present = sorted(
        int(entry.name)
        for entry in list_entries(folder)
        if entry.is_dir() and entry.name.isascii() and entry.name.isdecimal() and entry.name[0] != "0"
        if len(entry.name) < 19
    )
    if not present:
        raise ModelRefused(f"{folder.name}: no version in it; expected a folder named 1 with {DEFAULT_FILE} in it")
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return present
        case "specific":
            wanted = sorted(set(policy.specific.versions))
            missing = [version for version in wanted if version not in present]
            if missing or not wanted:
                raise ModelRefused(f"{FILE}: version_policy.specific: expected versions among {present}, got {wanted}")
            return wanted
        case _:
            return present[-(policy.latest.num_versions or 1) :]


def _find_file(config: Any, folder: Path) -> Path:
    """The model file of one version; as in Triton it may be a folder of that name, with model and weights in it."""
    wanted = config.default_model_filename or DEFAULT_FILE
    if not os.path.lexists(folder / wanted):
        raise ModelRefused(f"{folder.parent.name}/{folder.name}: expected {wanted} in it")
    file = resolve_inside(folder, wanted, f"{FILE}: default_model_filename")
    if file.is_dir():
        file = resolve_inside(file, DEFAULT_FILE, f"{folder.name}/{wanted}")
    check_content(file, "onnx")
    find_external_files(file)
    return file
