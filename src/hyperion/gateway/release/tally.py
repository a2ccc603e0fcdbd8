"""What one version of an endpoint has answered in one epoch of its release: counts, latencies, bins, first outputs.

Made by `gateway/release/counts`, which keeps all of them. Pools and pipeline tell it how requests ended: it takes note,
and `settle` does the work for many at a time.
"""

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from hyperion.gateway.pending import PendingCall
from hyperion.gateway.release.binning import Binner, Chunk, kind_of, predictions
from hyperion.policy.brownout import COPIES
from hyperion.policy.redact import Redaction
from hyperion.schema.call import Tensor
from hyperion.schema.errors import HyperionError
from hyperion.schema.release import OutputSample, Split, TrackCounts
from hyperion.schema.snapshot import ServedVersion

if TYPE_CHECKING:
    from hyperion.gateway.release.counts import Counts
    from hyperion.gateway.release.shadow import Mirror

BUCKETS: Final = 128
BOUNDS_NS: Final = [1000.0 * 2.0 ** (bucket / 4) for bucket in range(BUCKETS - 1)]
MAX_REASONS: Final = 8
MAX_SAMPLE: Final = 512
MAX_NOTED: Final = 4_096  # requests of one tally between two settlements
MAX_NOTED_BYTES: Final = 4 << 20  # of outputs that they hold
OK: Final = "ok"
OTHER: Final = "other"


