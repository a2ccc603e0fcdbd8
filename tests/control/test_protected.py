"""What a resource says of callers, fallbacks and members reaches the gateways, and takes nothing else with it."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from hyperion.schema.protect import Access, Cache, Fallback
from hyperion.schema.snapshot import ServedModel, Snapshot
from tests.e2e.admin_client import Api, Refused, resource, wait_until
from tests.e2e.served import Served
from tests.e2e.tiny_models import write_tiny

pytestmark = pytest.mark.timeout(120)
AT_ONCE = {"strategy": "all-at-once", "standby_s": 0}


class Stage:
    """A served platform with three versions of a model, and what its gateways were told last."""

    def __init__(self, served: Served, api: Api) -> None:
        self.served, self.api = served, api

    def snapshot(self) -> Snapshot:
        return msgspec.json.decode((self.served.home / "snapshot.json").read_bytes(), type=Snapshot)

    def model(self, name: str) -> ServedModel | None:
        return next((model for model in self.snapshot().models if model.name == name), None)

    def apply(self, name: str, model: str = "tiny@1", **spec: Any) -> str:
        return self.api.apply(name, model, **{"rollout": AT_ONCE, **spec})

    def replicas(self, name: str) -> list[tuple[str, int]]:
        found = self.api.ask("GET", "replicas")
        return sorted((one["name"], one["pid"]) for one in found if one["model"] == name)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("protected")
    with Served(directory / "home") as served, Api(served) as api:
        for version, kind in (("1", "v1"), ("2", "equal"), ("3", "shifted")):
            api.push("tiny", version, write_tiny(directory / "models", kind))
        yield Stage(served, api)


def test_a_change_of_protection_is_with_the_gateways_when_apply_answers_and_restarts_nothing(stage: Stage) -> None:
    assert stage.apply("plain") == "created"
    before = stage.api.wait_end("plain", "1")
    replicas = stage.replicas("plain")
    changed = {"cache": {"ttl_s": 5}, "access": {"tenants": ["acme"]}, "log": {"redact": ["email"]}}
    assert stage.apply("plain", **changed) == "configured"
    served = stage.model("plain")
    assert served is not None
    assert served.protection.cache == Cache(5)
    assert served.protection.access == Access(("acme",))
    assert served.redact == ("email",)
    after = stage.api.status("plain")
    assert (after["rollout_id"], after["state"]) == (before["rollout_id"], "promoted")
    assert stage.replicas("plain") == replicas
    assert stage.apply("plain") == "configured"
    served = stage.model("plain")
    assert served is not None
    assert served.protection.cache is None


def test_links_of_a_chain_are_served_as_members_that_nobody_sees(stage: Stage) -> None:
    stage.apply("chained", fallback=[{"version": "2"}, {"model": "tiny@3"}, {"static": {"y": [[0.0]]}}])
    stage.api.wait_end("chained", "1")
    wait_until(lambda: stage.model("chained~fallback-0") and stage.model("chained~fallback-1"))
    member = stage.model("chained~fallback-1")
    assert member is not None
    assert (member.internal, member.default_version, len(member.versions[0].replicas)) == (True, "3", 1)
    owner = stage.model("chained")
    assert owner is not None
    assert owner.protection.fallback[0] == Fallback(version="2")
    assert not [state for state in stage.snapshot().index if "~" in state.name]
    assert not [item for item in stage.api.ask("GET", "endpoints")["items"] if "~" in item["metadata"]["name"]]

    # Control dies; its next life finds the members as they were.
    replicas = stage.replicas("chained~fallback-0")
    (control,) = stage.served.pids("control")
    os.kill(control, signal.SIGKILL)
    wait_until(lambda: stage.served.pids("control") not in ([], [control]))
    wait_until(lambda: _asks(stage))
    assert stage.replicas("chained~fallback-0") == replicas

    stage.apply("chained", fallback=[{"version": "3"}])
    wait_until(lambda: (found := stage.model("chained~fallback-0")) is not None and found.default_version == "3")
    wait_until(lambda: stage.model("chained~fallback-1") is None and not stage.replicas("chained~fallback-1"))
    stage.api.ask("DELETE", "endpoints/chained")
    wait_until(lambda: not stage.replicas("chained") and not stage.replicas("chained~fallback-0"))
    assert stage.model("chained~fallback-0") is None


def test_a_link_to_nothing_is_refused(stage: Stage) -> None:
    with pytest.raises(Refused, match="has no version or alias"):
        stage.api.ask("POST", "endpoints", resource("lost", "tiny@1", fallback=[{"model": "tiny@9"}]))


def _asks(stage: Stage) -> bool:
    try:
        return bool(stage.api.status("chained")["rollout_id"])
    except (OSError, Refused):
        return False
