"""What must not hurt anyone else: killed processes, poison, hangs, leaks, noise, and versions swapped under load."""

import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.chaos_models.fragile.model import CHATTER, DIE, HANG, LEAK, RAISE
from tests.e2e.load import load
from tests.e2e.served import Answer, Served

pytestmark = pytest.mark.chaos

FRAGILE = Path(__file__).parent / "chaos_models" / "fragile"
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A platform with one replica, for tests whose harm is over with them."""
    with Served(tmp_path_factory.mktemp("alone") / "home", FRAGILE) as served:
        yield served


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One with two replicas."""
    with Served(tmp_path_factory.mktemp("pair") / "home", FRAGILE, options=("--replicas", "2")) as served:
        yield served


def ask(served: Served, first: float, headers: dict[str, str] | None = None) -> Answer:
    row = [first, 1.0, 2.0, 3.0]
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row}]}
    return served.post("/v2/models/fragile/infer", body, headers)


def wait_for_other_pids(served: Served, role: str, count: int, gone: set[int]) -> set[int]:
    """The pids of a role once `count` of them live and none is of those that are gone."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        pids = set(served.pids(role))
        if len(pids) == count and not pids & gone:
            return pids
        time.sleep(0.02)
    raise TimeoutError(f"no {count} new processes of role {role}: {served.tail()}")


def test_killed_runners_cost_no_request(pair: Served) -> None:
    """SIGKILL of a random runner, four times, with two replicas: every request is answered, and rightly."""
    choose = random.Random(1)
    with load(pair.port, "fragile") as running:
        running.wait_for(50)
        gone: set[int] = set()
        for _ in range(4):
            pids = pair.pids("runner")
            victim = choose.choice(pids)
            os.kill(victim, signal.SIGKILL)
            gone.add(victim)
            running.wait_for(running.tally.answered + 100)
            wait_for_other_pids(pair, "runner", 2, gone)
    assert running.tally.failed == 0, running.tally


def test_with_both_runners_killed_requests_wait_for_the_restart(pair: Served) -> None:
    with load(pair.port, "fragile") as running:
        running.wait_for(50)
        for pid in pair.pids("runner"):
            os.kill(pid, signal.SIGKILL)
        running.wait_for(running.tally.answered + 100)
    assert running.tally.failed == 0, running.tally


def test_a_killed_control_does_not_touch_serving_and_comes_back(alone: Served) -> None:
    runners = alone.pids("runner")
    with load(alone.port, "fragile") as running:
        running.wait_for(50)
        (control,) = alone.pids("control")
        os.kill(control, signal.SIGKILL)
        wait_for_other_pids(alone, "control", 1, {control})
        running.wait_for(running.tally.answered + 200)
        assert alone.pids("runner") == runners, "control's restart must adopt what runs, not start it again"
        reloaded = alone.post("/v2/repository/models/fragile/load", {})
        assert reloaded.status == 200, reloaded
        running.wait_for(running.tally.answered + 50)
    assert running.tally.failed == 0, running.tally


def test_a_killed_gateway_worker_is_replaced_and_new_connections_are_answered(alone: Served) -> None:
    (gateway,) = alone.pids("gateway")
    os.kill(gateway, signal.SIGKILL)
    # Sent while nobody accepts: it waits in the backlog of the supervisor's socket, and is answered all the same.
    assert ask(alone, 4.0).json()["outputs"][0]["data"] == [10.0]
    assert alone.pids("gateway") != [gateway]


def test_a_killed_gateway_worker_leaves_the_other_one_serving(serve: Any) -> None:
    served = serve(FRAGILE, options=("--gateway-workers", "2"))
    os.kill(served.pids("gateway")[0], signal.SIGKILL)
    for _ in range(20):
        assert ask(served, 4.0).status == 200


def test_only_the_poison_request_of_a_batch_fails(alone: Served) -> None:
    """A request that ends its runner is found and refused alone; those that shared its batch are answered."""
    firsts = [float(number) for number in range(24)]
    firsts[11] = DIE
    with ThreadPoolExecutor(len(firsts)) as threads:
        answers = list(threads.map(lambda first: ask(alone, first), firsts))
    poison = answers.pop(11)
    assert poison.status == 500
    assert "ended the process of model" in poison.json()["error"]
    assert [answer.status for answer in answers] == [200] * 23, alone.tail()


def test_only_the_request_that_raises_fails_and_its_caller_learns_the_type(alone: Served) -> None:
    firsts = [float(number) for number in range(16)]
    firsts[5] = RAISE
    with ThreadPoolExecutor(len(firsts)) as threads:
        answers = list(threads.map(lambda first: ask(alone, first), firsts))
    raising = answers.pop(5)
    assert raising.status == 500
    assert "ValueError" in raising.json()["error"]
    assert b"secret" not in raising.body
    assert [answer.status for answer in answers] == [200] * 15
    deadline = time.monotonic() + TIMEOUT_S
    while "a secret that no caller may see" not in alone.tail():
        assert time.monotonic() < deadline, "the operator's log never had the message"
        time.sleep(0.02)


def test_a_hung_runner_is_killed_and_others_are_served(serve: Any) -> None:
    served = serve(FRAGILE, options=("--deadline-ms", "1500"))
    runners = set(served.pids("runner"))
    hung = ask(served, HANG)
    assert hung.status == 504
    wait_for_other_pids(served, "runner", 1, runners)
    deadline = time.monotonic() + TIMEOUT_S
    while ask(served, 4.0).status != 200:
        assert time.monotonic() < deadline, served.tail()


def test_a_leaking_runner_is_replaced_and_no_request_fails(serve: Any) -> None:
    """A model that leaks 40 MiB with each request to it, under a limit of 300 MiB, costs nobody an answer."""
    served = serve(FRAGILE, options=("--memory-mb", "300", "--replicas", "2"))
    runners = set(served.pids("runner"))
    with load(served.port, "fragile", connections=4) as running:
        running.wait_for(20)
        statuses = [ask(served, LEAK).status for _ in range(24)]
    assert running.tally.failed == 0, (running.tally, served.tail())
    assert set(served.pids("runner")) != runners, "no runner was replaced"
    assert statuses.count(200) >= 12, statuses


def test_a_runner_that_prints_garbage_hurts_nobody(alone: Served) -> None:
    with load(alone.port, "fragile", connections=4) as running:
        assert [ask(alone, CHATTER).status for _ in range(10)] == [200] * 10
        running.wait_for(50)
    assert running.tally.failed == 0, running.tally
    assert alone.log.stat().st_size < 8 << 20, "the noise of one model must not fill the disk"


def test_swaps_under_load_cost_no_request(alone: Served) -> None:
    before = set(alone.pids("runner"))
    with load(alone.port, "fragile", pause_s=0.005) as running:  # or new runners start at a snail's pace
        running.wait_for(20)
        for _ in range(4):
            answer = alone.post("/v2/repository/models/fragile/load", {})
            assert answer.status == 200, answer
        running.wait_for(running.tally.answered + 20)
    assert running.tally.failed == 0, running.tally
    assert not before & set(alone.pids("runner"))
    assert wait_for_other_pids(alone, "runner", 1, before), "the old runners must have left"


def test_a_load_that_fails_leaves_the_old_version_serving(serve: Any, tmp_path: Path) -> None:
    model = tmp_path / "fragile"
    model.mkdir()
    good = (FRAGILE / "model.py").read_text()
    (model / "model.py").write_text(good)
    served = serve(model)
    (model / "model.py").write_text("this is not Python\n")
    refused = served.post("/v2/repository/models/fragile/load", {})
    assert refused.status in (400, 500), refused
    assert "model.py" in refused.json()["error"]
    assert ask(served, 4.0).status == 200
    (model / "model.py").write_text(good)
    assert served.post("/v2/repository/models/fragile/load", {}).status == 200
    assert ask(served, 4.0).status == 200
