"""One leader at a time: whoever is not it any more can write nothing, and a new one is there soon."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperion.schema.errors import Fenced, ModelRefused
from hyperion.store import ledger
from hyperion.store.database import Database
from hyperion.store.leadership import Leadership
from tests.store import leading
from tests.store.places import Place

KILLS = 5
TAKEOVER_S = 5.0


class Frozen:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def write(database: Database, fence: int) -> int:
    with database.write(fence=fence) as tx:
        return ledger.append(tx, "test.led", "control", actor="ann", detail={"fence": fence})


def wait_for(condition: Callable[[], object], timeout_s: float = 30.0) -> float:
    """Seconds until the condition held."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, "it did not happen"
        time.sleep(0.01)
    return time.monotonic() - start


def test_one_leads_and_the_next_only_when_it_resigned(place: Place) -> None:
    first, second = place.open(), place.open()
    one, two = Leadership(first, "control"), Leadership(second, "control")
    fence = one.try_lead()
    assert fence is not None
    assert two.try_lead() is None
    assert (one.renew(), two.renew()) == (True, False)
    assert one.try_lead() == one.generation == fence
    write(first, fence)
    one.resign()
    assert (one.renew(), one.generation) == (False, None)
    with pytest.raises(Fenced):
        write(first, fence)
    newer = two.try_lead()
    assert newer is not None
    assert newer > fence
    assert one.try_lead() is None
    write(second, newer)
    two.resign()


def test_a_leader_that_does_not_renew_is_followed_and_fenced(place: Place) -> None:
    """It hangs, and holds its lock; the clock of SQLite is the test's, the one of PostgreSQL the server's."""
    clock = Frozen()
    first, second = place.open(clock), place.open(clock)
    lease_s = 0.3 if place.url else 3.0
    one, two = Leadership(first, "control", lease_s), Leadership(second, "control", lease_s)
    fence = one.try_lead()
    assert fence is not None
    assert two.try_lead() is None
    clock.now += 3.1
    wait_for(two.try_lead)
    newer = two.generation
    assert newer is not None
    assert newer > fence
    with pytest.raises(Fenced):
        write(first, fence)
    assert not one.renew()
    assert one.try_lead() is None
    assert two.renew()
    write(second, newer)
    two.resign()


def test_a_leader_that_renews_stays(place: Place) -> None:
    clock = Frozen()
    one, two = (Leadership(place.open(clock), "control", 3.0) for _ in range(2))
    fence = one.try_lead()
    for _ in range(5):
        clock.now += 2.0
        assert one.renew()
        assert two.try_lead() is None
    assert one.generation == fence
    one.resign()


def test_leaderships_of_other_names_do_not_meet(place: Place) -> None:
    database = place.open()
    one, two = Leadership(database, "control"), Leadership(database, "monitor")
    fences = one.try_lead(), two.try_lead()
    assert None not in fences
    assert fences[0] != fences[1]
    for fence in fences:
        write(database, fence)  # type: ignore[arg-type]
    one.resign()
    assert two.renew()
    two.resign()
    with pytest.raises(ModelRefused):
        Leadership(database, "../control")


def test_a_leader_whose_connection_broke_is_leader_no_more_or_again(place: Place) -> None:
    if not place.url:
        return  # a file lock has no connection
    one, two = Leadership(place.open(), "control"), Leadership(place.open(), "control")
    assert one.try_lead()
    place.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
        # only of this test: others have locks in this database, too
        " AND objid = (hashtext(current_schema() || '/control')::bigint & 4294967295)::oid"
    )
    wait_for(lambda: one.renew() != bool(two.try_lead()))
    assert not (one.renew() and two.renew())
    one.resign()
    two.resign()


def kill_leaders(home: Path, url: str, database: Database, count: int) -> list[float]:
    """Kills the leader of two processes `count` times, with a new process for each. Returns seconds without a leader
    that writes: from the kill to the first entry of the next one, which must come soon enough for `wait_for`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.store.leading"])

    def start() -> multiprocessing.process.BaseProcess:
        process = context.Process(target=leading.run, args=(home, url), daemon=True)
        process.start()
        return process

    def last_writer() -> str:
        newest = ledger.entries(database, newest=True, limit=1)
        return newest[0].actor if newest else ""

    def busy(leader: str) -> bool:
        newest = ledger.entries(database, newest=True, limit=5)
        return [entry.actor for entry in newest] == [leader] * 5

    running = {str(process.pid): process for process in (start(), start())}
    takeovers = []
    try:
        wait_for(last_writer)
        for _ in range(count):
            leader = last_writer()
            wait_for(lambda leader=leader: busy(leader))  # type: ignore[misc]
            os.kill(int(leader), signal.SIGKILL)
            takeovers.append(wait_for(lambda leader=leader: last_writer() != leader))  # type: ignore[misc]
            running.pop(leader).join(30)
            process = start()
            running[str(process.pid)] = process
    finally:
        for process in running.values():
            process.kill()
            process.join(30)
    return takeovers


@pytest.mark.chaos
def test_leaders_are_killed_again_and_again_and_never_two_of_them_write(place: Place) -> None:
    database = place.open(time.time)
    takeovers = kill_leaders(place.home, place.url, database, KILLS)
    assert len(takeovers) == KILLS
    assert sorted(takeovers)[KILLS // 2] < TAKEOVER_S, takeovers  # not the longest: the machine may stop for a while
    leaders: list[tuple[int, str]] = []
    after = -1
    while page := ledger.entries(database, after=after, limit=1000):
        leaders += [(entry.detail["fence"], entry.actor) for entry in page]
        after = page[-1].seq
    # Who writes never comes back after another one wrote: the fences only grow, and each belongs to one process.
    assert leaders == sorted(leaders, key=lambda leader: leader[0])
    assert len({fence for fence, _ in leaders}) == len(set(leaders)) >= KILLS + 1
    with database.read() as tx:
        assert ledger.verify(tx).ok
