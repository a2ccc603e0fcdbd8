"""The digest of a model: one `sha256:…` that changes with any byte, name, added or removed file of it.

Called by `discover`, and by whoever verifies a model before it is loaded. Reads in chunks; writes nothing.

A single file's digest is the SHA-256 of its content, as `sha256sum` prints it. A directory's is the SHA-256 of its
manifest: a first line, then one line per file, sorted by path: `path NUL size NUL sha256 LF`. A symbolic link that
stays inside is a line of its own, `path NUL link NUL target LF`, and is not followed: its target is listed, too.
`.git` at any level is left out: no loader reads it and it changes without the model.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from hyperion.schema.errors import ModelRefused
from hyperion.schema.registry import FileEntry
from hyperion.store.reading import MIB, open_regular

MAX_FILES = 100_000  # a model has thousands at most; this stops `serve /` before it reads a whole disk
_HEADER = b"hyperion-manifest-1\n"


def digest_of(path: Path) -> str:
    """The digest of a model file or directory. ModelRefused for special or unreadable files and links that lead out."""
    if not path.is_dir():
        return "sha256:" + digest_file(path)[0]
    root = Path(os.path.realpath(path))
    return _digest_manifest(root, walk_files(root))


def digest_of_files(root: Path, names: Iterable[str]) -> str:
    """The digest of the files `names` (relative, `/`-separated) under `root`, as if nothing else lay there."""
    home = Path(os.path.realpath(root))
    return _digest_manifest(home, iter(set(names)))


def _digest_manifest(root: Path, names: Iterator[str]) -> str:
    manifest = hashlib.sha256(_HEADER)
    # Sorted as bytes, so that the order does not depend on the locale or on the file system.
    for key, name in sorted((os.fsencode(name), name) for name in names):
        if b"\n" in key:
            raise ModelRefused(f"{name!r}: a file name with a line break in it cannot be part of a model")
        file = root / name
        if file.is_symlink():
            manifest.update(b"%s\0link\0%s\n" % (key, os.fsencode(target_inside(root, file))))
        else:
            digest, size = digest_file(file)
            manifest.update(_line(key, size, digest))
    return "sha256:" + manifest.hexdigest()


def digest_of_entries(files: Iterable[FileEntry]) -> str:
    """The digest of a directory in which exactly these regular files lie."""
    manifest = hashlib.sha256(_HEADER)
    for key, file in sorted((os.fsencode(file.path), file) for file in files):
        manifest.update(_line(key, file.size_bytes, file.sha256))
    return "sha256:" + manifest.hexdigest()


def is_digest_of(digest: str, files: tuple[FileEntry, ...]) -> bool:
    """True where `digest` is that of a directory of `files`, or of the file itself where there is only one."""
    return digest == digest_of_entries(files) or (len(files) == 1 and digest == f"sha256:{files[0].sha256}")


def _line(key: bytes, size_bytes: int, sha256: str) -> bytes:
    return b"%s\0%d\0%s\n" % (key, size_bytes, sha256.encode())


def walk_files(root: Path) -> Iterator[str]:
    """Relative names of all files and links under `root`; links to directories are named, not entered."""
    count = 0
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError as error:
            where = folder or root.name
            raise ModelRefused(f"{where}: cannot be listed: {(error.strerror or 'error').lower()}") from error
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name != ".git":
                    pending.append(name)
                continue
            count += 1
            if count > MAX_FILES:
                raise ModelRefused(f"{root.name}: more than {MAX_FILES} files; this is no model's directory")
            yield name


def target_inside(root: Path, link: Path) -> str:
    """Where a symbolic link leads, relative to `root`; ModelRefused where it leads out or nowhere."""
    target = Path(os.path.realpath(link))
    if root != target and root not in target.parents:
        raise ModelRefused(
            f"{link.name}: a symbolic link that leads out of the model's directory; copy the file itself there"
        )
    if not target.exists():
        raise ModelRefused(f"{link.name}: a symbolic link to nothing")
    return os.path.relpath(target, root)


def digest_file(path: Path) -> tuple[str, int]:
    """SHA-256 in hex, and the number of bytes that were read for it."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ModelRefused(f"{path.name}: a device, pipe or socket cannot be part of a model")
    except OSError as error:
        raise ModelRefused(f"{path.name}: cannot be read: {(error.strerror or 'error').lower()}") from error
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(MIB))
    with open(open_regular(path), "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            size += count
    return digest.hexdigest(), size
