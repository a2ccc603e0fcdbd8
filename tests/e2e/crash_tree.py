"""Kills control, in a real `hyperion serve` under load, once in each step of a history that a user types."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from tests.e2e.admin_client import Api
from tests.e2e.faulty_control import VARIABLE
from tests.e2e.open_load import OpenLoad
from tests.e2e.releases import Platform
from tests.e2e.served import Served
from tests.e2e.tiny_models import tiny_rows, write_tiny
from tests.store.places import open_store

NAME: Final = "digits"
STEP_S: Final = 60.0
RATE: Final = 40.0
SPEC: Final[dict[str, Any]] = {
    "model": f"{NAME}@1",
    "rollout": {
        "strategy": "canary",
        "steps": [{"percent": 50, "hold_s": 0.5, "min_requests": 20}],
        "halt": {"errors": {"ratio": 1.2}, "slow": None},
        "standby_s": 3600,
    },
    "slo": {"availability": 80},  # so that some dozens of requests are evidence enough
}


class Step(NamedTuple):
    """What is typed, until it is answered; `again` False: only where the ledger does not tell of it already. It is
    done when `state` (state and target of the rollout) is reached."""

    name: str
    command: tuple[str, ...]
    state: tuple[str, str] | None = None
    again: bool = True


def steps_of(directory: Path) -> tuple[Step, ...]:
    """The history."""
    models = {version: str(write_tiny(directory / "models", kind)) for version, kind in VERSIONS.items()}

    def push(version: str) -> Step:
        return Step(f"push {version}", ("model", "push", NAME, models[version], "--version", version))

    def deploy(version: str, state: str) -> Step:
        command = ("deploy", NAME, f"{NAME}@{version}", "--reason", f"deploy {version}")
        # To deploy a version that was halted meanwhile is to try it again.
        return Step(f"deploy {version}", command, (state, version), again=False)

    return (
        push("1"),
        Step("apply", ("apply", "-f", str(directory / "endpoint.yaml"), "--yes"), ("promoted", "1")),
        push("2"),
        deploy("2", "promoted"),
        Step("undo", ("rollout", "undo", NAME, "--reason", "undo"), ("promoted", "1"), again=False),
        push("3"),
        deploy("3", "halted"),
        Step("key", ("key", "create", "--tenant", "shop", "--json")),
        Step("delete", ("delete", "endpoint", NAME, "--yes", "--reason", "delete"), again=False),
    )


VERSIONS: Final = {"1": "v1", "2": "equal", "3": "broken"}


class Tree:
    """The platform, the place where its control looks for faults, and what was seen."""

    def __init__(self, directory: Path, url: str) -> None:
        self.faults = directory / "faults"
        self.faults.mkdir()
        options = ("--database-url", url) if url else ()
        self.platform = Platform(directory)
        self.served = self.platform.served = Served(
            directory / "home",
            options=options,
            env={VARIABLE: str(self.faults)},
            program="tests.e2e.faulty_serve",
        )
        (directory / "endpoint.yaml").write_text(
            json.dumps({"apiVersion": "hyperion/v1", "kind": "Endpoint", "metadata": {"name": NAME}, "spec": SPEC})
        )
        self.steps = steps_of(directory)
        self.retries = 0

    def passed(self) -> list[str]:
        """Every fault point that any life of control has passed."""
        path = self.faults / "passed"
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def live(self, step: Step, kill: str) -> tuple[bool, list[str]]:
        """One step with a control that dies at `kill` (`POINT NUMBER`, "" for not at all): whether it died there, and
        the points that were passed."""
        before = len(self.passed())
        if kill:
            (self.faults / "new").write_text(kill)
            (self.faults / "new").rename(self.faults / "kill")
        self._type(step)
        if step.state is not None:
            self._until(lambda: self._state() == step.state, step.name)
        died = bool(kill) and not (self.faults / "kill").exists()
        (self.faults / "kill").unlink(missing_ok=True)
        return died, self.passed()[before:]

    def entries(self) -> list[dict[str, Any]]:
        """The whole ledger."""
        items: list[dict[str, Any]] = self._ask("ledger/entries?limit=1000")["items"]
        return items

    def retry(self, *command: str) -> str:
        """What a command answers once it is answered."""
        deadline = time.monotonic() + STEP_S
        while (done := self.platform.run(*command, check=False)).returncode != 0:
            if time.monotonic() > deadline:
                raise AssertionError(f"{' '.join(command)}: {done.stderr or done.stdout}\n{self.served.tail()}")
            self.retries += 1
            time.sleep(0.2)
        return done.stdout

    def _type(self, step: Step) -> None:
        if step.again:
            self.retry(*step.command)
            return
        done = self.platform.run(*step.command, check=False)
        deadline = time.monotonic() + STEP_S
        while done.returncode != 0:
            assert time.monotonic() < deadline, f"{step.name}: {done.stderr}\n{self.served.tail()}"
            self.retries += 1
            time.sleep(0.2)
            if any(entry["reason"] == step.name for entry in self.entries()):
                return
            done = self.platform.run(*step.command, check=False)

    def _state(self) -> tuple[str, str]:
        status = self._ask(f"rollouts/{NAME}")
        return status["state"], status["to"]

    def _ask(self, path: str) -> Any:
        """What the API says, once there is one. What a user would type takes a second of processor time."""
        deadline = time.monotonic() + STEP_S
        while True:
            try:
                with Api(self.served) as api:
                    return api.ask("GET", path)
            except (OSError, HTTPException):
                assert time.monotonic() < deadline, self.served.tail()
                time.sleep(0.05)

    def _until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + STEP_S
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not done after {STEP_S:.0f} s\n{self.served.tail()}"
            time.sleep(0.05)

    def check_gone(self) -> None:
        """After the delete: no endpoint, and no replica."""
        self._until(lambda: not self.served.pids("runner"), "the replicas of a deleted endpoint")
        self._until(lambda: not self._ask("endpoints")["items"], "the deleted endpoint")


def crash_tree(kind: str, kills: dict[str, str], without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A history in which control dies in each step that `kills` names, at the point that it says; and what came of it.

    `without` are steps that are left out. `as_expected` is whether everything that was acknowledged is there, each
    thing once, and no request failed.
    """
    started = time.monotonic()
    with TemporaryDirectory() as name, open_store(kind) as url:
        tree = Tree(Path(name), url)
        points: dict[str, list[str]] = {}
        died: list[str] = []
        with tree.served:
            steps = tuple(step for step in tree.steps if step.name not in without)
            *earlier, last = steps
            first, rest = earlier[:2], earlier[2:]
            for step in first:
                _live(tree, step, kills, points, died)
            with OpenLoad(tree.served.port, NAME, tiny_rows(), RATE, connections=8) as load:
                for step in rest:
                    _live(tree, step, kills, points, died)
            _live(tree, last, kills, points, died)
            tree.check_gone()
            entries = tree.entries()
            verified = tree.platform.run("ledger", "verify", check=False).returncode == 0
        problems = judge(entries, {step.name for step in steps})
        problems += [] if verified else ["the ledger does not verify"]
        if set(load.statuses()) != {200}:
            problems.append(f"requests failed: {dict(load.statuses())}")
        return {
            "what": "tree",
            "store": kind,
            "as_expected": not problems,
            "killed": died,
            "not_reached": sorted(set(kills) - {one.partition(":")[0] for one in died}),
            "retries": tree.retries,
            "requests": len(load.outcomes),
            "problems": problems,
            "points": points,
            "seconds": round(time.monotonic() - started, 1),
        }


