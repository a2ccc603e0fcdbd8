"""Messages of a JetStream consumer are jobs: each once, though control dies meanwhile; their answers are messages."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hyperion.control.jobs.stream_nats import job_of
from hyperion.control.jobs.stream_source import read_source
from tests.e2e.crash_jobs import body_of, executions, tally_platform
from tests.services import needs_module

NATS = "nats://127.0.0.1:4222"
COUNT = 200


def with_jetstream(work: Callable[[Any], Awaitable[Any]]) -> Any:
    """What `work` returns of a JetStream context; a skip where there is no server."""
    nats = needs_module("nats", extra="nats")

    async def run() -> Any:
        try:
            client = await nats.connect(NATS, allow_reconnect=False, connect_timeout=3)
        except (OSError, nats.errors.Error) as error:
            pytest.skip(f"needs NATS with JetStream at 127.0.0.1:4222: {error}")
        try:
            return await work(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(run())


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_every_message_is_one_job_and_every_answer_one_message(tmp_path: Path) -> None:
    name = f"TEST{os.getpid()}"

    async def fill(stream: Any) -> None:
        await stream.add_stream(name=name, subjects=[f"{name}.in", f"{name}.out"])
        await stream.pull_subscribe(f"{name}.in", durable="scorer", stream=name)
        for number in range(COUNT):
            await stream.publish(f"{name}.in", body_of(f"m{number}"))

    async def answers(stream: Any) -> list[Any]:
        consumer = await stream.pull_subscribe(f"{name}.out", durable="reader", stream=name)
        found: dict[str, Any] = {}
        ends_s = time.monotonic() + 120  # what was being published when control died is published again in a minute
        while len(found) < COUNT and time.monotonic() < ends_s:
            try:
                messages = await consumer.fetch(COUNT, timeout=1)
            except TimeoutError:
                continue
            for message in messages:
                assert message.headers["hyperion-job"] not in found, "an answer came twice"
                found[message.headers["hyperion-job"]] = message
                await message.ack()
        return list(found.values())

    with_jetstream(fill)
    # This server asks nobody for a password, and takes any.
    url = f"nats://ada:secret@{NATS.removeprefix('nats://')}/{name}/scorer?endpoint=tally&reply={name}.out"
    try:
        with tally_platform(tmp_path, "--streams", url) as (served, tally):
            deadline = time.monotonic() + 60
            while not executions(tally):
                assert time.monotonic() < deadline, served.tail()
                time.sleep(0.01)
            for pid in served.pids("control"):
                os.kill(pid, signal.SIGKILL)
            found = with_jetstream(answers)
            said = sorted(json.loads(message.data)["outputs"][0]["data"][0].split()[0] for message in found)
            assert said == sorted(f"m{number}" for number in range(COUNT))
            assert {message.headers["hyperion-status"] for message in found} == {"200"}
    finally:
        with_jetstream(lambda stream: stream.delete_stream(name))


def test_what_jobs_say_of_a_source_has_no_credentials_in_it() -> None:
    nats = needs_module("nats", extra="nats")
    message = nats.aio.msg.Msg(None, reply=f"$JS.ACK.S.c.1.7.1.{time.time_ns()}.0")
    for server in ("nats://u:p@b:4222", "nats://token@b:4222", "nats://b:4222"):
        source = read_source(f"{server}/S/c?endpoint=e&reply=r.s")
        assert source.server == server
        assert job_of(source, message).callback == "nats://b:4222/r.s"
        other = read_source("nats://u:changed@b:4222/S/c?endpoint=e")
        assert job_of(source, message).id == job_of(other, message).id, "a new password makes no new job of a message"
