"""A control process that is killed at a bad moment, gateways that outlive it, and homes that are opened again."""

import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.served import Served

pytestmark = pytest.mark.timeout(180)

SUMS = Path(__file__).parents[1] / "e2e" / "models" / "sums"


def wait_until(is_true: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end_s, what
        time.sleep(0.02)


def infer(served: Served, model: str = "sums") -> int:
    rows = {"shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    return served.post(f"/v2/models/{model}/infer", {"inputs": [{"name": name, **rows} for name in ("a", "b")]}).status


def hyperion(served: Served, *arguments: str) -> None:
    where = ("--url", f"http://127.0.0.1:{served.admin_port}", "--home", str(served.home))
    subprocess.run([sys.executable, "-m", "hyperion", *arguments, *where], check=True, timeout=60)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SUMS, tmp_path / "models" / "sums"))


def test_without_control_a_new_gateway_serves_the_last_good_snapshot(tmp_path: Path, model: Path) -> None:
    with Served(tmp_path / "home", model) as served:
        (control,) = served.pids("control")
        os.kill(control, signal.SIGSTOP)  # it neither answers nor is it started again
        (gateway,) = served.pids("gateway")
        os.kill(gateway, signal.SIGKILL)
        wait_until(lambda: served.pids("gateway") not in ([], [gateway]), "a new gateway was not started")
        wait_until(lambda: infer(served) == 200, "the new gateway does not serve")
        os.kill(control, signal.SIGCONT)


def test_control_killed_in_the_middle_of_a_load_finishes_it_in_its_next_life(tmp_path: Path, model: Path) -> None:
    with Served(tmp_path / "home", model) as served:
        (old,) = served.pids("runner")
        gate = tmp_path / "gate"
        source = (model / "model.py").read_text()
        waiting = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists():\n    time.sleep(0.01)\n"
        (model / "model.py").write_text(waiting + source)
        token = (served.home / "admin-token").read_text().strip()
        connection = http.client.HTTPConnection("127.0.0.1", served.admin_port, timeout=30)
        connection.request("POST", "/api/v1/models/sums/load", headers={"authorization": f"Bearer {token}"})
        wait_until(lambda: len(served.pids("runner")) == 2, "the new replica was not started")
        os.kill(served.pids("control")[0], signal.SIGKILL)
        connection.close()
        assert infer(served) == 200
        gate.touch()
        wait_until(lambda: served.pids("runner") and old not in served.pids("runner"), "the load was not finished")
        assert infer(served) == 200


def test_a_home_serves_again_what_it_held(tmp_path: Path, model: Path) -> None:
    with Served(tmp_path / "home", model):
        pass
    with Served(tmp_path / "home") as served:
        assert infer(served) == 200
        assert [state["name"] for state in served.post("/v2/repository/index", {}).json()] == ["sums"]


def test_nobody_is_ready_before_the_endpoints_of_the_store_are_served(tmp_path: Path, model: Path) -> None:
    home = tmp_path / "home"
    with Served(home, model) as served:
        hyperion(served, "model", "push", "kept", str(model))
        (tmp_path / "kept.yaml").write_text("kind: Endpoint\nmetadata: {name: kept}\nspec: {model: kept@1}\n")
        hyperion(served, "apply", "-f", str(tmp_path / "kept.yaml"))
        wait_until(lambda: infer(served, "kept") == 200, "the endpoint was not served")
    for paths in ((), (model,)):
        with Served(home, *paths) as served:  # entered once it is ready
            assert infer(served, "kept") == 200
            states = served.post("/v2/repository/index", {}).json()
            assert {(state["name"], state["state"]) for state in states} == {("sums", "READY"), ("kept", "READY")}


def test_what_was_unloaded_stays_so_when_control_is_started_again(tmp_path: Path, model: Path) -> None:
    with Served(tmp_path / "home", model) as served:
        assert served.post("/v2/repository/models/sums/unload", {}).status == 200
        (control,) = served.pids("control")
        os.kill(control, signal.SIGKILL)
        wait_until(lambda: served.pids("control") not in ([], [control]), "control was not started again")
        wait_until(lambda: served.pids("runner") == [], "the runner must leave")
        assert infer(served) in (404, 503)
        assert served.post("/v2/repository/models/sums/load", {}).status == 200
        assert infer(served) == 200


def test_a_replica_that_cannot_come_back_is_unavailable_with_its_reason(tmp_path: Path, model: Path) -> None:
    with Served(tmp_path / "home", model) as served:
        (model / "model.py").write_text("this is not Python\n")
        os.kill(served.pids("runner")[0], signal.SIGKILL)

        def look() -> bool:
            (state,) = served.post("/v2/repository/index", {}).json()
            return state["state"] == "UNAVAILABLE" and "model.py" in state["reason"]

        wait_until(look, "the index does not say so")
        assert infer(served) in (404, 503)
