"""Where the rows come from: chunks of a fixed number of rows, the same ones each time that the same source is read.

Files are in `source_files`, queries in `source_sql`; here is what they have in common.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from hyperion.batch.arrow import load_arrow
from hyperion.schema.errors import InvalidConfig

FORMATS: Final = {
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    ".csv": "csv",
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
}
SQL: Final = "sql:"
_EDGE_BYTES: Final = 64 << 10


class Chunk:
    """Rows `first` and following of the source, number `index` of its chunks. `table` is None where nobody wanted its
    rows; `digest` is of what was read, "" where the source cannot give other rows another time."""

    __slots__ = ("digest", "first", "index", "rows", "table")

    def __init__(self, index: int, first: int, rows: int, table: Any, digest: str = "") -> None:
        self.index = index
        self.first = first
        self.rows = rows
        self.table = table
        self.digest = digest


class Source(Protocol):
    """A table to read. `schema` is Arrow's, `total_rows` 0 where nobody knows. `facts` are what its rows depend on.
    `from_text` says that numbers come as text; `steady` that what is read twice is the same by its facts alone."""

    schema: Any
    total_rows: int
    facts: dict[str, Any]
    from_text: bool
    steady: bool

    def read(self, columns: Sequence[str], text: Sequence[str], wanted: Callable[[int], bool]) -> Iterator[Chunk]:
        """The chunks in their order with those columns; those that are not wanted may be left out. Columns in `text`
        are read as text where the source has nothing else. Raises SchemaMismatch, StorageFailed."""

    def fraction(self) -> float:
        """How much of the source has been read, 0 to 1, where that can be told without its rows."""


def format_of(path: str) -> str:
    """The format that a file's name says. Raises InvalidConfig.

    >>> format_of("scores.csv")
    'csv'
    """
    found = FORMATS.get(Path(path).suffix.lower())
    if found is None:
        raise InvalidConfig(f"{path}: cannot tell the format; expected a name that ends in {', '.join(FORMATS)}")
    return found


def find_files(source: str) -> list[Path]:
    """The files of a source: itself, or those of one format in a directory, by name. Raises InvalidConfig."""
    path = Path(source)
    if path.is_file():
        format_of(source)
        return [path]
    if not path.is_dir():
        raise InvalidConfig(f"{source}: no such file or directory")
    files = sorted(
        one for one in path.iterdir() if one.suffix.lower() in FORMATS and one.name[:1] not in "._" and one.is_file()
    )
    formats = {format_of(one.name) for one in files}
    if len(formats) != 1:
        found = f"files of several formats ({', '.join(sorted(formats))})" if formats else "no file"
        raise InvalidConfig(f"{source}: {found} in there; expected files that end in one of {', '.join(FORMATS)}")
    return files


def describe_file(path: Path) -> dict[str, Any]:
    """What tells a file from another that may take its place: size, time of the last change, and a digest of its first
    and last 64 KiB, which for Parquet holds the footer's end with all its offsets."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        digest = hashlib.sha256(file.read(_EDGE_BYTES))
        file.seek(max(0, status.st_size - _EDGE_BYTES))
        digest.update(file.read(_EDGE_BYTES))
    return {
        "name": path.name,
        "size_bytes": status.st_size,
        "changed_ns": status.st_mtime_ns,
        "sha256": digest.hexdigest()[:32],
    }


def describe_schema(schema: Any) -> dict[str, str]:
    """Name and type of each column."""
    return {field.name: str(field.type) for field in schema}


def cut(tables: Iterable[Any], rows: int, first_index: int, first_row: int) -> Iterator[Chunk]:
    """The rows of record batches, in chunks of `rows` (the last one may have fewer), however the batches came."""
    arrow = load_arrow()
    held: list[Any] = []
    count, index, row = 0, first_index, first_row
    for batch in tables:
        offset = 0
        while offset < len(batch):
            taken = batch.slice(offset, rows - count)
            offset += len(taken)
            count += len(taken)
            held.append(taken)
            if count == rows:
                yield Chunk(index, row, count, arrow.Table.from_batches(held))
                index, row, count, held = index + 1, row + count, 0, []
    if count:
        yield Chunk(index, row, count, arrow.Table.from_batches(held))


def settle_schema(schema: Any) -> Any:
    """The schema with text for columns in which nothing but nulls was seen."""
    arrow = load_arrow()
    return arrow.schema(
        [field.with_type(arrow.string()) if arrow.types.is_null(field.type) else field for field in schema]
    )
