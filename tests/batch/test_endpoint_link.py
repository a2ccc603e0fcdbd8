"""A served endpoint that computes for a table: what it answers while it is not itself."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest

from hyperion.batch import endpoint_link
from hyperion.batch.columns import InputPlan
from hyperion.batch.endpoint_link import EndpointLink
from hyperion.batch.link import Answer, Batch
from hyperion.schema.errors import UpstreamFailed

X = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
Y = {"name": "y", "datatype": "FP32", "shape": [-1]}
GOOD = json.dumps({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [3.0]}]}).encode()


class Endpoint(HTTPServer):
    """Answers each request with the next of `answers`, and the last one again and again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_GET(self) -> None:
        self._send("model", json.dumps({"name": "m", "inputs": [X], "outputs": [Y]}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        answers = self.server.answers
        self._send(*(answers.pop(0) if len(answers) > 1 else answers[0]))

    def _send(self, served_by: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("x-hyperion-served-by", served_by)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def score(endpoint: Endpoint) -> Answer:
    """One row."""
    link = EndpointLink(endpoint.url, "m")
    plan = InputPlan("x", "FP32", (2,), ("a", "b"))

    def fill(_: InputPlan, target: Any) -> None:
        target[:] = 1.0

    try:
        (answer,) = link.score([Batch(0, 1, fill, lambda _: np.empty(0, object))], [plan])
    finally:
        link.close()
    return answer


def test_a_stand_ins_answer_is_waited_out(endpoint: Endpoint) -> None:
    endpoint.answers = [("fallback:static", GOOD.replace(b"3.0", b"0.0")), ("model", GOOD)]
    assert score(endpoint).outputs["y"].tolist() == [3.0]


def test_a_run_ends_where_only_a_stand_in_answers(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_link, "PATIENCE_S", 0.0)
    endpoint.answers = [("fallback:static", GOOD)]
    with pytest.raises(UpstreamFailed, match='endpoint "m" gives the answers of its fallback:static only'):
        score(endpoint)


def test_an_answer_that_cannot_be_used_says_whose_it_is(endpoint: Endpoint) -> None:
    endpoint.answers = [("model", b"{")]
    with pytest.raises(UpstreamFailed, match='endpoint "m": its answer cannot be used: '):
        score(endpoint)
