"""Open-loop HTTP load: requests leave at times decided beforehand, whatever the server does.

Called by `hyperion bench`. Latency runs from the moment a request was *meant* to be sent, so a server that stalls
cannot hide its queue in the client. Nothing here retries, and a run that could not keep its schedule says so.

>>> import numpy as np
>>> times = poisson_times(rate=100.0, seconds=50.0, rng=np.random.default_rng(0))
>>> 4800 < len(times) < 5200 and bool(np.all(np.diff(times) >= 0))
True
"""

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Sequence

import httptools
import numpy as np
import uvloop
from msgspec import Struct
from numpy.typing import NDArray

from hyperion.cli.alarm import Alarm

Seconds = NDArray[np.float64]

HELD = 0.99  # a run counts only if this share of its requests was sent on schedule
ON_TIME_S = 0.050  # "on schedule": at most this much after the intended time
QUANTILES = (50, 90, 95, 99, 99.9)


class Plan(Struct, frozen=True):
    """What to send: complete HTTP requests (bytes) in turn, at `rate` per second for `seconds`, at the times of a
    Poisson process, or evenly with `steady`. Times are seconds."""

    host: str
    port: int
    requests: Sequence[bytes]
    rate: float
    seconds: float
    warm_up_s: float = 1.0  # sent and answered like the rest, left out of the statistics
    connections: int = 1024  # at most; opened as needed, each with one request at a time
    timeout_s: float = 10.0  # a request without an answer by then is a drop
    seed: int = 0
    steady: bool = False
    tls: ssl.SSLContext | None = None


class Report(Struct, frozen=True):
    """Latencies in ms by percentile, from the intended send time. `dropped` never got an answer."""

    offered_rate: float
    sent_rate: float
    good_rate: float  # answered 2xx per second of the schedule
    held: bool  # the schedule was kept; without it the other figures mean little
    requests: int
    good: int
    dropped: int
    statuses: dict[int, int]
    latency_ms: dict[str, float]  # of 2xx answers
    refusal_ms: dict[str, float]  # of 429 and 503, from the moment they were really sent
    refusals: int
    refusals_with_retry_after: int
    send_lag_ms: dict[str, float]
    connections: int
    starved: int  # requests that found every connection busy: the server was behind, or `connections` is too low

    @property
    def errors(self) -> float:
        """Share of requests that were not answered 2xx."""
        return 1 - self.good / max(1, self.requests)


def poisson_times(rate: float, seconds: float, rng: np.random.Generator) -> Seconds:
    """Arrival times in [0, seconds) of a Poisson process: exponential gaps with mean 1/rate."""
    gaps = rng.exponential(1 / rate, int(rate * seconds + 6 * (rate * seconds) ** 0.5 + 10))
    times = np.cumsum(gaps)
    return times[times < seconds]


