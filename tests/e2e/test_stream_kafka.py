"""Messages of a topic are jobs: each once, though control dies meanwhile; their answers are messages with their key."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.admin_client import Api
from tests.e2e.crash_jobs import body_of, executions, tally_platform
from tests.e2e.kafka_broker import Broker, any_broker

COUNT = 200
PATIENCE_S = 150.0  # what was being published when control died is published again after a minute
PASSWORD = "s3cr3t"


@pytest.fixture
def broker() -> Iterator[Broker]:
    with any_broker() as one:
        yield one


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_message_is_one_job_and_every_answer_one_message(broker: Broker, tmp_path: Path) -> None:
    topic, out = broker.topic(), broker.topic()
    broker.fill(topic, [body_of(f"m{number}") for number in range(COUNT)])
    url = broker.url(topic, "scorer", f"endpoint=tally&reply={out}")
    # No broker here knows this one, and the test cluster not even how to ask.
    refused = f"kafka://ada:{PASSWORD}@{broker.address}/{topic}/refused?endpoint=tally"
    with tally_platform(tmp_path, "--streams", f"{url},{refused}") as (served, tally):
        deadline = time.monotonic() + PATIENCE_S
        while len(executions(tally)) < 50:  # one is the warm-up
            assert time.monotonic() < deadline, served.tail()
            time.sleep(0.01)
        for pid in served.pids("control"):
            os.kill(pid, signal.SIGKILL)
        # Sent while nobody listens: the group goes on behind what it committed.
        broker.fill(topic, [body_of(f"late{number}") for number in range(20)])
        found: dict[str, Any] = {}
        copies = 0
        deadline = time.monotonic() + PATIENCE_S
        with broker.read(out) as more:
            while len(found) < COUNT + 20:
                assert time.monotonic() < deadline, f"{len(found)} answers\n{served.tail()}"
                for message in more():
                    headers = dict(message.headers())
                    # Control may die between publishing an answer and writing that down: a copy has the same id.
                    copies += headers["hyperion-message-id"] in found
                    found[headers["hyperion-message-id"]] = message
        jobs = {dict(message.headers())["hyperion-job"] for message in found.values()}
        assert len(jobs) == COUNT + 20, "each job has one answer"
        said = {}
        for message in found.values():
            name = json.loads(message.value())["outputs"][0]["data"][0].split()[0]
            assert name not in said, "a message was two jobs"
            said[name] = message.key().decode()
            assert dict(message.headers())["hyperion-status"] == b"200"
        sent = {f"m{number}": str(number) for number in range(COUNT)}
        assert said == sent | {f"late{number}": str(number) for number in range(20)}
        assert copies <= 16, "as many as were being published when it died"
        with Api(served) as api:
            shown = json.dumps([api.ask("GET", "config"), api.ask("GET", "jobs")])
        said_so = f"stream {topic}/refused: _"
        while said_so not in served.log.read_text():
            assert time.monotonic() < deadline, served.tail()
            time.sleep(0.02)
    assert broker.address in shown
    assert PASSWORD not in shown + served.log.read_text()
