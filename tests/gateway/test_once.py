"""Idempotent calls against a real store over the real link: whatever `execute` does, whoever is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hyperion.gateway.jobs import once as once_module
from hyperion.gateway.jobs.once import Once
from hyperion.policy.idempotency import LEASE_S
from hyperion.schema.errors import Conflict, HyperionError, KeyReused, ModelFailed, NotReady, Overloaded
from hyperion.schema.job import KeyScope, StoredAnswer
from hyperion.telemetry.logs import EventLog
from tests.control.test_job_board import Clock, control, gateway, opened

SCOPE = KeyScope("acme", "m", "k")
ANSWER = StoredAnswer(200, (), b"body")


class Place:
    """A store with its own clock, and gateways on it."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.directory = directory
        self.clock = clock

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[Once]:
        async with gateway(self.directory) as desk:
            yield Once(desk, EventLog("test"))


@asynccontextmanager
async def place(directory: Path) -> AsyncIterator[Place]:
    clock = Clock()
    with opened(directory / "home", clock) as (_, desk):
        async with control(directory, desk):
            yield Place(directory, clock)


async def say(_origin: str) -> StoredAnswer:
    return ANSWER


async def never(_origin: str) -> StoredAnswer:
    raise AssertionError("it ran again")


async def test_a_call_runs_once_and_is_told_the_same_by_any_gateway(tmp_path: Path) -> None:
    async with place(tmp_path) as where, where.gateway() as one, where.gateway() as other:
        assert await one.run(SCOPE, "f", 30.0, say) == (ANSWER, False)
        assert await other.run(SCOPE, "f", 30.0, never) == (ANSWER, True)
        with pytest.raises(KeyReused):
            await other.run(SCOPE, "g", 30.0, never)


async def test_while_it_runs_others_are_told_to_come_back_until_its_lease_ends(tmp_path: Path) -> None:
    async with place(tmp_path) as where, where.gateway() as one, where.gateway() as other:
        going = asyncio.Event()
        began = asyncio.Event()
        origins: list[str] = []

        async def slow(origin: str) -> StoredAnswer:
            origins.append(origin)
            began.set()
            await going.wait()
            return StoredAnswer(200, (), b"late")

        async def quick(origin: str) -> StoredAnswer:
            origins.append(origin)
            return ANSWER

        first = asyncio.create_task(one.run(SCOPE, "f", 30.0, slow))
        await began.wait()
        with pytest.raises(Conflict, match="still running") as told:
            await other.run(SCOPE, "f", 30.0, never)
        assert told.value.retry_after_s == 1.0
        where.clock.now += LEASE_S
        assert await other.run(SCOPE, "f", 30.0, quick) == (ANSWER, False)
        going.set()
        with pytest.raises(Conflict, match="taken over"):
            await first
        assert await one.run(SCOPE, "f", 30.0, never) == (ANSWER, True)
        assert origins[0] == origins[1], "both attempts have one name"


@pytest.mark.parametrize("failure", [Overloaded("full"), NotReady("loading"), ValueError("a bug")])
async def test_what_came_to_no_outcome_runs_again(tmp_path: Path, failure: Exception) -> None:
    async def fail(_origin: str) -> StoredAnswer:
        raise failure

    async with place(tmp_path) as where, where.gateway() as one:
        with pytest.raises(type(failure)):
            await one.run(SCOPE, "f", 30.0, fail)
        assert await again(one, "f") == (ANSWER, False)


async def test_an_answer_that_is_no_outcome_is_given_and_not_kept(tmp_path: Path) -> None:
    refused = StoredAnswer(422, (), b"no")

    async def refuse(_origin: str) -> StoredAnswer:
        return refused

    async with place(tmp_path) as where, where.gateway() as one:
        assert await one.run(SCOPE, "f", 30.0, refuse) == (refused, False)
        assert await again(one, "mended") == (ANSWER, False)


async def again(once: Once, fingerprint: str) -> tuple[StoredAnswer, bool]:
    """Until the store knows that the key is free."""
    while True:
        try:
            return await once.run(SCOPE, fingerprint, 30.0, say)
        except (Conflict, KeyReused):
            await asyncio.sleep(0.01)


async def test_a_failure_of_the_model_is_an_outcome(tmp_path: Path) -> None:
    failed = StoredAnswer(500, (("code", ModelFailed.code),), b"it raised")

    async def fail(_origin: str) -> StoredAnswer:
        return failed

    async with place(tmp_path) as where, where.gateway() as one:
        assert await one.run(SCOPE, "f", 30.0, fail) == (failed, False)
        assert await one.run(SCOPE, "f", 30.0, never) == (failed, True)


async def test_fields_of_its_time_are_given_and_not_kept(tmp_path: Path) -> None:
    fields = (("content-type", "text/plain"), ("ratelimit", '"tenant";r=9;t=1'), ("retry-after", "3"))
    answer = StoredAnswer(200, (*fields, ("ratelimit-policy", '"tenant";q=10;w=2')), b"body", b"trailers")

    async def limited(_origin: str) -> StoredAnswer:
        return answer

    async with place(tmp_path) as where, where.gateway() as one:
        assert await one.run(SCOPE, "f", 30.0, limited) == (answer, False)
        again, replayed = await one.run(SCOPE, "f", 30.0, never)
        assert (again, replayed) == (StoredAnswer(200, fields[:1], b"body", b"trailers"), True)


async def test_an_answer_that_cannot_be_kept_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once_module, "MAX_PAYLOAD_BYTES", 3)
    async with place(tmp_path) as where, where.gateway() as one:
        assert await one.run(SCOPE, "f", 30.0, say) == (ANSWER, False)
        answer, replayed = await one.run(SCOPE, "f", 30.0, never)
        assert (answer.status, replayed) == (409, True)
        assert b"too large" in answer.body


async def test_an_answer_is_kept_though_its_caller_could_not_wait_for_that(tmp_path: Path) -> None:
    """The store goes away while the call runs: the caller is told to ask again, and then gets the answer."""
    clock = Clock()
    with opened(tmp_path / "home", clock) as (_, desk):
        where = Place(tmp_path, clock)
        async with where.gateway() as one:
            began, going = asyncio.Event(), asyncio.Event()

            async def slow(_origin: str) -> StoredAnswer:
                began.set()
                await going.wait()
                return ANSWER

            async with control(tmp_path, desk):
                running = asyncio.create_task(one.run(SCOPE, "f", 0.5, slow))
                await began.wait()
            going.set()
            with pytest.raises(HyperionError):
                await running
            async with control(tmp_path, desk):
                assert await again(one, "f") == (ANSWER, True)
