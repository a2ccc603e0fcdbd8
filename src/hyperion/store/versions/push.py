"""From what lies at a PATH to a version of the registry: its manifest, and where each of its files is read from.

Called by `cli` (which sends both to the API), by the imports and by tests. Reads descriptions, hashes files, asks git
for the commit and Python for the versions of libraries; loads no model, writes nothing, knows no clock.
"""

import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import msgspec
from msgspec import Struct

from hyperion.schema.errors import InvalidConfig, ModelRefused
from hyperion.schema.model import ModelOptions, ModelSpec, Signature
from hyperion.schema.registry import FileEntry, Lineage, Manifest
from hyperion.store.blobs.directory import Blobs
from hyperion.store.reading import open_regular
from hyperion.store.repositories.discover import discover, split_repository
from hyperion.store.repositories.onnx_files import find_external_files
from hyperion.store.versions.digest import digest_file, digest_of_entries, target_inside, walk_files
from hyperion.store.versions.git import commit_of
from hyperion.store.versions.manifest import MAX_FILES, check_manifest

_TRITON = "onnxruntime_onnx"
# The packages that decide whether a model of a format loads and what it answers; those that are installed are noted.
_LIBRARIES: dict[str, tuple[str, ...]] = {
    "onnx": ("onnxruntime", "onnx", "skl2onnx", "torch", "tf2onnx"),
    "sklearn": ("scikit-learn", "numpy", "scipy", "skops", "joblib", "lightgbm", "xgboost", "xgboost-cpu"),
    "xgboost": ("xgboost", "xgboost-cpu", "numpy"),
    "lightgbm": ("lightgbm", "numpy"),
    "torch": ("torch", "numpy"),
    "python": ("numpy",),
    "mlflow-pyfunc": ("mlflow-skinny", "mlflow", "numpy", "pandas", "scikit-learn"),
}


class Details(Struct, frozen=True):
    """What the person who pushes says of a version. `git_commit` None asks git; "" notes none. `signature` is the
    model's own, where somebody has asked it; what the files declare goes before it."""

    metrics: dict[str, float] = {}
    parameters: dict[str, str] = {}
    tags: dict[str, str] = {}
    libraries: dict[str, str] = {}
    git_commit: str | None = None
    data_version: str = ""
    parent: str = ""
    source: dict[str, str] = {}
    owner: str = ""
    risk_class: str = ""
    intended_use: str = ""
    card: str = ""
    created_by: str = ""
    created_at: float = 0.0
    signature: Signature | None = None


class Pushed(Struct, frozen=True):
    """A version that is ready to be stored: its manifest, and the file on this machine that each entry is read from."""

    manifest: Manifest
    sources: tuple[tuple[FileEntry, Path], ...]


def prepare_push(
    model: str,
    version: str,
    path: Path,
    details: Details = Details(),  # noqa: B008  it is frozen
    *,
    source_version: str = "",
    defaults: ModelOptions = ModelOptions(),  # noqa: B008
    pinned: frozenset[str] = frozenset(),
) -> Pushed:
    """The manifest of `model`@`version` for the one model that lies at `path`.

    `source_version` chooses among the numbered versions of a Triton model. `defaults` and `pinned` are options, as
    `discover` takes them. Symbolic links that stay inside become copies of what they lead to; `.git` and `__pycache__`
    are left out. Raises ModelRefused: nothing or more than one model there, unsafe, too large, or not to be described.
    """
    spec = find_model(model, path, source_version, defaults, pinned)
    root = _root_of(spec, path)
    sources = tuple(_read_entries(root, _names_of(spec, root, path)))
    entry = os.path.relpath(os.path.realpath(spec.path), os.path.realpath(root))
    files = tuple(file for file, _ in sources)
    manifest = Manifest(
        model=model,
        version=version,
        # A single file's digest is that of its content, as everywhere.
        digest=f"sha256:{files[0].sha256}" if path.is_file() and len(files) == 1 else digest_of_entries(files),
        format=spec.format,
        files=files,
        entry="" if entry == "." else entry,
        signature=spec.signature or details.signature,
        platform=spec.platform,
        options=msgspec.structs.replace(spec.options, trust_pickle=False),
        settings=spec.settings,
        libraries=details.libraries or _versions_of(spec.format),
        metrics=details.metrics,
        parameters=details.parameters,
        tags=details.tags,
        lineage=Lineage(
            commit_of(path) if details.git_commit is None else details.git_commit,
            details.data_version,
            details.parent,
            details.source,
        ),
        owner=details.owner,
        risk_class=details.risk_class,
        intended_use=details.intended_use,
        card=details.card,
        created_by=details.created_by,
        created_at=details.created_at,
    )
    return Pushed(check_manifest(manifest), sources)


