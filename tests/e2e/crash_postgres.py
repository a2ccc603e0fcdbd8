"""PostgreSQL is killed and brought back, again and again, while jobs and idempotent calls flow.

`python -m tests.e2e.crash_postgres --kills 5`: those who ask wait for it, so nobody sees a 5xx; nothing runs again
after it was acknowledged, and every job ends. Calls without a key do not notice.
"""

import argparse
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.e2e.crash_jobs import INFER, PATIENCE_S, SUBMITTERS, Client, Drill, body_of, judge, tally_platform
from tests.e2e.own_postgres import OwnPostgres, own_postgres
from tests.e2e.served import Served

DOWN_S: Final = 2.0
UP_S: Final = 3.0
LEAST_DOWN_S: Final = 0.5
SLOWEST_S: Final = 1.0  # of a call without a key, on a busy machine; DOWN_S if it waited for the store


class PostgresDrill(Drill):
    """As `Drill`, but it is the database that dies."""

    def __init__(self, served: Served, postgres: OwnPostgres, jobs: int, seconds: float) -> None:
        super().__init__(served, jobs, seconds, seed=1, victims=())
        self._postgres = postgres

    def _kill(self) -> None:
        time.sleep(UP_S)
        self._postgres.kill()
        self.kills["postgresql"] += 1
        time.sleep(DOWN_S)
        self._postgres.start()


class CountedDrill(PostgresDrill):
    """As many kills as are said, by what was done and not by the clock: down until calls without a key were answered
    that began when it was down, and down again once there were some outcomes since."""

    def __init__(self, served: Served, postgres: OwnPostgres, jobs: int, kills: int, bystander: "Bystander") -> None:
        super().__init__(served, postgres, jobs, seconds=0.1 * jobs / SUBMITTERS)
        self._left = kills
        self._bystander = bystander

    def _kill(self) -> None:
        if not self._left or not self._wait_for_more():
            time.sleep(0.05)
            return
        self._postgres.kill()
        self.kills["postgresql"] += 1
        self._left -= 1
        time.sleep(LEAST_DOWN_S)
        self._bystander.answer_more(5)
        self._postgres.start()


class Bystander(threading.Thread):
    """Calls without a key: which statuses, and how long the slowest took."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.statuses: Counter[int] = Counter()
        self.slowest_s = 0.0
        self.ending = threading.Event()
        self._client = Client(port)

    def run(self) -> None:
        while not self.ending.wait(0.02):
            began_s = time.monotonic()
            self.statuses[self._client.ask("POST", INFER, body_of("bystander")).status] += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)

    def answer_more(self, count: int) -> None:
        """Until so many calls were answered that had not begun before."""
        wanted, ends_s = self.statuses.total() + 1 + count, time.monotonic() + PATIENCE_S
        while self.statuses.total() < wanted:
            assert time.monotonic() < ends_s, f"calls without a key wait for the database: {self.statuses}"
            time.sleep(0.01)


def run_postgres_drill(directory: Path, jobs: int, kills: int, counted: bool = False) -> dict[str, Any]:
    """Everything, and the verdict. `counted` asks for order and counts alone, whatever the time."""
    with own_postgres() as postgres, tally_platform(directory, "--database-url", postgres.url) as (served, tally):
        bystander = Bystander(served.port)
        drill = (
            CountedDrill(served, postgres, jobs, kills, bystander)
            if counted
            else PostgresDrill(served, postgres, jobs, kills * (UP_S + DOWN_S))
        )
        bystander.start()
        try:
            drill.run()
        finally:
            bystander.ending.set()
            bystander.join()
        seen = judge(drill, tally)
    seen["bystander"] = {"statuses": dict(bystander.statuses), "slowest_s": round(bystander.slowest_s, 3)}
    if seen["server_errors"]:
        seen["problems"].append(f"{seen['server_errors']} answers were 5xx")
    if set(bystander.statuses) != {200} or (bystander.slowest_s > SLOWEST_S and not counted):
        seen["problems"].append(f"calls without a key noticed: {seen['bystander']}")
    return seen


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=500)
    given = parser.parse_args(argv)
    with TemporaryDirectory() as name:
        seen = run_postgres_drill(Path(name), given.jobs, given.kills)
    print(json.dumps(seen, indent=1))
    return 1 if seen["problems"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
