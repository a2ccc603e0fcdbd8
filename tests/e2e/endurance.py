"""The long runs that the suite has no time for: `python -m tests.e2e.endurance kills --seconds 60`, `swaps --count
2000`.

Each prints what it saw as one line of JSON and exits with 1 if a request failed.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.e2e.load import load
from tests.e2e.served import Served

FRAGILE = Path(__file__).parent / "chaos_models" / "fragile"
WARM_UP_ANSWERS = 200


def resident_mib(pids: list[int]) -> float:
    """What these processes hold in memory, together."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def lasting_pids(served: Served) -> list[int]:
    """Supervisor, control and gateways: what must not grow, whatever happens to runners."""
    return [pid for role in ("supervisor", "control", "gateway") for pid in served.pids(role)]


def kill_runners(home: Path, seconds: float) -> dict[str, Any]:
    """SIGKILL of a random runner every second, two replicas, under load."""
    choose = random.Random(7)
    kills = 0
    with Served(home, FRAGILE, options=("--replicas", "2")) as served, load(served.port, "fragile", 16) as running:
        running.wait_for(WARM_UP_ANSWERS)
        before_mib = resident_mib(lasting_pids(served))
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            time.sleep(1.0)
            runners = served.pids("runner")
            if runners:
                os.kill(choose.choice(runners), signal.SIGKILL)
                kills += 1
        running.wait_for(running.tally.answered + WARM_UP_ANSWERS)
        after_mib = resident_mib(lasting_pids(served))
    return report(running.tally, kills=kills, before_mib=before_mib, after_mib=after_mib)


def swap_versions(home: Path, count: int) -> dict[str, Any]:
    """The same model loaded again, `count` times, under load."""
    with Served(home, FRAGILE) as served, load(served.port, "fragile", 4, pause_s=0.005) as running:
        running.wait_for(WARM_UP_ANSWERS)
        samples = []
        started = time.monotonic()
        for number in range(count):
            answer = served.post("/v2/repository/models/fragile/load", {})
            if answer.status != 200:
                return report(running.tally, swaps=number, refused=answer.body.decode(errors="replace"))
            if number % max(1, count // 20) == 0:
                samples.append(round(resident_mib(lasting_pids(served)), 1))
                print(
                    f"{number} swaps, {running.tally.answered} answers, {samples[-1]} MiB", file=sys.stderr, flush=True
                )
        took_s = time.monotonic() - started
        samples.append(round(resident_mib(lasting_pids(served)), 1))
    return report(running.tally, swaps=count, seconds_per_swap=round(took_s / count, 3), memory_mib=samples)


def report(tally: Any, **figures: Any) -> dict[str, Any]:
    """The figures, with what came of the requests."""
    return {
        "answered": tally.answered,
        "failed": tally.failed,
        "first_failure": tally.first_failure,
        **{
            name: round(value, 1) if isinstance(value, float) and value > 10 else value
            for name, value in figures.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("kills").add_argument("--seconds", type=float, default=60.0)
    commands.add_parser("swaps").add_argument("--count", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        if arguments.command == "kills":
            figures = kill_runners(home, arguments.seconds)
        else:
            figures = swap_versions(home, arguments.count)
    print(json.dumps(figures))
    return 1 if figures["failed"] or "refused" in figures else 0


if __name__ == "__main__":
    sys.exit(main())
