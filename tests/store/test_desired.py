"""The desired state: it survives, it repeats, it refuses what it cannot read."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperion.schema.errors import InvalidConfig, ModelRefused, UnknownModel
from hyperion.schema.model import ModelOptions
from hyperion.store import desired
from hyperion.store.desired import SCHEMA_VERSION, DesiredModel, DesiredState

SOURCE = Path("/models/fraud.onnx")
OPTIONS = ModelOptions(replicas=2, buckets=(1, 8), env={"A": "é"}, labels={"team": "risk"})


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "hyperion.db"


@pytest.fixture
def state(path: Path) -> Iterator[DesiredState]:
    state = DesiredState(path, Clock())
    yield state
    state.close()


def test_what_was_put_is_there_after_a_restart(path: Path, state: DesiredState) -> None:
    put = state.put("fraud", SOURCE, OPTIONS, pinned=frozenset({"threads", "replicas"}))
    assert put == DesiredModel("fraud", str(SOURCE), OPTIONS, True, 1, 1001.0, ("replicas", "threads"))
    state.put("aaa", SOURCE, ModelOptions(), serve=False)
    state.close()
    again = DesiredState(path)
    assert [model.name for model in again.list()] == ["aaa", "fraud"]
    assert again.get("fraud") == put
    assert again.get("gone") is None
    again.close()


def test_putting_the_same_again_changes_nothing(state: DesiredState) -> None:
    assert state.put("fraud", SOURCE, OPTIONS) == state.put("fraud", SOURCE, OPTIONS)


@pytest.mark.parametrize("change", ["source", "options", "pinned", "serve"])
def test_putting_something_else_is_a_new_generation(state: DesiredState, change: str) -> None:
    first = state.put("fraud", SOURCE, OPTIONS)
    second = state.put(
        "fraud",
        Path("/models/other.onnx") if change == "source" else SOURCE,
        ModelOptions() if change == "options" else OPTIONS,
        pinned=frozenset({"replicas"} if change == "pinned" else ()),
        serve=change != "serve",
    )
    assert (second.generation, second.updated_at > first.updated_at) == (2, True)
    assert state.list() == (second,)


def test_a_relative_source_is_kept_absolute(state: DesiredState) -> None:
    assert state.put("fraud", Path("fraud.onnx"), OPTIONS).source == os.path.abspath("fraud.onnx")


def test_serving_is_switched_and_reloads_are_counted(state: DesiredState) -> None:
    state.put("fraud", SOURCE, OPTIONS)
    off = state.set_serving("fraud", False)
    assert (off.serve, off.generation) == (False, 1)
    assert state.set_serving("fraud", False) == off
    assert state.bump_generation("fraud").generation == 2
    assert state.bump_generation("fraud").generation == 3
    assert state.get("fraud") == state.set_serving("fraud", False)


def test_removing_is_told_apart_from_having_nothing_to_remove(state: DesiredState) -> None:
    state.put("fraud", SOURCE, OPTIONS)
    assert state.remove("fraud") is True
    assert state.remove("fraud") is False
    assert state.list() == ()


def test_unknown_models_and_bad_names_are_refused(state: DesiredState) -> None:
    with pytest.raises(UnknownModel, match="'gone'"):
        state.set_serving("gone", True)
    with pytest.raises(UnknownModel, match="'gone'"):
        state.bump_generation("gone")
    with pytest.raises(ModelRefused, match="a/b"):
        state.put("a/b", SOURCE, OPTIONS)


def test_only_its_owner_can_read_the_database(path: Path, state: DesiredState) -> None:
    state.put("fraud", SOURCE, OPTIONS)
    files = list(path.parent.iterdir())
    assert {file.name for file in files} >= {"hyperion.db", "hyperion.db-wal"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_database_that_others_could_read_is_closed_to_them(path: Path, state: DesiredState) -> None:
    state.close()
    path.chmod(0o644)
    DesiredState(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_writers_do_not_lose_each_other_s_changes(path: Path, state: DesiredState) -> None:
    other = DesiredState(path)
    state.put("fraud", SOURCE, OPTIONS)
    for _ in range(20):
        state.bump_generation("fraud")
        other.bump_generation("fraud")
    assert other.list()[0].generation == 41
    other.close()


def test_a_write_that_fails_leaves_everything_as_it_was(state: DesiredState, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state.put("fraud", SOURCE, OPTIONS)
    monkeypatch.setattr(state, "_clock", lambda: None)
    with pytest.raises(InvalidConfig, match="NOT NULL"):
        state.put("fraud", SOURCE, ModelOptions())
    monkeypatch.undo()
    assert state.list() == (before,)


@pytest.mark.parametrize(
    "content", [b"not a database, but text long enough for a header" * 50, b"SQLite format 3\0" * 300]
)
def test_a_damaged_database_says_what_to_do(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InvalidConfig, match=r"hyperion\.db: cannot be used: .* move it"):
        DesiredState(path)


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "home" / "hyperion.db").mkdir(parents=True)
    for path in (tmp_path / "file" / "hyperion.db", tmp_path / "home" / "hyperion.db"):
        with pytest.raises(InvalidConfig, match=r"hyperion\.db: cannot be opened for writing: .*--home"):
            DesiredState(path)


def test_a_database_of_a_newer_hyperion_is_left_alone(path: Path, state: DesiredState) -> None:
    state.close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(InvalidConfig, match="newer Hyperion"):
        DesiredState(path)


def test_migrations_run_in_order_and_once(path: Path, state: DesiredState, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = state.put("fraud", SOURCE, OPTIONS)
    state.close()
    steps = (*desired.MIGRATIONS, "ALTER TABLE desired_model ADD COLUMN note TEXT NOT NULL DEFAULT ''")
    monkeypatch.setattr(desired, "MIGRATIONS", steps)
    monkeypatch.setattr(desired, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    for _ in range(2):
        newer = DesiredState(path)
        assert newer.list() == (kept,)
        newer.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT note FROM desired_model").fetchall() == [("",)]


def test_a_migration_that_fails_changes_nothing(
    path: Path, state: DesiredState, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.close()
    monkeypatch.setattr(desired, "MIGRATIONS", (*desired.MIGRATIONS, "ALTER TABLE nowhere ADD COLUMN note TEXT"))
    monkeypatch.setattr(desired, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    with pytest.raises(InvalidConfig, match="nowhere"):
        DesiredState(path)
    monkeypatch.undo()
    DesiredState(path).close()


def test_a_row_that_cannot_be_read_is_named(path: Path, state: DesiredState) -> None:
    state.put("fraud", SOURCE, OPTIONS)
    with sqlite3.connect(path) as connection:
        connection.execute("""UPDATE desired_model SET options = '{"replicas": "two"}'""")
    with pytest.raises(InvalidConfig, match=r"model 'fraud' cannot be read: .*replicas"):
        state.list()
