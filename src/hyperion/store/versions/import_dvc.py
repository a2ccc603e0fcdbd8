"""What DVC tracks becomes lineage: the hash in a `.dvc` file is the data version, once the data here has that hash.

Called by `cli` for models and data sets that lie in a working copy with DVC. Reads the `.dvc` file and hashes the data
as DVC does; DVC itself is not needed, not run, and nothing is fetched.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from hyperion.schema.errors import ModelRefused
from hyperion.store.reading import open_regular, suggest
from hyperion.store.versions.digest import walk_files
from hyperion.store.versions.push import Details, Pushed, prepare_push
from hyperion.store.yaml_text import read_yaml_mapping

SUFFIX = ".dvc"
PREFIX = "dvc:"
LIMIT_BYTES = 1 << 20
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
# Of DVC's own schema: what a `.dvc` file and its one output may say. What we do not read changes nothing here.
_FIELDS = ("outs", "md5", "deps", "wdir", "frozen", "desc", "meta", "cmd")
_OUT_FIELDS = ("path", "md5", "size", "nfiles", "hash", "cache", "persist", "desc", "type", "labels", "meta", "remote",
               "push", "isexec", "files")  # fmt: skip


class Tracked(Struct, frozen=True):
    """What a `.dvc` file says: where its data lies, the hash (`.dir` behind that of a directory), and whether it is
    of DVC before 3, which hashed text files with the line ends of Unix."""

    path: Path
    md5: str
    old: bool

    @property
    def data_version(self) -> str:
        """The hash as it stands in a version's lineage."""
        return f"{PREFIX}md5:{self.md5}"


def prepare_dvc_push(model: str, version: str, path: Path, details: Details, **options: Any) -> Pushed:
    """As `prepare_push`, for a model that DVC tracks: its hash becomes the data version, unless `details` name the
    data that the model was trained on. Raises ModelRefused where the model here is not what DVC has."""
    tracked = read_dvc(path)
    verify_dvc(tracked)
    source = {"kind": "dvc", "file": _file_of(path).name, "md5": tracked.md5, **details.source}
    details = msgspec.structs.replace(
        details, source=source, data_version=resolve_data_version(details.data_version) or tracked.data_version
    )
    return prepare_push(model, version, tracked.path, details, **options)


def resolve_data_version(text: str) -> str:
    """`dvc:md5:…` of `dvc:PATH`, where PATH is tracked by DVC and unchanged; any other text as it is."""
    if not text.startswith(PREFIX) or text.startswith(f"{PREFIX}md5:"):
        return text
    tracked = read_dvc(Path(text.removeprefix(PREFIX)))
    verify_dvc(tracked)
    return tracked.data_version


def read_dvc(path: Path) -> Tracked:
    """What `PATH.dvc` (or PATH, where it is the `.dvc` file) tracks. ModelRefused names the field that is wrong."""
    file = _file_of(path)
    if not file.is_file():
        raise ModelRefused(f"{path}: DVC does not track it: there is no {file.name}; run `dvc add {path.name}`")
    given, lines = read_yaml_mapping(file, LIMIT_BYTES)
    for key, line in lines.items():
        if key not in _FIELDS:
            raise ModelRefused(f"{file.name} line {line}: unknown field {key[:80]!r}{suggest(key, _FIELDS)}")
    outs = given.get("outs")
    if not isinstance(outs, list) or len(outs) != 1 or not isinstance(outs[0], dict):
        raise ModelRefused(f"{file.name}: outs: expected a list of one output")
    out = outs[0]
    for key in out:
        if key not in _OUT_FIELDS:
            raise ModelRefused(f"{file.name}: outs[0]: unknown field {str(key)[:80]!r}{suggest(str(key), _OUT_FIELDS)}")
    md5, name = out.get("md5"), out.get("path")
    if not isinstance(md5, str) or not _MD5.fullmatch(md5) or out.get("hash", "md5") != "md5":
        raise ModelRefused(f"{file.name}: outs[0].md5: expected 32 hexadecimal digits, with .dir for a directory")
    if not isinstance(name, str) or not name or len(Path(name).parts) != 1 or name == ".." or given.get("wdir"):
        raise ModelRefused(f"{file.name}: outs[0].path: expected the name of a file or directory beside it")
    return Tracked(file.parent / name, md5, "hash" not in out)


def verify_dvc(tracked: Tracked) -> None:
    """Raises ModelRefused unless the working copy has the hash that DVC noted."""
    name = tracked.path.name
    if not tracked.path.exists():
        raise ModelRefused(f"{name}: is not here; fetch it with `dvc pull {name}`")
    if tracked.path.is_dir() != tracked.md5.endswith(".dir"):
        raise ModelRefused(f"{name}: DVC tracks a {'file' if tracked.path.is_dir() else 'directory'} of this name")
    if tracked.path.is_dir():
        matches = _md5_of_directory(tracked.path, tracked.old) == tracked.md5
    else:
        matches = tracked.md5 in (_md5_of(tracked.path), _md5_of(tracked.path, unix=True) if tracked.old else "")
    if not matches:
        raise ModelRefused(
            f"{name}: has changed since DVC noted its hash ({tracked.md5[:12]}…); note the change with "
            f"`dvc add {name}`, or take the noted content back with `dvc checkout {name}`"
        )


def _file_of(path: Path) -> Path:
    # A directory's own name, of `.` too, and of a path with a slash at its end.
    path = Path(os.path.abspath(path))
    return path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)


def _md5_of_directory(root: Path, old: bool) -> str:
    """DVC's hash of a directory: that of the list of its files, as Python's json writes it."""
    names = sorted(walk_files(Path(os.path.realpath(root))), key=lambda name: tuple(name.split("/")))
    entries = [{"md5": _md5_of(root / name, unix=old and _is_text(root / name)), "relpath": name} for name in names]
    entries.sort(key=lambda entry: entry["relpath"])
    listed = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(listed, usedforsecurity=False).hexdigest() + ".dir"


def _md5_of(path: Path, unix: bool = False) -> str:
    """MD5 in hex; with `unix`, as if every line ended like on Unix."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(open_regular(path), "rb") as file:
        while chunk := file.read(1 << 20):
            # DVC, too, works chunk by chunk, and takes what is split between two as it is.
            digest.update(chunk.replace(b"\r\n", b"\n") if unix else chunk)
    return digest.hexdigest()


def _is_text(path: Path) -> bool:
    """DVC's own guess, from the first 512 bytes: no NUL, and at most 30 % of them neither printable nor white."""
    with open(open_regular(path), "rb") as file:
        head = file.read(512)
    strange = sum(byte not in _TEXT for byte in head)
    return b"\0" not in head and strange <= 0.3 * len(head)


_TEXT = frozenset(range(32, 127)) | frozenset(b"\n\r\t\f\b")
