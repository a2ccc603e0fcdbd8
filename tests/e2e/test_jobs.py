"""Jobs and idempotent calls over a real platform: asked for, run, looked at, told of, cancelled, replayed."""

import base64
import hashlib
import hmac
import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from hyperion.wire.grpc.messages import ModelInferRequest
from tests.e2e.admin_client import Api
from tests.e2e.callback_receiver import Receiver, receiving
from tests.e2e.crash_jobs import INFER, body_of, executions, tally_platform
from tests.e2e.served import ROOT, Answer, Served

LATER = {"prefer": "respond-async"}
SLOW = "/v2/models/slow/infer"


class Platform:
    """The platform, where its model writes, and who takes its callbacks."""

    def __init__(self, served: Served, tally: Path, receiver: Receiver) -> None:
        self.served = served
        self.tally = tally
        self.receiver = receiver

    def ask(self, name: str, **headers: str) -> Answer:
        return self.served.post(INFER, body_of(name), {key.replace("_", "-"): value for key, value in headers.items()})

    def submit(self, name: str, **headers: str) -> str:
        """The job's path."""
        answer = self.ask(name, prefer="respond-async", **headers)
        assert answer.status == 202, answer
        return answer.headers["location"]

    def until(self, location: str, *states: str) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while True:
            seen: dict[str, Any] = self.served.get(location).json()
            if seen["state"] in states:
                return seen
            assert time.monotonic() < deadline, seen
            time.sleep(0.02)

    def ran(self, name: str) -> int:
        return len(executions(self.tally).get(name, ()))

    def knows(self, key: str) -> bool:
        """Whether the key is in the store."""
        with closing(sqlite3.connect(self.served.home / "hyperion.db")) as store:
            return bool(store.execute("SELECT 1 FROM idempotent_call WHERE key = ?", (key,)).fetchall())

    def key(self, tenant: str) -> str:
        """A new key of the tenant's."""
        token = (self.served.home / "admin-token").read_text().strip()
        body = {"tenant": tenant, "scopes": ["infer"]}
        headers = {"authorization": f"Bearer {token}"}
        made = self.served.post("/api/v1/keys", body, headers, self.served.admin_port)
        assert made.status == 201, made
        return str(made.json()["key"])

    def job(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`hyperion job …`"""
        url = f"http://127.0.0.1:{self.served.admin_port}"
        command = [sys.executable, "-m", "hyperion", "job", *arguments, "--url", url, "--home", str(self.served.home)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    slow = str(ROOT / "tests/e2e/models/slow")
    with (
        receiving() as receiver,
        tally_platform(
            tmp_path_factory.mktemp("jobs"), slow, "--callback-hosts", "localhost", program="tests.e2e.hasty_serve"
        ) as (served, tally),
    ):
        yield Platform(served, tally, receiver)


def test_a_job_is_accepted_run_and_its_answer_kept(platform: Platform) -> None:
    answer = platform.ask("plain", prefer="wait=1, respond-async", x_request_id="mine")
    assert (answer.status, answer.headers["preference-applied"]) == (202, "respond-async")
    assert answer.json()["location"] == answer.headers["location"] == f"/v2/jobs/{answer.json()['id']}"
    seen = platform.until(answer.headers["location"], "done")
    assert (seen["endpoint"], seen["attempts"], seen["result"]["status"]) == ("tally", 1, 200)
    result = platform.served.get(seen["result"]["location"])
    assert (result.status, result.headers["x-request-id"], result.headers["x-hyperion-served-by"]) == (
        *(200, "mine"),
        "model",
    )
    assert result.json()["outputs"][0]["data"][0].startswith("plain ")
    assert platform.served.get(seen["result"]["location"]).body == result.body
    assert platform.ran("plain") == 1


def test_a_request_id_that_is_an_address_becomes_no_jobs_request_id(platform: Platform) -> None:
    answer = platform.ask("nobody's", prefer="respond-async", x_request_id="jane@example.com")
    seen = platform.until(answer.headers["location"], "done")
    result = platform.served.get(seen["result"]["location"])
    assert result.headers["x-request-id"] == answer.json()["id"]


def test_a_job_that_cannot_succeed_fails_at_once_with_the_models_answer(platform: Platform) -> None:
    answer = platform.served.post(INFER, {"inputs": []}, LATER)
    seen = platform.until(answer.headers["location"], "failed", "dead")
    assert (seen["state"], seen["attempts"]) == ("failed", 1)
    result = platform.served.get(f"{answer.headers['location']}/result")
    assert result.status == seen["result"]["status"] in (400, 422)
    assert "error" in result.json()


def test_what_is_not_there_is_not_found_and_what_has_not_ended_has_no_answer(platform: Platform) -> None:
    assert platform.served.get("/v2/jobs/0123456789abcdef0123456789abcdef").status == 404
    assert platform.served.ask("POST", "/v2/jobs/x", b"", None, None).status == 405
    running = platform.served.post(SLOW, slow(0.5), LATER).headers["location"]
    early = platform.served.get(f"{running}/result")
    assert (early.status, early.headers["retry-after"]) == (409, "1")
    platform.until(running, "done")


def test_a_cancelled_job_never_ends_otherwise(platform: Platform) -> None:
    running = platform.served.post(SLOW, slow(1.0), LATER).headers["location"]
    platform.until(running, "running")
    assert platform.served.ask("DELETE", running, None, None, None).json()["state"] == "cancelled"
    assert platform.served.ask("DELETE", running, None, None, None).json()["state"] == "cancelled"
    platform.served.post(SLOW, slow(0.0))  # behind it, so its attempt is over
    assert platform.until(running, "cancelled", "done")["state"] == "cancelled"
    assert platform.served.get(f"{running}/result").status == 409


def test_a_key_is_told_the_same_bytes_and_runs_once(platform: Platform) -> None:
    first = platform.ask("once", idempotency_key='"k-1"', x_request_id="first")
    again = platform.ask("once", idempotency_key="k-1", x_request_id="second")
    assert (first.status, again.status, again.body) == (200, 200, first.body)
    assert "idempotency-replayed" not in first.headers
    assert again.headers.pop("idempotency-replayed") == "true"
    assert {**again.headers, "date": ""} == {**first.headers, "date": ""}
    assert platform.ran("once") == 1
    assert platform.ask("another", idempotency_key="k-1").status == 422
    assert platform.ask("once", idempotency_key="").status == 400
    assert platform.ran("another") == 0


def test_of_many_at_once_one_runs_and_the_others_are_told_so_or_the_answer(platform: Platform) -> None:
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.append(platform.ask("crowd", idempotency_key="crowd")))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} <= {200, 409}
    assert len({answer.body for answer in answers if answer.status == 200}) == 1
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status == 409)
    assert platform.ran("crowd") == 1


def test_what_was_refused_before_it_ran_does_not_use_up_its_key(platform: Platform) -> None:
    assert platform.served.post(INFER, b"no json", {"idempotency-key": "fix-me"}).status == 400
    assert platform.ask("fixed", idempotency_key="fix-me").status == 200
    assert platform.ran("fixed") == 1


def test_a_job_with_a_key_is_one_job(platform: Platform) -> None:
    first, again = [platform.ask("keyed", prefer="respond-async", idempotency_key="job-key") for _ in range(2)]
    assert (first.status, first.body) == (again.status, again.body)
    platform.until(first.headers["location"], "done")
    assert platform.ran("keyed") == 1
    assert platform.ask("keyed", idempotency_key="job-key").status == 422, "to be told now is another request"


def test_a_call_goes_on_though_its_caller_leaves_and_its_retry_gets_the_answer(platform: Platform) -> None:
    body, deadline = slow(0.5), time.monotonic() + 60
    with socket.create_connection(("127.0.0.1", platform.served.port)) as one:
        headers = f"content-type: application/json\r\nidempotency-key: left\r\ncontent-length: {len(body)}"
        one.sendall(f"POST {SLOW} HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n".encode() + body)
        while not platform.knows("left"):
            assert time.monotonic() < deadline
    while (answer := platform.served.post(SLOW, body, {"idempotency-key": "left"})).status == 409:
        assert time.monotonic() < deadline
    assert (answer.status, answer.headers.get("idempotency-replayed")) == (200, "true")


def test_what_is_told_again_says_what_the_caller_has_left_now(platform: Platform) -> None:
    """A rate so low that nothing comes back within the test."""
    limits = {"requests_per_second": 0.001, "burst": 100}
    tenant = {"kind": "Tenant", "metadata": {"name": "frugal"}, "spec": {"limits": limits}}
    Api(platform.served).ask("PUT", "tenants/frugal", tenant)
    credentials = f"Bearer {platform.key('frugal')}"
    answers = [platform.ask("left", idempotency_key="frugal", authorization=credentials) for _ in range(3)]
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true", "true"]
    told = [(answer.headers["ratelimit-policy"], answer.headers["ratelimit"].split(";")[1]) for answer in answers]
    assert told == [('"tenant";q=100;w=100000', f"r={left}") for left in (99, 98, 97)]
    request = ModelInferRequest(model_name="tally")
    request.inputs.add(name="id", datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(b"left-of-grpc")
    metadata = (("idempotency-key", "frugal-g"), ("authorization", credentials))
    left = []
    with grpc.insecure_channel(platform.served.grpc) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(2):
            _, call = infer.with_call(request.SerializeToString(), metadata=metadata, timeout=30)
            left.append([value.split(";")[1] for name, value in call.trailing_metadata() if name == "ratelimit"])
    assert left == [["r=96"], ["r=95"]]


def test_a_key_works_over_grpc_in_v1_and_generate(platform: Platform) -> None:
    client = triton.InferenceServerClient(platform.served.grpc)
    tensor = triton.InferInput("id", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[b"by-grpc"]], dtype=object))
    headers = {"idempotency-key": "g-1"}
    said = [client.infer("tally", [tensor], headers=headers).as_numpy("said")[0, 0] for _ in range(2)]
    assert said[0] == said[1]
    assert platform.ran("by-grpc") == 1
    tensor.set_data_from_numpy(np.array([[b"by-grpc-2"]], dtype=object))
    with pytest.raises(triton.InferenceServerException) as refused:
        client.infer("tally", [tensor], headers=headers)
    assert refused.value.status() == str(grpc.StatusCode.INVALID_ARGUMENT)
    for path, body in (
        ("/v1/models/tally:predict", {"instances": [["by-v1"]]}),
        ("/v2/models/tally/generate", {"id": "by-generate"}),
    ):
        answers = [platform.served.post(path, body, {"idempotency-key": path[-8:]}) for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 200], answers
        assert answers[0].body == answers[1].body
    assert platform.ran("by-v1") == platform.ran("by-generate") == 1


def test_the_end_of_a_job_is_told_and_signed(platform: Platform) -> None:
    url = f"{platform.receiver.url}/hook?a=b"
    platform.receiver.statuses[:] = [500]
    location = platform.submit("told", x_hyperion_callback=url)
    first = platform.receiver.received.get(timeout=60)
    seen = platform.until(location, "done")
    secret = platform.job("secret").stdout.strip()
    message, stamp = first.headers["webhook-id"], first.headers["webhook-timestamp"]
    signed = f"{message}.{stamp}.".encode() + first.body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert first.headers["webhook-signature"] == f"v1,{expected}"
    assert json.loads(first.body)["data"]["location"] == location
    assert (first.path, json.loads(first.body)["type"]) == ("/hook?a=b", "job.done")
    again = platform.receiver.received.get(timeout=60)
    assert (again.body, again.headers["webhook-id"]) == (first.body, message), "what failed is told again"
    deadline = time.monotonic() + 60
    while (seen := platform.served.get(location).json())["callback"]["state"] != "delivered":
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
    assert seen["callback"] == {"state": "delivered", "attempts": 2, "reason": ""}


@pytest.mark.parametrize("url", ["ftp://localhost/", "nonsense", "https://", "https://user:word@localhost/"])
def test_a_callback_that_is_no_url_is_refused(platform: Platform, url: str) -> None:
    assert platform.ask("x", prefer="respond-async", x_hyperion_callback=url).status == 400


def test_a_private_address_is_not_called(platform: Platform) -> None:
    url = platform.receiver.url.replace("localhost", "127.0.0.1")
    location = platform.submit("inside", x_hyperion_callback=url)
    platform.until(location, "done")
    deadline = time.monotonic() + 60
    while not (seen := platform.served.get(location).json()["callback"])["reason"]:
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
    assert seen["state"] == "pending"
    assert "no public address" in seen["reason"]


def test_a_job_and_a_key_are_their_tenants_own(platform: Platform) -> None:
    tokens = {tenant: {"authorization": f"Bearer {platform.key(tenant)}"} for tenant in ("acme", "globex")}

    def ask(tenant: str, **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return platform.served.post(INFER, body_of("own"), {**tokens[tenant], **given})

    location = ask("acme", prefer="respond-async").headers["location"]
    deadline = time.monotonic() + 60
    while platform.served.get(location, tokens["acme"]).json()["state"] != "done":
        assert time.monotonic() < deadline
    for headers in (tokens["globex"], {}):
        assert platform.served.get(location, headers).status == 404
        assert platform.served.get(f"{location}/result", headers).status == 404
        assert platform.served.ask("DELETE", location, None, headers, None).status == 404
    assert platform.served.get(f"{location}/result", tokens["acme"]).status == 200
    bodies = {tenant: ask(tenant, idempotency_key="shared").body for tenant in tokens}
    assert bodies["acme"] != bodies["globex"], "each ran its own"
    assert ask("acme", idempotency_key="shared").body == bodies["acme"]


def test_the_command_line_shows_replays_and_discards(platform: Platform) -> None:
    failed = platform.served.post(INFER, {"inputs": []}, LATER).headers["location"]
    platform.until(failed, "failed")
    name = failed.rpartition("/")[2]
    listed = json.loads(platform.job("list", "--state", "failed", "--endpoint", "tally", "--json").stdout)
    assert name in [job["id"] for job in listed]
    assert json.loads(platform.job("show", name, "--json").stdout)["state"] == "failed"
    assert "error" in platform.job("result", name).stdout
    assert json.loads(platform.job("request", name).stdout) == {"inputs": []}
    assert platform.job("cancel", name).returncode == 1
    assert platform.job("retry", name).stdout == f"job {name} is queued again\n"
    platform.until(failed, "failed")
    assert platform.job("discard", name).stdout == f"job {name} is discarded\n"
    assert platform.served.get(failed).status == 404
    assert platform.job("show", name).returncode == 1
    assert platform.job("retry").returncode == 2
    assert platform.job("discard", "--dead").stdout == "there are none\n"


def slow(seconds: float) -> bytes:
    tensor = {"name": "seconds", "shape": [1, 1], "datatype": "FP32", "data": [seconds]}
    return json.dumps({"inputs": [tensor]}).encode()
