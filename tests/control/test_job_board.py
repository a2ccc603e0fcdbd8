"""Gateways and control over the real link, with a real store: what is asked is done once, whoever is away meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from hyperion.control.jobs import board as job_board
from hyperion.control.jobs import desk as job_desk
from hyperion.control.jobs.board import JobBoard
from hyperion.control.jobs.desk import JobDesk
from hyperion.control.publish import Publisher
from hyperion.fleet.home import listen_unix
from hyperion.gateway.jobs.desk import Desk
from hyperion.policy.jobs import LEASE_S
from hyperion.schema.errors import NotReady, StorageFailed
from hyperion.schema.job import (
    Answer,
    Begin,
    Begun,
    Complete,
    Finish,
    Held,
    Kept,
    KeyScope,
    Look,
    Lost,
    Renew,
    Request,
    Seen,
    StoredAnswer,
    StoredRequest,
    Submission,
    Submit,
)
from hyperion.store.database import Database, open_home
from hyperion.wire import link

SCOPE = KeyScope("acme", "m", "k")
ANSWER = StoredAnswer(200, (), b"x" * 1000)
JOB = Submission("j1", "acme", "m", StoredRequest("POST", "/", (), b"body"))


class Clock:
    """Seconds since 1970, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def opened(home: Path, clock: Callable[[], float]) -> Iterator[tuple[Database, JobDesk]]:
    database = open_home(home)
    yield database, JobDesk(database, clock, lambda: 0.0)
    database.close()


@asynccontextmanager
async def control(directory: Path, desk: JobDesk | None) -> AsyncIterator[JobBoard]:
    """As much of control as takes what gateways ask."""
    said: list[str] = []
    board = JobBoard(said.append)
    if desk is not None:
        board.open(desk)
    publisher = Publisher((directory / "a", directory / "b"), lambda: None, lambda _: None)

    async def command(_message: object) -> link.Done:
        return link.Done()

    server = await publisher.serve(listen_unix(directory / "control.sock"), command, board)
    task = asyncio.create_task(board.run())
    try:
        yield board
    finally:
        task.cancel()
        server.close()
        board.close()


@asynccontextmanager
async def gateway(directory: Path) -> AsyncIterator[Desk]:
    desk = Desk(directory / "control.sock")
    task = asyncio.create_task(desk.run())
    try:
        yield desk
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_who_asks_while_control_is_away_or_its_store_is_not_open_waits(tmp_path: Path) -> None:
    with opened(tmp_path / "home", Clock()) as (_, desk):
        async with gateway(tmp_path) as asking:
            asked = asyncio.create_task(asking.ask(Begin(SCOPE, "f", "t"), 30.0))
            await asyncio.sleep(0.05)
            async with control(tmp_path, None) as board:
                await asyncio.sleep(0.1)
                assert not asked.done()
                board.open(desk)
                assert await asked == Begun("run", "t")
            assert isinstance(await asking_again(asking, tmp_path, desk), Kept)


async def asking_again(asking: Desk, directory: Path, desk: JobDesk) -> object:
    """Control was restarted: the kept connection is dead."""
    asked = asyncio.create_task(asking.ask(Complete(SCOPE, "t", ANSWER), 30.0))
    await asyncio.sleep(0.05)
    async with control(directory, desk):
        return await asked


async def test_who_gets_no_answer_in_time_is_told_so(tmp_path: Path) -> None:
    async with gateway(tmp_path) as asking:
        with pytest.raises(NotReady, match="cannot be reached"):
            await asking.ask(Begin(SCOPE, "f", "t"), 0.05)


async def test_a_store_that_fails_is_asked_again_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "home", Clock()) as (database, desk):
        plain, failures = database.renewing, iter(range(3))

        @contextmanager
        def failing() -> Iterator[object]:
            if next(failures, None) is not None:
                raise StorageFailed("the disk is full")
            with plain() as tx:
                yield tx

        monkeypatch.setattr(database, "renewing", failing)
        async with control(tmp_path, desk), gateway(tmp_path) as asking:
            assert await asking.ask(Begin(SCOPE, "f", "t"), 30.0) == Begun("run", "t")


