"""Metrics: counted once, bounded, the same after a trip to a sibling, and readable for Prometheus's own parser."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from hyperion.schema.events import BatchRecord, RequestRecord
from hyperion.telemetry.exposition import decode, encode, merge, render
from hyperion.telemetry.metrics import (
    FAMILIES,
    MAX_SERIES,
    MAX_UNSETTLED,
    OTHER,
    SECONDS,
    HistogramData,
    Metrics,
    MetricsData,
    observe,
)

MS = 1_000_000
SERVED = ("fraud", "latest")
NAMES = st.text(st.characters(codec="utf-8"), max_size=6)
RECORDS = st.builds(
    RequestRecord,
    NAMES,
    st.sampled_from(["a", "b"]),
    st.sampled_from(["1", "2"]),
    st.sampled_from(["http", "grpc"]),
    st.sampled_from(["200", "503", "OK"]),
    st.integers(0, 10**11),
    st.integers(0, 10**11),
    st.integers(0, 10**11),
    st.integers(0, 64),
)
WORKERS = st.lists(st.lists(RECORDS, max_size=8), max_size=4)


def batch(model: str, version: str, rows: int, compute_ns: int, *received_ns: int) -> BatchRecord:
    """A batch that was formed at 100 ms and came back at 200 ms, with requests received at those times."""
    return BatchRecord(model, version, rows, compute_ns, 100 * MS, 200 * MS, "http", "200", list(received_ns))


def collected(records: list[RequestRecord]) -> MetricsData:
    metrics = Metrics()
    for record in records:
        metrics.record(record)
        metrics.record_batch(batch(record.model, record.version, max(record.rows, 1), record.compute_ns))
    return metrics.collect()


def samples(data: MetricsData) -> dict[str, list[Sample]]:
    """What Prometheus's own parser reads in the rendering: sample name → samples."""
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(render(data).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def series_of(data: MetricsData) -> set[tuple[str, tuple[str, ...]]]:
    groups = (data.counters, data.gauges, data.histograms)
    return {(name, labels) for group in groups for name, series in group.items() for labels in series}


def test_every_family_of_the_interface_is_declared_even_without_a_series() -> None:
    families = {family.name: family for family in text_string_to_metric_families(render(Metrics().collect()).decode())}
    assert {name.removesuffix("_total") for name in FAMILIES} == set(families)
    assert all(family.documentation for family in families.values())
    assert {name: families[name.removesuffix("_total")].type for name in FAMILIES} == {
        name: family.kind for name, family in FAMILIES.items()
    }


def test_a_request_is_counted_under_its_labels_and_in_the_right_buckets() -> None:
    metrics = Metrics()
    metrics.record(RequestRecord("id", "fraud", "3", "http", "200", 7 * MS, 2 * MS, 4 * MS, rows=5))
    metrics.record(RequestRecord("id", "fraud", "3", "http", "200", 5 * MS, 2 * MS, 4 * MS, rows=5))
    found = samples(metrics.collect())
    (requests,) = found["hyperion_requests_total"]
    assert requests.labels == {"endpoint": "fraud", "version": "3", "protocol": "http", "code": "200"}
    assert requests.value == 2
    seconds = {sample.labels["le"]: sample.value for sample in found["hyperion_request_seconds_bucket"]}
    assert (seconds["0.0025"], seconds["0.005"], seconds["0.01"], seconds["+Inf"]) == (0, 1, 2, 2)
    assert found["hyperion_request_seconds_sum"][0].value == pytest.approx(0.012)
    assert found["hyperion_queue_seconds_count"][0].value == 2


def test_a_request_that_never_waited_for_a_batch_is_no_observation_of_the_queue() -> None:
    metrics = Metrics()
    metrics.record(RequestRecord("id", "", "", "http", "404", 7 * MS))
    assert "hyperion_queue_seconds_count" not in samples(metrics.collect())


def test_a_batch_is_counted_by_its_rows_and_its_time() -> None:
    metrics = Metrics()
    metrics.record_batch(batch("fraud", "3", 5, 30 * MS))
    found = samples(metrics.collect())
    sizes = {sample.labels["le"]: sample.value for sample in found["hyperion_batch_size_bucket"]}
    assert (sizes["4"], sizes["8"]) == (0, 1)
    assert found["hyperion_compute_seconds_sum"][0].value == pytest.approx(0.03)


@given(st.lists(st.lists(st.integers(0, 100 * MS), max_size=5), max_size=5))
def test_requests_of_batches_are_counted_as_each_alone(batches: list[list[int]]) -> None:
    together, alone = Metrics(), Metrics()
    for received_ns in batches:
        together.record_batch(batch("m", "1", 1, MS, *received_ns))
        alone.record_batch(batch("m", "1", 1, MS))
        for at_ns in received_ns:
            alone.record(RequestRecord("id", "m", "1", "http", "200", 200 * MS - at_ns, 100 * MS - at_ns, MS, rows=1))
    found, expected = together.collect(), alone.collect()
    assert found.counters == expected.counters
    for name, series in expected.histograms.items():
        assert {key: data.counts for key, data in series.items()} == {
            key: data.counts for key, data in found.histograms[name].items()
        }
        for key, data in series.items():
            assert found.histograms[name][key].total == pytest.approx(data.total)


def test_many_batches_are_counted_before_anybody_asks() -> None:
    metrics = Metrics()
    for _ in range(MAX_UNSETTLED * 2 + 1):
        metrics.record_batch(batch("m", "1", 3, MS))
    assert len(metrics._unsettled) == 1
    assert samples(metrics.collect())["hyperion_batch_size_count"][0].value == MAX_UNSETTLED * 2 + 1


def test_a_refusal_is_counted_by_its_reason() -> None:
    metrics = Metrics()
    for reason in ("overloaded", "overloaded", "not_ready"):
        metrics.count_shed(reason)
    shed = {sample.labels["reason"]: sample.value for sample in samples(metrics.collect())["hyperion_shed_total"]}
    assert shed == {"overloaded": 2, "not_ready": 1}


def test_gauges_are_asked_for_at_each_collection() -> None:
    depth = [1.0]
    metrics = Metrics()
    metrics.add_gauges(lambda: {"hyperion_queue_depth": {("m", "1"): depth[0]}})
    metrics.add_gauges(lambda: {"hyperion_queue_depth": {("n", "1"): 7.0}, "hyperion_connections": {(): 3.0}})
    metrics.collect()
    depth[0] = 2.0
    found = samples(metrics.collect())
    assert {s.labels["endpoint"]: s.value for s in found["hyperion_queue_depth"]} == {"m": 2.0, "n": 7.0}
    assert found["hyperion_connections"][0].value == 3.0


def test_names_beyond_the_bound_collapse_to_other_and_lose_no_count() -> None:
    metrics = Metrics()
    for number in range(MAX_SERIES + 500):
        metrics.record(RequestRecord("id", f"m{number}", "1", "http", "200", MS, rows=1))
        metrics.record_batch(batch(f"m{number}", "1", 1, MS))
    data = metrics.collect()
    for series in (*data.counters.values(), *data.histograms.values()):
        assert len(series) <= MAX_SERIES + 1
    requests = data.counters["hyperion_requests_total"]
    assert sum(requests.values()) == MAX_SERIES + 500
    assert requests[OTHER, OTHER, "http", "200"] == 500
    for histograms in data.histograms.values():
        assert sum(sum(histogram.counts) for histogram in histograms.values()) == MAX_SERIES + 500
        assert sum(histograms[OTHER, OTHER].counts) == 500
    metrics.record(RequestRecord("id", "m7", "1", "http", "200", MS, rows=1))
    assert metrics.collect().counters["hyperion_requests_total"]["m7", "1", "http", "200"] == 2


@given(st.lists(st.floats(0, 1e4), max_size=30))
def test_each_observation_lies_in_one_bucket_at_most_as_high_as_its_edge(values: list[float]) -> None:
    series: dict[tuple[str, ...], HistogramData] = {}
    for value in values:
        observe(series, ("m",), SECONDS, value)
    for histogram in series.values():
        running = 0
        for bound, count in zip((*SECONDS, math.inf), histogram.counts, strict=True):
            running += count
            assert running == sum(value <= bound for value in values)
        assert histogram.total == pytest.approx(sum(values))


@given(st.lists(NAMES, min_size=4, max_size=4))
def test_labels_of_any_text_come_out_of_the_parser_as_they_went_in(labels: list[str]) -> None:
    metrics = Metrics()
    metrics.record(RequestRecord("id", *labels, 3 * MS, rows=1))
    found = samples(metrics.collect())
    assert list(found["hyperion_requests_total"][0].labels.values()) == labels
    assert found["hyperion_request_seconds_sum"][0].labels == {"endpoint": labels[0], "version": labels[1]}


@given(WORKERS)
def test_what_went_to_a_sibling_is_what_was_collected(workers: list[list[RequestRecord]]) -> None:
    for records in workers:
        data = collected(records)
        data.gauges["hyperion_queue_depth"] = {("a", "1"): 3.0}
        assert decode(encode(data)) == MetricsData(
            {name: series for name, series in data.counters.items() if series},
            data.gauges,
            {name: series for name, series in data.histograms.items() if series},
        )


@given(WORKERS)
def test_the_sum_of_the_workers_is_what_one_worker_would_have_counted(workers: list[list[RequestRecord]]) -> None:
    merged = merge(collected(records) for records in workers)
    alone = collected([record for records in workers for record in records])
    assert series_of(merged) == series_of(alone)
    assert merged.counters.get("hyperion_requests_total", {}) == alone.counters["hyperion_requests_total"]
    for name, series in alone.histograms.items():
        for labels, histogram in series.items():
            assert merged.histograms[name][labels].counts == histogram.counts
            assert merged.histograms[name][labels].total == pytest.approx(histogram.total)


def test_a_merge_leaves_its_parts_as_they_were() -> None:
    one, other = (collected([RequestRecord("id", "m", "1", "http", "200", MS, rows=1)]) for _ in range(2))
    before = encode(one)
    merge([one, other])
    assert encode(one) == before


def test_of_gauges_the_rows_add_up_and_of_versions_and_replicas_the_lowest_counts() -> None:
    def worker(version: float, depth: float, ready: float) -> MetricsData:
        return MetricsData(
            {},
            {
                "hyperion_snapshot_version": {(): version},
                "hyperion_queue_depth": {("m", "1"): depth},
                "hyperion_replicas": {("m", "1", "ready"): ready},
                "hyperion_brownout": {("m", "1"): depth},
            },
        )

    gauges = merge([worker(8, 3, 2), worker(7, 4, 1)]).gauges
    assert gauges["hyperion_snapshot_version"][()] == 7
    assert gauges["hyperion_queue_depth"]["m", "1"] == 7
    assert gauges["hyperion_replicas"]["m", "1", "ready"] == 1
    assert gauges["hyperion_brownout"]["m", "1"] == 4


@given(st.floats(0, 1e12))
def test_values_keep_at_least_six_digits(value: float) -> None:
    data = MetricsData({}, {"hyperion_connections": {(): value}})
    assert samples(data)["hyperion_connections"][0].value == pytest.approx(value, rel=1e-5)


@given(st.integers(0, 2**53))
def test_a_counter_shows_every_digit(count: int) -> None:
    data = MetricsData({"hyperion_shed_total": {("overloaded",): float(count)}})
    assert samples(data)["hyperion_shed_total"][0].value == count


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x90\x90", msgspec.msgpack.encode([["c", "n", ["a"], "x", []]])])
def test_bytes_that_are_no_metrics_are_refused(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(raw)


def test_what_is_served_keeps_its_name_however_many_versions_came_before() -> None:
    metrics = Metrics()
    for number in range(2 * MAX_SERIES):
        metrics.record(RequestRecord("", "fraud", str(number), "http", "200", MS))
        metrics.record_batch(BatchRecord("fraud", str(number), 1, MS, 0, MS, "http", "200", [0]))
        if metrics.crowded:
            metrics.forget({("fraud", str(number))})
    metrics.record(RequestRecord("", *SERVED, "http", "200", MS))
    data = metrics.collect()
    assert data.counters["hyperion_requests_total"][(*SERVED, "http", "200")] == 1
    assert data.histograms["hyperion_request_seconds"][SERVED].total > 0
    assert len(data.counters["hyperion_requests_total"]) <= MAX_SERIES // 2 + 1


def test_what_is_served_and_what_is_of_nobody_is_not_forgotten() -> None:
    metrics = Metrics()
    for version in ("1", "2", OTHER):
        metrics.record(RequestRecord("", "fraud", version, "http", "200", MS))
    metrics.record(RequestRecord("", OTHER, OTHER, "http", "404", MS))
    metrics.forget({("fraud", "2")})
    series = metrics.collect().counters["hyperion_requests_total"]
    assert [key[:2] for key in series] == [("fraud", "2"), ("fraud", OTHER), (OTHER, OTHER)]