class Tally:
    """One version in one epoch of its endpoint, or (`counted` False) only the sampled predictions of one version.

    `output` is the one whose predictions are binned or sampled, "" for none; `mirror` takes copies for the shadow;
    `brownout` is the level of the pool that answered last.
    """

    __slots__ = (
        "_book",
        "_chunks",
        "_firsts_labels",
        "_firsts_numbers",
        "_ids",
        "_noted_bytes",
        "_totals_ns",
        "binner",
        "bins",
        "brownout",
        "counted",
        "digest",
        "endpoint",
        "epoch",
        "errors",
        "kind",
        "latency",
        "log_sample",
        "mirror",
        "output",
        "reasons",
        "redaction",
        "requests",
        "revision",
        "sampling",
        "shadow",
        "slow",
        "slow_ns",
        "version",
    )

    def __init__(
        self,
        book: "Counts",
        endpoint: str,
        served: ServedVersion,
        split: Split | None,
        shadow: bool,
        sampling: bool,
    ) -> None:
        names = [spec.name for spec in served.signature.outputs[:1]]
        first_output = names[0] if names else ""
        self._book = book
        self.endpoint = endpoint
        self.version = served.version
        self.digest = served.digest
        self.shadow = shadow
        self.counted = split is not None
        self.epoch = 0 if split is None else split.epoch
        self.slow_ns = 0 if split is None else split.slow_ns
        self.binner: Binner | None = None
        self.output = first_output if sampling else ""
        self.sampling = sampling
        if split is not None and split.bins is not None:
            self.binner = Binner(split.bins)
            self.output = split.bins.output
            self.sampling = sampling and split.bins.output == first_output
        self.redaction = Redaction()
        self.log_sample = 0.0
        self.brownout = 0
        self.mirror: Mirror | None = None
        self.requests = 0
        self.errors = 0
        self.slow = 0
        self.latency = [0] * BUCKETS
        self.bins = [0] * (0 if self.binner is None else self.binner.size)
        self.reasons: dict[str, int] = {}
        self.kind = ""
        self.revision = 0
        self._firsts_numbers: list[float] = []
        self._firsts_labels: list[str] = []
        self._totals_ns: list[int] = []
        self._chunks: list[Chunk] = []
        self._ids: list[str] = []
        self._noted_bytes = 0

    def redact(self, redaction: Redaction) -> None:
        """Keeps to what the endpoint redacts from now on: nothing of an output that it names is binned or sampled, also
        where it stops naming it before the epoch ends."""
        self.redaction = redaction
        if self.output in redaction.outputs:
            self.output = ""

    def answered(self, calls: list[PendingCall], outputs: tuple[Tensor, ...], back_ns: int) -> None:
        """These calls were answered, from the rows of `outputs` in their order. Takes note only."""
        noted = self._totals_ns
        if not noted:
            self._book.touch(self)
        noted += [back_ns - pending.received_ns for pending in calls]
        if self.log_sample:
            self._ids += [pending.request_id for pending in calls]
        if self.output:
            for tensor in outputs:
                if tensor.name == self.output and tensor.shape:
                    self._chunks.append((tensor, _first_rows(calls)))
                    self._noted_bytes += len(tensor.data)
                    break
        if len(noted) >= MAX_NOTED or self._noted_bytes > MAX_NOTED_BYTES:
            self.settle()

    def ended(self, pending: PendingCall, error: HyperionError | None, total_ns: int) -> None:
        """A call ended without a unary answer: with an error, or as a stream. What was the caller's fault is an event,
        too, but no error: a caller who will not wait any longer must not hide that the version is slow."""
        self._count(total_ns)
        code = OK
        if error is not None:
            code = error.code
            if error.blame != "caller":
                self.errors += 1
                reasons = self.reasons
                name = code if code in reasons or len(reasons) < MAX_REASONS else OTHER
                reasons[name] = reasons.get(name, 0) + 1
        if self.log_sample and self.brownout < COPIES and self._book.random() < self.log_sample:
            self._book.log(self, pending.request_id, code, total_ns)
        self._book.changed(self)

    def settle(self) -> None:
        """Counts what was noted."""
        totals_ns, self._totals_ns = self._totals_ns, []
        if not totals_ns:
            return
        chunks, self._chunks = self._chunks, []
        ids, self._ids = self._ids, []
        self._noted_bytes = 0
        for total_ns in totals_ns:
            self._count(total_ns)
        if ids and self.brownout < COPIES:
            share, book = self.log_sample, self._book
            for request_id, total_ns in zip(ids, totals_ns, strict=False):
                if book.random() < share:
                    book.log(self, request_id, OK, total_ns)
        if chunks:
            self._look_at(chunks)
        self._book.changed(self)

    def _count(self, total_ns: int) -> None:
        self.requests += 1
        self.latency[bisect_left(BOUNDS_NS, total_ns)] += 1
        if self.slow_ns and total_ns > self.slow_ns:
            self.slow += 1

    def _look_at(self, chunks: list[Chunk]) -> None:
        numbers, labels = predictions(chunks, self.redaction.value if self.redaction.detectors else None)
        if self.binner is not None:
            self.binner.count(numbers, labels, self.bins)
        if self.sampling:
            self.kind = self.kind or kind_of(chunks[0][0])
            room = MAX_SAMPLE - max(len(self._firsts_numbers), len(self._firsts_labels))
            if room > 0:
                self._firsts_numbers += [number for number in numbers[:room] if abs(number) < 1e300]  # NaN is not
                self._firsts_labels += labels[:room]

    def counts(self) -> TrackCounts:
        """Everything so far."""
        return TrackCounts(
            self.endpoint,
            self.epoch,
            self.version,
            self.shadow,
            self.requests,
            self.errors,
            self.slow,
            tuple(self.latency),
            tuple(self.bins),
            dict(self.reasons),
        )

    def sample(self) -> OutputSample | None:
        """The first outputs, where they were asked for and there are any."""
        if not self.kind:
            return None
        numbers, labels = tuple(self._firsts_numbers), tuple(self._firsts_labels)
        return OutputSample(self.endpoint, self.epoch, self.output, self.kind, numbers, labels)


def _first_rows(calls: list[PendingCall]) -> list[int] | None:
    """Which rows of a batch are the first ones of its calls; None where all of them are."""
    firsts = []
    row = 0
    for pending in calls:
        firsts.append(row)
        row += pending.rows
    return None if row == len(calls) else firsts
