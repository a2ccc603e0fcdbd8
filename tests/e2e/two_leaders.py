"""Two `hyperion serve` with homes of their own on one PostgreSQL: the leading control is killed again and again.

`python -m tests.e2e.two_leaders --kills 50 --stops 5`: each time somebody asks for an undo at the other one, which then
has to take the lead and obey. Measured is the time from the kill (or from SIGSTOP: then the lease has to run out) to
the first write of the new leader, and to its first decision. That nobody but the leader acts is read from the ledger,
whose order is that of the database. The exit code is 1 if anything was not as it must be.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import sqlalchemy

from tests.e2e.admin_client import Api, Refused
from tests.e2e.open_load import OpenLoad
from tests.e2e.served import Served
from tests.e2e.tiny_models import tiny_rows, write_tiny
from tests.store.places import open_store

NAME: Final = "tiny"
TAKEOVER_S: Final = 5.0
WAIT_S: Final = 60.0
RATE: Final = 20.0


class Ledger:
    """What leaders wrote, read from the database itself."""

    def __init__(self, url: str) -> None:
        self._engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")

    def close(self) -> None:
        self._engine.dispose()

    def entries(self, after: int = -1) -> list[tuple[int, str, dict[str, Any]]]:
        """Number, kind and detail of each entry, in the order in which they were written."""
        query = "SELECT seq, kind, detail FROM ledger_entry WHERE seq > :after ORDER BY seq"
        with self._engine.connect() as connection:
            rows = connection.execute(sqlalchemy.text(query), {"after": after}).all()
        return [(int(row.seq), str(row.kind), json.loads(row.detail)) for row in rows]

    def leader(self) -> tuple[int, int]:
        """Generation and process of who leads, or led last."""
        query = "SELECT detail FROM ledger_entry WHERE kind = 'control.led' ORDER BY seq DESC LIMIT 1"
        with self._engine.connect() as connection:
            found = connection.execute(sqlalchemy.text(query)).scalar()
        detail = json.loads(found) if found else {"leader": 0, "process": 0}
        return int(detail["leader"]), int(detail["process"])

    def decided(self, generation: int) -> bool:
        """Whether a leader of this generation or a later one has decided anything."""
        return any(
            kind.startswith("rollout.") and detail.get("leader", 0) >= generation for _, kind, detail in self.entries()
        )


class Pair:
    """Both platforms."""

    def __init__(self, directory: Path, url: str) -> None:
        shared = ("--database-url", url, "--blobs-url", f"{directory}/blobs", "--ledger-key", f"{directory}/ledger.key")
        self.homes = tuple(Served(directory / f"home{number}", options=shared) for number in range(2))
        self.ledger = Ledger(url)
        self.directory = directory

    def of(self, pid: int) -> int:
        """Which of them has this process."""
        return next(number for number, served in enumerate(self.homes) if pid in served.pids("control"))

    def release(self) -> None:
        """Two versions, the second one live and the first one warm, at both."""
        with Api(self.homes[0]) as first, Api(self.homes[1]) as second:
            for version, kind in (("1", "v1"), ("2", "equal")):
                first.push(NAME, version, write_tiny(self.directory / "models", kind))
            first.apply(NAME, f"{NAME}@1", rollout={"strategy": "all-at-once", "standby_s": 3600})
            first.wait_end(NAME, "1")
            second.deploy(NAME, f"{NAME}@2")  # at whichever does not lead, too
            second.wait_end(NAME, "2")
        for served in self.homes:
            wait_for(lambda served=served: served.get(f"/v2/models/{NAME}/ready").status == 200, served)

    def undo(self, number: int) -> None:
        """Ask for an undo at this one, until it is acknowledged."""
        with Api(self.homes[number]) as api:
            api.command(NAME, "undo")

    def both(self) -> bool:
        """Whether the controls of both answer."""
        try:
            for served in self.homes:
                with Api(served) as api:
                    api.status(NAME)
        except (OSError, Refused, HTTPException):
            return False
        return True


def wait_for(condition: Callable[[], object], *served: Served, timeout_s: float = WAIT_S) -> float:
    """Seconds until the condition held."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout_s:
            raise TimeoutError("\n".join(one.tail(30) for one in served) or "it did not happen")
        time.sleep(0.01)
    return time.monotonic() - started


