"""Counters and histograms of one process, as plain data, which `exposition` merges across processes and renders.

`Metrics.record` is called once per finished request, or `record_batch` for a batch and all that it answered, from one
place each. Labels are bounded at write time: a name beyond `MAX_SERIES` collapses to `other`. Never here: sockets,
files, clocks.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from msgspec import Struct

from hyperion.schema.events import BatchRecord, RequestRecord

MAX_SERIES: Final = 2_000
MAX_UNSETTLED: Final = 1_024
SECONDS: Final[tuple[float, ...]] = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
NANOSECONDS: Final = tuple([round(bound * 1e9) for bound in SECONDS])
ROWS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
OTHER: Final = "other"


class HistogramData(Struct, gc=False):
    """Counts per bucket (the last one is +Inf, not cumulative), and the sum of what was observed."""

    counts: list[int]
    total: float = 0.0


class MetricsData(Struct):
    """All of a process's series: metric name → label values → value."""

    counters: dict[str, dict[tuple[str, ...], float]] = {}
    gauges: dict[str, dict[tuple[str, ...], float]] = {}
    histograms: dict[str, dict[tuple[str, ...], HistogramData]] = {}


class Family(Struct, frozen=True):
    """How a metric is shown: its type, what it means, its labels, and a histogram's upper bounds."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


_VERSION: Final = ("endpoint", "version")
FAMILIES: Final[dict[str, Family]] = {
    "hyperion_requests_total": Family(
        "counter", "Finished requests.", ("endpoint", "version", "protocol", "code")
    ),
    "hyperion_request_seconds": Family("histogram", "From the request's first byte to its answer.", _VERSION, SECONDS),
    "hyperion_queue_seconds": Family("histogram", "Waiting for a batch, per request.", _VERSION, SECONDS),
    "hyperion_compute_seconds": Family("histogram", "In the model, per batch.", _VERSION, SECONDS),
    "hyperion_batch_size": Family("histogram", "Rows per batch.", _VERSION, ROWS),
    "hyperion_inflight": Family("gauge", "Rows being computed.", _VERSION),
    "hyperion_queue_depth": Family("gauge", "Rows waiting.", _VERSION),
    "hyperion_replicas": Family("gauge", "Replicas by state.", (*_VERSION, "state")),
    "hyperion_breaker_state": Family(
        "gauge",
        "Whether a replica or an upstream is left alone: 0 closed, 1 half-open, 2 open (the highest of all workers).",
        (*_VERSION, "replica"),
    ),
    "hyperion_brownout": Family(
        "gauge", "How much optional work an overloaded version gives up, 0 to 3 (the highest of all workers).", _VERSION
    ),
    "hyperion_shed_total": Family("counter", "Requests refused to protect the others.", ("reason",)),
    "hyperion_snapshot_version": Family("gauge", "Version of the snapshot that the gateway runs."),
    "hyperion_rollout_weight": Family("gauge", "Share of an endpoint's requests that a version is given.", _VERSION),
    "hyperion_jobs": Family("gauge", "Jobs that are kept, some seconds ago.", ("endpoint", "state")),
    "hyperion_control_look_seconds": Family("gauge", "What the last look of the control loop took."),
    "hyperion_snapshot_spread_seconds": Family("gauge", "From publishing the last snapshot until all gateways ran it."),
    "hyperion_graph_rows_total": Family(
        "counter", "Rows that a step of a switch or a cascade has answered.", ("endpoint", "step")
    ),
    "hyperion_graph_degraded_total": Family(
        "counter", "Answers of graphs that a step should have had a part in, and had not.", ("endpoint", "step")
    ),
    "hyperion_cache_total": Family("counter", "Requests to endpoints with a response cache.", ("result",)),
    "hyperion_redis_connected": Family("gauge", "Gateway workers that share their limits through Redis now."),
    "hyperion_redis_outages_total": Family(
        "counter", "How often a gateway worker lost its Redis, or did not find it at first."
    ),
    "hyperion_connections": Family("gauge", "Open HTTP connections."),
    "hyperion_records_dropped_total": Family(
        "counter", "Request records not kept: more came than control took, or than a second's share."
    ),
}  # fmt: skip


class Metrics:
    """The live series of this process."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, ...], float] = {}
        self._histograms: dict[str, dict[tuple[str, ...], HistogramData]] = {
            name: {} for name, family in FAMILIES.items() if family.kind == "histogram"
        }
        self._request_seconds = self._histograms["hyperion_request_seconds"]
        self._queue_seconds = self._histograms["hyperion_queue_seconds"]
        self._batch_size = self._histograms["hyperion_batch_size"]
        self._compute_seconds = self._histograms["hyperion_compute_seconds"]
        self._unsettled: list[BatchRecord] = []
        self._shed: dict[tuple[str, ...], float] = {}
        self._dropped: dict[tuple[str, ...], float] = {}
        self._gauge_sources: list[Callable[[], Mapping[str, Mapping[tuple[str, ...], float]]]] = []
        self._counter_sources: list[Callable[[], dict[str, dict[tuple[str, ...], float]]]] = []

    def add_gauges(self, source: Callable[[], Mapping[str, Mapping[tuple[str, ...], float]]]) -> None:
        """`source` gives metric → labels → value; it is asked at each collection."""
        self._gauge_sources.append(source)

    def add_counters(self, source: Callable[[], dict[str, dict[tuple[str, ...], float]]]) -> None:
        """`source` gives metric → labels → a count that never falls; it is asked at each collection."""
        self._counter_sources.append(source)

    def record(self, record: RequestRecord) -> None:
        """Counts one finished request. The only entry for requests."""
        key = (record.model, record.version, record.protocol, record.code)
        requests = self._requests
        if key in requests:
            requests[key] += 1.0
        else:
            if len(requests) >= MAX_SERIES:
                key = (OTHER, OTHER, record.protocol, record.code)
            requests[key] = requests.get(key, 0.0) + 1.0
        version = key[:2]
        observe(self._request_seconds, version, SECONDS, record.total_ns * 1e-9)
        if record.rows:
            observe(self._queue_seconds, version, SECONDS, record.queue_ns * 1e-9)

    def record_batch(self, record: BatchRecord) -> None:
        """Counts one batch and its requests that were answered: the same as `record` for each of them. Takes note only,
        as callers wait meanwhile; `settle` does the work."""
        self._unsettled.append(record)
        if len(self._unsettled) >= MAX_UNSETTLED:
            self.settle()

    def settle(self) -> None:
        """Counts what `record_batch` has noted: many batches at once, which costs a fraction of each alone."""
        records, self._unsettled = self._unsettled, []
        requests: dict[tuple[str, str, str, str], tuple[list[int], list[int]]] = {}
        for record in records:
            version = (record.model, record.version)
            observe(self._batch_size, version, ROWS, record.rows)
            observe(self._compute_seconds, version, SECONDS, record.compute_ns * 1e-9)
            if record.received_ns:
                total_ns, queue_ns = requests.setdefault((*version, record.protocol, record.code), ([], []))
                back_ns, formed_ns = record.back_ns, record.formed_ns
                total_ns += [back_ns - at_ns for at_ns in record.received_ns]
                queue_ns += [formed_ns - at_ns for at_ns in record.received_ns]
        for key, (total_ns, queue_ns) in requests.items():
            if key not in self._requests and len(self._requests) >= MAX_SERIES:
                key = (OTHER, OTHER, *key[2:])
            self._requests[key] = self._requests.get(key, 0.0) + len(total_ns)
            observe_all(self._request_seconds, key[:2], total_ns)
            observe_all(self._queue_seconds, key[:2], queue_ns)

    def count_shed(self, reason: str) -> None:
        """Counts one request that was refused to protect the others; `reason` is an error's code."""
        self._shed[(reason,)] = self._shed.get((reason,), 0.0) + 1.0

    def count_dropped(self, records: int) -> None:
        """Counts records of requests that were lost because nobody took them in time."""
        self._dropped[()] = self._dropped.get((), 0.0) + records

    @property
    def crowded(self) -> bool:
        """Whether so many series are there that `forget` is worth its time."""
        histograms = self._histograms.values()
        return max(len(self._requests), *[len(series) for series in histograms]) > MAX_SERIES // 2

    def forget(self, served: Collection[tuple[str, str]]) -> None:
        """Drops the series of all versions but those that are `served` (endpoint, version): however many came before
        in the life of a process, what is served now has its own name."""
        self.settle()
        tables: list[dict[tuple[str, ...], Any]] = [self._requests, *self._histograms.values()]
        for series in tables:
            for key in [key for key in series if OTHER not in key[:2] and key[:2] not in served]:
                del series[key]

    def collect(self) -> MetricsData:
        """All series as they stand now."""
        self.settle()
        gauges: dict[str, dict[tuple[str, ...], float]] = {}
        for source in self._gauge_sources:
            for name, series in source().items():
                gauges.setdefault(name, {}).update(series)
        counters = {
            "hyperion_requests_total": self._requests,
            "hyperion_shed_total": self._shed,
            "hyperion_records_dropped_total": self._dropped,
        }
        for counter_source in self._counter_sources:
            counters |= counter_source()
        return MetricsData(counters, gauges, self._histograms)