async def test_what_many_ask_at_once_travels_together_and_each_gets_its_own_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "home", Clock()) as (_, desk):
        sizes: list[int] = []
        plain = desk.answer

        def counting(requests: Sequence[Request]) -> tuple[tuple[Answer, ...], bool]:
            sizes.append(len(requests))
            return plain(requests)

        monkeypatch.setattr(desk, "answer", counting)
        async with control(tmp_path, desk), gateway(tmp_path) as asking:
            asked = [asking.ask(Begin(KeyScope("a", "m", f"k{n}"), "f", f"t{n}"), 30.0) for n in range(600)]
            told = await asyncio.gather(*asked)
        assert told == [Begun("run", f"t{number}") for number in range(600)]
        assert len(sizes) < 60


async def test_a_claim_waits_for_a_job_and_a_job_that_nobody_renews_comes_back(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path / "home", clock) as (_, desk):
        async with control(tmp_path, desk) as board, gateway(tmp_path) as asking:
            gone: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            claiming = asyncio.create_task(board.claim(link.Claim(5), gone))
            await asyncio.sleep(0.05)
            assert not claiming.done()
            await asking.ask(Submit(JOB), 30.0)
            [job] = (await claiming).jobs
            assert (job.id, job.fence, job.request) == ("j1", 1, JOB.request)
            assert await asking.ask(Renew((), (Held("j1", 1), Held("j1", 9))), 30.0) == Lost((Held("j1", 9),))
            claiming = asyncio.create_task(board.claim(link.Claim(5), gone))
            clock.now += LEASE_S
            [again] = (await claiming).jobs
            assert again.fence == 3
            late = await asking.ask(Finish(Held("j1", 1), "done", "", ANSWER), 30.0)
            assert late == Kept(False), "its first holder was taken for dead"
            assert await asking.ask(Finish(Held("j1", 3), "done", "", ANSWER), 30.0) == Kept()
            seen = await asking.ask(Look("acme", "j1", whole=True), 30.0)
            assert isinstance(seen, Seen)
            assert seen.job is not None
            assert (seen.job.state, seen.answer) == ("done", ANSWER)
            assert await asking.ask(Look("another", "j1", whole=True), 30.0) == Seen(None)


def test_jobs_are_counted_for_the_metrics(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path / "home", clock) as (_, desk):
        desk.answer((Submit(JOB),))
        assert desk.tend()
        assert desk.counts == {("m", "queued"): 1.0}
        desk.claim(1)
        desk.tend()
        assert desk.counts == {("m", "queued"): 1.0}, "not each time"
        clock.now += job_desk.COUNT_S
        desk.tend()
        assert sum(desk.counts.values()) == 1.0
        assert ("m", "running") in desk.counts


async def test_a_claim_ends_with_its_gateway_and_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path / "home", Clock()) as (_, desk):
        async with control(tmp_path, desk) as board:
            gone: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            claiming = asyncio.create_task(board.claim(link.Claim(5), gone))
            await asyncio.sleep(0.05)
            gone.set_result(b"")
            desk.answer([Submit(JOB)])  # in the very moment: nobody is there to run it
            assert await claiming == link.Work()
            assert [job.id for job in desk.claim(1)] == ["j1"]
            monkeypatch.setattr(job_board, "POLL_S", 0.05)
            never: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            assert await board.claim(link.Claim(5), never) == link.Work()


async def test_answers_that_do_not_fit_into_one_message_come_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperion.control.jobs.desk.MAX_PAYLOAD_BYTES", 1500)
    with opened(tmp_path / "home", Clock()) as (_, desk):
        async with control(tmp_path, desk), gateway(tmp_path) as asking:
            scopes = [KeyScope("a", "m", f"k{number}") for number in range(4)]
            for scope in scopes:
                await asking.ask(Begin(scope, "f", "t"), 30.0)
                await asking.ask(Complete(scope, "t", ANSWER), 30.0)
            told = await asyncio.gather(*[asking.ask(Begin(scope, "f", "u"), 30.0) for scope in scopes])
        assert told == [Begun("replay", "t", ANSWER)] * 4
