"""Where gateways bring what is to be remembered, and fetch jobs: the link's side of jobs and idempotent calls.

Made by `control/serve` before there is a store, as gateways connect at once; until `open` they are told to come back.
The work on the store is `desk`'s, in threads of its own, so that a database that hangs holds up nothing
else.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from hyperion.schema.errors import HyperionError
from hyperion.schema.job import ClaimedJob, Failed
from hyperion.wire import link

if TYPE_CHECKING:  # it brings the store, which is imported once the first models run
    from hyperion.control.jobs.desk import JobDesk

POLL_S: Final = 5.0  # a gateway's claim waits so long for a job
LOOK_S: Final = 0.5  # other control processes on the same database may take jobs, too
THREADS: Final = 3
NOT_OPEN: Final = Failed("not_ready", "the store is being opened; try again in a moment")
Result = TypeVar("Result")


class JobBoard:
    """All methods run on the event loop's thread. `log` takes a line."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._desk: JobDesk | None = None
        self._opened = asyncio.Event()
        self._news = asyncio.Event()
        self._threads = ThreadPoolExecutor(THREADS, "jobs")
        self._failing = ""

    def open(self, desk: "JobDesk") -> None:
        """The store is there."""
        self._desk = desk
        self._opened.set()

    def wake(self) -> None:
        """There may be jobs to run: whoever waits for one looks again."""
        self._news.set()
        self._news = asyncio.Event()

    async def answer(self, ask: link.Ask) -> link.Told:
        """Do everything that a gateway asks, in one transaction."""
        desk = self._desk
        if desk is None:
            return link.Told((NOT_OPEN,) * len(ask.requests))
        answers, new_jobs = await self._in_thread(lambda: desk.answer(ask.requests))
        if new_jobs:
            self.wake()
        return link.Told(answers)

    async def claim(self, claim: link.Claim, gone: "asyncio.Future[bytes]") -> link.Work:
        """Jobs for a gateway, as soon as there are some; none after `POLL_S`, or once `gone` is done."""
        ends_s = asyncio.get_running_loop().time() + POLL_S
        while True:
            news = asyncio.ensure_future(self._news.wait())
            try:
                jobs = () if gone.done() else await self._claim(claim.most)  # a dead one's would wait for their lease
                left_s = ends_s - asyncio.get_running_loop().time()
                if jobs or left_s <= 0 or gone.done():
                    return link.Work(jobs)
                await asyncio.wait((news, gone), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()

    async def run(self) -> None:
        """Look for ever: wake those who wait when a job comes due, take jobs back from gateways that are gone, forget
        what is old."""
        await self._opened.wait()
        desk = self._desk
        assert desk is not None
        while True:
            try:
                if await self._in_thread(desk.tend):
                    self.wake()
                self._failing = ""
            except HyperionError as error:
                self._say_once(error.message)
            await asyncio.sleep(LOOK_S)

    def close(self) -> None:
        """Start nothing more; what runs in a thread ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _claim(self, most: int) -> tuple[ClaimedJob, ...]:
        desk = self._desk
        if desk is None or most < 1:
            return ()
        try:
            return await self._in_thread(lambda: desk.claim(most))
        except HyperionError as error:
            self._say_once(error.message)
            return ()

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _say_once(self, message: str) -> None:
        if message != self._failing:
            self._failing = message
            self._log(f"jobs: {message}")