def observe(
    series: dict[tuple[str, ...], HistogramData], key: tuple[str, ...], bounds: tuple[float, ...], value: float
) -> None:
    """Adds `value` to the histogram of `key`."""
    data = series.get(key)
    if data is None:
        if len(series) >= MAX_SERIES:
            key = (OTHER,) * len(key)
        data = series.setdefault(key, HistogramData([0] * (len(bounds) + 1)))
    data.counts[bisect_left(bounds, value)] += 1
    data.total += value


def observe_all(series: dict[tuple[str, ...], HistogramData], key: tuple[str, ...], values_ns: list[int]) -> None:
    """Adds durations to the histogram of `key`, whose bounds are `SECONDS`. Sorts them."""
    data = series.get(key)
    if data is None:
        if len(series) >= MAX_SERIES:
            key = (OTHER,) * len(key)
        data = series.setdefault(key, HistogramData([0] * (len(SECONDS) + 1)))
    values_ns.sort()
    counts, below = data.counts, 0
    for index, bound_ns in enumerate(NANOSECONDS):
        up_to = bisect_right(values_ns, bound_ns, below)
        counts[index] += up_to - below
        below = up_to
        if below == len(values_ns):
            break
    counts[-1] += len(values_ns) - below
    data.total += sum(values_ns) * 1e-9
