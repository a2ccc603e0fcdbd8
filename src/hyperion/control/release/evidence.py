"""What the gateways counted, joined: the latest report of each gateway's life, summed over all lives.

Reports are cumulative, so one that is lost or comes twice changes nothing, and a gateway that was killed keeps what it
reported last. Called by the link's server with each report and by the release loop at each look.
"""

from collections.abc import Callable, Iterable

import msgspec

from hyperion.policy.release.counts import add_columns
from hyperion.schema.release import (
    CATEGORIES_MAX,
    GatewayReport,
    OutputSample,
    PairCounts,
    PredictionRow,
    TrackCounts,
    ValuePair,
)

_SAMPLE_MAX = 512
_PENDING_MAX = 10_000
TrackKey = tuple[str, int, str, bool]  # endpoint, epoch, version, shadow


class Evidence:
    """All counts of this control's life. `changed` is called with the endpoints of every report."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._counts: dict[TrackKey, dict[str, TrackCounts]] = {}
        self._pairs: dict[tuple[str, int], dict[str, PairCounts]] = {}
        self._samples: dict[tuple[str, int], dict[str, OutputSample]] = {}
        self._predictions: list[PredictionRow] = []
        self._values: list[ValuePair] = []

    def take(self, report: GatewayReport) -> None:
        """Takes a report in place of the earlier ones of the same life. Predictions and values are new each time."""
        for counts in report.counts:
            key = (counts.endpoint, counts.epoch, counts.version, counts.shadow)
            self._counts.setdefault(key, {})[report.incarnation] = counts
        for pairs in report.pairs:
            self._pairs.setdefault((pairs.endpoint, pairs.epoch), {})[report.incarnation] = pairs
        for sample in report.samples:
            self._samples.setdefault((sample.endpoint, sample.epoch), {})[report.incarnation] = sample
        self._predictions += report.predictions[: max(0, _PENDING_MAX - len(self._predictions))]
        self._values += report.values[: max(0, _PENDING_MAX - len(self._values))]
        self._changed()

    def counts(self, endpoint: str, since_epoch: int) -> tuple[TrackCounts, ...]:
        """The sums for an endpoint from an epoch on, by epoch and version."""
        keys = sorted(key for key in self._counts if key[0] == endpoint and key[1] >= since_epoch)
        return tuple(add_counts(self._counts[key].values()) for key in keys)

    def pairs(self, endpoint: str, since_epoch: int) -> tuple[PairCounts, ...]:
        """The sums of the shadow's pairs."""
        keys = sorted(key for key in self._pairs if key[0] == endpoint and key[1] >= since_epoch)
        return tuple(add_pairs(self._pairs[key].values()) for key in keys)

    def sample(self, endpoint: str, since_epoch: int) -> OutputSample | None:
        """The newest sample of the control's predictions, of all gateways together; None where there is none."""
        keys = sorted(key for key in self._samples if key[0] == endpoint and key[1] >= since_epoch)
        return join_samples(self._samples[keys[-1]].values()) if keys else None

    def take_predictions(self) -> list[PredictionRow]:
        """Those that came since the last time."""
        rows, self._predictions = self._predictions, []
        return rows

    def take_values(self) -> list[ValuePair]:
        """The pairs of predictions that came since the last time."""
        pairs, self._values = self._values, []
        return pairs

    def forget(self, endpoint: str, before_epoch: int) -> None:
        """Drops what no rollout will ask for any more."""
        self._counts = {k: v for k, v in self._counts.items() if k[0] != endpoint or k[1] >= before_epoch}
        self._pairs = {k: v for k, v in self._pairs.items() if k[0] != endpoint or k[1] >= before_epoch}
        self._samples = {k: v for k, v in self._samples.items() if k[0] != endpoint or k[1] >= before_epoch}


def add_counts(parts: Iterable[TrackCounts]) -> TrackCounts:
    """The sum of counts of one version and epoch.

    >>> add_counts([TrackCounts("e", 1, "2", latency=(1, 1)), TrackCounts("e", 1, "2", latency=(1,))]).latency
    (2, 1)
    """
    first, *rest = parts
    if not rest:
        return first
    every = [first, *rest]
    reasons: dict[str, int] = {}
    for part in every:
        for reason, count in part.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    return msgspec.structs.replace(
        first,
        requests=sum(part.requests for part in every),
        errors=sum(part.errors for part in every),
        slow=sum(part.slow for part in every),
        latency=add_columns([part.latency for part in every]),
        bins=add_columns([part.bins for part in every]),
        reasons=dict(sorted(reasons.items(), key=lambda item: -item[1])[:CATEGORIES_MAX]),
    )


def add_pairs(parts: Iterable[PairCounts]) -> PairCounts:
    """The sum of pairs of one epoch; the largest difference is the largest of all."""
    first, *rest = parts
    if not rest:
        return first
    every = [first, *rest]
    sums = {
        name: sum(getattr(part, name) for part in every)
        for name in ("pairs", "flips", "disagreements", "abs_sum", "x", "y", "xx", "yy", "xy", "failed", "dropped")
    }
    slices: dict[str, tuple[int, int]] = {}
    for part in every:
        for name, (pairs, disagreements) in part.slices.items():
            old = slices.get(name, (0, 0))
            slices[name] = (old[0] + pairs, old[1] + disagreements)
    return msgspec.structs.replace(first, **sums, abs_max=max(part.abs_max for part in every), slices=slices)


def join_samples(parts: Iterable[OutputSample]) -> OutputSample:
    """The samples of several gateways as one."""
    first, *rest = parts
    numbers, labels = list(first.numbers), list(first.labels)
    for part in rest:
        if (part.output, part.kind) == (first.output, first.kind):
            numbers += part.numbers
            labels += part.labels
    return msgspec.structs.replace(first, numbers=tuple(numbers[:_SAMPLE_MAX]), labels=tuple(labels[:_SAMPLE_MAX]))
