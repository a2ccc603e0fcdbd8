"""From PATHs to desired models, and from desired models to what lies on disk. Synchronous: hashing a large model takes
seconds, so the loop calls `resolve` in a thread."""

from pathlib import Path

import msgspec

from hyperion.control.state import Memory, Resolved
from hyperion.schema.config import Source
from hyperion.schema.errors import HyperionError, InvalidConfig, ModelRefused, UnknownModel
from hyperion.schema.model import ModelOptions, ModelSpec
from hyperion.store.desired import DesiredModel, DesiredState
from hyperion.store.names import is_valid_name
from hyperion.store.repositories.discover import discover, split_repository
from hyperion.store.repositories.options import check_options


def record_sources(sources: tuple[Source, ...], defaults: ModelOptions, desired: DesiredState) -> Memory:
    """Make the desired state serve exactly these sources, and return what they hold.

    One model of a repository that is refused does not keep its neighbours from being served. Raises `ModelRefused` or
    `InvalidConfig` where a source holds nothing that can be served, or two hold a model of one name.
    """
    memory = Memory()
    for source in sources:
        options, pinned = _options(source, defaults)
        folders = split_repository(Path(source.path))
        refused: list[HyperionError] = []
        for folder in folders:
            name, specs, error = _look(folder, source.name or None, options, pinned)
            if error is not None:
                refused.append(error)
            if error is not None and (len(folders) == 1 or len(refused) == len(folders)):
                raise error
            if name in memory.models:
                raise InvalidConfig(f'two models are named "{name}": the one at {folder} needs another --name')
            row = desired.put(name, folder, options, pinned=pinned)
            memory = memory.put(name, Resolved(row.generation, specs, error.message if error else ""))
    for row in desired.list():
        if row.name not in memory.models and row.serve:
            desired.set_serving(row.name, False)
    return memory


def find_in_repositories(
    name: str, sources: tuple[Source, ...], defaults: ModelOptions
) -> tuple[Path, ModelOptions, frozenset[str]]:
    """Return where a model lies that was added to a served repository meanwhile, and its options.

    Raises `UnknownModel`.
    """
    for source in sources:
        folder = Path(source.path) / name
        if is_valid_name(name) and not source.name and folder.is_dir() and folder in split_repository(folder.parent):
            return folder, *_options(source, defaults)
    raise UnknownModel(f'model "{name}" is not known here, and no served repository holds a directory of that name')


def resolve(row: DesiredModel) -> Resolved:
    """Return what the model's source holds now. Never raises a `HyperionError`: it is part of the answer."""
    try:
        specs = discover(Path(row.source), row.options, name=row.name, pinned=frozenset(row.pinned))
    except HyperionError as error:
        return Resolved(row.generation, error=_name_place(Path(row.source), error).message)
    return Resolved(row.generation, specs)


def _look(
    folder: Path, name: str | None, options: ModelOptions, pinned: frozenset[str]
) -> tuple[str, tuple[ModelSpec, ...], HyperionError | None]:
    try:
        specs = discover(folder, options, name=name, pinned=pinned)
    except HyperionError as error:
        return name or folder.stem, (), _name_place(folder, error)
    names = {spec.name for spec in specs}
    if len(names) != 1:
        return folder.name, (), ModelRefused(f"{folder.name}: expected one model, found {len(names)} in it")
    return names.pop(), specs, None


def _name_place(source: Path, error: HyperionError) -> HyperionError:
    """The same error; one that begins with a file of the directory `source` then says of which directory."""
    file = error.message.partition(" ")[0].rstrip(":")
    if not source.is_dir() or file not in {entry.name for entry in source.iterdir()}:
        return error
    return type(error)(f"{source.name}/{error.message}")


def _options(source: Source, defaults: ModelOptions) -> tuple[ModelOptions, frozenset[str]]:
    values = {**msgspec.structs.asdict(defaults), **source.overrides}
    return check_options(values, "options"), frozenset(source.overrides)
