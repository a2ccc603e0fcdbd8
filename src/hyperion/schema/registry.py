"""What the registry holds: immutable versions of models, each a manifest over content-addressed files."""

from msgspec import Struct

from hyperion.schema.model import ModelOptions, ModelSpec, Signature


class FileEntry(Struct, frozen=True, order=True):
    """One file of a version: its `/`-separated path under the version's root, SHA-256 in hex, and size."""

    path: str
    sha256: str
    size_bytes: int


class Lineage(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a version came from. `source` says what it was imported from, with `run`, `experiment` and the like."""

    git_commit: str = ""
    data_version: str = ""
    parent: str = ""
    source: dict[str, str] = {}


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """One version of one model, for ever. `files` are sorted by path; `entry` is the file or directory under the root
    that the loader opens ("" for the root itself); `digest` is `sha256:…` over the files (`store/versions/digest`),
    which answers carry. `libraries` are package versions that the version was made with. `card` is the model card's
    text. `created_at` is in seconds since 1970."""

    model: str
    version: str
    digest: str
    format: str
    files: tuple[FileEntry, ...]
    entry: str = ""
    signature: Signature | None = None
    platform: str = ""
    options: ModelOptions = ModelOptions()
    settings: dict[str, str] = {}
    libraries: dict[str, str] = {}
    metrics: dict[str, float] = {}
    parameters: dict[str, str] = {}
    tags: dict[str, str] = {}
    lineage: Lineage = Lineage()
    owner: str = ""
    risk_class: str = ""
    intended_use: str = ""
    card: str = ""
    created_by: str = ""
    created_at: float = 0.0


class VerifiedSpec(Struct, frozen=True):
    """What a runner needs of a registered version: the spec, the root of its files, and what must lie there."""

    spec: ModelSpec
    root: str
    files: tuple[FileEntry, ...]
