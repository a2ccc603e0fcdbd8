"""Content-addressed blobs: each file of each version once, under the SHA-256 of its content, for ever.

Called by `push`, by `materialise` and by the API's uploads. Nothing is kept under a name that its content does not
have: what is put is hashed while it is written, and becomes visible only when it is whole and on the disk.
`s3` and `oci` keep them elsewhere behind the same interface.
"""

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from hyperion.schema.errors import ModelRefused, StorageFailed

CHUNK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = "unfinished"


class Blobs(Protocol):
    """Where blobs are kept. `sha256` is 64 hexadecimal digits everywhere; anything else is ModelRefused. A store that
    cannot be reached, read or written is StorageFailed, which a retry may mend."""

    def has(self, sha256: str) -> bool:
        """True where the blob is there, whole."""

    def put(self, stream: BinaryIO, sha256: str, size_bytes: int) -> None:
        """Keeps `stream`, which must have exactly that size and hash, or raises ModelRefused and keeps nothing.

        A blob that is there already is kept, if it is sound, and replaced, if it is not."""

    def open(self, sha256: str) -> BinaryIO:
        """The content, to be closed by the caller; ModelRefused where there is none."""

    def path_or_none(self, sha256: str) -> Path | None:
        """The file on this machine that is the blob, for who can link to it; None where there is no such file."""

    def delete(self, sha256: str) -> bool:
        """Forgets the blob; False where there was none."""


class LocalBlobs:
    """Blobs in a directory of this machine: `sha256/ab/cdef…`, mode 0444."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, sha256: str) -> bool:
        return self._path(sha256).is_file()

    def put(self, stream: BinaryIO, sha256: str, size_bytes: int) -> None:
        path = self._path(sha256)
        if self._is_sound(path, sha256, size_bytes):
            return
        with storage_errors("write", sha256):
            write_blob(path, stream, sha256, size_bytes, self._root / _UNFINISHED)

    def open(self, sha256: str) -> BinaryIO:
        try:
            return open(self._path(sha256), "rb")
        except FileNotFoundError as error:
            raise missing(sha256) from error
        except OSError as error:
            raise StorageFailed(f"blob {sha256[:12]}: cannot be read: {describe(error)}") from error

    def path_or_none(self, sha256: str) -> Path | None:
        path = self._path(sha256)
        return path if path.is_file() else None

    def delete(self, sha256: str) -> bool:
        with storage_errors("delete", sha256):
            try:
                os.unlink(self._path(sha256))
            except FileNotFoundError:
                return False
        return True

    def _path(self, sha256: str) -> Path:
        check_sha256(sha256)
        return self._root / "sha256" / sha256[:2] / sha256[2:]

    def _is_sound(self, path: Path, sha256: str, size_bytes: int) -> bool:
        """Read again, although it was right once: pushing a version anew is how a damaged disk is mended."""
        with storage_errors("read", sha256):
            if not path.is_file() or path.stat().st_size != size_bytes:
                return False
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256


class Measured:
    """A stream to read once, which must turn out to have a size and a hash. Never yields more than that size."""

    def __init__(self, stream: BinaryIO, sha256: str, size_bytes: int) -> None:
        self._stream, self._sha256, self._size_bytes = stream, sha256, size_bytes
        self._hash, self._count = hashlib.sha256(), 0

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """The next bytes, b"" at the end; ModelRefused at the first sign that the content is another."""
        chunk = self._stream.read(size if size > 0 else CHUNK_BYTES)
        self._hash.update(chunk)
        self._count += len(chunk)
        if self._count > self._size_bytes or (not chunk and self._count < self._size_bytes):
            raise ModelRefused(
                f"blob {self._sha256[:12]}: expected {self._size_bytes} bytes, got "
                f"{'more' if chunk else self._count}; the file changed while it was read, or was cut off: push it again"
            )
        if not chunk and self._hash.hexdigest() != self._sha256:
            raise ModelRefused(
                f"blob {self._sha256[:12]}: the content has the SHA-256 {self._hash.hexdigest()[:12]}…; the file "
                "changed while it was read, or was damaged on its way: push it again"
            )
        return chunk

    def chunks(self) -> Iterator[bytes]:
        """All of it."""
        while chunk := self.read():
            yield chunk


def write_blob(path: Path, stream: BinaryIO, sha256: str, size_bytes: int, unfinished: Path) -> None:
    """Writes `stream` to `path`, all or nothing, by way of a file in `unfinished` on the same file system."""
    unfinished.mkdir(parents=True, exist_ok=True)
    temporary = unfinished / f"{sha256[:12]}-{secrets.token_hex(8)}"
    try:
        with open(temporary, "xb") as file:
            for chunk in Measured(stream, sha256, size_bytes).chunks():
                file.write(chunk)
            file.flush()
            os.fchmod(file.fileno(), 0o444)
            os.fsync(file.fileno())
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(path.parent)
    sync_directory(path.parent.parent)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_sha256(sha256: str) -> None:
    """Raises ModelRefused unless this is a SHA-256 in hexadecimal: it becomes a file's name, or a key."""
    if not _SHA256.fullmatch(sha256):
        raise ModelRefused(f"blob {sha256[:80]!r}: expected a SHA-256 of 64 hexadecimal digits in lower case")


def missing(sha256: str) -> ModelRefused:
    """There is no such blob."""
    return ModelRefused(f"blob {sha256[:12]}…: not in the store; push the version that it belongs to again")


def describe(error: OSError) -> str:
    """The system's words for an error, without a path."""
    return (error.strerror or type(error).__name__).lower()


@contextlib.contextmanager
def storage_errors(action: str, sha256: str) -> Iterator[None]:
    """Turns the system's errors into StorageFailed."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"blob {sha256[:12]}…: cannot {action} it: {describe(error)}") from error
