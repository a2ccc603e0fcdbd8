"""The management API of a real platform: who may ask, what it says, and what it does."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.served import Answer, Served

MODELS = Path(__file__).parents[1] / "e2e" / "models"


class Admin:
    """A platform that serves one repository, and its management API."""

    def __init__(self, served: Served, repository: Path) -> None:
        self.served = served
        self.repository = repository
        self.token = (served.home / "admin-token").read_text().strip()

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        return self.served.ask(method, path, None, headers, self.served.admin_port)

    def call(self, path: str, method: str = "GET") -> Any:
        answer = self.ask(path, method, authorization=f"Bearer {self.token}")
        assert answer.status < 300, answer
        return answer.json() if answer.body else None

    def infer(self, model: str) -> int:
        rows = {"shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
        return self.served.post(
            f"/v2/models/{model}/infer", {"inputs": [{"name": name, **rows} for name in ("a", "b")]}
        ).status


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    directory = tmp_path_factory.mktemp("api")
    repository = directory / "repository"
    shutil.copytree(MODELS / "sums", repository / "sums")
    with Served(directory / "home", repository) as served:
        yield Admin(served, repository)


@pytest.mark.parametrize("given", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}])
def test_without_the_token_nothing_is_told(admin: Admin, given: dict[str, str]) -> None:
    for path in ("status", "models", "replicas", "config", "models/sums"):
        answer = admin.ask(f"/api/v1/{path}", **given)
        asks = 'Bearer error="invalid_token"' if given else "Bearer"
        assert (answer.status, answer.headers["www-authenticate"]) == (401, asks)
    assert admin.ask("/api/v1/models/sums/unload", "POST", **given).status == 401


def test_no_answer_of_the_api_is_to_be_kept_anywhere(admin: Admin) -> None:
    token = {"authorization": f"Bearer {admin.token}"}
    for path, given in (("status", token), ("status", {}), ("nothing", token), ("keys", token)):
        assert admin.ask(f"/api/v1/{path}", **given).headers["cache-control"] == "no-store"
    assert "cache-control" not in admin.ask("/api/v1/openapi.json").headers


def test_the_token_file_can_be_read_by_its_owner_only(admin: Admin) -> None:
    assert (admin.served.home / "admin-token").stat().st_mode & 0o777 == 0o600
    assert admin.served.home.stat().st_mode & 0o777 == 0o700
    assert (admin.served.home / "run").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "headers",
    [{"host": "evil.example"}, {"host": ""}, {"origin": "https://evil.example"}, {"origin": "null"}],
)
def test_pages_of_other_sites_get_nothing_even_with_the_token(admin: Admin, headers: dict[str, str]) -> None:
    answer = admin.ask("/api/v1/models", authorization=f"Bearer {admin.token}", **headers)
    assert answer.status in (400, 403)
    assert b"sums" not in answer.body


def test_the_page_of_this_very_host_may_call(admin: Admin) -> None:
    host = f"localhost:{admin.served.admin_port}"
    headers = {"host": host, "origin": f"http://{host}", "authorization": f"Bearer {admin.token}"}
    assert admin.ask("/api/v1/models", **headers).status == 200


def test_the_status_names_models_replicas_and_processes(admin: Admin) -> None:
    status = admin.call("/api/v1/status")
    assert status["ready"] is True
    assert status["gateways"] == {"0": status["snapshot_version"]}
    (model,) = status["models"]
    (version,) = model["versions"]
    assert (model["name"], version["state"]) == ("sums", "READY")
    assert [tensor["name"] for tensor in version["inputs"]] == ["a", "b"]
    assert {replica["name"] for replica in status["replicas"]} >= set(version["replicas"])
    assert {"control", "gateway 0"} <= {process["name"] for process in status["processes"]}
    assert admin.served.url in model["infer_url"]


def test_the_configuration_says_where_each_value_comes_from(admin: Admin) -> None:
    settings = {entry["key"]: entry for entry in admin.call("/api/v1/config")}
    assert settings["port"] == {"key": "port", "value": str(admin.served.port), "source": "--port"}
    assert settings["queue_rows"]["source"] == "default"


def test_a_model_is_unloaded_and_loaded_again(admin: Admin) -> None:
    before = admin.call("/api/v1/models/sums")["versions"][0]["generation"]
    assert admin.call("/api/v1/models/sums/unload", "POST") is None
    assert admin.infer("sums") in (404, 503)
    assert admin.call("/api/v1/models/sums")["versions"][0]["state"] != "READY"
    loaded = admin.call("/api/v1/models/sums/load", "POST")
    assert loaded["versions"][0]["generation"] > before
    assert admin.infer("sums") == 200


def test_a_load_that_fails_says_why_and_what_served_goes_on(admin: Admin) -> None:
    source = admin.repository / "sums" / "model.py"
    good = source.read_text()
    source.write_text("this is not Python\n")
    try:
        answer = admin.ask("/api/v1/models/sums/load", "POST", authorization=f"Bearer {admin.token}")
        assert (answer.status, answer.json()["code"]) == (422, "model_refused")
        assert "model.py" in answer.json()["error"]
        assert admin.infer("sums") == 200
        assert "model.py" in admin.call("/api/v1/models/sums")["versions"][0]["reason"]
    finally:
        source.write_text(good)
    admin.call("/api/v1/models/sums/load", "POST")


def test_a_model_that_was_added_to_the_repository_can_be_loaded(admin: Admin) -> None:
    shutil.copytree(MODELS / "sums", admin.repository / "more")
    assert admin.call("/api/v1/models/more/load", "POST")["versions"][0]["state"] == "READY"
    assert admin.infer("more") == 200
    admin.call("/api/v1/models/more/unload", "POST")


def test_unknown_models_are_404_in_one_sentence(admin: Admin) -> None:
    for path, method in (("nothing", "GET"), ("nothing/load", "POST"), ("nothing/unload", "POST")):
        answer = admin.ask(f"/api/v1/models/{path}", method, authorization=f"Bearer {admin.token}")
        assert (answer.status, answer.json()["code"]) == (404, "unknown_model")


def test_health_and_metrics_need_no_token(admin: Admin) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert admin.ask(path).status == 200
    admin.infer("sums")
    text = admin.ask("/metrics", host="prometheus.example").body.decode()
    assert re.search(r'hyperion_requests_total\{endpoint="sums",version="1",protocol="http",code="200"\} [1-9]', text)


@pytest.mark.parametrize("path", ["/", "/api/docs"])
def test_pages_load_nothing_from_elsewhere(admin: Admin, path: str) -> None:
    answer = admin.ask(path)
    assert answer.status == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(rb"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", answer.body)
    assert admin.token.encode() not in answer.body


def test_the_openapi_document_describes_every_call(admin: Admin) -> None:
    document = json.loads(admin.ask("/api/v1/openapi.json").body)
    assert set(document["paths"]) >= {
        "/api/v1/status",
        "/api/v1/endpoints",
        "/api/v1/endpoints/{endpoint}/deploy",
        "/api/v1/rollouts/{endpoint}/watch",
        "/api/v1/registry/models/{model}/versions/{version}",
        "/api/v1/blobs/{digest}",
        "/api/v1/keys",
        "/api/v1/ledger/verify",
        "/api/v1/explain/{prediction_id}",
        "/api/v1/models",
        "/api/v1/models/{model}",
        "/api/v1/models/{model}/load",
        "/api/v1/models/{model}/unload",
        "/api/v1/replicas",
        "/api/v1/config",
    }
    page = admin.ask("/api/docs").body.decode()
    assert all(path in page for path in document["paths"])


@pytest.mark.parametrize(
    "path",
    [f"ledger/{query}={1 << 63}" for query in ("entries?after", "proofs/inclusion?seq", "proofs/consistency?first")],
)
def test_a_number_beyond_what_a_database_holds_is_refused(admin: Admin, path: str) -> None:
    answer = admin.ask(f"/api/v1/{path}", authorization=f"Bearer {admin.token}")
    assert (answer.status, "less than or equal" in answer.json()["error"]) == (422, True)
