"""Kills gateway, runner and control at random, again and again, while jobs and idempotent calls flow; then judges.

`python -m tests.e2e.crash_jobs --minutes 5 --jobs 10000`. The model writes down each execution and when it was, and no
two executions answer the same, so that whatever ran twice shows.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.e2e.served import Answer, Served

MODEL: Final = Path(__file__).parent / "job_models" / "tally"
INFER: Final = "/v2/models/tally/infer"
ROLES: Final = ("gateway", "runner", "control")
KILL_S: Final = (0.5, 4.0)
EVERY: Final = 12
CALLERS, SUBMITTERS, OBSERVERS = 4, 4, 2
SETTLE_S: Final = 180.0
PATIENCE_S: Final = 120.0
AGAIN: Final = frozenset((404, 409, 429, 502, 503, 504))  # 404: a gateway that has only just begun knows no model


class Client:
    """One caller with one connection, which asks until it is told an outcome."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None
        self.tries = 0
        self.server_errors = 0

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        ends_s = time.monotonic() + PATIENCE_S
        while True:
            self.tries += 1
            answer = self._try(method, path, body, headers or {})
            if answer is not None and answer.status not in AGAIN:
                return answer
            if answer is not None and answer.status >= 500:
                self.server_errors += 1
            if time.monotonic() > ends_s:
                raise TimeoutError(f"{method} {path}: no outcome in {PATIENCE_S} s; the last: {answer}")
            time.sleep(0.05)

    def _try(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer | None:
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        except (OSError, http.client.HTTPException):
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            return None


class History:
    """What the callers were told."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.acknowledged: dict[str, tuple[int, bytes]] = {}  # key -> when (ns), and the body
        self.jobs: dict[str, str] = {}  # id in the body -> id of the job
        self.finished: dict[str, tuple[str, float]] = {}  # job -> state and time, as first seen
        self.replays = 0
        self.problems: list[str] = []
        self.clients: list[Client] = []

    def problem(self, text: str) -> None:
        with self.lock:
            self.problems.append(text)


class Drill:
    """One platform under fire. Submitters and callers take `seconds` for `jobs`. With `victims`, these roles are killed
    in turn, each once there were `EVERY` outcomes since the last one; without, somebody is at random, all the time."""

    def __init__(
        self, served: Served, jobs: int, seconds: float, seed: int, victims: Sequence[str] | None = None
    ) -> None:
        self.served = served
        self.history = History()
        self.ending = threading.Event()
        self.kills: Counter[str] = Counter()
        self._jobs = jobs
        self._seconds = seconds
        self._victims = None if victims is None else list(victims)
        self._mark = 0
        self._random = random.Random(seed)

    def run(self) -> None:
        """The whole of it, until every job has ended."""
        per_submitter = self._jobs // SUBMITTERS
        pause_s = self._seconds / per_submitter
        with ThreadPoolExecutor(CALLERS + SUBMITTERS + OBSERVERS) as threads:
            submitting = [threads.submit(self._submit, number, per_submitter, pause_s) for number in range(SUBMITTERS)]
            others = [threads.submit(self._call, number, pause_s) for number in range(CALLERS)]
            others += [threads.submit(self._observe, number) for number in range(OBSERVERS)]
            try:
                while not all(one.done() for one in submitting):
                    self._kill()
            finally:
                self.ending.set()
            for one in submitting + others:
                one.result()
        self.served.wait_until_ready()
        self._settle()

    def _kill(self) -> None:
        if self._victims is None:
            time.sleep(self._random.uniform(*KILL_S))
            self._kill_one(self._random.choice(ROLES))
        elif self._victims and self._wait_for_more():
            self._kill_one(self._victims.pop(0))
        else:
            time.sleep(0.05)

    def _wait_for_more(self) -> bool:
        """Until there were `EVERY` outcomes since the last time; False where all jobs were submitted before."""
        while (told := len(self.history.jobs) + len(self.history.acknowledged)) < self._mark + EVERY:
            if len(self.history.jobs) == self._jobs:
                return False
            time.sleep(0.01)
        self._mark = told
        return True

    def _kill_one(self, role: str) -> None:
        pids = self.served.pids(role)
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._random.choice(pids), signal.SIGKILL)
            self.kills[role] += 1

    def _submit(self, number: int, count: int, pause_s: float) -> None:
        client = self._client()
        started_s = time.monotonic()
        for turn in range(count):
            name = f"job-{number}-{turn}"
            answer = client.ask("POST", INFER, body_of(name), {"prefer": "respond-async", "idempotency-key": name})
            if answer.status != 202:
                self.history.problem(f"{name}: {answer.status} {answer.body[:200]!r}")
                continue
            with self.history.lock:
                self.history.jobs[name] = answer.json()["id"]
            self._wait_for_turn(started_s, (turn + 1) * pause_s)

    def _call(self, number: int, pause_s: float) -> None:
        client, turn, started_s = self._client(), 0, time.monotonic()
        while not self.ending.is_set():
            name = f"call-{number}-{turn}"
            answer = client.ask("POST", INFER, body_of(name), {"idempotency-key": f'"{name}"'})
            told_ns = time.time_ns()
            if answer.status != 200:
                self.history.problem(f"{name}: {answer.status} {answer.body[:200]!r}")
            with self.history.lock:
                self.history.acknowledged[name] = (told_ns, answer.body)
            turn += 1
            self._ask_again(client)
            self._wait_for_turn(started_s, turn * pause_s)

    def _ask_again(self, client: Client) -> None:
        """An older call once more: the same answer, and no other execution."""
        with self.history.lock:
            name, (_, body) = self._random.choice(list(self.history.acknowledged.items()))
        answer = client.ask("POST", INFER, body_of(name), {"idempotency-key": name})
        self.history.replays += 1
        if (answer.body, answer.headers.get("idempotency-replayed")) != (body, "true"):
            self.history.problem(f"{name}: acknowledged with {body!r}, then with {answer.status} {answer.body!r}")

    def _observe(self, _number: int) -> None:
        """Looks at jobs as their owner does: one that has ended stays as it is."""
        client = self._client()
        while not self.ending.wait(0.02):
            with self.history.lock:
                names = list(self.history.jobs.values())
            if names:
                self._look(client, self._random.choice(names))

    def _look(self, client: Client, job: str) -> dict[str, Any]:
        # A job that is there answers 200; AGAIN has 404, so that one that is lost shows as a timeout.
        seen: dict[str, Any] = client.ask("GET", f"/v2/jobs/{job}").json()
        if seen["state"] in ("done", "failed", "dead", "cancelled"):
            end = (seen["state"], seen["finished_at"])
            with self.history.lock:
                first = self.history.finished.setdefault(job, end)
            if first != end:
                self.history.problem(f"job {job} ended twice: {first}, then {end}")
        return seen

    def _settle(self) -> None:
        """Until every job has ended."""
        ends_s = time.monotonic() + SETTLE_S
        open_jobs = set(self.history.jobs.values())
        clients = threading.local()

        def look(job: str) -> tuple[str, str]:
            if not hasattr(clients, "one"):
                clients.one = self._client()
            return job, self._look(clients.one, job)["state"]

        with ThreadPoolExecutor(4) as threads:
            while open_jobs:
                open_jobs = {job for job, state in threads.map(look, open_jobs) if state in ("queued", "running")}
                if time.monotonic() > ends_s:
                    self.history.problem(f"{len(open_jobs)} jobs have not ended {SETTLE_S} s after the last kill")
                    return

    def _client(self) -> Client:
        client = Client(self.served.port)
        with self.history.lock:
            self.history.clients.append(client)
        return client

    def _wait_for_turn(self, started_s: float, after_s: float) -> None:
        pause_s = started_s + after_s - time.monotonic()
        if pause_s > 0:
            time.sleep(pause_s)


def body_of(name: str) -> bytes:
    """A request with one row."""
    return json.dumps({"inputs": [{"name": "id", "shape": [1, 1], "datatype": "BYTES", "data": [name]}]}).encode()


def executions(tally: Path) -> dict[str, list[int]]:
    """When each id was computed, in ns since 1970."""
    found: dict[str, list[int]] = {}
    for line in tally.read_text().splitlines():
        name, _, at = line.partition(" ")
        found.setdefault(name, []).append(int(at))
    return found


def judge(drill: Drill, tally: Path) -> dict[str, Any]:
    """What happened, and what should not have."""
    history = drill.history
    ran = executions(tally)
    client = Client(drill.served.port)
    states: Counter[str] = Counter()
    problems = history.problems
    for name, job in history.jobs.items():
        seen = client.ask("GET", f"/v2/jobs/{job}").json()
        states[seen["state"]] += 1
        if seen["state"] == "done":
            said = client.ask("GET", f"/v2/jobs/{job}/result").json()["outputs"][0]["data"][0]
            if not said.startswith(f"{name} ") or name not in ran:
                problems.append(f"{name}: done, but with {said!r}, executed {len(ran.get(name, ()))} times")
        elif not (seen["state"] == "dead" and seen["reason"]):
            problems.append(f"{name}: ended as {seen['state']}: {seen['reason']!r}")
    after = [n for n, (told_ns, _) in history.acknowledged.items() if any(at > told_ns for at in ran.get(n, ()))]
    problems += [f"{name} ran again after it was acknowledged" for name in after]
    problems += [f"{name} was acknowledged but never ran" for name in history.acknowledged if name not in ran]
    return {
        "jobs": len(history.jobs),
        "states": dict(states),
        "calls": len(history.acknowledged),
        "replays": history.replays,
        "kills": dict(drill.kills),
        "executions": sum(map(len, ran.values())),
        "ran_more_than_once": sum(len(times) > 1 for times in ran.values()),
        "ran_after_acknowledged": len(after),
        "tries": sum(client.tries for client in history.clients),
        "server_errors": sum(client.server_errors for client in history.clients),
        "problems": problems[:20],
    }


@contextlib.contextmanager
def tally_platform(directory: Path, *arguments: str, program: str = "hyperion") -> Iterator[tuple[Served, Path]]:
    """A platform that serves the model, and where that writes. `arguments` are further paths and options."""
    tally, model = directory / "executions", directory / "tally"
    tally.touch()
    shutil.copytree(MODEL, model, dirs_exist_ok=True)
    (model / "hyperion.yaml").write_text(json.dumps({"name": "tally", "env": {"TALLY": str(tally)}}))
    # The model writes where models must not.
    env = {"HYPERION_SANDBOX": "off"}
    with Served(directory / "home", model, options=arguments, env=env, program=program) as served:
        yield served, tally


def run_drill(
    directory: Path, jobs: int, seconds: float, seed: int, *options: str, victims: Sequence[str] | None = None
) -> dict[str, Any]:
    """Everything, and the verdict. With `victims` leases are short, as who has died is waited for."""
    program = "hyperion" if victims is None else "tests.e2e.hasty_serve"
    with tally_platform(directory, *options, program=program) as (served, tally):
        drill = Drill(served, jobs, seconds, seed, victims)
        drill.run()
        return judge(drill, tally)


def main(argv: list[str], show: Callable[[str], object] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database-url", default="", help="PostgreSQL in place of SQLite")
    given = parser.parse_args(argv)
    options = ("--database-url", given.database_url) if given.database_url else ()
    with TemporaryDirectory() as name:
        seen = run_drill(Path(name), given.jobs, given.minutes * 60, given.seed, "--gateway-workers", "2", *options)
    show(json.dumps(seen, indent=1))
    return 1 if seen["problems"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
