"""The series of several processes as one, as Prometheus text, and as bytes between processes.

Used by `gateway/siblings`, which asks every worker, and by the management API. Pure.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from hyperion.telemetry.metrics import FAMILIES, Family, HistogramData, MetricsData

HIGHEST: Final = ("hyperion_breaker_state", "hyperion_brownout")  # of all workers counts; other gauges are added up


def merge(parts: Iterable[MetricsData]) -> MetricsData:
    """The sum of several processes' series. Of the snapshot version the lowest counts: all have got at least that
    far."""
    merged = MetricsData({}, {}, {})
    for part in parts:
        for name, counters in part.counters.items():
            into = merged.counters.setdefault(name, {})
            for key, value in counters.items():
                into[key] = into.get(key, 0.0) + value
        for name, gauges in part.gauges.items():
            into = merged.gauges.setdefault(name, {})
            lowest = name in ("hyperion_snapshot_version", "hyperion_replicas")
            for key, value in gauges.items():
                if lowest:
                    into[key] = min(into.get(key, value), value)
                else:
                    seen = into.get(key, 0.0)
                    into[key] = max(seen, value) if name in HIGHEST else seen + value
        for name, histograms in part.histograms.items():
            series = merged.histograms.setdefault(name, {})
            for key, data in histograms.items():
                known = series.get(key)
                counts = (
                    data.counts if known is None else [a + b for a, b in zip(known.counts, data.counts, strict=True)]
                )
                series[key] = HistogramData(list(counts), data.total + (known.total if known else 0.0))
    return merged


def render(data: MetricsData) -> bytes:
    """Prometheus text exposition format 0.0.4. Every family is shown, even without a series yet."""
    lines: list[str] = []
    for name, family in FAMILIES.items():
        lines += (f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}")
        if family.kind == "histogram":
            for key, histogram in sorted(data.histograms.get(name, {}).items()):
                lines += _histogram_lines(name, family, key, histogram)
            continue
        series = (data.counters if family.kind == "counter" else data.gauges).get(name, {})
        lines += (
            f"{name}{_labels(family.labels, key)} {value:g}"
            if value < 1e6
            else f"{name}{_labels(family.labels, key)} {value!r}"
            for key, value in sorted(series.items())
        )
    return ("\n".join(lines) + "\n").encode()


def _histogram_lines(name: str, family: Family, key: tuple[str, ...], histogram: HistogramData) -> Iterable[str]:
    names = (*family.labels, "le")
    running = 0
    for bound, count in zip((*family.bounds, float("inf")), histogram.counts, strict=True):
        running += count
        edge = "+Inf" if bound == float("inf") else f"{bound:g}"
        yield f"{name}_bucket{_labels(names, (*key, edge))} {running}"
    labels = _labels(family.labels, key)
    yield f"{name}_sum{labels} {histogram.total!r}"
    yield f"{name}_count{labels} {running}"


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names:
        return ""
    pairs = (f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[str, str, tuple[str, ...], float, list[int]]])


def encode(data: MetricsData) -> bytes:
    """The series as bytes, for a sibling or for control. Rows of (kind, name, labels, value or sum, counts)."""
    rows: list[tuple[str, str, tuple[str, ...], float, list[int]]] = []
    for kind, families in (("c", data.counters), ("g", data.gauges)):
        rows += ((kind, name, key, value, []) for name, series in families.items() for key, value in series.items())
    rows += (
        ("h", name, key, histogram.total, histogram.counts)
        for name, series in data.histograms.items()
        for key, histogram in series.items()
    )
    return _encoder.encode(rows)


def decode(raw: bytes) -> MetricsData:
    """What `encode` wrote. Raises msgspec.DecodeError."""
    data = MetricsData({}, {}, {})
    for kind, name, key, value, counts in _decoder.decode(raw):
        if kind == "h":
            data.histograms.setdefault(name, {})[key] = HistogramData(counts, value)
        else:
            (data.counters if kind == "c" else data.gauges).setdefault(name, {})[key] = value
    return data
