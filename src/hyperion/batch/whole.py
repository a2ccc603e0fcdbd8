"""The file that the parts of a run become. It grows in their order while the run lasts, so that little is left to do in
the end; it takes its place at once, when it is whole. What a killed run leaves of it is made again from the parts.

Used by `target_files`, on one thread at a time. Every function raises OSError where the disk does not take it.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO, Final

from hyperion.batch.arrow import load_arrow
from hyperion.store.blobs.directory import sync_directory

_COPY_BYTES: Final = 8 << 20
_SYNC_BYTES: Final = 16 << 20  # so much is written before the disk is waited for, which would take its time in the end


class Whole:
    """`path` is where it grows; `kind` is parquet, csv or jsonl."""

    def __init__(self, path: Path, kind: str, schema: Any) -> None:
        self._path = path
        self._kind = kind
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115  closed by `finish` or `drop`
        self._synced_bytes = 0
        self._writer: Any = None
        if kind == "parquet":
            self._writer = load_arrow("parquet").ParquetWriter(self._file, schema, **choose_encoding(schema))
        elif kind == "csv":
            load_arrow("csv").write_csv(schema.empty_table(), self._file)

    def add(self, part: Path) -> None:
        """Append the next part."""
        if self._writer is not None:
            arrow = load_arrow()
            with arrow.memory_map(str(part)) as stored:
                self._writer.write_table(arrow.ipc.open_stream(stored).read_all())
        else:
            copy_file(part, self._file)
        if self._file.tell() - self._synced_bytes >= _SYNC_BYTES:
            self._sync()

    def finish(self, target: Path) -> None:
        """Put it in its place, for good."""
        if self._writer is not None:
            self._writer.close()
        self._sync()
        self._file.close()
        os.replace(self._path, target)
        sync_directory(target.parent)

    def drop(self) -> None:
        """Leave nothing behind."""
        if self._writer is not None:
            self._writer.is_open = False  # or it would write its end when it is forgotten, to a file that is closed
        with contextlib.suppress(OSError):  # of what it holds, on a full disk
            self._file.close()
        self._path.unlink(missing_ok=True)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced_bytes = self._file.tell()


def choose_encoding(schema: Any) -> dict[str, Any]:
    """Dictionaries for columns that repeat themselves, as texts do; numbers of a model hardly do, and pay for it."""
    types = load_arrow().types
    repeating = [
        field.name for field in schema if not types.is_floating(field.type) and not types.is_integer(field.type)
    ]
    return {"use_dictionary": repeating or False}


def copy_file(path: Path, file: BinaryIO) -> None:
    """Append what is in a file."""
    with open(path, "rb") as part:
        shutil.copyfileobj(part, file, _COPY_BYTES)