def put_files(blobs: Blobs, sources: tuple[tuple[FileEntry, Path], ...]) -> int:
    """Puts each file into `blobs` and returns the bytes that they have; ModelRefused for one that has changed since."""
    for file, path in sources:
        with open(open_regular(path), "rb") as stream:
            blobs.put(stream, file.sha256, file.size_bytes)
    return sum(file.size_bytes for file, _ in sources)


def find_model(
    model: str, path: Path, source_version: str, defaults: ModelOptions, pinned: frozenset[str] = frozenset()
) -> ModelSpec:
    """The one model version at `path`, called `model`. ModelRefused says which to name where there are several."""
    if not path.exists():
        raise InvalidConfig(f"{path}: no such file or directory")
    folders = split_repository(Path(os.path.abspath(path)))
    if len(folders) > 1:
        named = ", ".join(str(path / folder.name) for folder in folders[:8])
        raise ModelRefused(
            f"{path}: {len(folders)} models lie here, and a version holds one; push one of them: {named}"
            f"{', …' if len(folders) > 8 else ''}"
        )
    # Pushing runs nothing, so it needs no trust: that is decided where the version is to be loaded.
    trusting = msgspec.structs.replace(defaults, trust_pickle=True)
    specs = discover(path, trusting, name=model, pinned=pinned | {"trust_pickle"})
    versions = ", ".join(spec.version for spec in specs)
    if source_version:
        specs = tuple(spec for spec in specs if spec.version == source_version)
        if not specs:
            raise ModelRefused(f"{path}: there is no version {source_version!r} here; it holds {versions}")
    if len(specs) != 1:
        raise ModelRefused(f"{path}: versions {versions} of a model lie here; name one with --source-version")
    return specs[0]


def _root_of(spec: ModelSpec, path: Path) -> Path:
    """The directory whose files are the version's: of a Triton model the numbered one."""
    if path.is_file():
        return path.parent
    folder = split_repository(path)[0]
    return folder / spec.version if spec.platform == _TRITON else folder


def _names_of(spec: ModelSpec, root: Path, path: Path) -> list[str]:
    if path.is_file():
        return [path.name, *(find_external_files(path) if spec.format == "onnx" else ())]
    # Python's own by-products change with each machine that the model was tried on.
    return [name for name in walk_files(Path(os.path.realpath(root))) if "__pycache__" not in name.split("/")]


def _read_entries(root: Path, names: list[str]) -> Iterator[tuple[FileEntry, Path]]:
    """Sorted entries, and the real file behind each."""
    if len(names) > MAX_FILES:
        raise ModelRefused(f"{root.name}: {len(names)} files; a version holds at most {MAX_FILES}")
    home = Path(os.path.realpath(root))
    for name in sorted(set(names)):
        file = home / name
        if file.is_symlink():
            file = home / target_inside(home, file)
            if file.is_dir():
                raise ModelRefused(f"{name}: a symbolic link to a directory; put the directory itself there")
        sha256, size_bytes = digest_file(file)
        yield FileEntry(name, sha256, size_bytes), file


def _versions_of(format_name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for package in _LIBRARIES.get(format_name, ()):
        version = installed_version(package)
        if version:
            found[package] = version
    return found


def installed_version(package: str) -> str:
    """The version of an installed distribution; "" where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
