"""Requests full of personal data through every door, and none of it in any file, log line or database afterwards."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.e2e.admin_client import Api, wait_until
from tests.e2e.served import Served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SECRETS = {
    "email": "jane.doe@example.com",
    "card": "4111 1111 1111 1111",
    "phone": "+49 171 1234567",
    "iban": "DE89 3704 0044 0532 0130 00",
    "national-id": "536-90-0399",
}
# What is left of each where somebody cut it, quoted it or took the blanks out of it.
TRACES = ("jane.doe", "4111", "1711234567", "171 1234567", "3704", "536-90", "90-0399")
MODEL = """
class Model:
    inputs = {"text": ("BYTES", [-1])}
    outputs = {"label": ("BYTES", [-1])}

    def predict(self, inputs):
        for text in inputs["text"]:
            print("scoring", text.decode(), flush=True)
            if text.startswith(b"raise"):
                raise ValueError("cannot score " + text.decode())
        return {"label": inputs["text"]}
"""
SHADOW = {
    "strategy": "shadow",
    "shadow": {"percent": 100, "min_pairs": 100_000, "slices": "text"},
    "halt": {"quality": {"metric": "accuracy", "margin": 0.01}},
}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[tuple[Served, Api]]:
    for name, more in (("one", ""), ("two", "# another version\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.py").write_text(MODEL + more)
    with Served(tmp_path / "home", options=("--access-log",)) as served, Api(served) as api:
        for version, name in (("1", "one"), ("2", "two")):
            api.push("echo", version, tmp_path / name)
        log = {"sample": 1.0, "redact": list(SECRETS)}
        api.apply("echo", "echo@1", rollout=SHADOW, log=log)
        api.wait_end("echo", "1")
        yield served, api


def traces_in(data: bytes) -> list[str]:
    return [trace for trace in TRACES if trace.encode() in data]


def found_under(directory: Path) -> dict[str, list[str]]:
    """Every regular file with a trace of a secret, and which."""
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.name == "hyperion.db" for path in files)
    found = {str(path.relative_to(directory)): traces_in(path.read_bytes()) for path in files}
    return {name: traces for name, traces in found.items() if traces}


def ask_over_http(served: Served, secret: str, request_id: str) -> str:
    """Requests that are answered, that the model fails, and that are refused. Returns the id of the answered one."""
    headers = {"content-type": "application/json", "x-request-id": request_id}

    def infer(text: str, name: str = "text", datatype: str = "BYTES") -> int:
        tensor = {"name": name, "datatype": datatype, "shape": [1], "data": [text]}
        return served.post("/v2/models/echo/infer", json.dumps({"inputs": [tensor]}).encode(), headers).status

    answer = served.post("/v1/models/echo:predict", json.dumps({"instances": [secret]}).encode(), headers)
    assert (answer.status, answer.json()) == (200, {"predictions": [secret]})
    assert infer(secret) == 200
    assert infer(f"raise {secret}") == 500
    assert infer(secret, name=secret) in (400, 422)
    assert infer(secret, datatype=secret) in (400, 422)
    assert served.post(f"/v2/models/{secret.replace(' ', '')}/infer", b"{}", headers).status in (400, 404)
    return answer.headers["x-request-id"]


def ask_over_grpc(served: Served, secret: str) -> None:
    with triton.InferenceServerClient(served.grpc) as client:
        for text in (secret, f"raise {secret}"):
            tensor = triton.InferInput("text", [1], "BYTES")
            tensor.set_data_from_numpy(np.array([text.encode()], dtype=object))
            if text == secret:
                assert client.infer("echo", [tensor]).as_numpy("label").tolist() == [secret.encode()]
                continue
            with pytest.raises(InferenceServerException):
                client.infer("echo", [tensor], headers={"x-request-id": secret.replace(" ", "")})


def test_no_trace_of_personal_data_is_left_anywhere(platform: tuple[Served, Api]) -> None:
    served, api = platform
    api.deploy("echo", "echo@2")
    api.wait("echo", lambda now: now["to"] == "2" and now["reason"].startswith("copies of"))
    labels = []
    for kind, secret in SECRETS.items():
        request_id = ask_over_http(served, secret, secret.replace(" ", ""))
        assert not traces_in(request_id.encode()), f"the id of a prediction is a {kind}"
        ask_over_grpc(served, secret)
        labels += [
            {"prediction_id": request_id, "label": secret, "source": "test"},
            {"prediction_id": secret, "label": "other", "source": "test"},
        ]
    api.ask("POST", "labels", labels)
    pairs = 3 * len(SECRETS)  # of each secret two over HTTP and one over gRPC were answered
    wait_until(lambda: f" of {pairs} pairs" in json.dumps(api.status("echo")["evidence"]))
    log = served.log.read_text()
    assert log.count("model raised") >= 2 * len(SECRETS)
    for kind in SECRETS:
        assert f"cannot score raise [{kind}]" in log
        assert f"scoring [{kind}]" in log
    assert not traces_in(json.dumps(api.status("echo")).encode())
    assert not traces_in(json.dumps(api.entries("echo")).encode())
    served.stop()  # so that everything is written
    assert found_under(served.home) == {}
    assert traces_in(served.log.read_bytes()) == []
