"""Files of Parquet, CSV and JSONL as sources. Nothing is read as a whole: row groups of Parquet come in pieces, text
as a stream.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from hyperion.batch.arrow import load_arrow
from hyperion.batch.source import Chunk, cut, describe_file, describe_schema, find_files, format_of, settle_schema
from hyperion.schema.errors import InvalidConfig, SchemaMismatch, StorageFailed

_READ_BYTES: Final = 4 << 20  # of a column of a row group at a time
_BLOCKS_BYTES: Final = (4 << 20, 64 << 20)  # of text at a time: the larger one where a row does not fit into the other


def open_files(source: str, chunk_rows: int) -> "ParquetSource | TextSource":
    """The source that a path names. Raises InvalidConfig, StorageFailed, SchemaMismatch."""
    files = find_files(source)
    try:
        if format_of(files[0].name) == "parquet":
            return ParquetSource(files, chunk_rows)
        return TextSource(files, chunk_rows, format_of(files[0].name))
    except OSError as error:
        raise StorageFailed(f"{source}: cannot be read: {error.strerror or error}") from error


class ParquetSource:
    """Row groups are read alone or, where they are small, several together, in units of at least a chunk, so that a run
    that goes on begins where it was and reads nothing before. No chunk spans two units."""

    from_text = False
    steady = True

    def __init__(self, files: list[Path], chunk_rows: int) -> None:
        self._files = files
        self._chunk_rows = chunk_rows
        self._units: list[tuple[int, list[int], int]] = []  # number of the file, row groups, rows
        self.total_rows = 0
        self.schema: Any = None
        for number, path in enumerate(files):
            with self._open(path) as file:
                schema, metadata = file.schema_arrow, file.metadata
                self.schema = schema if self.schema is None else self.schema
                if not schema.equals(self.schema):
                    raise SchemaMismatch(f"{path.name} has other columns or types than {files[0].name}")
                self._plan(number, [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)])
                self.total_rows += metadata.num_rows
        self.facts = {"files": [describe_file(path) for path in files], "columns": describe_schema(self.schema)}

    def fraction(self) -> float:
        return 0.0

    def read(self, columns: Sequence[str], _text: Sequence[str], wanted: Callable[[int], bool]) -> Iterator[Chunk]:
        index = row = 0
        for number, groups, rows in self._units:
            count = -(-rows // self._chunk_rows)
            if any(wanted(one) for one in range(index, index + count)):
                yield from cut(self._read_unit(number, groups, columns), self._chunk_rows, index, row)
            index, row = index + count, row + rows

    def _plan(self, number: int, groups: list[int]) -> None:
        held: list[int] = []
        rows = 0
        for group, size in enumerate(groups):
            if rows and rows + size > self._chunk_rows:
                self._units.append((number, held, rows))
                held, rows = [], 0
            held.append(group)
            rows += size
        if rows:
            self._units.append((number, held, rows))

    def _read_unit(self, number: int, groups: list[int], columns: Sequence[str]) -> Iterator[Any]:
        path = self._files[number]
        try:
            with self._open(path) as file:
                yield from file.iter_batches(self._chunk_rows, row_groups=groups, columns=list(columns))
        except (OSError, load_arrow().ArrowException) as error:
            raise StorageFailed(f"{path.name}: cannot be read: {error}") from error

    def _open(self, path: Path) -> Any:
        try:
            return load_arrow("parquet").ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False)
        except load_arrow().ArrowException as error:
            raise InvalidConfig(f"{path}: no Parquet file: {error}") from error


class TextSource:
    """CSV (a header line, commas) and JSONL. A run that goes on reads from the beginning, and scores what is left.

    The columns of a model come from CSV as text and are converted later, so that what does not fit is found by its row.
    Types of other columns are those of the first 4 MiB; a value further down that does not fit them ends the run.
    """

    steady = True
    total_rows = 0

    def __init__(self, files: list[Path], chunk_rows: int, kind: str) -> None:
        self._files = files
        self._chunk_rows = chunk_rows
        self._kind = kind
        self.from_text = kind == "csv"
        self._size_bytes = sum(path.stat().st_size for path in files)
        self._read_bytes = 0
        self.schema = settle_schema(self._find_schema(files[0]))
        self.facts = {"files": [describe_file(path) for path in files], "columns": describe_schema(self.schema)}

    def fraction(self) -> float:
        return self._read_bytes / self._size_bytes if self._size_bytes else 1.0

    def read(self, columns: Sequence[str], text: Sequence[str], wanted: Callable[[int], bool]) -> Iterator[Chunk]:
        arrow = load_arrow()
        types = {name: self.schema.field(name).type for name in columns}
        for name in types.keys() - set(text):
            if self.from_text and arrow.types.is_binary(types[name]):
                raise SchemaMismatch(
                    f'column "{name}" is not UTF-8: convert {self._files[0].name} (iconv -f LATIN1 -t UTF-8), or leave '
                    "the column out of keep"
                )
        if self.from_text:
            types |= dict.fromkeys(text, arrow.string())
        index = row = done_bytes = 0
        for path in self._files:
            first = row
            for block_bytes in _BLOCKS_BYTES:
                try:
                    stream, reader = self._open(path, types, columns, block_bytes)
                    for chunk in cut(_skip(reader, row - first), self._chunk_rows, index, row):
                        index, row = chunk.index + 1, chunk.first + chunk.rows
                        self._read_bytes = done_bytes + (stream.tell() if not stream.closed else path.stat().st_size)
                        if wanted(chunk.index):
                            yield chunk
                    break
                except arrow.ArrowException as error:
                    if not _is_too_large(error) or block_bytes == _BLOCKS_BYTES[-1]:
                        raise SchemaMismatch(f"{path.name}: after row {row}: {_clean(error)}") from error
            done_bytes += path.stat().st_size
        self._read_bytes = self._size_bytes

    def _find_schema(self, path: Path) -> Any:
        for block_bytes in _BLOCKS_BYTES:
            try:
                schema = self._open(path, None, (), block_bytes)[1].schema
                return self._keep_zeros(path, schema, block_bytes) if self.from_text else schema
            except load_arrow().ArrowException as error:
                if not _is_too_large(error) or block_bytes == _BLOCKS_BYTES[-1]:
                    raise SchemaMismatch(f"{path.name}: {_clean(error)}") from error
        raise AssertionError("unreachable")

    def _keep_zeros(self, path: Path, schema: Any, block_bytes: int) -> Any:
        """The schema with text for whole numbers that begin with zeros: those are names, such as postal codes."""
        arrow, compute = load_arrow(), load_arrow("compute")
        names = [field.name for field in schema if arrow.types.is_integer(field.type)]
        reader = self._open(path, dict.fromkeys(names, arrow.string()), names, block_bytes)[1] if names else ()
        for first in reader:
            for name in names:
                if compute.any(compute.match_substring_regex(first.column(name), r"^\s*[+-]?0[0-9]")).as_py():
                    schema = schema.set(schema.get_field_index(name), arrow.field(name, arrow.string()))
            break
        return schema

    def _open(
        self, path: Path, types: dict[str, Any] | None, columns: Sequence[str], block_bytes: int
    ) -> tuple[Any, Any]:
        """The stream of bytes and the reader of record batches. Without `types` they are found out."""
        stream = load_arrow().OSFile(str(path), "rb")
        if self._kind == "csv":
            return stream, _open_csv(stream, types, columns, block_bytes)
        return stream, _open_jsonl(stream, types, block_bytes)


def _skip(batches: Iterable[Any], rows: int) -> Iterator[Any]:
    """The record batches without their first `rows` rows."""
    for batch in batches:
        if rows < len(batch):
            yield batch.slice(rows)
        rows = max(0, rows - len(batch))


def _open_csv(stream: Any, types: dict[str, Any] | None, columns: Sequence[str], block_bytes: int) -> Any:
    csv = load_arrow("csv")
    convert = csv.ConvertOptions(
        column_types=types or {},
        include_columns=list(columns) if types is not None else None,
        null_values=[""],
        strings_can_be_null=True,
    )
    parse = csv.ParseOptions(newlines_in_values=True)
    return csv.open_csv(stream, csv.ReadOptions(block_size=block_bytes), parse, convert)


def _open_jsonl(stream: Any, types: dict[str, Any] | None, block_bytes: int) -> Any:
    arrow, json = load_arrow(), load_arrow("json")
    if not hasattr(json, "open_json"):
        raise InvalidConfig("this pyarrow cannot read JSONL as a stream; upgrade it: pip install -U pyarrow")
    explicit = arrow.schema(list(types.items())) if types is not None else None
    parse = json.ParseOptions(explicit_schema=explicit, unexpected_field_behavior="ignore" if types else "infer")
    return json.open_json(stream, json.ReadOptions(block_size=block_bytes), parse)


def _is_too_large(error: Exception) -> bool:
    """Whether a row is longer than a block."""
    return "straddl" in str(error)


def _clean(error: Exception) -> str:
    if _is_too_large(error):
        return f"a row has more than {_BLOCKS_BYTES[-1] >> 20} MiB; is a quote or a brace not closed?"
    return " ".join(str(error).split())[:300]
