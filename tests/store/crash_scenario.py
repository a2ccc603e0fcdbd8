"""What the crash test does to a store: writes of every kind, each acknowledged after its commit, in a process that is
killed at a given fault point. Imported by the child process, so it imports little."""

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from sqlalchemy import Connection

from hyperion.schema.registry import FileEntry, Manifest
from hyperion.schema.release import PredictionRow
from hyperion.schema.resource import Endpoint, EndpointSpec, Metadata
from hyperion.store import endpoints, ledger, predictions, registry, rollouts, tokens
from hyperion.store.database import open_home
from hyperion.store.leadership import Leadership

Step = Callable[[Connection, str], object]


def push(tx: Connection, name: str) -> None:
    files = (FileEntry("m.onnx", "0" * 64, 1),)
    registry.put_version(tx, Manifest(name, "1", "sha256:1", "onnx", files, created_at=1.0), actor="ann")


def point(tx: Connection, name: str) -> None:
    registry.set_alias(tx, name, "champion", "1", actor="ann")


def apply(tx: Connection, name: str) -> None:
    endpoints.put(tx, Endpoint(Metadata(name), EndpointSpec(f"{name}@champion")), actor="ann")


def decide(tx: Connection, name: str) -> None:
    """As `control` does it: the state and what led to it, together."""
    row = rollouts.get(tx, name)
    if row is None:
        rollouts.put(tx, name, "r1", "promoted", b"{}", expected_revision=0)
        ledger.append(tx, "rollout.promoted", name, actor="control", detail={"e_value": 7.5})


def command(tx: Connection, name: str) -> None:
    if not rollouts.commands(tx, name):
        rollouts.push_command(tx, name, "undo", actor="ann")


def admit(tx: Connection, name: str) -> None:
    if all(row.tenant != name for row in tokens.list_(tx)):
        tokens.create(tx, name, ["infer"], actor="ann")


def log(tx: Connection, name: str) -> None:
    predictions.put_many(tx, [PredictionRow(name, name, "1", "sha256:1", 0, "ok", 1.0, 1.0)])


STEPS: tuple[Step, ...] = (push, point, apply, decide, command, admit, log)


def is_done(tx: Connection, name: str) -> list[bool]:
    """Which steps hold, as told by their rows; and by the ledger, which has to say the same."""
    kinds = ["model.push", "model.alias", "endpoint.apply", "rollout.promoted", "rollout.command", "token.create"]
    ids = [row.id for row in tokens.list_(tx) if row.tenant == name]
    row = rollouts.get(tx, name)
    rows = [
        registry.get_manifest(tx, name, "1") is not None,
        registry.aliases(tx, name) == {"champion": "1"},
        endpoints.get(tx, name) is not None,
        row is not None,
        bool(rollouts.commands(tx, name)),
        bool(ids),
        predictions.get(tx, name) is not None,
    ]
    assert [row.rollout_id for row in rollouts.history(tx, name)] == ["r1"] * rows[3]
    subjects = [name, f"{name}@1", f"{name}@champion", *ids]
    told = sorted(entry.kind for subject in subjects for entry in ledger.entries(tx, subject=subject))
    assert told == sorted(kind for kind, done in zip(kinds, rows, strict=False) if done)
    return rows


def run(home: Path, url: str, name: str, kill_at: int, pipe: Pipe) -> None:
    """Takes the leadership and does the steps; sends the generation, then each step's number after its commit. At its
    fault point number `kill_at` (none if negative) the process kills itself, as hard as can be. Sends the points."""
    points: list[str] = []

    def fault(name: str) -> None:
        points.append(name)
        if len(points) - 1 == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    database = open_home(home, url, fault=fault)
    generation = Leadership(database, "control").try_lead()
    pipe.send(generation)
    for number, step in enumerate(STEPS):
        with database.write(fence=generation) as tx:
            step(tx, name)
        pipe.send(number)
    pipe.send(points)
