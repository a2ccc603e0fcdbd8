"""kill -9 at every point of every write: what was acknowledged is there, nothing is there by half, and it goes on."""

import multiprocessing
import os
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from hyperion.store import ledger
from hyperion.store.database import Database
from hyperion.store.leadership import Leadership
from tests.store import crash_scenario
from tests.store.crash_scenario import STEPS, is_done
from tests.store.places import Place


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Children that have imported everything already: there will be many."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.store.crash_scenario"])
    return context


def run_child(processes: ForkServerContext, home: Path, url: str, name: str, kill_at: int) -> tuple[int, list[Any]]:
    """Exit code and everything that the child told before it died."""
    here, there = processes.Pipe(duplex=False)
    child = processes.Process(target=crash_scenario.run, args=(home, url, name, kill_at, there))
    child.start()
    there.close()
    told = []
    try:
        while True:
            told.append(here.recv())
    except EOFError:
        child.join(30)
    return child.exitcode or 0, told


def test_a_writer_killed_at_any_point_loses_nothing_and_leaves_nothing_half(
    place: Place, processes: ForkServerContext
) -> None:
    database = place.open()
    code, told = run_child(processes, place.home, place.url, "whole", -1)
    assert (code, told[1:-1]) == (0, list(range(len(STEPS))))
    points = told[-1]
    assert len(points) > 40
    generation = told[0]
    for kill_at in choose(points):
        name = f"killed-{kill_at}"
        code, told = run_child(processes, place.home, place.url, name, kill_at)
        assert code == -9, points[kill_at]
        check(database, name, told[1:], points[kill_at])
        if told:
            assert told[0] > generation
            generation = told[0]
        finish(database, name, generation)
        if kill_at % 8 == 0:  # not each time, as what is wrong stays wrong and takes longer and longer to look through
            with database.read() as tx:
                assert ledger.verify(tx).ok
    with database.read() as tx:
        assert ledger.verify(tx).ok


def choose(points: list[str]) -> list[int]:
    """Each kind of point once, and every sixteenth of all; all, which takes a minute, where that is asked for."""
    if os.environ.get("TEST_ALL_POINTS"):
        return list(range(len(points)))
    return sorted({points.index(name) for name in points} | set(range(0, len(points), 16)))


def check(database: Database, name: str, acknowledged: list[int], point: str) -> None:
    with database.read() as tx:
        done = is_done(tx, name)
    count = sum(done)
    assert done == [True] * count + [False] * (len(STEPS) - count), "the steps hold in their order"
    assert count >= len(acknowledged), f"killed at {point}: an acknowledged write is lost"
    assert count <= len(acknowledged) + (point == "committed"), f"killed at {point}: it holds without a commit"


def finish(database: Database, name: str, generation: int) -> None:
    """Whoever comes next leads at once, does all of it again, and each thing is there once."""
    leadership = Leadership(database, "control")
    fence = leadership.try_lead()
    assert fence is not None
    assert fence > generation
    for step in STEPS:
        with database.write(fence=fence) as tx:
            step(tx, name)
    leadership.resign()
    with database.read() as tx:
        assert all(is_done(tx, name))
