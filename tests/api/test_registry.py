"""Versions, blobs, keys, the ledger and lineage over the management API: what is kept, and who may do what."""

import hashlib
import http.client
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from hyperion.schema.release import PredictionRow
from hyperion.store import predictions
from hyperion.store.tables import TOKEN
from hyperion.store.versions.push import Details, prepare_push
from tests.api.platform import SUMS, Platform, endpoint


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("registry") / "home") as platform:
        platform.push("fraud", "1")
        yield platform


def manifest(model: str, version: str = "1", path: Path = SUMS) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(prepare_push(model, version, path, Details(git_commit="")).manifest)
    return found


def put_blob(platform: Platform, content: bytes, digest: str = "", **headers: str) -> Any:
    digest = digest or hashlib.sha256(content).hexdigest()
    return platform.ask(f"blobs/sha256:{digest}", content, "PUT", **headers)


def key(platform: Platform, *scopes: str) -> dict[str, Any]:
    made: dict[str, Any] = platform.ask("keys", {"tenant": "acme", "scopes": list(scopes)}).json()
    return made


def test_a_blob_is_kept_only_under_the_digest_of_its_content(platform: Platform) -> None:
    content = b"weights" * 500_000
    digest = hashlib.sha256(content).hexdigest()
    assert platform.ask(f"blobs/sha256:{digest}", method="HEAD").status == 404
    assert put_blob(platform, content[:-1], digest).json()["code"] == "model_refused"
    assert put_blob(platform, content[:-1] + b"!", digest).status == 422
    assert platform.ask("blobs/missing", {"sha256": [digest]}).json() == {"missing": [digest]}
    assert put_blob(platform, content).status == 201
    assert put_blob(platform, content).status == 201
    assert platform.ask(f"blobs/sha256:{digest}", method="HEAD").status == 200
    assert platform.ask("blobs/missing", {"sha256": [digest]}).json() == {"missing": []}
    path = platform.blobs.path_or_none(digest)
    assert path is not None
    assert path.read_bytes() == content


@pytest.mark.parametrize("digest", ["sha256:xyz", "sha256:" + "A" * 64, "..%2F..%2Fetc"])
def test_a_blobs_name_is_a_digest(platform: Platform, digest: str) -> None:
    assert platform.ask(f"blobs/{digest}", b"x", "PUT").status in (404, 422)


