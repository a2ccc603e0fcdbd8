"""Files as targets: parts are written aside in `OUT.hyperion-batch/`, synced, renamed and noted, and joined to a whole,
which takes its place at once in the end. `OUT/` is a directory in which the parts stay as they are.

What remains of a finished run is its journal, so that the same command again finds that there is nothing to do.
"""

import base64
import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import orjson

from hyperion.batch.arrow import load_arrow
from hyperion.batch.journal import AGAIN, End, FileJournal, Header, Part
from hyperion.batch.source import format_of
from hyperion.batch.target import RowError
from hyperion.batch.whole import Whole, choose_encoding, copy_file
from hyperion.schema.errors import Conflict, SchemaMismatch, StorageFailed
from hyperion.store.blobs.directory import sync_directory

ASIDE: Final = ".hyperion-batch"
_ENDINGS: Final = {"parquet": ".parquet", "csv": ".csv", "jsonl": ".jsonl"}
_ARROW: Final = (
    ".arrow"  # of parts that are to be joined to Parquet: encoding columns twice would cost more than a model
)


class FileTarget:
    """`path` ends in a slash for a directory of parts, whose format is `parts_format`; otherwise its name says it."""

    def __init__(self, path: str, parts_format: str) -> None:
        """Raises InvalidConfig, StorageFailed, Conflict."""
        self._path = Path(path)
        self._in_parts = path.endswith("/")
        self.format = parts_format if self._in_parts else format_of(path)
        self.has_lists = self.format != "csv"
        self.facts = {"format": self.format, "parts": self._in_parts}
        self._aside = self._path.with_name(self._path.name + ASIDE)
        self._parts = self._path if self._in_parts else self._aside / "parts"
        self._errors = self._aside / "errors"
        self._journal = FileJournal(self._aside)
        self._whole: Whole | None = None
        self._joined = 0  # parts that are in it

    @property
    def header(self) -> Header | None:
        ended_without = self._journal.end is not None and not self._path.exists()
        return None if ended_without else self._journal.header  # somebody took the result away: begin anew

    @property
    def parts(self) -> Mapping[int, Part]:
        return self._journal.parts

    @property
    def end(self) -> End | None:
        return self._journal.end if self._path.exists() else None

    def check_free(self) -> None:
        """Raise Conflict where something lies there that no run of ours is known to have written."""
        there = self._path.is_dir() and any(self._path.iterdir()) if self._in_parts else self._path.exists()
        if there and self._journal.header is None:
            raise Conflict(f"{self._path}: is there already, and not from a run like this; to replace it {AGAIN}")

    def check(self, schema: Any) -> None:
        arrow, csv = load_arrow(), load_arrow("csv")
        for field in schema if self.format == "csv" else ():
            try:
                csv.write_csv(arrow.schema([field]).empty_table(), arrow.BufferOutputStream())
            except arrow.ArrowException as error:
                raise SchemaMismatch(
                    f'column "{field.name}" has the type {field.type}, which CSV cannot hold: leave it out of keep, or '
                    "write Parquet or JSONL"
                ) from error

    def begin(self, header: Header, schema: Any) -> None:
        try:
            if self._journal.header is not None:
                self._remove_parts()
            self._journal.begin(header)
        except OSError as error:
            raise StorageFailed(f"{self._path}: cannot be begun: {error.strerror or error}") from error
        self.resume(schema)

    def resume(self, schema: Any) -> None:
        try:
            for folder in (self._parts, self._errors):
                folder.mkdir(parents=True, exist_ok=True)
                for torn in folder.glob(".*.new"):
                    torn.unlink()
            if not self._in_parts:
                self._whole, self._joined = Whole(self._aside / "whole.new", self.format, schema), 0
        except OSError as error:
            raise StorageFailed(f"{self._path}: {error.strerror}") from error

    def write(self, part: Part, table: Any, errors: Sequence[RowError]) -> None:
        try:
            if table.num_rows:
                _keep(self._part_path(part.index), lambda file: self._write_table(table, file))
            if errors:
                lines = b"".join(msgspec.json.encode(error) + b"\n" for error in errors)
                _keep(self._errors / f"{part.index:08d}.jsonl", lambda file: _write(file, lines))
            self._journal.note(part)
            self._join()
        except OSError as error:
            raise StorageFailed(
                f"{self._path}: part {part.index} cannot be written: {error.strerror or error}"
            ) from error

    def finish(self, chunks: int) -> str:
        parts = self._journal.parts
        written = sum(part.written for part in parts.values())
        rows = sum(part.rows for part in parts.values())
        explained = self._path.with_name(self._path.name + ".errors.jsonl")
        try:
            if self._whole is not None:
                self._join()
                assert self._joined == chunks, "every chunk was scored"
                self._whole.finish(self._path)
                self._whole = None
            skipped = sorted(self._errors.glob("*.jsonl")) if rows > written else []
            if skipped:
                _keep(explained, lambda file: _copy_all(skipped, file))
            else:
                explained.unlink(missing_ok=True)
            self._journal.finish(End(rows, written, chunks))
            shutil.rmtree(self._errors, ignore_errors=True)
            if not self._in_parts:
                shutil.rmtree(self._parts, ignore_errors=True)
        except OSError as error:
            raise StorageFailed(f"{self._path}: cannot be completed: {error.strerror or error}") from error
        return str(explained) if skipped else ""

    def close(self) -> None:
        if self._whole is not None:
            self._whole.drop()
        self._journal.close()

    def _join(self) -> None:
        """Append to the whole what is done and comes next."""
        while self._whole is not None and (part := self._journal.parts.get(self._joined)) is not None:
            if part.written:
                self._whole.add(self._part_path(part.index))
            self._joined += 1

    def _part_path(self, index: int) -> Path:
        ending = _ARROW if self.format == "parquet" and not self._in_parts else _ENDINGS[self.format]
        return self._parts / f"part-{index:08d}{ending}"

    def _remove_parts(self) -> None:
        shutil.rmtree(self._errors, ignore_errors=True)
        if self._in_parts and self._path.is_dir():
            for old in self._path.glob(f"part-*{_ENDINGS[self.format]}"):
                old.unlink()
        elif not self._in_parts:
            shutil.rmtree(self._parts, ignore_errors=True)

    def _write_table(self, table: Any, file: BinaryIO) -> None:
        if self.format == "parquet":
            self._write_columns(table, file)
        elif self.format == "csv":
            options = load_arrow("csv").WriteOptions(include_header=self._in_parts)
            load_arrow("csv").write_csv(table, file, options)
        else:
            for batch in write_moments(table).to_batches(1_000):
                file.write(b"".join(orjson.dumps(row, default=_as_json) + b"\n" for row in batch.to_pylist()))

    def _write_columns(self, table: Any, file: BinaryIO) -> None:
        if self._in_parts:
            load_arrow("parquet").write_table(table, file, **choose_encoding(table.schema))
            return
        with load_arrow().ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)


def write_moments(table: Any) -> Any:
    """The table with moments to the nanosecond as text, which no object of Python's own holds so exactly.

    >>> arrow = load_arrow()
    >>> write_moments(arrow.table({"at": arrow.array([1], arrow.timestamp("ns", "UTC"))})).to_pylist()
    [{'at': '1970-01-01T00:00:00.000000001Z'}]
    """
    types = load_arrow().types
    for number, field in enumerate(table.schema):
        if types.is_timestamp(field.type) and field.type.unit == "ns":
            text = table.column(number).cast(load_arrow().string())
            table = table.set_column(number, field.name, load_arrow("compute").replace_substring(text, " ", "T"))
    return table


def _as_json(value: Any) -> str:
    """What JSON has no form for: bytes in base64, all else as its text."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _copy_all(paths: Sequence[Path], file: BinaryIO) -> None:
    for path in paths:
        copy_file(path, file)


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def _keep(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Put a file in its place as a whole, and for good. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    with _removing(temporary), open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
        os.replace(temporary, path)
    sync_directory(path.parent)


@contextlib.contextmanager
def _removing(path: Path) -> Iterator[None]:
    """Leave no piece of a file behind when it could not be written."""
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
