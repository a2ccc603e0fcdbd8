"""The database: one transaction or none, writers one after the other, one schema, and nobody else reads the file."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy

from hyperion.schema.errors import Fenced, InternalError, InvalidConfig, StorageFailed
from hyperion.store import ledger, migrations
from hyperion.store.database import Database, open_home
from hyperion.store.desired import DesiredState
from hyperion.store.tables import METADATA
from tests.store.places import Place

PRAGMAS = ("journal_mode", "synchronous", "foreign_keys")


def sizes(database: Database) -> int:
    with database.read() as tx:
        return ledger.size(tx)


def test_what_was_written_is_there_after_a_restart(place: Place) -> None:
    with place.open().write() as tx:
        ledger.append(tx, "test.entry", "s", actor="ann")
    assert sizes(place.open()) == 1


def test_a_write_that_raises_changes_nothing(place: Place) -> None:
    database = place.open()
    with pytest.raises(ZeroDivisionError), database.write() as tx:
        ledger.append(tx, "test.entry", str(1 // ledger.append(tx, "test.entry", "s", actor="ann")), actor="ann")
    assert sizes(database) == 0
    with database.write() as tx:
        assert ledger.append(tx, "test.entry", "s", actor="ann") == 0


def test_a_fault_at_any_point_before_the_commit_changes_nothing(place: Place) -> None:
    points: list[str] = []
    failing = ""

    def fault(point: str) -> None:
        points.append(point)
        if point == failing:
            raise OSError(point)

    database = place.open(fault=fault)

    def write() -> None:
        with database.write() as tx:
            ledger.append(tx, "test.entry", "s", actor="ann")

    write()
    seen = list(points)
    assert (seen[0], seen[-2:]) == ("begin", ["commit", "committed"])
    for failing in seen[:-1]:
        with pytest.raises(OSError, match=failing):
            write()
        assert sizes(database) == 1
    failing = "committed"
    with pytest.raises(OSError, match=failing):
        write()
    assert sizes(database) == 2


def test_the_tables_are_what_the_migrations_make(place: Place) -> None:
    place.open()
    engine = sqlalchemy.create_engine(place.url or f"sqlite:///{place.home / 'hyperion.db'}")
    there = sqlalchemy.inspect(engine)
    assert set(there.get_table_names()) == {*METADATA.tables, "hyperion_schema"}
    for name, table in METADATA.tables.items():
        columns = {column["name"]: column for column in there.get_columns(name)}
        assert list(columns) == table.c.keys()
        for column in table.c:
            made = columns[column.name]
            assert made["nullable"] == column.nullable or column.primary_key, (name, column.name)
            assert made["type"].python_type is column.type.python_type, (name, column.name)
        keys = there.get_pk_constraint(name)["constrained_columns"]
        assert sorted(keys) == sorted(column.name for column in table.primary_key)
    engine.dispose()


def test_a_database_of_a_newer_hyperion_is_left_alone(place: Place) -> None:
    place.open().close()
    place.execute("UPDATE hyperion_schema SET version = 99")
    with pytest.raises(InvalidConfig, match=r"written by a newer Hyperion \(schema 99"):
        place.open()


def test_a_migration_that_fails_leaves_the_version_before_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ("CREATE TABLE half (id BIGINT PRIMARY KEY)", "CREATE TABLE nonsense (")
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, broken))
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", len(migrations.MIGRATIONS))
    with pytest.raises(sqlalchemy.exc.DBAPIError, match="nonsense"):
        place.open()
    monkeypatch.undo()
    assert sizes(place.open()) == 0
    with pytest.raises(sqlalchemy.exc.DBAPIError):
        place.execute("SELECT * FROM half")


def test_several_processes_may_start_on_a_new_database_at_once(place: Place) -> None:
    code = (
        "import sys, pathlib; from hyperion.store.database import open_home; from hyperion.store import ledger\n"
        "db = open_home(pathlib.Path(sys.argv[1]), sys.argv[2])\n"
        "for number in range(10):\n"
        "    with db.write() as tx: ledger.append(tx, 'test.entry', str(number), actor=sys.argv[3])\n"
    )
    place.home.mkdir()
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(place.home), place.url, str(number)]) for number in range(3)
    ]
    assert [process.wait(50) for process in started] == [0, 0, 0]
    with place.open().read() as tx:
        assert ledger.verify(tx).size == 30
        assert ledger.verify(tx).ok


def test_writers_come_one_after_the_other_and_readers_do_not_wait(place: Place) -> None:
    database, other = place.open(), place.open()
    inside = threading.Event()
    done = threading.Event()

    def write() -> None:
        with database.write() as tx:
            ledger.append(tx, "test.entry", "first", actor="ann")
            inside.set()
            assert done.wait(10)

    def write_too() -> int:
        with other.write() as tx:
            return ledger.append(tx, "test.entry", "second", actor="ann")

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(write)
        assert inside.wait(10)
        second = threads.submit(write_too)
        assert sizes(other) == 0
        assert not second.done()
        done.set()
        first.result(10)
        assert second.result(10) == 1


def test_many_threads_lose_no_write(place: Place) -> None:
    database = place.open()

    def write(number: int) -> int:
        with database.write() as tx:
            return ledger.append(tx, "test.entry", str(number), actor="ann")

    with ThreadPoolExecutor(6) as threads:
        assert sorted(threads.map(write, range(40))) == list(range(40))


def test_a_read_sees_one_state(place: Place) -> None:
    database = place.open()
    with database.read() as tx:
        assert ledger.size(tx) == 0
        with database.write() as writing:
            ledger.append(writing, "test.entry", "s", actor="ann")
        assert ledger.size(tx) == 0
        assert ledger.entries(tx) == []
    assert sizes(database) == 1


def test_a_write_inside_a_write_is_told_instead_of_waiting_for_itself(place: Place) -> None:
    database = place.open()
    with database.write(), pytest.raises(InternalError, match="inside a write"), database.write():
        pass


def test_a_fence_that_was_never_given_is_refused(place: Place) -> None:
    database = place.open()
    with pytest.raises(Fenced), database.write(fence=7) as tx:
        ledger.append(tx, "test.entry", "s", actor="ann")
    assert sizes(database) == 0


def test_a_home_that_shares_a_database_needs_its_key(place: Place, tmp_path: Path) -> None:
    place.open().close()
    key = place.home / "ledger.key"
    content = key.read_bytes()
    key.unlink()
    with pytest.raises(InvalidConfig, match=r"ledger\.key: missing, but the ledger .* is signed with it"):
        place.open()
    assert not key.exists()
    open_home(tmp_path / "elsewhere").close()
    key.write_bytes((tmp_path / "elsewhere" / "ledger.key").read_bytes())
    key.chmod(0o600)
    with pytest.raises(InvalidConfig, match="another key"):
        place.open()
    key.write_bytes(content)
    assert sizes(place.open()) == 0


def test_the_file_is_durable_and_for_its_owner_only(tmp_path: Path) -> None:
    place = Place(tmp_path / "home", "")
    database = place.open()
    with database.write() as tx:
        values = [tx.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS]
    assert values == ["wal", 2, 1]
    assert {stat.S_IMODE(file.stat().st_mode) for file in place.home.iterdir()} == {0o600}
    assert stat.S_IMODE(place.home.stat().st_mode) == 0o700
    place.close()


def test_the_paths_served_on_this_machine_live_in_the_same_file(tmp_path: Path) -> None:
    state = DesiredState(tmp_path / "hyperion.db")
    place = Place(tmp_path, "")
    assert sizes(place.open()) == 0
    assert state.list() == ()
    state.close()
    place.close()
    DesiredState(tmp_path / "hyperion.db").close()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "hyperion.db").write_bytes(b"not a database, but long enough" * 40)
    with pytest.raises(InvalidConfig, match=r"hyperion\.db: cannot be used"):
        open_home(tmp_path)
    assert (tmp_path / "hyperion.db").read_bytes().startswith(b"not a database")


def test_a_file_that_another_program_has_locked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperion.store.database._BUSY_S", 0.1)
    database = open_home(tmp_path)
    other = sqlite3.connect(tmp_path / "hyperion.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageFailed, match="locked"), database.write():
        pass
    other.close()
    with database.write() as tx:
        ledger.append(tx, "test.entry", "s", actor="ann")
    database.close()


def test_a_connection_that_the_server_closed_is_replaced(place: Place) -> None:
    if not place.url:
        return  # there is no server
    database = place.open()
    broken: list[int] = []

    def write() -> int:
        with database.write() as tx:
            pid = tx.exec_driver_sql("SELECT pg_backend_pid()").scalar()
            if not broken:
                broken.append(pid)
                place.execute("SELECT pg_terminate_backend(:pid)", pid=pid)
            return ledger.append(tx, "test.entry", "s", actor="ann")

    with pytest.raises(StorageFailed, match="cannot be used now"):
        write()
    assert write() == 0


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "cannot be read"),
        ("mysql://host/name", "mysql: expected"),
        ("sqlite://", "of a file"),
        ("sqlite:///:memory:", "of a file"),
        ("sqlite:////proc/nothing/hyperion.db", "hyperion.db: cannot be opened for writing"),
    ],
)
def test_a_url_that_cannot_be_is_refused(url: str, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        Database(url)


def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be used now") as refused:
        open_home(tmp_path, "postgresql://me:hunter2@127.0.0.1:1/nothing")
    assert "hunter2" not in str(refused.value)


def test_without_the_driver_the_extra_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from hyperion.schema.errors import MissingExtra; from hyperion.store.database import Database\n"
        "try: Database('postgresql://host/name')\n"
        "except MissingExtra as error: print(error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout == "PostgreSQL needs psycopg 3: pip install 'hyperion-inference[postgres]'\n"


def test_a_schema_that_does_not_exist_is_named(place: Place, tmp_path: Path) -> None:
    if place.url:
        with pytest.raises(InvalidConfig, match="schema that it names does not exist"):
            open_home(tmp_path / "other", place.url + "_gone")