def steady_times(rate: float, seconds: float) -> Seconds:
    """Evenly spaced times in [0, seconds).

    >>> steady_times(rate=4.0, seconds=1.0).tolist()
    [0.0, 0.25, 0.5, 0.75]
    """
    return np.arange(int(rate * seconds)) / rate


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
        whole_s = plan.warm_up_s + plan.seconds
        random = np.random.default_rng(plan.seed)
        self.due = steady_times(plan.rate, whole_s) if plan.steady else poisson_times(plan.rate, whole_s, random)
        count = len(self.due)
        self.sent = np.full(count, np.nan)
        self.done = np.full(count, np.nan)
        self.status = np.zeros(count, np.int16)  # 0: no answer
        self.retry_after = np.zeros(count, bool)
        self.next = 0
        self.idle: list[_Connection] = []
        self.waiting: deque[int] = deque()  # due, but no connection free
        self.open = self.opened_most = self.starved = 0
        self.live: set[_Connection] = set()
        self.opening: set[asyncio.Task[None]] = set()
        self.finished = asyncio.Event()

    async def run(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.due_list = self.due.tolist()
        await asyncio.gather(*(self._connect() for _ in range(min(16, self.plan.connections))))
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
        plan = self.plan
        counted = self.due >= plan.warm_up_s
        due, sent, done = self.due[counted], self.sent[counted], self.done[counted]
        status, retry_after = self.status[counted], self.retry_after[counted]
        good = (status >= 200) & (status < 300)
        refused = (status == 429) | (status == 503)
        lag = sent - due
        on_time = int(np.count_nonzero(lag <= ON_TIME_S))  # nan compares false: never sent is not on time
        values, counts = np.unique(status[status > 0], return_counts=True)
        return Report(
            offered_rate=len(due) / plan.seconds,
            sent_rate=on_time / plan.seconds,
            good_rate=int(np.count_nonzero(good)) / plan.seconds,
            held=bool(on_time >= HELD * len(due)),
            requests=len(due),
            good=int(np.count_nonzero(good)),
            dropped=int(np.count_nonzero(status == 0)),
            statuses={int(v): int(c) for v, c in zip(values, counts, strict=True)},
            latency_ms=_percentiles(done[good] - due[good]),
            refusal_ms=_percentiles(done[refused] - sent[refused]),
            refusals=int(np.count_nonzero(refused)),
            refusals_with_retry_after=int(np.count_nonzero(refused & retry_after)),
            send_lag_ms=_percentiles(lag[~np.isnan(lag)]),
            connections=self.opened_most,
            starved=self.starved,
        )

    def _tick(self) -> None:
        """Send all that is due, then sleep until the next is."""
        now = time.monotonic() - self.origin
        due, index = self.due_list, self.next
        while index < len(due) and due[index] <= now:
            self._dispatch(index)
            index += 1
        self.next = index
        if index < len(due):
            self.alarm.set(self.origin + due[index])

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
        self.sent[index] = time.monotonic() - self.origin
        connection.index = index
        connection.transport.write(self.plan.requests[index % len(self.plan.requests)])

    async def _connect(self) -> None:
        try:
            plan = self.plan
            await self.loop.create_connection(lambda: _Connection(self), plan.host, plan.port, ssl=plan.tls)
        except OSError:
            # Refused by the kernel: whoever waited longest is a drop, or nobody would ever learn of it.
            if self.waiting:
                index = self.waiting.popleft()
                self.sent[index] = time.monotonic() - self.origin
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
        self.retry_after[connection.index] = retry_after
        self._settle(connection.index, status)
        connection.index = -1

    def _settle(self, index: int, status: int) -> None:
        self.done[index] = time.monotonic() - self.origin
        self.status[index] = status

    async def _sweep(self) -> None:
        """Ten times a second: cut what exceeded its time, and see whether all is done."""
        while True:
            await asyncio.sleep(0.1)
            now = time.monotonic() - self.origin
            for connection in list(self.live):
                if connection.index >= 0 and now - self.sent[connection.index] > self.plan.timeout_s:
                    connection.transport.abort()
            busy = any(connection.index >= 0 for connection in self.live)
            if self.next == len(self.due_list) and not busy and not self.waiting:
                self.finished.set()


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on it; ``index`` says which, -1 none."""

    def __init__(self, owner: _Generator) -> None:
        self.owner = owner
        self.index = -1
        self.retry_after = False
        self.parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.owner.connected(self)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_header(self, name: bytes, _value: bytes) -> None:
        if len(name) == 11 and name.lower() == b"retry-after":
            self.retry_after = True

    def on_message_complete(self) -> None:
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


def _percentiles(seconds: Seconds) -> dict[str, float]:
    if not len(seconds):
        return {}
    values = np.percentile(seconds * 1e3, QUANTILES)
    named = {f"p{q:g}": round(float(v), 3) for q, v in zip(QUANTILES, values, strict=True)}
    return {**named, "mean": round(float(seconds.mean() * 1e3), 3), "max": round(float(seconds.max() * 1e3), 3)}


def tune_socket_limit() -> None:
    """Allow as many open files as the system lets this process have; an overload test needs a socket per request."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
