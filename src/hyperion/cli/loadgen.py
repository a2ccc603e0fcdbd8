"""Open-loop HTTP load: requests leave at times decided beforehand, whatever the server does.

Called by `hyperion bench` and by the benchmarks, whose environment has uvloop, httptools and numpy only. Latency runs
from the moment a request was *meant* to be sent, so a server that stalls cannot hide its queue in the client. Nothing
here retries, and a run that could not keep its schedule says so.
"""

import asyncio
import contextlib
import time
from collections import deque
from typing import Final, cast

import httptools
import uvloop

from hyperion.cli.alarm import Alarm
from hyperion.cli.load_plan import Outcomes, Plan, Report, make_schedule, summarise

OPENED_AT_ONCE: Final = 64  # no server's backlog is shorter


def run(plan: Plan) -> Report:
    """Carry out the plan on an event loop of its own and return what happened."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(drive(plan))


async def drive(plan: Plan) -> Report:
    """Carry out the plan on the running loop."""
    generator = _Generator(plan)
    await generator.run()
    return generator.report()


class _Generator:
    """The schedule, the pool of connections, and what became of each request (index by index)."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.outcomes = Outcomes(make_schedule(plan))
        self.next = 0
        self.idle: list[_Connection] = []
        self.waiting: deque[int] = deque()  # due, but no connection free
        self.open = self.opened_most = self.starved = 0
        self.live: set[_Connection] = set()
        self.opening: set[asyncio.Task[None]] = set()
        self.finished = asyncio.Event()

    async def run(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.due_list = self.outcomes.due.tolist()
        left = min(self.plan.opened_first, self.plan.connections)
        while left > 0:
            await asyncio.gather(*(self._connect() for _ in range(min(OPENED_AT_ONCE, left))))
            left -= OPENED_AT_ONCE
        with Alarm(self.loop, self._tick) as self.alarm:
            self.origin = time.monotonic() + 0.05
            self._tick()
            sweep = self.loop.create_task(self._sweep())
            most_s = self.plan.warm_up_s + self.plan.seconds + self.plan.timeout_s + 5
            with contextlib.suppress(TimeoutError):  # what is still open then is a drop, and is counted as one
                await asyncio.wait_for(self.finished.wait(), most_s)
            sweep.cancel()
        for task in self.opening:
            task.cancel()
        for connection in list(self.live):
            connection.transport.abort()

    def report(self) -> Report:
        return summarise(self.plan, self.outcomes, self.opened_most, self.starved)

    def _tick(self) -> None:
        """Send all that is due, then sleep until the next is."""
        now = time.monotonic() - self.origin
        due, index = self.due_list, self.next
        while index < len(due) and due[index] <= now:
            self._dispatch(index)
            index += 1
        self.next = index
        if index < len(due):
            self.alarm.set(self.origin + max(due[index], now + self.plan.grain_s))

    def _dispatch(self, index: int) -> None:
        if self.idle:
            self._send(self.idle.pop(), index)
            return
        self.waiting.append(index)
        self.starved += self.open >= self.plan.connections
        self._open_more()

    def _open_more(self) -> None:
        if self.open + len(self.opening) < self.plan.connections and len(self.opening) < len(self.waiting):
            task = self.loop.create_task(self._connect())
            self.opening.add(task)
            task.add_done_callback(self.opening.discard)

    def _send(self, connection: "_Connection", index: int) -> None:
        self.outcomes.sent[index] = time.monotonic() - self.origin
        connection.index = index
        connection.transport.write(self.plan.requests[index % len(self.plan.requests)])

    async def _connect(self) -> None:
        try:
            plan = self.plan
            await self.loop.create_connection(
                lambda: cast(asyncio.Protocol, _Connection(self)), plan.host, plan.port, ssl=plan.tls
            )
        except OSError:
            # Refused by the kernel: whoever waited longest is a drop, or nobody would ever learn of it.
            if self.waiting:
                index = self.waiting.popleft()
                self.outcomes.sent[index] = time.monotonic() - self.origin
                self._settle(index, 0)

    def connected(self, connection: "_Connection") -> None:
        self.open += 1
        self.opened_most = max(self.opened_most, self.open)
        self.live.add(connection)
        self.release(connection)

    def release(self, connection: "_Connection") -> None:
        """A connection is free: the request that waited longest takes it."""
        if self.waiting:
            self._send(connection, self.waiting.popleft())
        else:
            self.idle.append(connection)

    def lost(self, connection: "_Connection") -> None:
        self.open -= 1
        self.live.discard(connection)
        if connection.index >= 0:
            self._settle(connection.index, 0)
        elif connection in self.idle:
            self.idle.remove(connection)
        if self.waiting:
            self._open_more()

    def answered(self, connection: "_Connection", status: int, retry_after: bool) -> None:
        self.outcomes.retry_after[connection.index] = retry_after
        self._settle(connection.index, status)
        connection.index = -1

    def _settle(self, index: int, status: int) -> None:
        self.outcomes.done[index] = time.monotonic() - self.origin
        self.outcomes.status[index] = status

    async def _sweep(self) -> None:
        """Ten times a second: cut what exceeded its time, and see whether all is done."""
        while True:
            await asyncio.sleep(0.1)
            now = time.monotonic() - self.origin
            for connection in list(self.live):
                if connection.index >= 0 and now - self.outcomes.sent[connection.index] > self.plan.timeout_s:
                    connection.transport.abort()
            busy = any(connection.index >= 0 for connection in self.live)
            if self.next == len(self.due_list) and not busy and not self.waiting:
                self.finished.set()


class _Connection:
    """One keep-alive connection with at most one request on it; ``index`` says which, -1 none. An `asyncio.Protocol` in
    all but name, as a compiled class has no interpreted base."""

    def __init__(self, owner: _Generator) -> None:
        self.owner = owner
        self.index = -1
        self.retry_after = False
        self.parser = httptools.HttpResponseParser(self)
        self.within = False  # the parser has seen a part of an answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.owner.connected(self)

    def data_received(self, data: bytes) -> None:
        if not self.within and self.index >= 0 and (answer := read_whole(data)) is not None:
            self.owner.answered(self, *answer)
            self.owner.release(self)
            return
        self.within = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_header(self, name: bytes, _value: bytes) -> None:
        if len(name) == 11 and name.lower() == b"retry-after":
            self.retry_after = True

    def on_message_complete(self) -> None:
        self.within = False
        status = self.parser.get_status_code()
        if status < 200:  # 100 Continue and the like: the answer is still to come
            return
        if self.index >= 0:
            self.owner.answered(self, status, self.retry_after)
        self.retry_after = False
        if self.parser.should_keep_alive():
            self.owner.release(self)
        else:
            self.transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self.owner.lost(self)


def read_whole(data: bytes) -> tuple[int, bool] | None:
    """Status and whether there is a retry-after, if `data` is one whole final answer of the plainest kind; None where
    only a parser can tell. A parser would cost the generator, and so the server beside it, a tenth more.

    >>> read_whole(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\n{}")
    (200, False)
    """
    end = data.find(b"\r\n\r\n")
    found = data.find(b"\r\ncontent-length: ", 0, end)
    if found < 0 or not data.startswith(b"HTTP/1.1 ") or data.find(b"\r\nconnection: ", 0, end) >= 0:
        return None
    status, length = data[9:12], data[found + 18 : data.find(b"\r", found + 18)]
    if not (status.isdigit() and status >= b"200" and length.isdigit()) or end + 4 + int(length) != len(data):
        return None
    return int(status), data.find(b"\r\nretry-after: ", 0, end) >= 0


def tune_socket_limit() -> None:
    """Allow as many open files as the system lets this process have; an overload test needs a socket per request."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
