"""The rows of a query as a source, over SQLAlchemy: SQLite, PostgreSQL, or whatever else has a driver here.

A query gives its rows in a stream, in one transaction. It has to say their order: a run that goes on asks again, and
has to find the same rows in the same places. It checks that, by a digest of each chunk.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import sqlalchemy
from sqlalchemy import Engine
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from hyperion.batch.arrow import load_arrow
from hyperion.batch.source import Chunk, describe_schema, settle_schema
from hyperion.schema.errors import InvalidConfig, MissingExtra, SchemaMismatch, StorageFailed

_ORDERED: Final = re.compile(r"\border\s+by\b", re.IGNORECASE)
_SAMPLE_ROWS: Final = 1_000


def open_engine(url: str) -> Engine:
    """The engine of a database's URL. Raises InvalidConfig, MissingExtra."""
    try:
        parsed = sqlalchemy.make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        return sqlalchemy.create_engine(parsed, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError) as error:
        raise InvalidConfig(
            "sql: the URL cannot be read; expected sql:sqlite:///PATH, sql:postgresql://USER@HOST/NAME, or sql:NAME of "
            "a database that --batch-databases lists"
        ) from error
    except ImportError as error:
        raise MissingExtra(
            f"sql: the driver {error.name} is not installed; for PostgreSQL: pip install 'hyperion-inference[postgres]'"
        ) from error


def name_database(engine: Engine) -> str:
    """The URL without its password and its options, for messages and journals."""
    return engine.url.set(query={}).render_as_string(hide_password=True)


class SqlSource:
    """`query` must name its order. Types are those of the first rows; NUMERIC comes as text, which loses nothing."""

    from_text = True
    steady = False
    total_rows = 0

    def __init__(self, url: str, query: str, chunk_rows: int) -> None:
        """Raises InvalidConfig, StorageFailed."""
        if not query.strip():
            raise InvalidConfig("sql: a source needs --query: SELECT … ORDER BY …")
        if not _ORDERED.search(query):
            raise InvalidConfig(
                "sql: the query has no ORDER BY: without one a run that goes on would meet the rows in another order; "
                "order by a unique key"
            )
        self._engine = open_engine(url)
        self._query = query
        self._chunk_rows = chunk_rows
        self.schema = settle_schema(next(self._stream(_SAMPLE_ROWS)).schema)
        self.facts = {
            "database": name_database(self._engine),
            "query": " ".join(query.split()),
            "columns": describe_schema(self.schema),
        }

    def fraction(self) -> float:
        return 0.0

    def read(self, columns: Sequence[str], _text: Sequence[str], _wanted: Callable[[int], bool]) -> Iterator[Chunk]:
        row = 0
        for index, table in enumerate(self._stream(self._chunk_rows)):
            if len(table):
                chosen = table.select(list(columns))
                yield Chunk(index, row, len(table), chosen, _digest(chosen))
            row += len(table)

    def _stream(self, rows: int) -> Iterator[Any]:
        """Tables of up to `rows` rows; at least one, which may be empty."""
        schema = getattr(self, "schema", None)
        options: dict[str, Any] = {"stream_results": True, "max_row_buffer": rows}
        if self._engine.dialect.name == "postgresql":
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        first = 0
        try:
            with self._engine.connect().execution_options(**options) as connection:
                result = connection.execute(sqlalchemy.text(self._query))
                names = list(result.keys())
                for page in result.partitions(rows):
                    table = _make_table(names, page, schema, first)
                    first += len(page)
                    yield table
                if not first:
                    yield load_arrow().table({name: [] for name in names}, schema)
        except SQLAlchemyError as error:
            raise StorageFailed(f"sql: {name_database(self._engine)}: {explain(error)}") from error


def explain(error: SQLAlchemyError) -> str:
    """What the database said, without the statement and its values."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:300]


def _make_table(names: list[str], rows: Sequence[Any], schema: Any, first: int) -> Any:
    arrow = load_arrow()
    columns = {}
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        wanted = None if schema is None else schema.field(name).type
        plain = [_plain(value) for value in values]
        try:
            columns[name] = arrow.array(plain, wanted)
        except arrow.ArrowException as error:
            where = f"rows {first} to {first + len(values) - 1}"
            raise SchemaMismatch(
                f'sql: column "{name}", {where}: not all are {wanted or "of one type"}: {error}'
            ) from error
    return arrow.table(columns)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal | UUID) else value


def _digest(table: Any) -> str:
    arrow = load_arrow()
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()[:32]
