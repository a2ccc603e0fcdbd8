"""Kills the control process of `crash_history` at each of its fault points, and looks at what is left."""

import multiprocessing
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from hyperion.control.release.record import decode_record
from hyperion.store import endpoints, ledger, registry, rollouts, tokens
from hyperion.store.database import Database, open_home
from tests.e2e import crash_history
from tests.e2e.crash_history import HISTORY, NAME
from tests.store.places import open_store

KILLED: Final = -9
# What each entry of a rollout makes of its state; the others leave it.
ENDS: Final = {"rollout.promoted": "promoted", "rollout.undone": "promoted", "rollout.halted": "halted"}


class Pieces:
    """Histories over one kind of store: SQLite in a home of its own, or a schema of its own of PostgreSQL."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["tests.e2e.crash_history"])

    def enumerate_points(self) -> list[str]:
        """Every fault point of a history in which nobody dies."""
        with TemporaryDirectory() as directory, open_store(self.kind) as url:
            home = make_home(Path(directory))
            code, told = self._live(home, url, 0, False, -1)
            assert code == 0, told
            with_database(home, url, lambda database: check_end(database, Progress(told)))
            return list(told[-1][1])

    def kill(self, at: int, point: str) -> None:
        """One history in which control dies at point number `at`. Raises AssertionError for whatever is not right."""
        with TemporaryDirectory() as directory, open_store(self.kind) as url:
            home = make_home(Path(directory))
            code, told = self._live(home, url, 0, False, at)
            assert code == KILLED, f"{point}: exit code {code}, expected to be killed"
            before = Progress(told)
            with_database(home, url, lambda database: check_between(database, before, point))
            step = before.held + 1
            code, more = self._live(home, url, step, before.acknowledged >= step, -1)
            assert code == 0, f"{point}: the next life ended with {code}"
            if self.kind == "postgresql" and told:
                assert more[0][1] > told[0][1], "a later leader has a larger number"
            with_database(home, url, lambda database: check_end(database, Progress(more)))

    def _live(self, home: Path, url: str, first: int, acknowledged: bool, kill_at: int) -> tuple[int, list[Any]]:
        here, there = self._processes.Pipe(duplex=False)
        child = self._processes.Process(target=crash_history.run, args=(home, url, first, acknowledged, kill_at, there))
        child.start()
        there.close()
        told: list[Any] = []
        try:
            while True:
                told.append(here.recv())
        except EOFError:
            child.join(30)
        return child.exitcode or 0, told


class Progress:
    """The last step that was acknowledged, and the last one that held; -1 for none."""

    def __init__(self, told: Sequence[tuple[str, Any]]) -> None:
        self.acknowledged = max((number for what, number in told if what == "acknowledged"), default=-1)
        self.held = max((number for what, number in told if what == "held"), default=-1)


def make_home(directory: Path) -> Path:
    """A home with the files of three versions beside it."""
    home = directory / "home"
    home.mkdir(mode=0o700)
    for number in (1, 2, 3):
        folder = home / f"v{number}"
        folder.mkdir()
        (folder / "model.py").write_text(f"class Model:\n    number = {number}\n")
    return home


def with_database(home: Path, url: str, check: Any) -> None:
    """Look at the store as somebody who comes later."""
    database = open_home(home, url)
    try:
        check(database)
    finally:
        database.close()


def check_between(database: Database, progress: Progress, point: str) -> None:
    """Between two lives: everything that was acknowledged is there, and rows and ledger say the same."""
    with database.read() as tx:
        assert ledger.verify(tx).ok, f"killed at {point}: the ledger does not verify"
        entries = ledger.entries(tx, limit=1_000)
        reasons = {entry.reason for entry in entries}
        for number, step in enumerate(HISTORY[: progress.acknowledged + 1]):
            there = step.reason in reasons if step.reason else bool(tokens.list_(tx))
            assert there, f"killed at {point}: {step.reason} was acknowledged ({number}) and is lost"
        kinds = Counter(entry.kind for entry in entries)
        versions = registry.list_versions(tx, NAME) if registry.list_models(tx) else []
        assert kinds["model.push"] == len(versions), point
        assert kinds["token.create"] == len(tokens.list_(tx)), point
        check_rollout(tx, entries, point)
        check_commands(tx, entries, point)
    check_once(entries, point)


def check_rollout(tx: Any, entries: Sequence[ledger.Entry], point: str) -> None:
    """The row of the endpoint and that of its rollout are what the ledger's last words about them say."""
    row = endpoints.get(tx, NAME)
    applied = [entry for entry in entries if entry.kind in ("endpoint.apply", "endpoint.purge")]
    said = applied[-1].after if applied else ""
    assert said == (ledger.digest_of(row.resource) if row is not None else ""), point
    record = rollouts.get(tx, NAME)
    moves = [entry for entry in entries if entry.kind in (*ENDS, "rollout.started")]
    if record is None:
        assert not moves or entries[-1].kind in ("endpoint.purge", "control.led"), point
        return
    state = decode_record(record.body, record.revision).state
    assert (
        (record.state, record.rollout_id)
        == (state.state, state.rollout_id)
        == (
            ENDS.get(moves[-1].kind, "canary"),
            moves[-1].detail["rollout"],
        )
    ), point


def check_commands(tx: Any, entries: Sequence[ledger.Entry], point: str) -> None:
    """A command waits, or was obeyed with its entry; never both, never neither."""
    asked = sum(entry.kind == "rollout.command" for entry in entries)
    undone = sum(entry.kind == "rollout.undone" for entry in entries)
    restarts = sum(command.verb == "restart" for command in rollouts.commands(tx))
    assert asked == undone + len(rollouts.commands(tx)) - restarts, point


def check_once(entries: Sequence[ledger.Entry], point: str = "the end") -> None:
    """Nothing begins or ends twice."""
    for kind in ("rollout.started", "rollout.promoted", "rollout.halted", "rollout.undone"):
        ids = Counter(entry.detail["rollout"] for entry in entries if entry.kind == kind)
        assert set(ids.values()) <= {1}, f"killed at {point}: {kind} happened twice: {ids}"


def check_end(database: Database, progress: Progress) -> None:
    """The whole history has happened, each thing once, whatever died meanwhile."""
    assert progress.held == len(HISTORY) - 1
    with database.read() as tx:
        assert ledger.verify(tx).ok
        entries = ledger.entries(tx, limit=1_000)
        kinds = Counter(entry.kind for entry in entries)
        assert {kind: kinds[kind] for kind in ("rollout.started", *ENDS, "model.push", "endpoint.purge")} == {
            "rollout.started": 3,
            "rollout.promoted": 2,
            "rollout.undone": 1,
            "rollout.halted": 1,
            "model.push": 3,
            "endpoint.purge": 1,
        }, kinds
        assert (endpoints.get(tx, NAME), rollouts.get(tx, NAME), rollouts.commands(tx)) == (None, None, [])
        # A key whose secret never reached its owner is there, too: to ask again makes another.
        assert kinds["token.create"] == len(tokens.list_(tx)) in (1, 2)
    check_once(entries)
    leaders = [entry.detail["leader"] for entry in entries if "leader" in entry.detail]
    assert leaders == sorted(leaders), "an older leader wrote after a newer one"
