"""What open-loop load is to send and when, and what became of it. For `loadgen`, `hyperion bench` and the benchmarks.

Like `loadgen` it imports nothing but numpy and the standard library, so that the benchmarks' environment can use it.

>>> import numpy as np
>>> times = poisson_times(rate=100.0, seconds=50.0, rng=np.random.default_rng(0))
>>> 4800 < len(times) < 5200 and bool(np.all(np.diff(times) >= 0))
True
"""

import math
import ssl
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]

HELD = 0.99  # a run counts only if this share of its requests was sent on schedule
ON_TIME_S = 0.050  # "on schedule": at most this much after the intended time
QUANTILES = (50, 90, 95, 99, 99.9)


@dataclass(frozen=True)
class Plan:
    """What to send: complete HTTP requests (bytes) in turn, at `rate` per second for `seconds`, at the times of a
    Poisson process, or evenly with `steady`. Times are seconds."""

    host: str
    port: int
    requests: Sequence[bytes]
    rate: float
    seconds: float
    warm_up_s: float = 1.0  # sent and answered like the rest, left out of the statistics
    connections: int = 1024  # at most; opened as needed, each with one request at a time
    opened_first: int = 16  # of them, before the clock starts
    timeout_s: float = 10.0  # a request without an answer by then is a drop
    seed: int = 0
    steady: bool = False
    grain_s: float = 0.0  # what is due within this time leaves together: cheaper, and late by up to that much
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True)
class Report:
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
    per_second_good: list[int] = field(default_factory=list)

    @property
    def errors(self) -> float:
        """Share of requests that were not answered 2xx."""
        return 1 - self.good / max(1, self.requests)

    def as_dict(self) -> dict[str, object]:
        """All of it, with `errors`."""
        return {**asdict(self), "errors": self.errors}


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


def make_schedule(plan: Plan) -> Seconds:
    """When each request of the plan is due, in seconds from its start, warm-up included."""
    whole_s = plan.warm_up_s + plan.seconds
    if plan.steady:
        return steady_times(plan.rate, whole_s)
    return poisson_times(plan.rate, whole_s, np.random.default_rng(plan.seed))


class Outcomes:
    """What became of each request, index by index: seconds from the start (nan: never) and status (0: no answer)."""

    def __init__(self, due: Seconds) -> None:
        # Lists, because each element is written on its own.
        self.due = due
        self.sent = [math.nan] * len(due)
        self.done = [math.nan] * len(due)
        self.status = [0] * len(due)
        self.retry_after = [False] * len(due)


def summarise(plan: Plan, outcomes: Outcomes, connections: int, starved: int) -> Report:
    """The figures of what came after the warm-up."""
    counted = outcomes.due >= plan.warm_up_s
    due, sent, done = outcomes.due[counted], np.array(outcomes.sent)[counted], np.array(outcomes.done)[counted]
    status: NDArray[Any] = np.array(outcomes.status, np.int16)[counted]
    good = (status >= 200) & (status < 300)
    refused = (status == 429) | (status == 503)
    lag = sent - due
    on_time = int(np.count_nonzero(lag <= ON_TIME_S))  # nan compares false: never sent is not on time
    seconds = np.floor(done[good] - plan.warm_up_s).astype(int)
    per_second = np.bincount(seconds[seconds >= 0], minlength=int(plan.seconds))
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
        refusals_with_retry_after=int(np.count_nonzero(refused & np.array(outcomes.retry_after, bool)[counted])),
        send_lag_ms=_percentiles(lag[~np.isnan(lag)]),
        connections=connections,
        starved=starved,
        per_second_good=per_second[: int(plan.seconds)].tolist(),
    )


def _percentiles(seconds: Seconds) -> dict[str, float]:
    if not len(seconds):
        return {}
    values = np.percentile(seconds * 1e3, QUANTILES)
    named = {f"p{q:g}": round(float(v), 3) for q, v in zip(QUANTILES, values, strict=True)}
    return {**named, "mean": round(float(seconds.mean() * 1e3), 3), "max": round(float(seconds.max() * 1e3), 3)}
