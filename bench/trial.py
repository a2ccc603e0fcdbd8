"""One measurement of one running server: load for a while, and what the whole process tree used meanwhile.

Called by ``pairs``, ``tune`` and ``overload``. A trial with more than 1 % errors is kept and marked, never hidden.
"""

from __future__ import annotations

import os
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import client
from bench.closedloop import drive
from bench.peer import Request
from bench.process import Server


@dataclass(frozen=True)
class Sample:
    """``cpu_us`` is processor time of the server's tree per answered request; ``batch`` its mean batch, if it says."""

    peer: str
    concurrency: int
    rate: float
    errors: float  # share of requests
    p50_ms: float
    p99_ms: float
    cpu_us: float
    rss_mb: float
    batch: float | None = None
    other_cores: float = 0.0  # kept busy by neither the server nor the load generator: strangers, and stolen time

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass
class Others:
    """Cores that neither the server nor the load generator kept busy."""

    cores: float = 0.0


def measure(server: Server, concurrency: int, seconds: float) -> Sample:
    """Drive the server in a closed loop and account for it."""
    batches = batch_counts(server)
    begun, cpu, all_cpu, ours = time.monotonic(), server.cpu_s(), _machine_cpu_s(), _children_cpu_s()
    load = drive(server, concurrency, seconds)
    cpu, ours = server.cpu_s() - cpu, _children_cpu_s() - ours
    others = (_machine_cpu_s() - all_cpu - cpu - ours) / (time.monotonic() - begun)
    good = max(1, load.requests - load.errors)
    return Sample(
        server.peer.name,
        concurrency,
        load.rate,
        load.errors / max(1, load.requests),
        load.p50_ms,
        load.p99_ms,
        cpu / good * 1e6,
        server.rss_mb(),
        mean_batch(batches, batch_counts(server)),
        max(0.0, others),
    )


def _machine_cpu_s() -> float:
    """Processor seconds used on the whole machine so far, or stolen from it, by whoever."""
    user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split(None, 9)[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def _children_cpu_s() -> float:
    """Processor seconds of the load generators that ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def watch_others(server: Server) -> Iterator[Others]:
    """What strangers use while a load of this very process runs."""
    others = Others()
    begun, cpu, all_cpu, ours = time.monotonic(), server.cpu_s(), _machine_cpu_s(), time.process_time()
    yield others
    used = _machine_cpu_s() - all_cpu - (server.cpu_s() - cpu) - (time.process_time() - ours)
    others.cores = max(0.0, used / (time.monotonic() - begun))


def warm_up(server: Server, concurrency: int, seconds: float) -> None:
    """The same load as the measurement, thrown away."""
    drive(server, concurrency, seconds)


def idle_cores(server: Server, seconds: float = 1.0) -> float:
    """Cores that the server keeps busy when nobody asks it anything; it burdens whoever is measured beside it."""
    before = server.cpu_s()
    time.sleep(seconds)
    return (server.cpu_s() - before) / seconds


def batch_counts(server: Server) -> tuple[float, float] | None:
    """Sum and count of ``hyperion_batch_size`` at this moment; None from servers that do not say."""
    if server.peer.name.split("#")[0] != "hyperion":
        return None
    _, _, body = client.send(server.port, Request("/metrics", b"", method="GET"))
    return tuple(  # type: ignore[return-value]
        sum(float(v) for v in re.findall(rf"^hyperion_batch_size_{part}(?:{{.*}})? (\S+)", body.decode(), re.M))
        for part in ("sum", "count")
    )


def mean_batch(before: tuple[float, float] | None, after: tuple[float, float] | None) -> float | None:
    """Mean of the batches between two readings."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])
