"""Releases under load, as the issue's acceptance has them: `python -m tests.e2e.releases all` or one by name.

`healthy` must be promoted with no failed request; `raises`, `slow` and `shifted` must be halted, with the old version
back at 100 %; `undo` takes the traffic back again and again. Each prints what it saw as one line of JSON and the whole
exits with 1 if anything was not as it must be. The suite runs the same functions with fewer requests.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import yaml

from tests.e2e.admin_client import Api
from tests.e2e.digit_models import write_versions
from tests.e2e.open_load import OpenLoad, Outcome
from tests.e2e.served import ROOT, Served

ENDPOINT: Final = "digits"
ENDED: Final = frozenset(("promoted", "halted", "aborted"))
EXPECTED: Final = {"equal": "promoted", "raises": "halted", "slow": "halted", "shifted": "halted"}
STEPS: Final = (1, 5, 25, 50, 100)


class Platform:
    """A served platform with an empty home, and the command line that drives it."""

    def __init__(self, directory: Path, options: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.served = Served(directory / "home", options=options)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One command, as a user types it."""
        command = [sys.executable, "-m", "hyperion", *arguments]
        home = {"HYPERION_HOME": str(self.served.home), "HYPERION_ADMIN_PORT": str(self.served.admin_port)}
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **home}, cwd=ROOT, timeout=120, check=False
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments)}: exit {done.returncode}: {done.stderr or done.stdout}")
        return done

    def json(self, *arguments: str) -> Any:
        """One command's answer."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def push(self, folder: Path, version: str) -> None:
        """Register a version."""
        self.run("model", "push", ENDPOINT, str(folder), "--version", version)

    def apply(self, spec: dict[str, Any]) -> None:
        """Apply the endpoint's resource."""
        path = self.directory / "endpoint.yaml"
        resource = {"apiVersion": "hyperion/v1", "kind": "Endpoint", "metadata": {"name": ENDPOINT}, "spec": spec}
        path.write_text(yaml.safe_dump(resource))
        self.run("apply", "-f", str(path), "--yes")

    def status(self) -> Any:
        """How far the rollout is."""
        return self.json("rollout", "status", ENDPOINT)

    def wait_for(self, states: frozenset[str], timeout_s: float) -> Any:
        """The status once the rollout is in one of these states."""
        deadline = time.monotonic() + timeout_s
        while True:
            status = self.status()
            if status["state"] in states:
                return status
            if time.monotonic() > deadline:
                raise TimeoutError(f"still {status['state']} after {timeout_s:.0f} s: {json.dumps(status)[:2000]}")
            time.sleep(0.2)


def rollout(hold_s: float, shadow: bool) -> dict[str, Any]:
    """The policy of the runs: shadow, then 1, 5, 25, 50 and 100 per cent."""
    policy: dict[str, Any] = {
        "strategy": "canary",
        "steps": [{"percent": percent, "hold_s": hold_s, "min_requests": 20} for percent in STEPS],
        "halt": {"errors": {"ratio": 1.2}, "slow": {"ratio": 1.2, "quantile": 0.95}, "drift": {"distance": 0.1}},
    }
    if shadow:
        policy["shadow"] = {"percent": 100, "min_pairs": 500, "max_disagreement": 0.02}
    return policy


def release(directory: Path, version: str, rate: float, hold_s: float, shadow: bool) -> dict[str, Any]:
    """Release `version` beside v1 under an open load, and say what it came to."""
    rows = write_versions(directory / "models")
    platform = Platform(directory)
    with platform.served as served:
        platform.push(directory / "models" / "v1", "1")
        spec = {"model": f"{ENDPOINT}@1", "rollout": rollout(hold_s, shadow), "batching": {"max_size": 16}}
        platform.apply(spec)
        platform.wait_for(frozenset(("promoted",)), 60)
        platform.push(directory / "models" / version, "2")
        with OpenLoad(served.port, ENDPOINT, rows, rate) as load:
            time.sleep(3.0)
            begun = time.monotonic()
            platform.run("deploy", ENDPOINT, f"{ENDPOINT}@2")
            status = platform.wait_for(ENDED, 600)
            time.sleep(2.0)
        entries = platform.json("ledger", "show", "--last", "100")
        verified = platform.run("ledger", "verify", check=False).returncode == 0
        return report(version, status, load.outcomes, begun, verified, entries)


