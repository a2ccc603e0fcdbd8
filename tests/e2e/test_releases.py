"""Releases as callers and operators meet them: real processes, a real load, the command line where people use it.

One server for all of it; each test has an endpoint of its own. What takes minutes (the acceptance under 500 requests
per second) is `python -m tests.e2e.releases`.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperion.control.management import SETTLE_S
from tests.e2e.admin_client import Api, Refused, resource, wait_until
from tests.e2e.open_load import OpenLoad
from tests.e2e.releases import Platform
from tests.e2e.served import Answer, Served
from tests.e2e.tiny_models import tiny_rows, write_tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MODEL = "tiny"
VERSIONS = {"1": "v1", "2": "equal", "3": "raises", "4": "shifted", "5": "broken", "6": "slow-to-load"}
AT_ONCE = {"strategy": "all-at-once", "standby_s": 60}
# One of two alike may well be slower on a machine that does other things, too.
NOT_SLOW = {"slow": None}
CANARY = {"strategy": "canary", "steps": [{"percent": 50, "hold_s": 600, "min_requests": 50}], "halt": NOT_SLOW}


class Stage:
    """The platform with every version registered."""

    def __init__(self, directory: Path) -> None:
        self.models = directory / "models"
        self.platform = Platform(directory)
        path = write_tiny(directory, "v1").rename(directory / "by-path")
        self.platform.served = Served(directory / "home", path)
        self.served: Served = self.platform.served
        self.api: Api
        self.digests: dict[str, str] = {}

    def push_all(self) -> None:
        """The first by the command line, the others by the API."""
        self.platform.run(
            "model", "push", MODEL, str(write_tiny(self.models, "v1")), "--version", "1", "--git-commit", "c0ffee1"
        )
        for version, kind in VERSIONS.items():
            self.digests[version] = self.api.push(MODEL, version, write_tiny(self.models, kind))["digest"]

    def ask(self, endpoint: str, headers: dict[str, str] | None = None, first: float = 7.0) -> Answer:
        """One request."""
        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [first, 1.0, 2.0, 3.0]}
        return self.served.post(f"/v2/models/{endpoint}/infer", {"inputs": [tensor]}, headers)

    def load(self, endpoint: str, rate: float = 150.0) -> OpenLoad:
        """Checked requests in the background."""
        return OpenLoad(self.served.port, endpoint, tiny_rows(), rate, connections=16)

    def first(self, endpoint: str, **spec: Any) -> None:
        """An endpoint that serves version 1."""
        assert self.api.apply(endpoint, f"{MODEL}@1", **spec) == "created"
        self.api.wait_end(endpoint, "1")

    def kinds(self, endpoint: str) -> list[str]:
        """The kinds of the ledger's entries about an endpoint."""
        return [entry["kind"] for entry in self.api.entries(endpoint)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(tmp_path_factory.mktemp("releases"))
    with stage.served as served, Api(served) as api:
        stage.api = api
        stage.push_all()
        yield stage


def version_of(answer: Answer) -> str:
    assert answer.status == 200, answer
    return answer.headers["x-hyperion-model-version"]


def test_a_first_release_serves_and_answers_name_version_and_digest(stage: Stage) -> None:
    stage.platform.directory.joinpath("first.yaml").write_text(json.dumps(resource("first", f"{MODEL}@1")))
    path = str(stage.platform.directory / "first.yaml")
    assert "created" in stage.platform.run("apply", "-f", path, "--yes").stdout
    status = stage.api.wait_end("first", "1")
    assert (status["state"], status["verdict"]) == ("promoted", "pass")
    answer = stage.ask("first")
    assert answer.json()["outputs"][0]["data"] == [13.0]
    assert answer.headers["x-hyperion-model-digest"] == stage.digests["1"]
    assert version_of(answer) == "1"
    again = stage.platform.json("apply", "-f", path, "--yes")
    assert [change["action"] for change in again["changes"]] == ["unchanged"]
    assert stage.kinds("first").count("endpoint.apply") == 1, "nothing changed, so there is nothing to write down"


def test_a_canary_that_raises_is_halted_and_the_same_deploy_starts_anew(stage: Stage) -> None:
    steps = [{"percent": 5, "hold_s": 0.2, "min_requests": 10}, {"percent": 50, "hold_s": 600, "min_requests": 50}]
    stage.first("raising", rollout={"strategy": "canary", "steps": steps, "halt": NOT_SLOW})
    with stage.load("raising", 300.0) as load:
        stage.api.deploy("raising", f"{MODEL}@3")
        status = stage.api.wait_end("raising", "3", 60)
        later = load.after(100)
    assert (status["state"], status["verdict"]) == ("halted", "fail"), status
    assert "errors" in status["reason"], status
    assert any(one.version == "3" for one in load.outcomes), "the canary got its share"
    assert {(one.status, one.version) for one in later} == {(200, "1")}
    halted = next(entry for entry in stage.api.entries("raising") if entry["kind"] == "rollout.halted")
    assert halted["detail"]["evidence"], halted
    assert halted["detail"]["requests"]["harmed_errors"] > 0
    assert stage.api.deploy("raising", f"{MODEL}@3")["started"]
    new = stage.api.wait("raising", lambda now: now["rollout_id"] != status["rollout_id"])
    assert new["to"] == "3"
    assert stage.api.command("raising", "abort")["rollout"]["state"] == "aborted"
    with pytest.raises(Refused, match="no rollout is under way"):
        stage.api.command("raising", "abort")
    with pytest.raises(Refused, match="no rollout is under way"):
        stage.api.command("raising", "undo")
    assert version_of(stage.ask("raising")) == "1"


def test_all_at_once_and_undo_back_and_forth_lose_no_request(stage: Stage) -> None:
    stage.first("swapped", rollout=AT_ONCE)
    with pytest.raises(Refused, match="no version before this one"):
        stage.api.command("swapped", "undo")
    with stage.load("swapped") as load:
        stage.platform.run("deploy", "swapped", f"{MODEL}@2", "--wait")
        for expected in ("1", "2", "1", "2"):
            status = stage.api.command("swapped", "undo")["rollout"]
            assert (status["state"], status["to"]) == ("promoted", expected)
            assert {one.version for one in load.after(20)} == {expected}
    assert load.statuses() == {200: len(load.outcomes)}


@pytest.mark.parametrize(("to", "state"), [("2", "promoted"), ("3", "halted")])
def test_blue_green_asks_before_it_switches(stage: Stage, to: str, state: str) -> None:
    name = f"colours-{to}"
    policy = {"strategy": "blue-green", "standby_s": 60, "smoke": {"count": 5}, "halt": NOT_SLOW}
    stage.first(name, rollout=policy)
    with stage.load(name) as load:
        stage.api.deploy(name, f"{MODEL}@{to}")
        if state == "promoted":
            # Switched at once; the old version stays warm while the new one is watched.
            stage.api.wait(name, lambda now: now["to"] == to and now["weight"] == 1.0)
            load.after(20)
            stage.platform.run("rollout", "promote", name)
        status = stage.api.wait_end(name, to)
        later = load.after(20)
    assert status["state"] == state, status
    assert load.statuses() == {200: len(load.outcomes)}
    assert {one.version for one in later} == {"2" if state == "promoted" else "1"}
    if state == "halted":
        assert "smoke" in status["reason"], status
        assert {one.version for one in load.outcomes} == {"1"}


def test_a_shadow_that_disagrees_is_halted_before_any_caller_meets_it(stage: Stage) -> None:
    shadow = {"percent": 100, "min_pairs": 50, "max_disagreement": 0.02}
    stage.first("shadowed", rollout={**CANARY, "shadow": shadow})
    with stage.load("shadowed") as load:
        stage.api.deploy("shadowed", f"{MODEL}@4")
        bad = stage.api.wait_end("shadowed", "4")
        stage.api.deploy("shadowed", f"{MODEL}@2")
        good = stage.api.wait(
            "shadowed", lambda now: now["to"] == "2" and now["state"] == "canary" and now["weight"] > 0
        )
    assert bad["state"] == "halted", bad
    assert "disagreement" in bad["reason"], bad
    assert load.statuses() == {200: len(load.outcomes)}
    assert "4" not in {one.version for one in load.outcomes}
    tracks = {track["role"]: track for track in good["tracks"]}
    assert tracks["shadow"]["requests"] >= 50, good
    # A deploy during a rollout takes its place.
    stage.api.deploy("shadowed", f"{MODEL}@1")
    stage.api.wait_end("shadowed", "1")
    deadline = time.monotonic() + 30.0  # the decision is in the store a moment before the gateways have it
    while version_of(stage.ask("shadowed")) != "1":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_rollout_is_paused_resumed_stepped_and_promoted_by_hand(stage: Stage) -> None:
    steps: list[Any] = [{"pause": True}, {"percent": 20, "hold_s": 600}]
    stage.first("driven", rollout={"strategy": "canary", "steps": steps})
    stage.api.deploy("driven", f"{MODEL}@2")
    paused = stage.api.wait("driven", lambda now: now["state"] == "paused")
    assert paused["weight"] == 0.0
    assert "20 %" in stage.platform.run("rollout", "resume", "driven").stdout
    stage.platform.run("rollout", "pause", "driven", "--reason", "lunch")
    assert stage.api.status("driven")["state"] == "paused"
    assert stage.api.status("driven")["weight"] == 0.2
    refused = stage.platform.run("rollout", "pause", "driven", check=False)
    assert (refused.returncode, "paused already" in refused.stderr) == (3, True), refused
    stage.api.command("driven", "resume")
    assert stage.api.command("driven", "promote")["rollout"]["state"] == "promoted"
    assert version_of(stage.ask("driven")) == "2"
    reasons = {entry["reason"] for entry in stage.api.entries("driven")}
    assert "lunch" in reasons, reasons


def test_champion_and_challenger_share_from_the_start_and_callers_stick(stage: Stage) -> None:
    rollout = {"strategy": "champion-challenger", "percent": 40, "hold_s": 600, "sticky": {"header": "x-user-id"}}
    stage.first("contest", rollout=rollout)
    stage.api.deploy("contest", f"{MODEL}@2")
    stage.api.wait("contest", lambda now: now["weight"] == 0.4)
    chosen = {}
    deadline = time.monotonic() + 30
    while len(set(chosen.values())) < 2 and time.monotonic() < deadline:  # the gateway hears of it in some milliseconds
        chosen = {user: version_of(stage.ask("contest", {"x-user-id": user})) for user in map(str, range(30))}
    assert set(chosen.values()) == {"1", "2"}
    for user, version in chosen.items():
        assert version_of(stage.ask("contest", {"x-user-id": user})) == version
    stage.api.command("contest", "abort")


def test_an_alias_that_moves_starts_a_rollout(stage: Stage) -> None:
    stage.api.ask("PUT", f"registry/models/{MODEL}/aliases/champion", {"version": "1"})
    assert stage.api.apply("named", f"{MODEL}@champion", rollout=AT_ONCE) == "created"
    stage.api.wait_end("named", "1")
    stage.api.ask("PUT", f"registry/models/{MODEL}/aliases/champion", {"version": "2"})
    assert stage.api.wait_end("named", "2")["state"] == "promoted"
    assert version_of(stage.ask("named")) == "2"


def test_other_options_of_the_same_version_restart_its_replicas_without_a_release(stage: Stage) -> None:
    stage.first("tuned", rollout=AT_ONCE)
    before = stage.api.status("tuned")["rollout_id"]
    old = replicas_of(stage, "tuned")
    with stage.load("tuned") as load:
        assert stage.api.apply("tuned", f"{MODEL}@1", rollout=AT_ONCE, batching={"max_size": 8}) == "configured"
        wait_until(lambda: (now := replicas_of(stage, "tuned")) and not now & old)
        load.after(20)
    assert load.statuses() == {200: len(load.outcomes)}
    assert stage.api.status("tuned")["rollout_id"] == before
    assert stage.kinds("tuned").count("rollout.started") == 1


def test_an_undo_to_a_version_that_is_cold_loads_it_first(stage: Stage) -> None:
    policy = {"strategy": "all-at-once", "standby_s": 0.1}
    stage.first("cold", rollout=policy)
    stage.api.deploy("cold", f"{MODEL}@2")
    stage.api.wait_end("cold", "2")
    wait_until(lambda: len(replicas_of(stage, "cold")) == 1)
    with stage.load("cold") as load:
        assert {one.version for one in load.after(20)} == {"2"}
        begun = stage.api.command("cold", "undo")
        assert "is being loaded" in begun["outcome"]
        assert begun["rollout"]["state"] != "promoted"
        stage.api.wait("cold", lambda now: now["state"] == "promoted")
        assert {one.version for one in load.after(20)} == {"1"}
    assert load.statuses() == {200: len(load.outcomes)}


def test_replicas_come_and_go_as_the_resource_says(stage: Stage) -> None:
    stage.first("scaled", rollout=AT_ONCE)
    with stage.load("scaled") as load:
        for count in (3, 1):
            stage.api.apply("scaled", f"{MODEL}@1", rollout=AT_ONCE, replicas={"min": count})
            wait_until(lambda count=count: len(replicas_of(stage, "scaled")) == count)
    assert load.statuses() == {200: len(load.outcomes)}
    assert stage.kinds("scaled").count("rollout.started") == 1


def test_a_path_that_is_served_hides_an_endpoint_of_its_name(stage: Stage) -> None:
    assert stage.api.apply("by-path", f"{MODEL}@2") == "created"
    began_s = time.monotonic()
    status = stage.api.wait_end("by-path", "2")
    assert "a PATH of that name is served" in status["reason"]
    assert time.monotonic() - began_s < SETTLE_S, "it was waited for gateways that never run what is hidden"
    shown = stage.api.ask("GET", "endpoints/by-path")["status"]
    assert (shown["ready"], "a PATH of that name is served" in shown["reason"]) == (False, True)
    answer = stage.ask("by-path")
    assert (answer.status, answer.headers["x-hyperion-model-digest"] == stage.digests["2"]) == (200, False)
    stage.api.ask("DELETE", "endpoints/by-path")
    wait_until(lambda: stage.kinds("by-path")[-1] == "endpoint.purge")
    assert stage.ask("by-path").status == 200


def test_a_deleted_endpoint_is_gone_with_its_replicas(stage: Stage) -> None:
    stage.first("doomed")
    assert replicas_of(stage, "doomed")
    stage.platform.run("delete", "endpoint", "doomed", "--yes")
    wait_until(lambda: not replicas_of(stage, "doomed") and stage.ask("doomed").status == 404)
    wait_until(lambda: stage.kinds("doomed")[-1] == "endpoint.purge")
    stage.first("doomed")
    assert stage.ask("doomed").status == 200


def test_a_version_that_cannot_load_is_halted_with_its_reason(stage: Stage) -> None:
    stage.first("fragile", rollout=AT_ONCE)
    with stage.load("fragile") as load:
        stage.api.deploy("fragile", f"{MODEL}@5")
        status = stage.api.wait_end("fragile", "5")
    assert (status["state"], "no such weights" in status["reason"]) == ("halted", True), status
    assert load.statuses() == {200: len(load.outcomes)}


def test_a_deploy_while_another_version_loads_takes_its_place(stage: Stage) -> None:
    stage.first("hurried", rollout=AT_ONCE)
    stage.api.deploy("hurried", f"{MODEL}@6")
    stage.api.wait("hurried", lambda now: now["to"] == "6")
    stage.api.deploy("hurried", f"{MODEL}@2")
    assert stage.api.wait_end("hurried", "2")["state"] == "promoted"
    wait_until(lambda: len(replicas_of(stage, "hurried")) == 2)


def test_gateways_and_control_killed_in_a_canary_lose_nothing_and_promote_nothing(stage: Stage) -> None:
    steps = [{"percent": 30, "hold_s": 600, "min_requests": 20}]
    stage.first("laden", rollout=AT_ONCE)
    stage.first("hardened", rollout={"strategy": "canary", "steps": steps, "halt": NOT_SLOW})
    stage.api.deploy("hardened", f"{MODEL}@2")
    with stage.load("hardened") as load:
        stage.api.wait("hardened", lambda now: requests_of(now) > 100)
        stage.api.deploy("laden", f"{MODEL}@6")  # a candidate that loads when control dies
        (control,) = stage.served.pids("control")
        os.kill(control, signal.SIGKILL)
        asked = len(load.outcomes)
        wait_until(lambda: reaches(stage, "hardened"))
        stage.api.wait("hardened", lambda now: requests_of(now) >= asked * 0.5, 30)
        assert stage.api.status("hardened")["state"] == "canary"
    assert load.statuses() == {200: len(load.outcomes)}
    (gateway,) = stage.served.pids("gateway")
    counted = requests_of(stage.api.status("hardened"))
    os.kill(gateway, signal.SIGKILL)

    def grows(now: Any) -> bool:
        assert requests_of(now) >= counted, "what the killed gateway had reported is gone"
        assert stage.ask("hardened").status == 200
        return requests_of(now) >= counted + 20

    # What the old gateway reported stays in evidence, and the new one's counts are added to it.
    status = stage.api.wait("hardened", grows)
    assert (status["state"], status["weight"]) == ("canary", 0.3), status
    kinds = stage.kinds("hardened")
    assert kinds.count("rollout.promoted") == 1, kinds
    assert stage.api.command("hardened", "abort")["rollout"]["state"] == "aborted"
    assert stage.api.wait_end("laden", "6", 30)["state"] == "promoted"


def test_a_sampled_prediction_is_explained(stage: Stage) -> None:
    stage.first("audited", log={"sample": 1.0}, rollout=AT_ONCE)
    answer = stage.ask("audited")
    found = None
    deadline = time.monotonic() + 30
    while found is None:
        try:
            found = stage.platform.json("explain", answer.headers["x-request-id"])
        except RuntimeError:
            assert time.monotonic() < deadline, "the prediction never came to the log"
            time.sleep(0.3)
    assert found["prediction"]["endpoint"] == "audited"
    assert (found["prediction"]["version"], found["prediction"]["digest"]) == ("1", stage.digests["1"])
    assert found["git_commit"] == "c0ffee1"
    assert found["release"] == stage.api.status("audited")["rollout_id"]
    assert found["entries"], found


def test_the_ledger_of_all_this_verifies(stage: Stage) -> None:
    assert stage.platform.run("ledger", "verify").returncode == 0


def requests_of(status: Any) -> int:
    """How many requests were counted in a rollout."""
    return sum(int(track["requests"]) for track in status["tracks"])


def replicas_of(stage: Stage, endpoint: str) -> set[int]:
    """The pids of an endpoint's runners."""
    from tests.e2e.served import command_line

    return {pid for pid in stage.served.pids("runner") if f" {endpoint}@" in command_line(pid)}


def reaches(stage: Stage, endpoint: str) -> bool:
    """Whether the management API answers (control was restarted)."""
    try:
        return bool(stage.api.status(endpoint))
    except (OSError, Refused):
        return False
