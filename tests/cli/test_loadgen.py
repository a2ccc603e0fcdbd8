"""The open-loop generator keeps its schedule, tells refusals from answers, and fails a run it could not hold."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from hyperion.cli import load_plan, loadgen

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}"
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"


@contextmanager
def answering(choose: Callable[[int], bytes | None]) -> Iterator[int]:
    """A server on a thread that gives its n-th request ``choose(n)``; None closes the connection instead."""
    started, loop, seen, port = threading.Event(), asyncio.new_event_loop(), [0], [0]

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            answer = choose(seen[0])
            seen[0] += 1
            if answer is None:
                self.transport.close()
            elif answer:
                self.transport.write(answer)  # type: ignore[attr-defined]

    async def main() -> None:
        server = await loop.create_server(Connection, "127.0.0.1", 0)
        port[0] = server.sockets[0].getsockname()[1]
        started.set()

    def serve() -> None:
        loop.run_until_complete(main())
        loop.run_forever()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    started.wait()
    yield port[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def plan(port: int, **changes: object) -> load_plan.Plan:
    values = {"rate": 200.0, "seconds": 0.6, "warm_up_s": 0.1, "timeout_s": 30.0, **changes}
    return load_plan.Plan("127.0.0.1", port, [REQUEST], **values)  # type: ignore[arg-type]


def test_poisson_gaps_have_the_mean_and_spread_of_the_rate() -> None:
    gaps = np.diff(load_plan.poisson_times(1000, 60, np.random.default_rng(1)))
    assert gaps.mean() == pytest.approx(1e-3, rel=0.03)
    assert gaps.std() == pytest.approx(1e-3, rel=0.03)


def test_every_request_of_the_schedule_is_sent_and_answered() -> None:
    with answering(lambda n: OK) as port:
        report = loadgen.run(plan(port))
    assert report.requests == report.good > 50
    assert (report.dropped, report.errors) == (0, 0)
    assert report.statuses == {200: report.good}
    assert sum(report.per_second_good) <= report.good


def test_refusals_are_counted_apart_with_their_retry_after() -> None:
    with answering(lambda n: BUSY if n % 2 else OK) as port:
        report = loadgen.run(plan(port))
    assert report.refusals == report.refusals_with_retry_after == report.statuses[503]
    assert report.good + report.refusals == report.requests
    assert set(report.refusal_ms) == set(report.latency_ms)


def test_a_closed_connection_is_a_drop_and_the_rest_goes_on() -> None:
    with answering(lambda n: None if n % 10 == 9 else OK) as port:
        report = loadgen.run(plan(port))
    assert report.dropped > 0
    assert report.good + report.dropped == report.requests


def test_a_silent_server_gives_drops_after_the_timeout() -> None:
    with answering(lambda n: b"") as port:
        report = loadgen.run(plan(port, rate=50.0, seconds=0.5, timeout_s=0.3))
    assert report.good == 0
    assert report.dropped == report.requests


def test_latency_counts_from_the_intended_time_when_the_server_stalls() -> None:
    """One connection, a server that stalls once: those who had to wait for it show the stall, not their own call."""

    def choose(n: int) -> bytes:
        if n == 60:
            time.sleep(0.4)
        return OK

    with answering(choose) as port:
        report = loadgen.run(plan(port, connections=1, warm_up_s=0.0))
    assert report.latency_ms["max"] > 300
    assert report.latency_ms["p90"] > 50
    assert not report.held


def test_a_server_that_is_not_there_gives_drops_not_a_hang() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    report = loadgen.run(plan(port, rate=50.0, seconds=0.3))
    assert report.good == 0
    assert report.dropped == report.requests
