"""The HTTP routes as the protocols' texts describe them, asked with nothing but the standard library."""

import json
import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.served import Served

SUMS = {
    "inputs": [
        {"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]},
        {"name": "b", "shape": [1, 2], "datatype": "FP32", "data": [[10, 20]]},
    ]
}


def test_health_answers_as_the_protocol_says(clients: Served) -> None:
    assert clients.get("/v2/health/live")[::2] == (200, b'{"live":true}')
    assert clients.get("/v2/health/ready")[::2] == (200, b'{"ready":true}')
    assert clients.get("/v2/models/sums/ready").status == 200
    assert clients.get("/v2/models/sums/versions/1/ready").status == 200
    for probe in ("/healthz", "/livez", "/readyz", "/ping"):
        assert clients.get(probe).status == 200, probe


def test_server_metadata_has_the_members_of_the_specification(clients: Served) -> None:
    answer = clients.get("/v2")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    metadata = answer.json()
    assert metadata.keys() == {"name", "version", "extensions"}
    assert metadata["name"] == "hyperion"
    assert {"binary_tensor_data", "model_repository", "generate"} <= set(metadata["extensions"])


@pytest.mark.parametrize("path", ["/v2/models/sums", "/v2/models/sums/versions/1"])
def test_model_metadata_has_the_members_of_the_specification(path: str, clients: Served) -> None:
    assert clients.get(path).json() == {
        "name": "sums",
        "versions": ["1"],
        "platform": "python",
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "b", "datatype": "FP32", "shape": [-1, 2]},
        ],
        "outputs": [
            {"name": "sum", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "difference", "datatype": "FP32", "shape": [-1, 2]},
        ],
    }


@pytest.mark.parametrize("path", ["/v2/models/sums/infer", "/v2/models/sums/versions/1/infer"])
def test_flat_and_nested_data_are_the_same(path: str, clients: Served) -> None:
    answer = clients.post(path, {"id": "7", **SUMS})
    assert answer.status == 200, answer.body
    assert answer.json() == {
        "model_name": "sums",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "sum", "datatype": "FP32", "shape": [1, 2], "data": [11.0, 22.0]},
            {"name": "difference", "datatype": "FP32", "shape": [1, 2], "data": [-9.0, -18.0]},
        ],
    }


def test_an_answer_says_who_gave_it_and_where_the_time_went(clients: Served) -> None:
    headers = clients.post("/v2/models/sums/infer", SUMS, {"x-request-id": "abc-1"}).headers
    assert headers["x-request-id"] == "abc-1"
    assert headers["x-hyperion-model-version"] == "1"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", headers["x-hyperion-model-digest"])
    assert headers["x-hyperion-served-by"] == "model"
    stages = dict(part.split(";dur=") for part in headers["server-timing"].split(", "))
    assert stages.keys() == {"queue", "batch", "compute"}
    assert all(float(milliseconds) >= 0 for milliseconds in stages.values())


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v2/models/nowhere/infer", SUMS, 404, "nowhere"),
        ("/v2/models/sums/versions/9/infer", SUMS, 404, "9"),
        ("/v2/models/sums/infer", b"{", 400, "JSON"),
        ("/v2/models/sums/infer", {"inputs": SUMS["inputs"][:1]}, 422, '"b"'),
        ("/v2/models/sums/infer", {**SUMS, "outputs": [{"name": "product"}]}, 422, "product"),
        ("/v2/nothing", {}, 404, "/v2/nothing"),
    ],
)
def test_an_error_is_one_sentence_under_the_key_error(
    path: str, body: Any, status: int, words: str, clients: Served
) -> None:
    answer = clients.post(path, body)
    assert answer.status == status, answer.body
    assert list(answer.json()) == ["error"]
    assert words.strip("/") in answer.json()["error"]


def test_a_deadline_that_has_no_chance_is_a_504(clients: Served) -> None:
    answer = clients.post("/v2/models/slow/infer", slow_request(1.0), {"x-request-timeout-ms": "50"})
    assert answer.status == 504, answer.body


def slow_request(seconds: float) -> dict[str, Any]:
    return {"inputs": [{"name": "seconds", "shape": [1, 1], "datatype": "FP32", "data": [seconds]}]}


def test_v1_takes_instances_and_gives_predictions(clients: Served) -> None:
    answer = clients.post("/v1/models/shout:predict", {"instances": [["hello"], ["wörld"]]})
    assert answer.status == 200, answer.body
    assert answer.json() == {"predictions": [["HELLO"], ["WÖRLD"]]}


def test_generate_gives_one_flat_object(clients: Served) -> None:
    answer = clients.post("/v2/models/shout/generate", {"text": "hello"})
    assert answer.status == 200, answer.body
    assert answer.json() == {"model_name": "shout", "model_version": "1", "shout": "HELLO"}


def test_generate_stream_is_server_sent_events_one_for_each_part(clients: Served) -> None:
    answer = clients.post("/v2/models/countdown/generate_stream", {"start": 3})
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [event for event in answer.body.decode().split("\n\n") if event]
    assert all(event.startswith("data: ") for event in events)
    assert [json.loads(event.removeprefix("data: "))["number"] for event in events] == [3, 2, 1]


def test_invocations_needs_exactly_one_model(clients: Served) -> None:
    answer = clients.post("/invocations", {"inputs": [[1.0]]})
    assert answer.status == 404
    assert "/v2/models/NAME/infer" in answer.json()["error"]


def test_the_repository_index_lists_every_model(clients: Served) -> None:
    rows = clients.post("/v2/repository/index", b"").json()
    assert {row["name"] for row in rows} >= {"sums", "everything", "countdown", "shout"}
    assert all(row.keys() == {"name", "version", "state", "reason"} for row in rows)


@pytest.mark.parametrize("where", ["inference", "management"])
def test_metrics_parse_and_count_the_requests(where: str, clients: Served) -> None:
    port = clients.port if where == "inference" else clients.admin_port

    def answered() -> float:
        text = clients.get("/metrics", port=port).body.decode()
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert families["hyperion_request_seconds"].type == "histogram"
        return sum(
            sample.value
            for sample in families["hyperion_requests"].samples
            if sample.labels == {"endpoint": "sums", "version": "1", "protocol": "http", "code": "200"}
        )

    before = answered()
    for _ in range(3):
        assert clients.post("/v2/models/sums/infer", SUMS).status == 200
    assert answered() == before + 3
