"""A table of a database as a target: the rows of a part and the note that it is done are one transaction, so that a
part is there once, however often it is tried.

The notes are in the table `hyperion_batch` of the same database. The target's table is made where it is not there;
rows of others in it stay.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy
from sqlalchemy import BigInteger, Boolean, Column, Double, Float, Integer, LargeBinary, MetaData, Table, Text, select
from sqlalchemy.exc import SQLAlchemyError

from hyperion.batch.arrow import load_arrow
from hyperion.batch.journal import End, Header, Part
from hyperion.batch.source_sql import explain, name_database, open_engine
from hyperion.batch.target import RowError
from hyperion.schema.errors import InvalidConfig, SchemaMismatch, StorageFailed

HEADER, END = -1, -2
_NOTES: Final = MetaData()
# One row per part, under the number of its chunk; HEADER and END are rows, too.
NOTE: Final = Table(
    "hyperion_batch",
    _NOTES,
    Column("target", Text, primary_key=True),
    Column("chunk", BigInteger, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
    Column("errors", Text, nullable=False),
)


class SqlTarget:
    """`table` in the database at `url`."""

    has_lists = False

    def __init__(self, url: str, table: str) -> None:
        """Raises InvalidConfig, MissingExtra, StorageFailed."""
        if not table:
            raise InvalidConfig("sql: a target needs --table: the name of the table")
        self._engine = open_engine(url)
        self._name = table
        self._table: Table | None = None
        self.facts = {"database": name_database(self._engine), "table": table}
        self.header: Header | None = None
        self.end: End | None = None
        self.parts: dict[int, Part] = {}
        self._try(self._read)

    def check(self, schema: Any) -> None:
        types = load_arrow().types
        for field in schema:
            if types.is_nested(field.type):
                raise SchemaMismatch(
                    f'column "{field.name}" has the type {field.type}, which a table of a database cannot hold: leave '
                    "it out of keep, or write Parquet or JSONL"
                )

    def begin(self, header: Header, schema: Any) -> None:
        """Rows of an earlier run with the same target stay: only whoever owns the table knows which these are."""

        def start(connection: sqlalchemy.Connection) -> None:
            connection.execute(NOTE.delete().where(NOTE.c.target == self._name))
            self._insert_note(connection, HEADER, header)

        self._try(start)
        self.header, self.end, self.parts = header, None, {}
        self.resume(schema)

    def resume(self, schema: Any) -> None:
        schema_name, _, name = self._name.rpartition(".")
        columns = [Column(field.name, _sql_type(field.type)) for field in schema]
        self._table = table = Table(name, MetaData(), *columns, schema=schema_name or None)
        self._try(lambda connection: table.create(connection, checkfirst=True))

    def write(self, part: Part, table: Any, errors: Sequence[RowError]) -> None:
        target = self._table
        assert target is not None, "begun or resumed"
        rows = table.to_pylist()

        def insert(connection: sqlalchemy.Connection) -> None:
            # First the note: of two processes that do the same part, the second one fails before it doubles a row.
            self._insert_note(connection, part.index, part, errors)
            if rows:
                connection.execute(target.insert(), rows)

        self._try(insert)
        self.parts[part.index] = part

    def finish(self, chunks: int) -> str:
        rows = sum(part.rows for part in self.parts.values())
        written = sum(part.written for part in self.parts.values())
        end = End(rows, written, chunks)
        self._try(lambda connection: self._insert_note(connection, END, end))
        self.end = end
        return f"column errors of {NOTE.name} where target = '{self._name}'" if rows > written else ""

    def close(self) -> None:
        self._engine.dispose()

    def _read(self, connection: sqlalchemy.Connection) -> None:
        _NOTES.create_all(connection)
        parts = {}
        for chunk, body in connection.execute(select(NOTE.c.chunk, NOTE.c.body).where(NOTE.c.target == self._name)):
            if chunk == HEADER:
                self.header = msgspec.json.decode(body, type=Header)
            elif chunk == END:
                self.end = msgspec.json.decode(body, type=End)
            else:
                parts[int(chunk)] = msgspec.json.decode(body, type=Part)
        self.parts = parts

    def _insert_note(
        self, connection: sqlalchemy.Connection, chunk: int, record: msgspec.Struct, errors: Sequence[RowError] = ()
    ) -> None:
        values = {
            "target": self._name,
            "chunk": chunk,
            "body": msgspec.json.encode(record).decode(),
            "errors": msgspec.json.encode(errors).decode() if errors else "",
        }
        connection.execute(NOTE.insert(), values)

    def _try(self, work: Any) -> None:
        """One transaction."""
        try:
            with self._engine.begin() as connection:
                work(connection)
        except SQLAlchemyError as error:
            raise StorageFailed(f"sql: {name_database(self._engine)}: {self._name}: {explain(error)}") from error


def _sql_type(kind: Any) -> Any:
    types = load_arrow().types
    if types.is_boolean(kind):
        return Boolean()
    if types.is_integer(kind):
        return BigInteger() if kind.bit_width == 64 or types.is_uint32(kind) else Integer()
    if types.is_floating(kind):
        return Double() if types.is_float64(kind) else Float(24)
    if types.is_timestamp(kind):
        return sqlalchemy.DateTime(timezone=kind.tz is not None)
    if types.is_date(kind):
        return sqlalchemy.Date()
    if types.is_binary(kind) or types.is_large_binary(kind):
        return LargeBinary()
    return Text()
