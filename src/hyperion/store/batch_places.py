"""Where batch jobs may read and write: below the directories that the operator named, and in databases by name.

Called by `control` when a job is applied, and by the process that runs it, as links may have moved since.
"""

import os
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from hyperion.schema.errors import GateRefused, InvalidConfig
from hyperion.schema.resource import BatchJobSpec
from hyperion.store.reading import suggest

SQL: Final = "sql:"
MAX_BYTES: Final = 1 << 20


def check_places(spec: BatchJobSpec, dirs: Collection[str], databases: Collection[str]) -> BatchJobSpec:
    """The spec with its places as they really are, links followed, so that what is made beside them is there, too.

    Raises GateRefused unless source and target, and the files in a source that is a directory, are below one of `dirs`
    or in a known database."""
    real = {}
    for field, place in (("source", spec.source), ("target", spec.target)):
        if place.startswith(SQL):
            _check_database(field, place.removeprefix(SQL), databases)
        elif not dirs:
            raise GateRefused(f"spec.{field}: this platform lets batch jobs use no files; see --batch-dirs")
        elif not any(is_below(place, allowed) for allowed in dirs):
            raise GateRefused(f"spec.{field}: {place[:200]} is not below a directory that --batch-dirs names")
        else:
            real[field] = os.path.realpath(place) + ("/" if place.endswith("/") else "")
            _check_links(field, real[field], dirs)
    return replace(spec, **real)


def _check_links(field: str, place: str, dirs: Collection[str]) -> None:
    """Raise GateRefused where a file in the directory is a link that leads out of `dirs`."""
    if not os.path.isdir(place):
        return
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.is_symlink() and not any(is_below(entry.path, allowed) for allowed in dirs):
                raise GateRefused(f"spec.{field}: {entry.name[:200]} in there leads out of what --batch-dirs names")


def is_below(place: str, directory: str) -> bool:
    """Whether `place`, which need not exist, is in `directory` once links are followed.

    >>> is_below("/data/in.parquet", "/data"), is_below("/data/../etc/passwd", "/data"), is_below("/database", "/data")
    (True, False, False)
    """
    real, base = Path(os.path.realpath(place)), Path(os.path.realpath(directory))
    return base in real.parents


def read_databases(path: str) -> dict[str, str]:
    """URLs of databases by name, from a TOML file of lines NAME = "URL"; none where `path` is "". Raises
    InvalidConfig, without what is in the file."""
    if not path:
        return {}
    try:
        with open(path, "rb") as file:
            found = tomllib.loads(file.read(MAX_BYTES).decode("utf-8"))
    except OSError as error:
        raise InvalidConfig(f"--batch-databases {path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfig(
            f'--batch-databases {path}: expected lines of TOML such as lake = "sqlite:///a.db"'
        ) from error
    for name, url in found.items():
        if not isinstance(url, str) or "://" not in url:
            raise InvalidConfig(f'--batch-databases {path}: {name}: expected a URL in quotes, such as "sqlite:///a.db"')
    return found


def _check_database(field: str, name: str, databases: Collection[str]) -> None:
    if name not in databases:
        near = suggest(name, databases) or "; see --batch-databases"
        raise GateRefused(f"spec.{field}: this platform lets batch jobs use no database {name[:80]!r}{near}")
