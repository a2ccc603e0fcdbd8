"""Is what lies on disk the version that was pushed? Every file by its SHA-256, and nothing beside them.

Called by `runner/process` before a registered version is loaded, by each replica each time, so that what answers is
what was signed, whatever has happened to the disk since. Reads everything once; changes nothing on the disk.
"""

import hashlib
import os
import stat
import sys
from pathlib import Path

import msgspec

from hyperion.runner.sandbox.paths import LIST_SUFFIX
from hyperion.schema.config import RunnerConfig
from hyperion.schema.errors import ModelRefused
from hyperion.schema.registry import FileEntry
from hyperion.store.versions.digest import is_digest_of

_LIST_LIMIT_BYTES = 32 << 20
_CHUNK_BYTES = 1 << 20
_MEND = "its files on this machine are not those of the version; push it again from a good copy, then deploy it again"


def verify_version(config: RunnerConfig) -> None:
    """Raises ModelRefused, naming the file and what to do, unless exactly the files of the version lie under
    `config.root`. From then on this process, and those that it starts, write no `__pycache__` there."""
    model = f"{config.spec.name}@{config.spec.version}"
    root = Path(config.root)
    files = config.verified or _read_list(model, root)
    if not is_digest_of(config.spec.digest, files):
        raise ModelRefused(f"{model}: the list of its files has another digest than the version; {_MEND}")
    _check_path(model, root, Path(config.spec.path), files)
    verify_files(model, root, files)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def verify_files(model: str, root: Path, files: tuple[FileEntry, ...]) -> None:
    """Raises ModelRefused unless exactly `files` lie under `root`, as regular files, with their sizes and hashes."""
    expected = {file.path: file for file in files}
    if root.is_symlink() or not root.is_dir():
        raise ModelRefused(f"{model}: its directory is gone, or is none; {_MEND}")
    found = _list_found(model, root, expected)
    for path in sorted(expected):
        if path not in found:
            raise ModelRefused(f"{model}: file {path!r} is missing; {_MEND}")
    for file in files:
        _verify_file(model, root, file)


def _list_found(model: str, root: Path, expected: dict[str, FileEntry]) -> set[str]:
    """The paths that lie under `root`; refuses at once what should not."""
    folders = {
        "/".join(parts[:depth]) for path in expected for parts in [path.split("/")] for depth in range(len(parts))
    }
    found: set[str] = set()
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError as error:
            raise ModelRefused(f"{model}: {folder or '.'!r} cannot be listed: {error.strerror}") from error
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_symlink():
                raise ModelRefused(f"{model}: {path!r} is a symbolic link, and a version has none; remove it. {_MEND}")
            if entry.is_dir(follow_symlinks=False):
                if path not in folders:
                    raise _not_listed(model, path)
                pending.append(path)
            elif path not in expected:
                raise _not_listed(model, path)
            else:
                found.add(path)
    return found


def _verify_file(model: str, root: Path, file: FileEntry) -> None:
    where = f"{model}: file {file.path!r}"
    try:
        # O_NONBLOCK: a pipe in a file's place must not hang the runner.
        descriptor = os.open(root / file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ModelRefused(f"{where} cannot be read: {error.strerror}; {_MEND}") from error
    with open(descriptor, "rb", buffering=0) as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelRefused(f"{where} is a device, pipe or socket; {_MEND}")
        if status.st_size != file.size_bytes:
            raise ModelRefused(f"{where} has {status.st_size} bytes, the version's has {file.size_bytes}; {_MEND}")
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
    if digest.hexdigest() != file.sha256:
        raise ModelRefused(
            f"{where} has the SHA-256 {digest.hexdigest()[:12]}…, the version's has {file.sha256[:12]}…; {_MEND}"
        )


def _read_list(model: str, root: Path) -> tuple[FileEntry, ...]:
    """The list that lies beside the directory. It is believed only as far as the version's digest goes."""
    try:
        with open(root.with_name(root.name + LIST_SUFFIX), "rb") as file:
            return msgspec.json.decode(file.read(_LIST_LIMIT_BYTES), type=tuple[FileEntry, ...])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelRefused(f"{model}: the list of its files cannot be read; {_MEND}") from error


def _check_path(model: str, root: Path, path: Path, files: tuple[FileEntry, ...]) -> None:
    """What the loader will open must be among what was verified."""
    if path == root:
        return
    inside = path.relative_to(root).as_posix() if root in path.parents else ""
    if not inside or not any(file.path == inside or file.path.startswith(f"{inside}/") for file in files):
        raise ModelRefused(f"{model}: what is to be loaded is not among the files of the version; {_MEND}")


def _not_listed(model: str, path: str) -> ModelRefused:
    return ModelRefused(
        f"{model}: {path!r} is not among the files of the version; remove it. To add a file to a model, push a new "
        "version; a model must not write into its own directory"
    )
