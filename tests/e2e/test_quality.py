"""A shadow judged by labels, from the predictions of two real models to the verdict in the ledger."""

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sklearn.datasets import load_digits

from tests.e2e.admin_client import ENDED, Api
from tests.e2e.digit_models import write_versions
from tests.e2e.served import Served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ROLLOUT = {
    "strategy": "shadow",
    "shadow": {"percent": 100, "min_pairs": 100, "max_disagreement": 1.0},  # only labels can tell
    "halt": {"quality": {"metric": "accuracy", "margin": 0.01}},
    "standby_s": 60,
}


class Labelling:
    """Asks the endpoint for one digit after the other, and posts what each of them is."""

    def __init__(self, served: Served, api: Api, rows: Any) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
        self._api = api
        self._rows = [[round(float(value), 4) for value in row] for row in rows]
        self._digits = [int(digit) for digit in load_digits().target[-len(rows) :]]
        self.asked = 0
        self.versions: set[str] = set()

    def ask(self, count: int) -> None:
        """So many requests, each with its label."""
        labels = []
        for _ in range(count):
            place, name = self.asked % len(self._rows), f"digit-{self.asked}"
            tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": self._rows[place]}
            headers = {"content-type": "application/json", "x-request-id": name}
            body = json.dumps({"inputs": [tensor]})
            self._connection.request("POST", "/v2/models/digits/infer", body, headers)
            answer = self._connection.getresponse()
            answer.read()
            assert answer.status == 200
            self.versions.add(answer.getheader("x-hyperion-model-version", ""))
            labels.append({"prediction_id": name, "label": self._digits[place], "source": "test"})
            self.asked += 1
        self._api.ask("POST", "labels", labels)

    def until_over(self, to: str) -> Any:
        """Ask until the rollout to this version has ended. A gateway keeps so many pairs for labels in a second,
        however many requests there are: what this takes is time."""
        deadline = time.monotonic() + 75
        while time.monotonic() < deadline:
            status = self._api.status("digits")
            if status["state"] in ENDED and status["to"] == to:
                return status
            self.ask(50)
        raise TimeoutError(f"still {json.dumps(status)} after {self.asked} labels")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Api, Any]]:
    directory = tmp_path_factory.mktemp("quality")
    rows = write_versions(directory / "models")
    with Served(directory / "home", program="tests.e2e.hasty_serve") as served, Api(served) as api:
        for version, kind in (("1", "v1"), ("2", "shifted"), ("3", "equal")):
            api.push("digits", version, directory / "models" / kind)
        api.apply("digits", "digits@1", rollout=ROLLOUT, batching={"max_size": 8})
        api.wait_end("digits", "1")
        yield served, api, rows


def evidence_of(detail: Any) -> Any:
    """What was found of the quality."""
    (found,) = [row for row in detail["evidence"] if row["metric"] == "quality"]
    return found


def test_a_worse_shadow_is_halted_by_labels_and_an_equal_one_goes_live(platform: tuple[Served, Api, Any]) -> None:
    served, api, rows = platform
    labelling = Labelling(served, api, rows)
    api.deploy("digits", "digits@2")
    api.wait("digits", lambda now: now["to"] == "2" and now["state"] == "shadow" and now["step"] >= 0)
    halted = labelling.until_over("2")
    assert (halted["state"], halted["verdict"]) == ("halted", "fail"), halted
    assert halted["reason"].startswith("quality: worse in "), halted
    (entry,) = [entry for entry in api.entries("digits") if entry["kind"] == "rollout.halted"]
    found = evidence_of(entry["detail"])
    assert found["bad_canary"] >= 10, found
    assert found["bad_control"] < found["bad_canary"] / 5, found
    assert found["e_value"] >= found["threshold"] > 0, found
    assert labelling.versions == {"1"}, "no caller has met it"

    # The labels of before say nothing about the next version.
    api.deploy("digits", "digits@3")
    waiting = api.wait("digits", lambda now: now["to"] == "3" and now["state"] == "shadow" and now["step"] >= 0)
    assert all(row["verdict"] != "fail" for row in waiting["evidence"]), waiting
    status = labelling.until_over("3")
    assert (status["state"], status["verdict"]) == ("promoted", "pass"), status
    (entry,) = [entry for entry in api.entries("digits") if entry["kind"] == "rollout.promoted"][-1:]
    found = evidence_of(entry["detail"])
    assert (found["bad_canary"], found["bad_control"]) == (0, 0), found
    assert "pairs with labels" in found["detail"]


def test_the_ledger_of_it_verifies(platform: tuple[Served, Api, Any]) -> None:
    _, api, _ = platform
    assert api.ask("POST", "ledger/verify")["ok"]