def report(
    version: str, status: Any, outcomes: list[Outcome], begun: float, verified: bool, entries: Any
) -> dict[str, Any]:
    """What callers saw, and whether it is as it must be."""
    failed = [one for one in outcomes if one.status != 200]
    before = sorted(one.latency_s for one in outcomes if one.due_s < begun)
    slow_s = before[int(len(before) * 0.99)] if before else 0.0
    canary = [one for one in outcomes if one.version == "2"]
    bad = sorted({one.due_s for one in failed} | {one.due_s for one in canary if one.latency_s > slow_s})
    bad = bad if version != "shifted" else sorted(one.due_s for one in canary)
    wanted = EXPECTED[version]
    last = outcomes[-200:]
    home = "2" if wanted == "promoted" else "1"
    fine = status["state"] == wanted and verified and all(one.version == home for one in last if one.status == 200)
    fine = fine and (not failed if wanted == "promoted" else len(failed) < 0.01 * len(outcomes))
    return {
        "version": version,
        "as_expected": fine,
        "state": status["state"],
        "reason": status["reason"],
        "seconds": round(time.monotonic() - begun, 1),
        "requests": len(outcomes),
        "answered_by_canary": len(canary),
        "failed": len(failed),
        "slower_than_p99_before": sum(one.latency_s > slow_s for one in canary),
        "first_bad_to_rollback_s": round(max(one.due_s for one in canary) - bad[0], 2) if bad and canary else None,
        "ledger_verifies": verified,
        "ledger_kinds": [entry["kind"] for entry in entries],
        "evidence": status["evidence"],
    }


def undo_again_and_again(directory: Path, count: int, rate: float) -> dict[str, Any]:
    """v2 is promoted, then `undo` takes the traffic back and forth: from the command to all answers by the other."""
    drill = Drill(directory, {"strategy": "all-at-once", "standby_s": 3600})
    with drill.platform.served as served, Api(served) as api:
        drill.begin()
        api.deploy(ENDPOINT, f"{ENDPOINT}@2")
        api.wait_end(ENDPOINT, "2")
        with OpenLoad(served.port, ENDPOINT, drill.rows, rate) as load:
            time.sleep(1.0)
            for number in range(count):
                drill.command(api, load, "undo", leaving="1" if number % 2 else "2")
    return drill.report(load)


def abort_again_and_again(directory: Path, count: int, rate: float) -> dict[str, Any]:
    """v2 gets half of the traffic, then `abort` takes it away: to the last answer by v2. And again, `count` times."""
    drill = Drill(directory, {"strategy": "canary", "steps": [{"percent": 50, "hold_s": 600}]})
    with drill.platform.served as served, Api(served) as api:
        drill.begin()
        with OpenLoad(served.port, ENDPOINT, drill.rows, rate) as load:
            for _ in range(count):
                begun = time.monotonic()
                api.deploy(ENDPOINT, f"{ENDPOINT}@2")
                while not any(one.version == "2" and one.due_s > begun for one in load.outcomes[-40:]):
                    assert time.monotonic() - begun < 30, "version 2 never answered"
                    time.sleep(0.01)
                drill.command(api, load, "abort", leaving="2")
    return drill.report(load)


class Drill:
    """The same command again and again under load, and how long the version that it takes away goes on answering."""

    def __init__(self, directory: Path, policy: dict[str, Any]) -> None:
        self.platform = Platform(directory)
        self.rows = write_versions(directory / "models")
        self._models = directory / "models"
        self._policy = policy
        self._took: list[float] = []

    def begin(self) -> None:
        """Register v1 and its equal, and serve v1."""
        for number, name in enumerate(("v1", "equal"), 1):
            self.platform.push(self._models / name, str(number))
        self.platform.apply({"model": f"{ENDPOINT}@1", "rollout": self._policy})
        self.platform.wait_for(frozenset(("promoted",)), 60)

    def command(self, api: Api, load: OpenLoad, verb: str, leaving: str) -> None:
        """Give the command once, and note when the last request was due that `leaving` answered after it."""
        started = time.monotonic()
        api.ask("POST", f"rollouts/{ENDPOINT}/{verb}", {"reason": "drill"})
        time.sleep(0.15)
        late = [one.due_s for one in load.outcomes[-500:] if one.version == leaving and one.due_s > started]
        self._took.append(max(late, default=started) - started)

    def report(self, load: OpenLoad) -> dict[str, Any]:
        """What callers saw, and whether it is as it must be."""
        failed = [one for one in load.outcomes if one.status != 200]
        ordered = sorted(self._took)
        p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        return {
            "commands": len(ordered),
            "as_expected": not failed and p99 <= 0.2,
            "failed": len(failed),
            "requests": len(load.outcomes),
            "to_last_answer_ms": {
                "p50": round(statistics.median(ordered) * 1000, 1),
                "p99": round(p99 * 1000, 1),
                "max": round(ordered[-1] * 1000, 1),
            },
        }


def main() -> int:
    """Run what is named, each in a home of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("all", "undo", "abort", *EXPECTED))
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--hold-s", type=float, default=10.0)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    names = (*EXPECTED, "undo", "abort") if options.what == "all" else (options.what,)
    fine = True
    for name in names:
        with tempfile.TemporaryDirectory() as directory:
            if name == "undo":
                seen = undo_again_and_again(Path(directory), options.count, min(options.rate, 200.0))
            elif name == "abort":
                seen = abort_again_and_again(Path(directory), options.count, min(options.rate, 200.0))
            else:
                seen = release(Path(directory), name, options.rate, options.hold_s, name == "equal")
        fine &= bool(seen["as_expected"])
        print(json.dumps(seen), flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
