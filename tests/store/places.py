"""Where a store can live: an SQLite file, or a schema of its own on PostgreSQL, gone after the test."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
import sqlalchemy

from hyperion.store.database import Database, no_fault, open_home
from tests.services import needs_postgres

_NUMBERS = itertools.count()


class Clock:
    """Seconds since 1970 as the test says; each look takes a second."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        self.now += 1
        return self.now


class Place:
    """A home and the URL of its database, "" for SQLite in the home."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url
        self._opened: list[Database] = []

    def open(
        self,
        clock: Callable[[], float] | None = None,
        fault: Callable[[str], None] = no_fault,
        home: Path | None = None,
    ) -> Database:
        """The store, opened; closed with the test."""
        database = open_home(home or self.home, self.url, clock or Clock(), fault)
        self._opened.append(database)
        return database

    def execute(self, statement: str, **values: object) -> None:
        """SQL behind the store's back."""
        engine = sqlalchemy.create_engine(self.url or f"sqlite:///{self.home / 'hyperion.db'}")
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(statement), values)
        engine.dispose()

    def close(self) -> None:
        for database in self._opened:
            database.close()


@contextmanager
def postgres_schema() -> Iterator[str]:
    """The URL of a new schema, which is dropped afterwards."""
    url = needs_postgres()
    schema = f"hyperion_test_{os.getpid()}_{next(_NUMBERS)}"
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        yield f"{url}?options=-csearch_path%3D{schema}"
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
    finally:
        engine.dispose()


def open_store(kind: str) -> AbstractContextManager[str]:
    """The URL of a store of its own, for as long as the block runs: "" for SQLite in the home."""
    return nullcontext("") if kind == "sqlite" else postgres_schema()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty place of each kind: what runs over it is the contract of the store."""
    if request.param == "sqlite":
        place = Place(tmp_path / "home", "")
        yield place
        place.close()
        return
    with postgres_schema() as url:
        place = Place(tmp_path / "home", url)
        yield place
        place.close()
