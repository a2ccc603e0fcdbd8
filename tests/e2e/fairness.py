"""A quiet tenant beside a noisy one, and ten priorities at three times what a model can do, on a real platform.

`python -m tests.e2e.fairness --seconds 30`. The model computes 4 rows in 40 ms, so that its replica, not the gateway,
is what there is too little of: 100 rows per second. First the quiet tenant asks at a fifth of its share, alone and
beside a tenant that asks for 20 times its own, in turns (alone, beside, beside, alone …): its p99 may be 1.5 times what
it is alone, and every one of its requests has to be answered. Then requests of priorities 0 to 9 come three times as
fast as they can be computed: of the highest, 99.9 % have to be answered. Prints a JSON document; the exit code is 1 if
anything was not as it must be.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from tests.e2e.served import ROOT, Served

MODEL: Final = Path(__file__).parent / "fair_models" / "paced"
CAPACITY: Final = 100.0  # rows per second: 4 in 40 ms
SHARE: Final = CAPACITY / 2  # of each of two tenants of the same weight
QUIET: Final = 0.2 * SHARE
NOISY: Final = 20 * SHARE
RATIO: Final = 1.5
SERVED: Final = 0.999
BODY: Final = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}).encode()
LEAD_S: Final = 0.5  # for a loading process to be ready
TENANTS: Final = """\
kind: Tenant
metadata: {name: quiet}
spec: {}
---
kind: Tenant
metadata: {name: noisy}
spec: {}
"""


class Outcome(NamedTuple):
    """One request: what it was sent as, its latency from when it was due, and its HTTP status (0: none)."""

    label: str
    latency_s: float
    status: int


def send(
    port: int, kinds: Sequence[tuple[str, Mapping[str, str]]], rate: float, begin_s: float, seconds: float, seed: int
) -> list[Outcome]:
    """For a process of its own: requests of the kinds (label, headers), each drawn at random, at the times of a Poisson
    process from `begin_s` on, whatever becomes of those before."""
    draw = random.Random(seed)
    requests = [(label, _request(headers)) for label, headers in kinds]
    due_s, plan = begin_s, []
    while (due_s := due_s + draw.expovariate(rate)) < begin_s + seconds:
        plan.append((due_s, *draw.choice(requests)))
    return asyncio.run(_send(port, plan))


def _request(headers: Mapping[str, str]) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    head = f"POST /v2/models/paced/infer HTTP/1.1\r\nhost: x\r\n{''.join(lines)}content-length: {len(BODY)}\r\n\r\n"
    return head.encode() + BODY


async def _send(port: int, plan: Sequence[tuple[float, str, bytes]]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def ask(due_s: float, label: str, request: bytes) -> None:
        status = 0
        try:
            connection = idle.popleft() if idle else await asyncio.open_connection("127.0.0.1", port)
            reader, writer = connection
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            start = head.index(b"content-length: ") + 16
            await reader.readexactly(int(head[start : head.index(b"\r\n", start)]))
            status = int(head[9:12])
            idle.append(connection)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            status = 0
        outcomes.append(Outcome(label, time.monotonic() - due_s, status))

    async with asyncio.TaskGroup() as tasks:
        for due_s, label, request in plan:
            left_s = due_s - time.monotonic()
            if left_s > 0:
                await asyncio.sleep(left_s)
            tasks.create_task(ask(due_s, label, request))
    for _, writer in idle:
        writer.close()
    return outcomes


class Stage:
    """A platform that serves the model, with two tenants and their keys, and two processes that send requests."""

    def __init__(self, served: Served, senders: ProcessPoolExecutor) -> None:
        self._served = served
        self._senders = senders
        tenants = served.home.parent / "tenants.yaml"
        tenants.write_text(TENANTS)
        self._hyperion("apply", "-f", str(tenants))
        self._keys = {name: self._make_key(name) for name in ("quiet", "noisy")}
        self._seed = 0
        for name in self._keys:
            self._wait_until_known(name)

    def load(
        self, tenant: str, rate: float, begin_s: float, seconds: float, priorities: Sequence[int] = ()
    ) -> "Future[list[Outcome]]":
        """Requests of a tenant, to be had when they have been answered."""
        key = {"authorization": f"Bearer {self._keys[tenant]}"}
        kinds = [(str(n), {**key, "x-hyperion-priority": str(n)}) for n in priorities] or [(tenant, key)]
        self._seed += 1
        return self._senders.submit(send, self._served.port, kinds, rate, begin_s, seconds, self._seed)

    def shed(self) -> dict[str, float]:
        """`hyperion_shed_total` by reason."""
        lines = self._served.get("/metrics").body.decode().splitlines()
        found = [line for line in lines if line.startswith("hyperion_shed_total{")]
        return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in found}

    def _make_key(self, tenant: str) -> str:
        made = self._hyperion("key", "create", "--tenant", tenant, "--json")
        return str(json.loads(made)["key"])

    def _wait_until_known(self, tenant: str) -> None:
        ends = time.monotonic() + 30
        headers = {"authorization": f"Bearer {self._keys[tenant]}"}
        while self._served.post("/v2/models/paced/infer", BODY, headers).status != 200:
            assert time.monotonic() < ends, f"the key of {tenant} was never known"

    def _hyperion(self, *command: str) -> str:
        url = f"http://127.0.0.1:{self._served.admin_port}"
        done = subprocess.run(
            [sys.executable, "-m", "hyperion", *command, "--url", url, "--home", str(self._served.home)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def staged(directory: Path) -> Iterator[Stage]:
    """The platform, as long as it is needed."""
    with (
        Served(directory / "home", MODEL) as served,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as senders,
    ):
        yield Stage(served, senders)


def quantile(outcomes: Sequence[Outcome], share: float) -> float:
    """Milliseconds."""
    latencies = sorted(outcome.latency_s for outcome in outcomes)
    return round(1e3 * latencies[min(len(latencies) - 1, int(share * len(latencies)))], 1)


def compare_tenants(stage: Stage, seconds: float, rounds: int) -> dict[str, Any]:
    """The quiet tenant alone and beside the noisy one, `rounds` times so many seconds of each."""
    alone: list[Outcome] = []
    beside: list[Outcome] = []
    noise: list[Outcome] = []
    for number in range(2 * rounds):
        begin_s = time.monotonic() + LEAD_S
        if number % 4 in (0, 3):
            alone += stage.load("quiet", QUIET, begin_s, seconds).result()
            continue
        noisy = stage.load("noisy", NOISY, begin_s, seconds + 1)
        beside += stage.load("quiet", QUIET, begin_s + 1, seconds).result()  # once the noisy one's queue is there
        noise += noisy.result()
    statuses = Counter(outcome.status for outcome in noise)
    found: dict[str, Any] = {
        "seconds_of_each": seconds * rounds,
        "quiet_per_s": QUIET,
        "noisy_per_s": NOISY,
        "noisy_answered_per_s": round(statuses[200] / ((seconds + 1) * rounds), 1),
        "noisy_statuses": dict(statuses),
        "quiet_failed": sum(outcome.status != 200 for outcome in (*alone, *beside)),
        "quiet_requests": len(beside),
    }
    for share in (0.5, 0.9, 0.95, 0.99):
        name = f"p{share * 100:.0f}"
        one, two = quantile(alone, share), quantile(beside, share)
        found[name] = {"alone_ms": one, "beside_ms": two, "ratio": round(two / one, 3)}
    found["noisy_p50_ms"] = quantile([outcome for outcome in noise if outcome.status == 200], 0.5)
    return found


def overload(stage: Stage, seconds: float, times: float = 3.0) -> dict[str, Any]:
    """All priorities alike, together so many times what can be computed."""
    before = stage.shed()
    begin_s = time.monotonic() + LEAD_S
    loads = [stage.load("quiet", times * CAPACITY / 2, begin_s, seconds, range(10)) for _ in range(2)]
    by_priority: dict[str, list[Outcome]] = defaultdict(list)
    for load in loads:
        for outcome in load.result():
            by_priority[outcome.label].append(outcome)
    rows = {}
    for label, outcomes in sorted(by_priority.items()):
        answered = [outcome for outcome in outcomes if outcome.status == 200]
        rows[label] = {
            "requests": len(outcomes),
            "answered": round(len(answered) / len(outcomes), 4),
            "p99_ms": quantile(answered, 0.99) if answered else None,
        }
    shed = {reason: count - before.get(reason, 0.0) for reason, count in stage.shed().items()}
    total = sum(outcome.status == 200 for outcomes in by_priority.values() for outcome in outcomes)
    return {"times": times, "answered_per_s": round(total / seconds, 1), "priorities": rows, "shed": shed}


def run(seconds: float, rounds: int, directory: Path) -> dict[str, Any]:
    """Both parts. `wrong` in the answer says what was not as it must be."""
    with staged(directory) as stage:
        tenants = compare_tenants(stage, seconds, rounds)
        priorities = overload(stage, seconds)
    wrong = []
    if tenants["quiet_failed"]:
        wrong.append(f"{tenants['quiet_failed']} requests of the quiet tenant failed")
    if tenants["p99"]["ratio"] > RATIO:
        wrong.append(f"the quiet tenant's p99 moved by {tenants['p99']['ratio']}")
    highest = priorities["priorities"]["0"]["answered"]
    if highest < SERVED:
        wrong.append(f"of the highest priority {highest:.2%} were answered")
    return {"tenants": tenants, "overload": priorities, "wrong": wrong}


def main() -> int:
    """Runs it as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each part of a round")
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    with TemporaryDirectory() as directory:
        found = run(given.seconds, given.rounds, Path(directory))
    print(json.dumps(found, indent=1))
    return bool(found["wrong"])


if __name__ == "__main__":
    sys.exit(main())
