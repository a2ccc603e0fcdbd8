"""The store's database: SQLite in the home (embedded) or PostgreSQL (shared), opened, migrated, and its transactions.

Opened by `control` only. `write()` is one transaction, and writers are serial on both: SQLite by BEGIN IMMEDIATE,
PostgreSQL by an advisory lock of the schema. `read()` is a snapshot. What is written, and what it means, is elsewhere.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from hyperion.schema.errors import Fenced, HyperionError, InternalError, InvalidConfig, MissingExtra, StorageFailed
from hyperion.store import ledger
from hyperion.store.database_file import make_database_file
from hyperion.store.migrations import migrate
from hyperion.store.tables import LEADER
from hyperion.store.transaction import Context, attached

_BUSY_S = 10  # a write takes milliseconds: whoever waits for longer is told
_IDLE_MS = 5_000  # a stopped process that holds the writers' lock on PostgreSQL loses it after this
LOCK_CLASS = 0x68797031  # "hyp1": the advisory lock of writers is this and a hash of the schema's name


def no_fault(point: str) -> None:
    """The fault points of production: none."""


class Database:
    """One database. Every method may be called from any thread; a connection belongs to one thread.

    `url` is SQLAlchemy's: `sqlite:////home/hyperion.db` or `postgresql://user@host/name` (psycopg 3; `?options=
    -csearch_path%3Dschema` chooses a schema). `clock` gives seconds since 1970. `fault` is called with the name of
    each point that a write passes; what it raises rolls the transaction back. `key` is the file of the ledger's key,
    made at first use; without one, and for SQLite that is `ledger.key` beside the file, nothing can be appended to the
    ledger. InvalidConfig where the database cannot be opened, MissingExtra without the driver for PostgreSQL.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], float] = time.time,
        fault: Callable[[str], None] = no_fault,
        *,
        key: Path | None = None,
    ) -> None:
        parsed = _parse(url)
        self.name = parsed.render_as_string(hide_password=True)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            file = Path(str(parsed.database))
            self.name = file.name
            key = key or file.parent / "ledger.key"
            _make_file(file)
        self.path = Path(str(parsed.database)) if self.is_sqlite else None
        self._context = Context(clock, fault, None)
        self._writer = threading.Lock()
        self._writing = threading.local()
        self._engine = _engine(parsed)
        self._write = self._engine.execution_options(hyperion_write=True)
        self._read = (
            self._engine
            if self.is_sqlite
            else self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        )
        try:
            self._start(key)
        except BaseException:
            self.close()
            raise

    def _start(self, key: Path | None) -> None:
        opening = Context(self._context.clock, no_fault, None)
        try:
            migrate(lambda: self._transaction(self._write, opening), self.name)
            with self._transaction(self._write, opening) as tx:
                signer = ledger.open_ledger(tx, key)
        except StorageFailed as error:
            raise InvalidConfig(error.message) from error
        self._context = Context(self._context.clock, self._context.fault, signer)

    @contextmanager
    def write(self, fence: int | None = None) -> Iterator[Connection]:
        """One transaction, alone: it holds after the block or, when that raises, not at all.

        With `fence` (the generation of a leader, see `leadership`) it raises Fenced where a newer one has taken over.
        StorageFailed where the database cannot be reached or is full; then the write did not happen, or, if the
        connection was lost in the very commit, may have: every write of this room can be repeated.
        """
        with self._transaction(self._write, self._context) as tx:
            if fence is not None:
                check_fence(tx, fence)
            self._context.fault("begin")
            yield tx
            self._context.fault("commit")
        self._context.fault("committed")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot: every statement in the block sees the same state. StorageFailed as in `write`."""
        with _translated(self.name), self._read.begin() as tx, attached(tx, self._context):
            yield tx

    @contextmanager
    def renewing(self) -> Iterator[Connection]:
        """A write that does not wait for other writers where the database can do without: of rows that each statement
        finds and changes at once (`leadership`, `jobs`, `idempotency`)."""
        if self.is_sqlite:
            with self.write() as tx:
                yield tx
        else:
            with _translated(self.name), self._engine.begin() as tx, attached(tx, self._context):
                yield tx

    def session(self) -> Connection:
        """A connection of its own, outside the pool and outside transactions, for locks that live as long as it. The
        caller closes it."""
        with _translated(self.name):
            connection = self._engine.execution_options(isolation_level="AUTOCOMMIT").connect()
            connection.detach()
            return connection

    def close(self) -> None:
        """Closes the pooled connections. The object is not used after it."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, engine: Engine, context: Context) -> Iterator[Connection]:
        if getattr(self._writing, "open", False):
            raise InternalError("a write inside a write of the same thread: it would wait for itself")
        if not self._writer.acquire(timeout=3 * _BUSY_S):
            raise StorageFailed(f"{self.name}: other writes took longer than {3 * _BUSY_S} s; try again")
        self._writing.open = True
        try:
            with _translated(self.name), engine.begin() as tx:
                if not self.is_sqlite:
                    _lock_writers(tx, self.name)
                with attached(tx, context):
                    yield tx
        finally:
            self._writing.open = False
            self._writer.release()


def open_home(
    home: Path,
    url: str = "",
    clock: Callable[[], float] = time.time,
    fault: Callable[[str], None] = no_fault,
    *,
    key: Path | None = None,
) -> Database:
    """The database of a home: `HOME/hyperion.db`, or the one at `url`. The ledger's key is the file `key`, else
    `HOME/ledger.key`; control processes that share a database share the key, too. Errors as of `Database`."""
    if not url:
        url = URL.create("sqlite", database=str(home / "hyperion.db")).render_as_string()
    return Database(url, clock, fault, key=key or home / "ledger.key")


def check_fence(tx: Connection, fence: int) -> None:
    """Raises Fenced unless the leader of generation `fence` is still the newest of its name."""
    row = tx.execute(select(LEADER.c.active).where(LEADER.c.generation == fence)).first()
    if row is None or not row.active:
        raise Fenced("this control process is not the leader any more: a newer one decides now; nothing was written")


def _parse(url: str) -> URL:
    try:
        parsed = sqlalchemy.make_url(url)
    except ArgumentError as error:
        raise InvalidConfig(
            "the database URL cannot be read; expected sqlite:///PATH or postgresql://USER@HOST/NAME"
        ) from error
    backend = parsed.get_backend_name() if parsed.drivername != "postgres" else "postgresql"
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise InvalidConfig(f"{backend}: expected a sqlite:/// or a postgresql:// URL; nothing else is supported")
    if parsed.database in (None, "", ":memory:") or parsed.query:
        raise InvalidConfig("sqlite: expected sqlite:///PATH of a file, as every thread has its own connection")
    return parsed.set(drivername="sqlite")


def _make_file(file: Path) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_database_file(file)
    except OSError as error:
        reason = (error.strerror or "error").lower()
        raise InvalidConfig(f"{file.name}: cannot be opened for writing: {reason}; choose another --home") from error


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = sqlalchemy.create_engine(url, connect_args={"timeout": _BUSY_S})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        engine = sqlalchemy.create_engine(
            url, pool_pre_ping=True, pool_timeout=_BUSY_S, connect_args={"connect_timeout": 5}
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise MissingExtra("PostgreSQL needs psycopg 3: pip install 'hyperion-inference[postgres]'") from error
    event.listen(engine, "connect", _prepare_postgres)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin transactions by itself: `_begin_sqlite` does
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """IMMEDIATE for writers, because they read before they write: two must not both read first."""
    writes = connection.get_execution_options().get("hyperion_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare_postgres(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_MS}")
        cursor.execute(f"SET lock_timeout = {_BUSY_S * 1000}")
    connection.commit()


def _lock_writers(tx: Connection, name: str) -> None:
    schema = tx.execute(text("SELECT current_schema()")).scalar()
    if schema is None:
        raise InvalidConfig(f"{name}: the schema that it names does not exist; create it (CREATE SCHEMA …) first")
    tx.execute(text("SELECT pg_advisory_xact_lock(:class, hashtext(:schema))"), {"class": LOCK_CLASS, "schema": schema})


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Turns what the drivers raise into errors of ours; bugs (bad SQL, broken constraints) stay what they are."""
    try:
        yield
    except PoolExhausted as error:
        raise StorageFailed(f"{name}: too many reads at once; try again") from error
    except (OperationalError, InterfaceError) as error:
        if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            raise  # SQL that SQLite does not understand
        reason = " ".join(str(error.orig).split())
        raise StorageFailed(f"{name}: the database cannot be used now: {reason}; try again later") from error
    except DBAPIError as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: DBAPIError) -> HyperionError | DBAPIError:
    if type(error.orig).__name__ != "DatabaseError":  # SQLite's own base class: the file is no database, or broken
        return error
    return InvalidConfig(
        f"{name}: cannot be used: {error.orig}. If it is damaged, restore it from a backup, or move it (and its "
        "-wal and -shm files) away and start again"
    )