@contextmanager
def start_pair() -> Iterator[Pair]:
    """Both, ready; nothing is left of them or of their schema."""
    with TemporaryDirectory() as name, open_store("postgresql") as url, ExitStack() as stack:
        pair = Pair(Path(name), url)
        stack.callback(pair.ledger.close)
        with ThreadPoolExecutor() as threads:
            for served in threads.map(lambda one: one.__enter__(), pair.homes):
                stack.push(served.__exit__)
        yield pair


def kill_leaders(kills: int, stops: int, takeover_s: float = TAKEOVER_S) -> dict[str, Any]:
    """Kill the leader so often, then stop it so often, and say what happened. A takeover may take `takeover_s`."""
    with start_pair() as pair:
        pair.release()
        led: list[float] = []
        decided: list[float] = []
        stopped: list[float] = []
        with ExitStack() as stack:
            loads = [
                stack.enter_context(OpenLoad(served.port, NAME, tiny_rows(), RATE, connections=8))
                for served in pair.homes
            ]
            for turn in range(kills + stops):
                wait_for(pair.both, *pair.homes)
                if turn < kills:
                    took = depose(pair, signal.SIGKILL)
                    led.append(took[0])
                    decided.append(took[1])
                else:
                    stopped.append(depose(pair, signal.SIGSTOP)[0])
        with Api(pair.homes[pair.of(pair.ledger.leader()[1])]) as api:
            verified = api.ask("POST", "ledger/verify", {})["ok"]
        entries = pair.ledger.entries()
        problems = judge(entries) + ([] if verified else ["the ledger does not verify"])
        for load in loads:
            if set(load.statuses()) != {200}:
                problems.append(f"requests failed: {dict(load.statuses())}")
        if max((*led, *stopped), default=0.0) >= takeover_s:
            problems.append(f"a takeover took longer than {takeover_s} s")
        return {
            "as_expected": not problems,
            "kills": len(led),
            "takeover_s": spread(led),
            "first_decision_s": spread(decided),
            "stops": len(stopped),
            "takeover_from_stopped_s": spread(stopped),
            "leaders": sum(kind == "control.led" for _, kind, _ in entries),
            "fenced_entries": sum("leader" in detail for _, _, detail in entries),
            "requests": sum(len(load.outcomes) for load in loads),
            "problems": problems,
        }


def depose(pair: Pair, number: int) -> tuple[float, float]:
    """Send the leader this signal, ask the other for an undo, and measure how long it takes to lead and to obey."""
    generation, leader = pair.ledger.leader()
    here = pair.of(leader)
    os.kill(leader, number)
    started = time.monotonic()
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(pair.undo, 1 - here)
        wait_for(lambda: pair.ledger.leader()[0] > generation, *pair.homes)
        led_s = time.monotonic() - started
        wait_for(lambda: pair.ledger.decided(generation + 1), *pair.homes)
        decided_s = time.monotonic() - started
        asked.result()
    if number == signal.SIGSTOP:
        os.kill(leader, signal.SIGCONT)  # it wakes up, and believes that it leads
    return led_s, decided_s


def judge(entries: Sequence[tuple[int, str, dict[str, Any]]]) -> list[str]:
    """Whoever wrote as a leader was the newest then, and every command was obeyed once."""
    problems, newest = [], 0
    for seq, kind, detail in entries:
        leader = int(detail.get("leader", newest))
        if leader < newest:
            problems.append(f"entry {seq} ({kind}) is by leader {leader}, and {newest} led already")
        if leader > newest and kind != "control.led":
            problems.append(f"entry {seq} ({kind}) is by leader {leader}, who did not lead yet")
        if leader == newest and kind == "control.led":
            problems.append(f"entry {seq}: {leader} leads twice")
        newest = max(newest, leader)
    kinds = Counter(kind for _, kind, _ in entries)
    if kinds["rollout.command"] != kinds["rollout.undone"]:
        problems.append(f"{kinds['rollout.command']} undos were asked for, {kinds['rollout.undone']} were done")
    started = Counter(detail["rollout"] for _, kind, detail in entries if kind == "rollout.started")
    return problems + [f"rollout {name} began {count} times" for name, count in started.items() if count > 1]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and largest."""
    ordered = sorted(values)
    return {"p50": round(ordered[len(ordered) // 2], 2), "max": round(ordered[-1], 2)} if ordered else {}


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stops", type=int, default=5)
    options = parser.parse_args()
    seen = kill_leaders(options.kills, options.stops)
    print(json.dumps(seen), flush=True)
    return 0 if seen["as_expected"] else 1


if __name__ == "__main__":
    sys.exit(main())
