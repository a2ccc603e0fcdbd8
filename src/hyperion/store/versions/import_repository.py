"""Everything in a Triton or MLServer repository (or a folder of other models) becomes versions of the registry.

Called by `cli` to import what another server has served. What lies there is described by `discover`, as for serving.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hyperion.schema.errors import HyperionError
from hyperion.schema.model import ModelOptions
from hyperion.store.repositories.discover import discover, split_repository
from hyperion.store.versions.push import Details, Pushed, prepare_push

# What a description's file says about who wrote the repository.
_KINDS = {"config.pbtxt": "triton", "model-settings.json": "mlserver", "MLmodel": "mlflow", "model.py": "python"}


def prepare_repository(
    path: Path,
    details: Details,
    *,
    defaults: ModelOptions = ModelOptions(),  # noqa: B008  it is frozen
) -> Iterator[Pushed]:
    """One version for each that the repository serves, under its name and number there, one after the other.

    Raises ModelRefused for the first that cannot be served, before it yields any: all or nothing is imported.
    """
    trusting = msgspec.structs.replace(defaults, trust_pickle=True)
    folders = split_repository(Path(os.path.abspath(path)))
    found = [
        (folder, spec) for folder in folders for spec in discover(folder, trusting, pinned=frozenset({"trust_pickle"}))
    ]
    for folder, spec in found:
        source = {"kind": kind_of(folder), "model": spec.name, "version": spec.version, **details.source}
        try:
            yield prepare_push(
                spec.name,
                spec.version,
                folder,
                msgspec.structs.replace(details, source=source),
                source_version=spec.version,
                defaults=defaults,
            )
        except HyperionError as error:
            raise type(error)(f"{spec.name}: {error.message}") from error


def kind_of(folder: Path) -> str:
    """Whose description lies in a model's folder: triton, mlserver, mlflow or python; `file` where there is none."""
    for name, kind in _KINDS.items():
        if (folder / name).is_file():
            return kind
    return "triton" if folder.is_dir() and any(entry.name.isdecimal() for entry in folder.iterdir()) else "file"
