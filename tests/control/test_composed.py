"""Endpoints that are another server or a graph: published when they can answer, and held as long as they can.

The other server is a platform of our own on other ports.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyperion.schema.snapshot import ModelState, ServedModel, Snapshot
from tests.e2e.admin_client import Api, Refused, wait_until
from tests.e2e.served import Served
from tests.e2e.tiny_models import write_tiny

pytestmark = pytest.mark.timeout(180)


class Stage:
    """A platform with a registered model, and the other server."""

    def __init__(self, served: Served, api: Api, far: Served, directory: Path) -> None:
        self.served, self.api, self.far, self.directory = served, api, far, directory

    def apply(self, name: str, **spec: Any) -> str:
        document = {"kind": "Endpoint", "metadata": {"name": name}, "spec": spec}
        return str(self.api.ask("POST", "endpoints", document)["changes"][0]["action"])

    def snapshot(self) -> Snapshot:
        return msgspec.json.decode((self.served.home / "snapshot.json").read_bytes(), type=Snapshot)

    def model(self, name: str) -> ServedModel | None:
        return next((model for model in self.snapshot().models if model.name == name), None)

    def wait(self, name: str) -> ServedModel:
        wait_until(lambda: self.model(name) is not None)
        model = self.model(name)
        assert model is not None
        return model

    def state(self, name: str) -> ModelState:
        return next(state for state in self.snapshot().index if state.name == name)

    def delete(self, name: str) -> None:
        self.api.ask("DELETE", f"endpoints/{name}")
        wait_until(lambda: self.model(name) is None)
        wait_until(lambda: name not in [one["metadata"]["name"] for one in self.api.ask("GET", "endpoints")["items"]])

    def restart_control(self) -> None:
        (control,) = self.served.pids("control")
        os.kill(control, signal.SIGKILL)
        wait_until(lambda: self.served.pids("control") not in ([], [control]))
        wait_until(self._answers)

    def _answers(self) -> bool:
        try:
            return self.api.ask("GET", "endpoints") is not None
        except (OSError, Refused):
            return False


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("composed")
    far = Served(directory / "far", write_tiny(directory / "far-models", "v1").rename(directory / "tiny"))
    with far, Served(directory / "home") as served, Api(served) as api:
        for version, kind in (("1", "v1"), ("2", "equal")):
            api.push("tiny", version, write_tiny(directory / "models", kind))
        yield Stage(served, api, far, directory)


@pytest.mark.parametrize("protocol", ["oip-http", "oip-grpc"])
def test_an_upstream_is_published_with_what_it_says_of_its_model(stage: Stage, protocol: str) -> None:
    url = stage.far.url if protocol == "oip-http" else f"grpc://{stage.far.grpc}"
    upstream = {"url": url, "protocol": protocol, "model": "tiny", "concurrency": 3, "batch": True}
    stage.apply("far", upstream=upstream, batching={"max_size": 8})
    model = stage.wait("far")
    version = model.versions[0]
    assert (model.default_version, version.version, version.options.max_batch_size) == ("upstream", "upstream", 8)
    assert [(spec.name, spec.datatype, spec.shape) for spec in version.signature.inputs] == [("x", "FP32", (-1, 4))]
    assert version.signature.batched
    assert [(one.name, one.socket) for one in version.replicas] == [(f"far@upstream.{n}", url) for n in range(3)]
    assert version.upstream is not None
    assert version.upstream.model == "tiny"
    stage.delete("far")


def test_an_upstream_that_does_not_answer_says_why_and_is_served_when_it_does(stage: Stage) -> None:
    stage.apply("lost", upstream={"url": stage.far.url, "model": "nobody"})
    wait_until(lambda: "answered 404" in stage.state("lost").reason)
    assert (stage.state("lost").state, stage.model("lost")) == ("UNAVAILABLE", None)
    # What one endpoint lacks is not the gateway's readiness, which balancers go by.
    wait_until(lambda: stage.served.get("/v2/health/ready").status == 200)
    answer = stage.served.post("/v2/models/lost/infer", b"{}")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    # Where that server is, and what is wrong there, is no caller's business.
    assert answer.json()["error"] == 'model "lost" is served by another server, which has not said yet what it takes'
    stage.apply("lost", upstream={"url": stage.far.url, "model": "tiny"}, cache={"ttl_s": 3})
    known = stage.wait("lost").versions[0]
    assert known.options.max_batch_size == 1
    # Where it is now nobody answers: what was known goes on being served, also by control's next life.
    stage.restart_control()
    assert stage.wait("lost").versions[0] == known
    stage.apply("lost", upstream={"url": "http://127.0.0.1:9", "model": "tiny"})
    wait_until(lambda: "cannot be reached" in stage.state("lost").reason)
    assert stage.state("lost").state == "READY"
    assert stage.wait("lost").versions[0].signature == known.signature
    stage.delete("lost")


def test_credentials_come_from_a_file_that_nobody_else_can_read(stage: Stage) -> None:
    elsewhere = stage.directory / "headers"
    elsewhere.write_text("authorization: Bearer secret-of-ours\n")
    elsewhere.chmod(0o600)
    path = stage.served.home / "credentials" / "headers"
    for name in (elsewhere, stage.served.home / "admin-token"):
        with pytest.raises(Refused, match="not below a directory for credentials"):
            stage.apply("closed", upstream={"url": stage.far.url, "model": "tiny", "headers_from": str(name)})
    path.write_text(elsewhere.read_text())
    path.chmod(0o644)
    stage.apply("closed", upstream={"url": stage.far.url, "model": "tiny", "headers_from": str(path)})
    wait_until(lambda: "chmod 600" in stage.state("closed").reason)
    path.chmod(0o600)
    stage.wait("closed")
    assert "secret-of-ours" not in (stage.served.home / "snapshot.json").read_text() + stage.served.log.read_text()
    stage.delete("closed")


def test_a_graph_is_published_when_its_steps_serve_and_follows_them(stage: Stage) -> None:
    graph = {"kind": "ensemble", "steps": [{"name": "a", "model": "tiny@1"}, {"name": "b", "endpoint": "partner"}]}
    stage.apply("both", graph=graph)
    wait_until(lambda: 'endpoint "partner" is not served here' in stage.state("both").reason)
    status = stage.api.ask("GET", "endpoints/both")["status"]
    assert (status["ready"], "partner" in status["reason"], status["rollout"]["state"]) == (False, True, "idle")
    assert [(one["name"], one["kind"], one["reference"]) for one in status["members"]] == [
        ("a", "model", "tiny@1"),
        ("b", "endpoint", "partner"),
    ]
    assert status["members"][1]["reason"] == "is not served"
    assert (stage.state("both").state, stage.model("both")) == ("UNAVAILABLE", None)
    wait_until(lambda: stage.served.get("/v2/health/ready").status == 200)
    stage.apply("partner", model="tiny@1", rollout={"strategy": "all-at-once", "standby_s": 0})
    model = stage.wait("both")
    version = model.versions[0]
    assert (version.version, version.replicas, version.platform) == ("graph", (), "graph_ensemble")
    assert [spec.name for spec in version.signature.outputs] == ["y"]
    status = stage.api.ask("GET", "endpoints/both")["status"]
    assert (status["ready"], status["reason"], [one["ready"] for one in status["members"]]) == (True, "", [True, True])
    member = stage.wait("both~a")
    assert (member.internal, len(member.versions[0].replicas)) == (True, 1)
    # Another version of a member is another digest of the graph: what was cached of it counts no more.
    stage.api.deploy("partner", "tiny@2")
    wait_until(lambda: (now := stage.model("both")) is not None and now.versions[0].digest != version.digest)
    stage.restart_control()
    assert stage.wait("both").versions[0].graph == version.graph

    # What a version takes is known since it runs; of an endpoint it may change.
    wrong = {"name": "c", "model": "tiny@1", "inputs": {"z": "x"}}
    with pytest.raises(Refused, match="has no input"):
        stage.apply("both", graph={"kind": "pipeline", "steps": [wrong]})
    # What it is to be next cannot answer yet, so it stays as it is, for the callers that may call now.
    later = {"kind": "pipeline", "steps": [{"name": "c", "endpoint": "partner", "inputs": {"z": "x"}}]}
    stage.apply("both", graph=later, access={"tenants": ["acme"]})
    wait_until(lambda: 'has no input "z"' in stage.state("both").reason)
    now = stage.wait("both")
    assert now.versions[0].graph == version.graph
    assert now.protection.access is not None
    assert stage.model("both~a") is not None
    later["steps"] = [{"name": "c", "model": "tiny@1"}]
    stage.apply("both", graph=later)
    wait_until(lambda: (now := stage.model("both")) is not None and now.versions[0].platform == "graph_pipeline")
    wait_until(lambda: stage.model("both~a") is None and not _replicas(stage, "both~a"))
    stage.delete("both")
    wait_until(lambda: stage.model("both~c") is None and not _replicas(stage, "both~c"))
    stage.delete("partner")


def test_an_endpoint_serves_on_while_it_becomes_something_else(stage: Stage) -> None:
    at_once = {"strategy": "all-at-once", "standby_s": 0}
    stage.apply("moving", model="tiny@1", rollout=at_once)
    stage.wait("moving")
    stage.apply("moving", upstream={"url": stage.far.url, "model": "nobody"})
    wait_until(lambda: "answered 404" in stage.state("moving").reason)
    assert stage.wait("moving").default_version == "1"
    assert len(_replicas(stage, "moving")) == 1
    stage.apply("moving", upstream={"url": stage.far.url, "model": "tiny"})
    wait_until(lambda: stage.wait("moving").default_version == "upstream")
    wait_until(lambda: not _replicas(stage, "moving"))
    with pytest.raises(Refused, match="no versions to roll out"):
        stage.api.deploy("moving", "tiny@2")
    stage.apply("moving", model="tiny@2", rollout=at_once)
    assert stage.wait("moving").default_version in ("upstream", "2")
    wait_until(lambda: stage.wait("moving").default_version == "2")
    stage.delete("moving")


def test_endpoints_that_lead_back_to_themselves_are_refused(stage: Stage) -> None:
    stage.apply("first", model="tiny@1", fallback=[{"endpoint": "second"}])
    with pytest.raises(Refused, match="second -> first -> second"):
        stage.apply("second", graph={"kind": "pipeline", "steps": [{"name": "a", "endpoint": "first"}]})
    stage.delete("first")


def _replicas(stage: Stage, name: str) -> list[str]:
    return [one["name"] for one in stage.api.ask("GET", "replicas") if one["model"] == name]
