"""KServe's own REST (V1 and V2) and gRPC clients, unchanged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.served import Served
from tests.services import needs_installed

SUMS = {"sum": [[11.0, 22.0]], "difference": [[-9.0, -18.0]]}


@pytest.fixture(scope="module")
def seen(clients: Served) -> dict[str, Any]:
    needs_installed("kserve", extra="dev")
    script = Path(__file__).with_name("ask_with_kserve.py")
    done = subprocess.run(
        [sys.executable, str(script), clients.url, clients.grpc], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("what", ["rest_live", "rest_ready", "rest_model_ready", "v1_live", "v1_model_ready"])
def test_rest_health_is_true(what: str, seen: dict[str, Any]) -> None:
    assert seen[what] is True


def test_a_model_that_is_not_there_is_not_ready(seen: dict[str, Any]) -> None:
    assert seen["rest_model_not_ready"] is False


@pytest.mark.parametrize("what", ["grpc_live", "grpc_ready", "grpc_model_ready"])
def test_grpc_health_is_true(what: str, seen: dict[str, Any]) -> None:
    assert seen[what] is True


@pytest.mark.parametrize("way", ["rest_json", "rest_binary", "grpc"])
def test_both_outputs_of_two_inputs_arrive(way: str, seen: dict[str, Any]) -> None:
    assert seen[way] == SUMS


def test_v1_predictions_are_objects_by_output_name(seen: dict[str, Any]) -> None:
    assert seen["v1"] == {"predictions": [{"sum": [11.0, 22.0], "difference": [-9.0, -18.0]}]}
