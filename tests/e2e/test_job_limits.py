"""A job counts for its tenant's quotas as one request, and for the rows that each attempt asks for."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.e2e.admin_client import Api, wait_until
from tests.e2e.served import Served

TENSOR = {"name": "x", "datatype": "FP32", "shape": [-1, 1]}
ONE = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}
ANSWER = json.dumps({"model_name": "far", "outputs": [{**ONE, "name": "y"}]}).encode()


class Far(BaseHTTPRequestHandler):
    """A model that is busy at first, then fails, and then answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        metadata = {"name": "far", "platform": "x", "inputs": [TENSOR], "outputs": [{**TENSOR, "name": "y"}]}
        self._answer(200, json.dumps({"extensions": [], **metadata} if "ready" not in self.path else {}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        statuses = self.server.statuses  # type: ignore[attr-defined]
        status = statuses.pop(0) if statuses else 200
        self._answer(status, ANSWER if status == 200 else b"{}")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status == 503:
            self.send_header("retry-after", "1")
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def far() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Far)
    server.statuses = [503, 502]  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def test_a_job_is_one_request_of_its_tenants_quota_however_often_it_is_tried(tmp_path: Path) -> None:
    with far() as port, Served(tmp_path / "home") as served, Api(served) as api:
        quotas = {"requests_per_day": 1, "rows_per_day": 3}
        api.ask("PUT", "tenants/acme", {"kind": "Tenant", "metadata": {"name": "acme"}, "spec": {"quotas": quotas}})
        key = {"authorization": f"Bearer {api.ask('POST', 'keys', {'tenant': 'acme', 'scopes': ['infer']})['key']}"}
        spec = {"upstream": {"url": f"http://127.0.0.1:{port}"}, "jobs": {"attempts": 3, "backoff_s": 0.1}}
        api.ask("POST", "endpoints", {"kind": "Endpoint", "metadata": {"name": "far"}, "spec": spec})
        wait_until(lambda: served.get("/v2/models/far", key).status == 200)
        body = {"inputs": [ONE]}
        accepted = served.post("/v2/models/far/infer", body, {**key, "prefer": "respond-async"})
        assert accepted.headers["ratelimit-policy"].startswith('"tenant-day";q=1;w=86400, "tenant-rows-day";q=3;')
        job = accepted.headers["location"]

        def look() -> dict[str, Any]:
            seen: dict[str, Any] = served.get(job, key).json()
            return seen

        wait_until(lambda: look()["state"] not in ("queued", "running"))
        assert (look()["state"], look()["attempts"]) == ("done", 2), look()  # that it was busy counts for none
        wait_until(lambda: api.ask("GET", "tenants/acme/usage")["total"]["rows"] == 3)
        assert api.ask("GET", "tenants/acme/usage")["total"]["requests"] == 1
        refused = served.post("/v2/models/far/infer", body, key)
        assert (refused.status, "quota of requests" in refused.json()["error"]) == (429, True)
