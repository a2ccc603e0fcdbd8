"""Resources, deploys and rollouts over the management API: what is stored, what is refused, and what is streamed."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperion.schema.release import TrackCounts
from tests.api.platform import Platform, endpoint

CANARY = {"rollout": {"steps": [{"percent": 10, "hold_s": 3600}, {"pause": True}, 50]}}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("endpoints") / "home") as platform:
        for version in ("1", "2", "3"):
            platform.push("fraud", version)
        yield platform


def make(platform: Platform, name: str, version: str = "1") -> None:
    """An endpoint whose first version serves."""
    answer = platform.ask("endpoints", endpoint(name, f"fraud@{version}", **CANARY))
    assert answer.status == 200, answer
    platform.wait_for(name, "promoted")


def test_an_apply_shows_its_changes_and_is_idempotent(platform: Platform) -> None:
    resource = endpoint("idem", "fraud@1", deadline_ms=500)
    dry = platform.ask("endpoints?dry_run=true", resource).json()
    assert (dry["dry_run"], dry["changes"][0]["action"]) == (True, "created")
    assert platform.ask("endpoints/idem").status == 404
    assert platform.ask("endpoints", [resource]).json()["changes"][0]["action"] == "created"
    assert platform.ask("endpoints/idem", resource, "PUT").json()["changes"][0]["action"] == "unchanged"
    (change,) = platform.ask("endpoints?reason=slow", endpoint("idem", "fraud@1", deadline_ms=900)).json()["changes"]
    assert (change["action"], change["fields"]) == (
        "configured",
        [{"path": "spec.deadline_ms", "before": 500, "after": 900}],
    )
    (entry, *_) = platform.ask("ledger/entries?subject=idem&kind=endpoint.apply&newest=true").json()["items"]
    assert (entry["actor"], entry["reason"]) == ("admin", "slow")


def test_what_get_shows_can_be_applied_again(platform: Platform) -> None:
    make(platform, "again")
    shown = platform.ask("endpoints/again").json()
    assert shown["status"]["rollout"]["state"] == "promoted"
    assert shown["spec"]["deadline_ms"] == 30_000
    assert platform.ask("endpoints", shown).json()["changes"][0]["action"] == "unchanged"


def test_yaml_is_taken_and_a_mistake_names_its_line(platform: Platform) -> None:
    text = b"kind: Endpoint\nmetadata: {name: y}\nspec:\n  model: fraud@1\n  batchin: {}\n"
    answer = platform.ask("endpoints", text, content_type="application/yaml")
    assert answer.status == 422
    assert answer.json()["detail"] == 'body:5: spec.batchin: unknown field; did you mean "batching"?'
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        (endpoint("x", "fraud@9"), 404, "unknown_model", "'9'"),
        (endpoint("x", "frod@1"), 404, "unknown_model", "did you mean fraud"),
        (endpoint("x/y", "fraud@1"), 422, "invalid_resource", "metadata.name"),
        (endpoint("x", "fraud@1", replicas={"idle_s": 5}), 422, "invalid_resource", "not done by this version"),
        ([endpoint("x", "fraud@1"), endpoint("x", "fraud@2")], 422, "invalid_resource", "given twice"),
        ([], 422, "invalid_resource", "no resource"),
        (b"{", 400, "malformed", "not JSON"),
        (b"[" * 100_000, 400, "malformed", "not JSON"),
        (b" " * (5 << 20), 413, "too_large", "larger than"),
    ],
)
def test_what_cannot_be_is_a_problem(platform: Platform, body: object, status: int, code: str, words: str) -> None:
    answer = platform.ask("endpoints", body)
    problem = answer.json()
    assert (answer.status, problem["status"], problem["code"]) == (status, status, code)
    assert words in problem["detail"]
    assert problem["error"] == problem["detail"]
    assert set(problem) >= {"type", "title"}


def test_one_wrong_resource_keeps_all_of_them_out(platform: Platform) -> None:
    assert platform.ask("endpoints", [endpoint("good", "fraud@1"), endpoint("bad", "fraud@9")]).status == 404
    assert platform.ask("endpoints/good").status == 404


def test_a_list_comes_in_pages(platform: Platform) -> None:
    for name in ("page-a", "page-b", "page-c"):
        platform.ask("endpoints", endpoint(name, "fraud@1"))
    names: list[str] = []
    after: str | None = "page"
    while after is not None:
        page = platform.ask(f"endpoints?limit=2&after={after}").json()
        names += [item["metadata"]["name"] for item in page["items"]]
        after = page["next"]
    assert [name for name in names if name.startswith("page-")] == ["page-a", "page-b", "page-c"]


def test_a_deleted_endpoint_is_gone_and_its_entries_stay(platform: Platform) -> None:
    make(platform, "gone")
    assert platform.ask("endpoints/gone?dry_run=true", method="DELETE").json()["changes"][0]["action"] == "deleted"
    assert platform.ask("endpoints/gone", method="DELETE").status == 200
    answer = platform.ask("endpoints/gone", method="DELETE")
    assert (answer.status, answer.json()["code"]) == (404, "not_found")
    kinds = [entry["kind"] for entry in platform.ask("ledger/entries?subject=gone&limit=1000").json()["items"]]
    assert {"endpoint.apply", "rollout.promoted", "endpoint.delete"} <= set(kinds)


def test_an_endpoint_says_what_a_gateway_could_not_follow(platform: Platform) -> None:
    make(platform, "misfit")
    why = "schema.inputs.agge: the model has no such input; it takes age"
    platform.rejected_now = {"misfit": why}
    try:
        assert platform.ask("endpoints/misfit").json()["status"]["reason"] == why
    finally:
        platform.rejected_now = {}


def test_a_deploy_starts_a_rollout_and_commands_drive_it(platform: Platform) -> None:
    make(platform, "drive")
    done = platform.ask("endpoints/drive/deploy", {"model": "fraud@2", "reason": "better"}).json()
    assert (done["version"], done["started"]) == ("2", True)
    status = platform.wait_for("drive", "canary", "2")
    assert (status["from"], status["weight"], status["step"], status["steps"]) == ("1", 0.1, 1, 3)
    paused = platform.ask("rollouts/drive/pause", {"reason": "look"}).json()
    assert (paused["outcome"], paused["rollout"]["state"]) == ("paused", "paused")
    refused = platform.ask("rollouts/drive/pause", {})
    assert (refused.status, refused.json()["code"]) == (409, "refused")
    assert "paused already" in refused.json()["detail"]
    assert platform.ask("rollouts/drive/resume", {}).json()["rollout"]["state"] == "canary"
    assert platform.ask("rollouts/drive/promote", method="POST").json()["rollout"]["weight"] == 1.0
    undone = platform.ask("rollouts/drive/undo", {"reason": "oh"}).json()
    assert (undone["rollout"]["to"], undone["rollout"]["state"]) == ("1", "promoted")
    assert platform.ask("rollouts/drive/explode", {}).status == 422


def test_a_version_that_came_back_can_be_deployed_again(platform: Platform) -> None:
    make(platform, "retry")
    for end in ("abort", "abort"):
        assert platform.ask("endpoints/retry/deploy", {"model": "fraud@2"}).json()["started"] is True
        platform.wait_for("retry", "canary", "2")
        assert platform.ask("endpoints/retry/deploy", {"model": "fraud@2"}).json()["started"] is False
        assert platform.ask(f"rollouts/retry/{end}", {}).json()["rollout"]["state"] == "aborted"


def test_a_deploy_may_choose_another_strategy(platform: Platform) -> None:
    make(platform, "strategy")
    change = platform.ask("endpoints/strategy/deploy", {"model": "fraud@2", "strategy": "blue-green"}).json()["change"]
    assert {field["path"] for field in change["fields"]} == {"spec.model", "spec.rollout.strategy"}
    assert platform.wait_for("strategy", "blue-green")["strategy"] == "blue-green"
    assert platform.ask("endpoints", platform.ask("endpoints/strategy").json()).status == 200
    answer = platform.ask("endpoints/strategy/deploy", {"model": "fraud@2", "strategy": "yolo"})
    assert (answer.status, answer.json()["code"]) == (422, "malformed")


def test_a_rollout_shows_what_the_gateways_counted(platform: Platform) -> None:
    make(platform, "counts")
    platform.ask("endpoints/counts/deploy", {"model": "fraud@2"})
    platform.wait_for("counts", "canary", "2")
    latency = (0,) * 40 + (60, 40)
    platform.counted = (
        TrackCounts("counts", 5, "1", requests=90, errors=1, latency=latency),
        TrackCounts("counts", 5, "2", requests=10, errors=3, slow=2),
        TrackCounts("counts", 6, "2", requests=10, errors=1),
    )
    control, canary = platform.ask("rollouts/counts").json()["tracks"]
    platform.counted = ()
    assert (control["role"], control["requests"], control["p50_ms"], control["weight"]) == ("control", 90, 1.024, 0.9)
    assert (canary["role"], canary["requests"], canary["errors"], canary["slow"]) == ("canary", 20, 4, 2)
    assert canary["p50_ms"] is None


def test_a_watch_streams_until_the_rollout_ends(platform: Platform) -> None:
    make(platform, "watch")
    before = platform.ask("rollouts/watch").json()["rollout_id"]
    events: list[tuple[str, dict[str, object]]] = []

    def follow() -> None:
        body = platform.ask(f"rollouts/watch/watch?after={before}").body.decode()
        for block in body.strip().split("\n\n"):
            kind, _, data = block.partition("\n")
            if kind.startswith("event: "):
                events.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))

    watcher = threading.Thread(target=follow)
    watcher.start()
    platform.ask("endpoints/watch/deploy", {"model": "fraud@2"})
    platform.wait_for("watch", "canary", "2")
    platform.ask("rollouts/watch/abort", {"reason": "enough"})
    watcher.join(60)
    assert not watcher.is_alive()
    kinds = [kind for kind, _ in events]
    assert kinds[-1] == "end"
    assert set(kinds[:-1]) == {"status"}
    assert (events[-1][1]["state"], events[-1][1]["reason"]) == ("aborted", "enough")


def test_an_endpoint_without_a_release_is_idle_and_an_unknown_one_is_not_found(
    platform: Platform, tmp_path: Path
) -> None:
    assert platform.ask("rollouts/nothing").status == 404
    assert platform.ask("rollouts/nothing/watch").status == 404
    assert platform.ask("rollouts/nothing/abort", {}).status == 404
    assert platform.ask("endpoints/nothing/deploy", {"model": "fraud@1"}).status == 404
    make(platform, "noversion")
    answer = platform.ask("endpoints/noversion/deploy", {"model": "fraud"})
    assert (answer.status, "say which version" in answer.json()["detail"]) == (422, True)