def test_an_upload_that_is_cut_off_leaves_nothing(platform: Platform) -> None:
    digest = hashlib.sha256(b"x" * 1000).hexdigest()
    connection = http.client.HTTPConnection("127.0.0.1", platform.port)
    connection.putrequest("PUT", f"/api/v1/blobs/sha256:{digest}")
    connection.putheader("authorization", f"Bearer {platform.token}")
    connection.putheader("content-length", "1000")
    connection.endheaders(b"x" * 500)
    connection.close()
    deadline = time.monotonic() + 60
    unfinished = platform.home / "blobs" / "unfinished"
    while list(unfinished.glob("*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert platform.ask(f"blobs/sha256:{digest}", method="HEAD").status == 404


def test_a_version_needs_its_blobs_and_never_changes(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_bytes((SUMS / "model.py").read_bytes() + b"# fresh\n")
    body = {"manifest": manifest("fresh", path=tmp_path), "alias": "champion"}
    refused = platform.ask("registry/models/fresh/versions", body)
    assert (refused.status, "not uploaded" in refused.json()["detail"]) == (422, True)
    put_blob(platform, (tmp_path / "model.py").read_bytes())
    created = platform.ask("registry/models/fresh/versions", body)
    assert (created.status, created.json()["created"]) == (201, True)
    again = platform.ask("registry/models/fresh/versions", body)
    assert (again.status, again.json()["created"]) == (200, False)
    other = platform.ask("registry/models/fresh/versions", {"manifest": {**body["manifest"], "owner": "eve"}})
    assert (other.status, other.json()["code"]) == (409, "conflict")
    shown = platform.ask("registry/models/fresh/versions/champion").json()
    assert (shown["version"], shown["aliases"], shown["manifest"]["format"]) == ("1", ["champion"], "python")
    listed = platform.ask("registry/models/fresh").json()
    assert (listed["next_version"], [item["version"] for item in listed["items"]]) == ("2", ["1"])
    assert platform.ask("registry/models/fresh/versions/1/verify", {}).json()["ok"] is True


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"digest": "sha256:" + "0" * 64}, "model_refused"),
        ({"files": []}, "model_refused"),
        ({"model": "other"}, "malformed"),
        ({"surprise": 1}, "malformed"),
        ({"format": "exe"}, "model_refused"),
        ({"options": {"trust_pickle": True}}, "model_refused"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(platform: Platform, change: dict[str, Any], code: str) -> None:
    answer = platform.ask("registry/models/bad/versions", {"manifest": {**manifest("bad"), **change}})
    assert answer.json()["code"] == code
    assert platform.ask("registry/models/bad").status == 404


def test_an_alias_moves_and_endpoints_follow(platform: Platform) -> None:
    for version in ("1", "2"):
        platform.push("moving", version)
    assert platform.ask("registry/models/moving/aliases/live", {"version": "1"}, "PUT").status == 200
    platform.ask("endpoints", endpoint("moving", "moving@live", rollout={"strategy": "all-at-once"}))
    platform.wait_for("moving", "promoted", "1")
    platform.ask("registry/models/moving/aliases/live", {"version": "2", "reason": "better"}, "PUT")
    platform.wait_for("moving", "promoted", "2")
    assert platform.ask("registry/models/moving/aliases/live", {"version": "9"}, "PUT").status == 404
    assert platform.ask("registry/models/moving/aliases/7", {"version": "1"}, "PUT").status == 422


@pytest.mark.parametrize(
    ("scope", "allowed", "refused"),
    [
        ("read", [("GET", "endpoints"), ("GET", "ledger/entries"), ("GET", "models")], [("PUT", "endpoints/x")]),
        ("infer", [], [("GET", "endpoints"), ("DELETE", "endpoints/x"), ("POST", "models/x/load")]),
        ("deploy", [("GET", "registry/models"), ("DELETE", "endpoints/x")], [("GET", "keys"), ("POST", "keys")]),
        ("admin", [("GET", "keys"), ("DELETE", "endpoints/x")], []),
    ],
)
def test_a_key_may_do_what_its_scope_says(
    platform: Platform, scope: str, allowed: list[tuple[str, str]], refused: list[tuple[str, str]]
) -> None:
    secret = key(platform, scope)["key"]
    for method, path in allowed:
        assert platform.ask(path, None, method, secret).status in (200, 404)
    for method, path in refused:
        answer = platform.ask(path, {} if method != "GET" else None, method, secret)
        assert (answer.status, answer.json()["code"]) == (403, "forbidden")
        assert f"and this key has {'deploy, read' if scope == 'deploy' else scope};" in answer.json()["detail"]


def test_a_key_that_may_only_call_models_learns_nothing_here(platform: Platform) -> None:
    """Of every route that there is, to be found by the API's own description."""
    secret = key(platform, "infer")["key"]
    let_in = []
    for path, methods in json.loads(platform.ask("openapi.json").body)["paths"].items():
        for method in methods:
            place = re.sub("{[^}]*}", "x", path.removeprefix("/api/v1/"))
            answer = platform.ask(place, None if method in ("get", "head") else {}, method.upper(), secret)
            if answer.status != 403:
                let_in.append((method, path))
    assert let_in == [("post", "/api/v1/labels")]


def test_a_key_that_would_be_over_already_is_not_made(platform: Platform) -> None:
    """Who gives a duration gets to hear that it is none."""
    before = len(platform.ask("keys").json())
    for expires_at in (1, 3600, time.time() - 1):
        answer = platform.ask("keys", {"tenant": "acme", "expires_at": expires_at})
        assert (answer.status, "lies in the past" in answer.json()["detail"]) == (400, True)
    assert len(platform.ask("keys").json()) == before


def test_a_key_ends_when_it_is_revoked_or_expires(platform: Platform) -> None:
    made = key(platform, "read")
    assert platform.ask("endpoints", token=made["key"]).status == 200
    assert platform.ask(f"keys/{made['id']}", method="DELETE").status == 204
    assert platform.ask("endpoints", token=made["key"]).status == 401
    assert platform.ask("keys/nothing", method="DELETE").status == 404
    old = platform.ask("keys", {"tenant": "acme", "scopes": ["read"], "expires_at": time.time() + 600}).json()
    assert platform.ask("endpoints", token=old["key"]).status == 200
    with platform.database.write() as tx:
        tx.execute(update(TOKEN).where(TOKEN.c.id == old["id"]).values(expires_at=time.time() - 1))
    assert platform.ask("endpoints", token=old["key"]).status == 401
    assert platform.ask("endpoints", token="hyp_" + "A" * 43).status == 401
    listed = platform.ask("keys").json()
    assert made["key"] not in str(listed)
    assert next(item for item in listed if item["id"] == made["id"])["revoked_at"] is not None


def test_the_ledger_names_the_key_and_the_person_it_acts_for(platform: Platform) -> None:
    made = key(platform, "deploy")
    platform.ask("endpoints", endpoint("who", "fraud@1"), token=made["key"], x_hyperion_actor="ada@laptop")
    (entry,) = platform.ask("ledger/entries?subject=who&kind=endpoint.apply").json()["items"]
    assert entry["actor"] == f"key:{made['id']}:ada@laptop"


def test_the_ledger_is_proved_and_verified(platform: Platform) -> None:
    for number in range(5):
        platform.ask("endpoints", endpoint(f"entry-{number}", "fraud@1"))
    kept = platform.ask("ledger/checkpoint").json()
    size = int(kept["checkpoint"].splitlines()[1])
    assert len(platform.ask(f"ledger/proofs/inclusion?seq=2&size={size}").json()["hashes"]) >= 2
    assert platform.ask(f"ledger/proofs/consistency?first=3&second={size}").json()["hashes"]
    assert platform.ask("ledger/proofs/inclusion?seq=100000").status == 404
    found = platform.ask("ledger/verify", kept).json()
    assert (found["ok"], found["problem"]) == (True, "")
    forged = platform.ask("ledger/verify", {"checkpoint": "nonsense"})
    assert (forged.status, forged.json()["code"]) == (400, "invalid_config")
    pages, after = 0, -1
    while after is not None:
        page = platform.ask(f"ledger/entries?limit=3&after={after}").json()
        pages, after = pages + len(page["items"]), page["next"]
    assert pages >= size


def test_a_prediction_is_explained_back_to_code_data_and_people(platform: Platform) -> None:
    for version in ("1", "2"):
        platform.push("lineage", version)
    platform.ask("endpoints", endpoint("lineage", "lineage@1", rollout={"steps": [{"percent": 10}]}))
    platform.wait_for("lineage", "promoted", "1")
    platform.ask("endpoints/lineage/deploy", {"model": "lineage@2", "reason": "ticket 7"})
    status = platform.wait_for("lineage", "canary", "2")
    state = platform.desk.get_rollout("lineage").state
    assert state is not None
    row = PredictionRow("req-1", "lineage", "2", status["to_digest"], state.epoch, "200", time.time(), 1.5)
    with platform.database.write() as tx:
        predictions.put_many(tx, [row])
    found = platform.ask("explain/req-1").json()
    assert (found["git_commit"], found["data_version"]) == ("c0ffee2", "d2")
    assert (found["model"]["version"], found["release"]) == ("2", status["rollout_id"])
    assert (found["step"]["kind"], found["step"]["detail"]["weight"]) == ("rollout.step", 0.1)
    assert [(entry["actor"], entry["reason"]) for entry in found["approvals"]] == [("admin", "ticket 7")]
    kinds = {entry["kind"] for entry in found["entries"]}
    assert {"model.push", "endpoint.apply", "rollout.started", "rollout.step"} <= kinds
    assert platform.ask("explain/req-2").status == 404
    now = platform.ask(f"ledger/live?endpoint=lineage&at={time.time()}").json()
    assert now["versions"] == pytest.approx({"1": 0.9, "2": 0.1})
    assert now["approvals"][0]["reason"] == "ticket 7"
    then = platform.ask(f"ledger/live?endpoint=lineage&at={status['started_at'] - 0.001}").json()
    assert then["versions"] == {"1": 1.0}
    assert platform.ask("ledger/live?endpoint=lineage&at=1").status == 404


def test_before_the_store_is_open_the_api_says_so(platform: Platform) -> None:
    desk, platform.desk = platform.desk, None  # type: ignore[assignment]
    try:
        answer = platform.ask("endpoints")
        assert (answer.status, answer.json()["code"]) == (503, "not_ready")
        assert platform.ask("endpoints", token="hyp_x").status == 503
    finally:
        platform.desk = desk


def test_the_document_describes_resources_and_problems(platform: Platform) -> None:
    document = platform.ask("openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {"Endpoint", "EndpointSpec", "Rollout", "Problem", "RolloutView"} <= set(schemas)
    body = document["paths"]["/api/v1/endpoints"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "application/yaml"}
    refused = document["paths"]["/api/v1/endpoints"]["post"]["responses"]["422"]["content"]
    assert list(refused) == ["application/problem+json"]
    references = {part.split('"')[0] for part in str(document).replace("'", '"').split("#/components/schemas/")[1:]}
    assert references <= set(schemas)


@pytest.mark.parametrize(("path", "allowed"), [("endpoints", "GET, POST"), ("endpoints/x", "DELETE, GET, PUT")])
def test_a_method_that_is_not_allowed_is_told_all_that_are(platform: Platform, path: str, allowed: str) -> None:
    answer = platform.ask(path, method="PATCH")
    assert (answer.status, answer.headers["allow"]) == (405, allowed)
    assert f"PATCH is not allowed here, but {allowed}" in answer.json()["error"]
