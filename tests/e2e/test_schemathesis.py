"""Requests that Schemathesis makes of the OpenAPI documents: whatever comes, nothing answers 5xx, hangs or dies.

What is made by the documents alone would mostly be refused for a name that nobody has. So they are narrowed to what is
there, and to what does not start processes or call strangers. HYPERION_FUZZ_EXAMPLES=300 makes more of each.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from tests.e2e.admin_client import Api
from tests.e2e.served import ROOT, Served
from tests.services import needs_module

schemathesis = needs_module("schemathesis", extra="dev")

EXAMPLES = int(os.environ.get("HYPERION_FUZZ_EXAMPLES", "4"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 60 * EXAMPLES)]

MODELS = Path(__file__).parent / "models"
NAMES = {"enum": ["one", "two", "sums", "not-there"]}
NOWHERE = {"enum": ["http://127.0.0.1:9", "https://127.0.0.1:9/x"]}
THERE = {
    "model": {"enum": ["sums", "countdown", "everything", "shout", "not-there"]},
    "version": {"enum": ["1", "2", "7"]},
    "alias": {"enum": ["champion", "1"]},
    "endpoint": NAMES,
    "name": NAMES,
    "tenant": NAMES,
}
PAIR = {"shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
FITTING = [  # requests of one model or the other
    [{"name": "a", **PAIR}, {"name": "b", **PAIR}],
    [{"name": "b", **PAIR}, {"name": "a", **PAIR, "data": [[0.5, -3]]}],
    [{"name": "start", "shape": [1, 1], "datatype": "INT32", "data": [3]}],
    [{"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": ["ab", "c"]}],
]
FLAT = [{"start": 3}, {"start": [2]}, {"a": [1, 2], "b": [3, 4]}, {"text": "ab"}]
STREAMS = ("/watch", "/live")  # they go on until their readers leave


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("fuzzed") / "home", MODELS) as served:
        yield served


def test_the_inference_api_answers_whatever_its_document_lets_one_send(served: Served) -> None:
    document = yaml.safe_load((ROOT / "docs" / "inference.openapi.yaml").read_text())
    narrow_tensors(document)
    said = try_all(served, document, served.url, {})
    assert {200, 400, 404} <= set(said), said


def test_the_management_api_answers_whatever_its_document_lets_one_send(served: Served) -> None:
    url = f"http://127.0.0.1:{served.admin_port}"
    token = (served.home / "admin-token").read_text().strip()
    with Api(served) as api:
        api.push("sums", "1", MODELS / "sums")
    document = requests.get(f"{url}/api/v1/openapi.json", timeout=10).json()
    narrow_resources(document["components"]["schemas"], served.home.parent)
    for operations in document["paths"].values():  # text that is no YAML teaches nothing; JSON is
        for operation in operations.values():
            operation.get("requestBody", {"content": {}})["content"].pop("application/yaml", None)
    said = try_all(served, document, url, {"authorization": f"Bearer {token}"})
    assert {200, 201, 204, 404, 422} <= set(said), said
    with Api(served) as api:
        assert api.ask("GET", "ledger/entries?limit=1")["items"]
        assert api.ask("POST", "ledger/verify", {})["ok"]


def narrow_resources(schemas: dict[str, Any], directory: Path) -> None:
    """Names that are there, endpoints of a registered model with one replica, addresses at which nobody is, and files
    of this test."""
    schemas["Metadata"]["properties"] = {"name": NAMES}
    spec = schemas["EndpointSpec"]["properties"]
    for field in ("replicas", "resources"):
        del spec[field]
    kinds = []
    for kind in ("model", "upstream", "graph"):
        others = {"model", "upstream", "graph"} - {kind}
        fields = {name: schema for name, schema in spec.items() if name not in others}
        fields[kind] = {"const": "sums@1"} if kind == "model" else spec[kind]["anyOf"][0]
        kinds.append({"type": "object", "required": [kind], "properties": fields, "additionalProperties": False})
    schemas["EndpointSpec"] = {"anyOf": kinds}
    schemas["Upstream"]["properties"]["url"] = NOWHERE
    issuer = schemas["IssuerSpec"]["properties"]
    issuer["algorithms"]["items"] = {"enum": ["RS256", "ES256", "none"]}
    issuer["issuer"] = issuer["jwks_url"] = NOWHERE
    if "BatchJobSpec" in schemas:
        for field in ("source", "target"):
            schemas["BatchJobSpec"]["properties"][field] = {"const": str(directory / f"{field}.csv")}
    schemas["QueryLimit"]["properties"]["provider"] = NOWHERE
    schemas["DeployRequest"]["properties"]["model"] = {"enum": ["sums@1", "sums@champion", "sums"]}


def narrow_tensors(document: dict[str, Any]) -> None:
    """Often what a model takes. No model is unloaded and nobody is in a hurry: 503 and 504 would be right then."""
    parts = document["components"]
    parts["parameters"]["timeout"]["schema"]["minimum"] = 20_000
    inputs = parts["schemas"]["InferRequest"]["properties"]
    inputs["inputs"] = {"anyOf": [{"enum": FITTING}, inputs["inputs"]]}
    flat = parts["requestBodies"]["Flat"]["content"]["application/json"]
    flat["schema"] = {"anyOf": [{"enum": FLAT}, flat["schema"]]}
    document["paths"]["/v2/repository/models/{model}/unload"]["parameters"] = [
        {"name": "gone", "in": "path", "required": True, "schema": {"const": "not-there"}}
    ]
    document["paths"]["/v2/repository/models/{gone}/unload"] = document["paths"].pop(
        "/v2/repository/models/{model}/unload"
    )


def try_all(served: Served, document: dict[str, Any], url: str, headers: dict[str, str]) -> Counter[int]:
    """Asks for every operation of the document, as it allows and otherwise. How often each status came."""
    for operations in document["paths"].values():
        for operation in (operations, *operations.values()):
            for parameter in operation.get("parameters", ()) if isinstance(operation, dict) else ():
                if parameter.get("in") == "path" and parameter["name"] in THERE:
                    parameter["schema"] = THERE[parameter["name"]]
    for name, parameter in document["components"].get("parameters", {}).items():
        parameter["schema"] = THERE.get(name, parameter["schema"])
    del document["security"], document["components"]["securitySchemes"]  # whose requests these are is not in question
    pids = {role: served.pids(role) for role in ("supervisor", "control", "gateway")}
    schema = schemathesis.openapi.from_dict(json.loads(json.dumps(document)))
    said: Counter[int] = Counter()
    with requests.Session() as session:
        session.headers.update(headers)
        for found in schema.get_all_operations():
            if not found.ok().path.endswith(STREAMS):
                try_one(found.ok(), url, session, said)
    assert {role: served.pids(role) for role in pids} == pids
    assert served.get("/v2/health/live").status == 200
    assert "Traceback" not in served.log.read_text()
    return said


def try_one(operation: Any, url: str, session: requests.Session, said: Counter[int]) -> None:
    """Asks for one operation. A failure shows the request as a line of curl."""
    modes = schemathesis.GenerationMode
    for mode, examples in ((modes.POSITIVE, EXAMPLES), (modes.NEGATIVE, EXAMPLES // 3)):

        @settings(max_examples=max(1, examples), database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            answer = case.call(base_url=url, session=session, timeout=20)
            said[answer.status_code] += 1
            assert answer.status_code < 500, f"{answer.status_code} {answer.text}\n{case.as_curl_command()}"

        try:
            ask()
        except Unsatisfiable:
            assert mode is modes.NEGATIVE, operation.path  # some operations have nothing that could be wrong