def choose_kills(points: dict[str, list[str]], run: int, runs: int) -> dict[str, str]:
    """For each step one of the points that it passed when nobody died: over all runs they spread over the step."""
    kills = {}
    for step, passed in points.items():
        if passed:
            at = (len(passed) * (2 * run + 1)) // (2 * runs)
            kills[step] = f"{passed[at]} {passed[: at + 1].count(passed[at])}"
    return kills


def judge(entries: Sequence[dict[str, Any]], steps: set[str]) -> list[str]:
    """What is not as these steps say."""
    kinds = Counter(entry["kind"] for entry in entries)
    third = "deploy 3" in steps
    wanted = {
        "model.push": 3 if third else 2,
        "rollout.started": 3 if third else 2,
        "rollout.promoted": 2,
        "rollout.undone": 1,
        "rollout.halted": int(third),
        "endpoint.delete": 1,
        "endpoint.purge": 1,
    }
    problems = [f"{kind}: {kinds[kind]}, expected {count}" for kind, count in wanted.items() if kinds[kind] != count]
    reasons = {entry["reason"] for entry in entries}
    told = steps & {"deploy 2", "undo", "deploy 3", "delete"}
    problems += [f"{name}: lost" for name in sorted(told - reasons)]
    if "key" in steps and not kinds["token.create"]:
        problems.append("the key is lost")
    for kind in ("rollout.started", "rollout.promoted", "rollout.halted", "rollout.undone"):
        twice = Counter(entry["detail"]["rollout"] for entry in entries if entry["kind"] == kind)
        problems += [f"{kind}: {count} times for {name}" for name, count in twice.items() if count > 1]
    leaders = [entry["detail"]["leader"] for entry in entries if "leader" in entry["detail"]]
    if leaders != sorted(leaders):
        problems.append("an older leader wrote after a newer one")
    return problems


def _live(tree: Tree, step: Step, kills: dict[str, str], points: dict[str, list[str]], died: list[str]) -> None:
    killed, points[step.name] = tree.live(step, kills.get(step.name, ""))
    if killed:
        died.append(f"{step.name}: {kills[step.name]}")
