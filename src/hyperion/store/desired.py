"""What this installation is to serve: one row per model, in `HOME/hyperion.db`.

Opened by `control` only. Keeps what was asked for; what is there is found out by `discover`, and what runs is known by
`fleet`.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hyperion.schema.errors import HyperionError, InvalidConfig, UnknownModel
from hyperion.schema.model import ModelOptions
from hyperion.schema.protect import Access
from hyperion.store.database_file import make_database_file
from hyperion.store.names import check_name

SCHEMA_VERSION = 1
# `MIGRATIONS[n]` takes a database of version n to n + 1. Never edit one that was released; add the next.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE desired_model (
        name       TEXT PRIMARY KEY,
        source     TEXT NOT NULL,
        options    TEXT NOT NULL,
        pinned     TEXT NOT NULL,
        serve      INTEGER NOT NULL CHECK (serve IN (0, 1)),
        generation INTEGER NOT NULL CHECK (generation >= 1),
        updated_at REAL NOT NULL
    ) STRICT;
    """,
)


class DesiredModel(msgspec.Struct, frozen=True):
    """One model that was asked for. `source` is the absolute path it is discovered at; `options` and `pinned` are what
    `discover` takes. `generation` grows with every change of what is to run and with every explicit reload.
    `updated_at` is in seconds since 1970."""

    name: str
    source: str
    options: ModelOptions
    serve: bool
    generation: int
    updated_at: float
    pinned: tuple[str, ...] = ()


class _Spec(msgspec.Struct, frozen=True):
    access: Access | None = None


class _Resource(msgspec.Struct, frozen=True):
    spec: _Spec


class DesiredState:
    """The table of desired models. Every method is one transaction, so that it holds after a crash or not at all.

    Safe to use from several processes; one object belongs to one thread. `clock` gives seconds since 1970.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._connection = self._open()

    def put(
        self,
        name: str,
        source: Path,
        options: ModelOptions,
        *,
        pinned: frozenset[str] = frozenset(),
        serve: bool = True,
    ) -> DesiredModel:
        """Adds or changes a model. Putting what is there already changes nothing, so that it can be repeated."""
        check_name(name, "the model's name")
        wanted = DesiredModel(name, os.path.abspath(source), options, serve, 1, self._clock(), tuple(sorted(pinned)))
        with self._transaction() as connection:
            old = self._get(connection, name)
            if old is not None:
                if msgspec.structs.replace(wanted, generation=old.generation, updated_at=old.updated_at) == old:
                    return old
                wanted = msgspec.structs.replace(wanted, generation=old.generation + 1)
            connection.execute(
                "INSERT OR REPLACE INTO desired_model (name, source, options, pinned, serve, generation, updated_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    wanted.name,
                    wanted.source,
                    msgspec.json.encode(wanted.options).decode(),
                    msgspec.json.encode(wanted.pinned).decode(),
                    int(wanted.serve),
                    wanted.generation,
                    wanted.updated_at,
                ),
            )
        return wanted

    def list(self) -> tuple[DesiredModel, ...]:
        """All models that were asked for, served or not, sorted by name."""
        with self._transaction() as connection:
            return tuple(map(_read_row, connection.execute(f"{_SELECT} ORDER BY name")))

    def list_endpoints(self) -> tuple[tuple[str, Access | None], ...]:
        """The endpoints that lie in the same file, and who may call them: for the time until the store that keeps them
        (`store/endpoints`) is open, which takes a second to import. None where they lie in another database."""
        with self._transaction() as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'endpoint'").fetchone():
                return ()
            rows = connection.execute("SELECT name, resource FROM endpoint WHERE NOT deleting ORDER BY name")
            return tuple((name, msgspec.json.decode(resource, type=_Resource).spec.access) for name, resource in rows)

    def get(self, name: str) -> DesiredModel | None:
        """One model, or None when nobody asked for it."""
        with self._transaction() as connection:
            return self._get(connection, name)

    def set_serving(self, name: str, serve: bool) -> DesiredModel:
        """Says whether the model is to be served. Loading one that is served already changes nothing."""
        return self._change(name, lambda old: msgspec.structs.replace(old, serve=serve))

    def bump_generation(self, name: str) -> DesiredModel:
        """Asks for a reload: the same source is discovered anew and replaces what runs."""
        return self._change(name, lambda old: msgspec.structs.replace(old, generation=old.generation + 1))

    def remove(self, name: str) -> bool:
        """Forgets a model. False when it was not there."""
        with self._transaction() as connection:
            return connection.execute("DELETE FROM desired_model WHERE name = ?", (name,)).rowcount > 0

    def close(self) -> None:
        """Closes the database; the object is of no use afterwards."""
        self._connection.close()

    def _change(self, name: str, edit: Callable[[DesiredModel], DesiredModel]) -> DesiredModel:
        with self._transaction() as connection:
            old = self._get(connection, name)
            if old is None:
                raise UnknownModel(f"no model {name!r} is known here")
            new = edit(old)
            if new == old:
                return old
            new = msgspec.structs.replace(new, updated_at=self._clock())
            connection.execute(
                "UPDATE desired_model SET serve = ?, generation = ?, updated_at = ? WHERE name = ?",
                (int(new.serve), new.generation, new.updated_at, name),
            )
            return new

    def _get(self, connection: sqlite3.Connection, name: str) -> DesiredModel | None:
        row = connection.execute(f"{_SELECT} WHERE name = ?", (name,)).fetchone()
        return None if row is None else _read_row(row)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """IMMEDIATE, because each one reads before it writes: two writers must not both read first."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._translate(error) from error

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_database_file(self._path)
        except OSError as error:
            reason = (error.strerror or "error").lower()
            raise InvalidConfig(
                f"{self._path.name}: cannot be opened for writing: {reason}; choose another --home"
            ) from error
        connection = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _migrate(connection, self._path.name)
        except sqlite3.Error as error:
            connection.close()
            raise self._translate(error) from error
        except HyperionError:
            connection.close()
            raise
        return connection

    def _translate(self, error: sqlite3.Error) -> HyperionError:
        return InvalidConfig(
            f"{self._path.name}: cannot be used: {error}. If it is damaged, restore it from a backup, or move it (and "
            "its -wal and -shm files) away and start with the PATHs of the models again"
        )


_SELECT = "SELECT name, source, options, serve, generation, updated_at, pinned FROM desired_model"


def _read_row(row: tuple[str, str, str, int, int, float, str]) -> DesiredModel:
    name, source, options, serve, generation, updated_at, pinned = row
    try:
        return DesiredModel(
            name,
            source,
            msgspec.json.decode(options, type=ModelOptions),
            bool(serve),
            generation,
            updated_at,
            msgspec.json.decode(pinned, type=tuple[str, ...]),
        )
    except msgspec.MsgspecError as error:
        raise InvalidConfig(f"hyperion.db: the row of model {name!r} cannot be read: {error}") from error


def _migrate(connection: sqlite3.Connection, name: str) -> None:
    """Brings the database to SCHEMA_VERSION, a step per transaction. InvalidConfig when it is from a newer Hyperion."""
    while True:
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version < SCHEMA_VERSION:
                connection.execute(MIGRATIONS[version])
                connection.execute(f"PRAGMA user_version = {version + 1}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        if version > SCHEMA_VERSION:
            raise InvalidConfig(
                f"{name}: written by a newer Hyperion (schema {version}, this one knows {SCHEMA_VERSION}); "
                "upgrade this one, or give it another --home"
            )
        if version >= SCHEMA_VERSION:
            return
