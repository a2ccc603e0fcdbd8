"""What is done of a run, in a file that survives being killed at any time: a header that says what is scored by what,
and a line per finished part.

A line is on disk only after its part is. A last line that was torn by a crash counts as not written: its part is made
again, under the same name.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from hyperion.schema.errors import Conflict, StorageFailed
from hyperion.store.blobs.directory import sync_directory

FILE: Final = "journal.jsonl"
LOCK: Final = "lock"
AGAIN: Final = "start again with --restart (in a BatchJob, replace: true)"


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """What a run is: everything on which its rows depend, by what a person would call it. `asked` is what was asked
    for (`fraud@champion`), `model` and `digest` what that was when the run began. `run` is the `BatchJob`'s, "" of a
    command."""

    asked: str
    model: str
    digest: str
    facts: dict[str, Any]
    format: int = 1
    run: str = ""


class Part(Struct, frozen=True):
    """Chunk number `index` is done: so many `rows` of the source, of which `written` are in its part. `digest` is of
    the rows that were read, where the source is one that could give others the next time."""

    index: int
    rows: int
    written: int
    digest: str = ""


class End(Struct, frozen=True):
    """All parts are joined: the run is over."""

    rows: int
    written: int
    chunks: int


class FileJournal:
    """The journal in `directory`, which this process alone may write to until `close`."""

    def __init__(self, directory: Path) -> None:
        """Raises Conflict where another process works there, StorageFailed where it cannot be made."""
        self._path = directory / FILE
        while not self._take_lock(directory):
            continue  # whoever held it has just removed it
        self._file: int = -1
        self.header: Header | None = None
        self.end: End | None = None
        self.parts: dict[int, Part] = {}
        self._read()

    def begin(self, header: Header) -> None:
        """Start anew: forget what was there."""
        self.stop()
        temporary = self._path.with_suffix(".new")
        with open(temporary, "wb") as file:
            file.write(msgspec.json.encode(header) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)
        sync_directory(self._path.parent)
        self.header, self.end, self.parts = header, None, {}

    def note(self, part: Part) -> None:
        """A part is done, for good once this returns. Not for two threads at once."""
        self._append(b"part ", part)
        self.parts[part.index] = part

    def finish(self, end: End) -> None:
        """The whole is done."""
        self._append(b"end ", end)
        self.end = end

    def stop(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def close(self) -> None:
        """Let others work there. Where nothing was begun nothing remains."""
        self.stop()
        if self.header is None:
            with contextlib.suppress(OSError):  # whatever else lies there is not ours
                os.unlink(self._path.parent / LOCK)
                os.rmdir(self._path.parent)
        os.close(self._lock)

    def _take_lock(self, directory: Path) -> bool:
        """False where the file that was locked is not there any more."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageFailed(f"{directory}: cannot be made: {error.strerror}") from error
        try:
            self._lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageFailed(f"{directory}: cannot be made: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise Conflict(f"{directory}: another process is at this run already; wait for it, or stop it") from None
        try:
            if os.path.samestat(os.stat(directory / LOCK), os.fstat(self._lock)):
                return True
        except FileNotFoundError:
            pass
        os.close(self._lock)
        return False

    def _append(self, word: bytes, record: Struct) -> None:
        if self._file < 0:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        line = word + msgspec.json.encode(record) + b"\n"
        size = os.lseek(self._file, 0, os.SEEK_END)
        if os.write(self._file, line) != len(line):  # the disk is full; half a line would damage all that follows
            os.ftruncate(self._file, size)
            raise StorageFailed(f"{self._path}: the disk is full; make room and start the same again")
        os.fsync(self._file)

    def _read(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        *lines, torn = data.split(b"\n")
        try:
            self.header = msgspec.json.decode(lines[0], type=Header)
            for line in lines[1:]:
                word, _, text = line.partition(b" ")
                if word == b"end":
                    self.end = msgspec.json.decode(text, type=End)
                else:
                    part = msgspec.json.decode(text, type=Part)
                    self.parts[part.index] = part
        except (IndexError, msgspec.DecodeError) as error:
            raise Conflict(f"{self._path}: damaged ({error}); {AGAIN}") from error
        if torn:
            with open(self._path, "r+b") as file:
                file.truncate(len(data) - len(torn))
                os.fsync(file.fileno())
