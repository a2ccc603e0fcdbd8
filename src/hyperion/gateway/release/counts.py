"""What this gateway has seen of the releases under way: counts per version and epoch, and sampled predictions.

`gateway/route` makes the tallies from a snapshot, `gateway/pipeline` gives each request that counts its tally, pools
and pipeline tell how it ended, `gateway/release/report` sends the sum to control. A caller never waits for the
counting: its outcome is noted, and `settle` does the work for many at a time. Never here: sockets, decisions.
"""

import random
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hyperion.gateway.pending import PendingCall
from hyperion.gateway.release.binning import Binner, Chunk, kind_of, predictions
from hyperion.policy.brownout import COPIES
from hyperion.policy.redact import Redaction
from hyperion.schema.call import Tensor
from hyperion.schema.errors import HyperionError
from hyperion.schema.release import OutputSample, PairCounts, PredictionRow, Split, TrackCounts, ValuePair
from hyperion.schema.snapshot import ServedVersion
from hyperion.wire.tensor import split_rows

if TYPE_CHECKING:
    from hyperion.gateway.release.shadow import Mirror

BUCKETS: Final = 128
BOUNDS_NS: Final = [1000.0 * 2.0 ** (bucket / 4) for bucket in range(BUCKETS - 1)]
MAX_REASONS: Final = 8
MAX_SAMPLE: Final = 512
MAX_NOTED: Final = 4_096  # requests of one tally between two settlements
MAX_NOTED_BYTES: Final = 4 << 20  # of outputs that they hold
MAX_PREDICTIONS: Final = 8_192
MAX_VALUES: Final = 8_192
MAX_VALUES_PER_S: Final = 200  # of pairs for labels: a verdict needs hundreds in all
KEPT_EPOCHS: Final = 16
OK: Final = "ok"
OTHER: Final = "other"

Key = tuple[str, int, str, bool]


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


class Counts:
    """All tallies of this gateway."""

    def __init__(self, draw: Callable[[], float] = random.random, clock_s: Callable[[], float] = time.time) -> None:
        self.random = draw
        self._clock_s = clock_s
        self._tallies: dict[Key, Tally] = {}
        self._touched: list[Tally] = []
        self._predictions: deque[PredictionRow] = deque()
        self._values: deque[ValuePair] = deque()
        self._values_second = 0
        self._values_room = 0
        self._dropped = 0
        self.revision = 0
        self.acknowledged = 0
        self.live = False  # a release is under way: control wants to know at once
        self.endpoints: frozenset[str] = frozenset()
        self.mirrors: dict[tuple[str, int], Mirror] = {}

    # --- for the router ---

    def tally(
        self, endpoint: str, served: ServedVersion, split: Split, *, sampling: bool = False, shadow: bool = False
    ) -> Tally:
        """The tally of a version in the split's epoch, the same one each time it is asked for."""
        key = (endpoint, split.epoch, served.version, shadow)
        tally = self._tallies.get(key)
        if tally is None:
            tally = Tally(self, endpoint, served, split, shadow, sampling)
            self._tallies[key] = tally
        return tally

    def log_only(self, endpoint: str, served: ServedVersion) -> Tally:
        """A tally that counts nothing and samples predictions."""
        return Tally(self, endpoint, served, None, False, False)

    # --- for pools and pipeline ---

    def answered(self, calls: list[PendingCall], outputs: tuple[Tensor, ...], back_ns: int, brownout: int = 0) -> None:
        """A batch has answered these calls, in the order of the outputs' rows. Notes those that have a tally; what is
        optional of that depends on the pool's level of `brownout`."""
        tally = calls[0].tally
        for pending in calls:
            if pending.tally is not tally:
                self._answered_each(calls, outputs, back_ns, brownout)
                return
        if tally is not None:
            tally.brownout = brownout
            tally.answered(calls, outputs, back_ns)
            if tally.mirror is not None:
                tally.mirror.take(calls, outputs, brownout)

    def _answered_each(
        self, calls: list[PendingCall], outputs: tuple[Tensor, ...], back_ns: int, brownout: int
    ) -> None:
        """For a batch of calls that count for different things, or for nothing."""
        rows = [pending.rows for pending in calls]
        pieces = [split_rows(tensor, rows) for tensor in outputs]
        for index, pending in enumerate(calls):
            if pending.tally is not None:
                own = tuple([column[index] for column in pieces])
                pending.tally.brownout = brownout
                pending.tally.answered([pending], own, back_ns)
                if pending.tally.mirror is not None:
                    pending.tally.mirror.take([pending], own, brownout)

    def touch(self, tally: Tally) -> None:
        """Something was noted."""
        self._touched.append(tally)

    def changed(self, tally: Tally) -> None:
        """Something was counted."""
        if tally.counted:
            self.revision += 1
            tally.revision = self.revision

    def log(self, tally: Tally, request_id: str, code: str, total_ns: int) -> None:
        """Keeps a sampled prediction until control has it."""
        if len(self._predictions) >= MAX_PREDICTIONS:
            self._dropped += 1
            return
        self.revision += 1
        self._predictions.append(
            PredictionRow(
                request_id,
                tally.endpoint,
                tally.version,
                tally.digest,
                tally.epoch,
                code,
                self._clock_s(),
                total_ns * 1e-6,
                tally.shadow,
            )
        )

    def keep_values(self, request_id: str, endpoint: str, epoch: int, given: str, shadow: str) -> None:
        """Keeps what two versions predicted for a request until control has it; so many of each second, and counts the
        others with what was dropped. Which are kept depends on nothing but when they came."""
        now_s = self._clock_s()
        if int(now_s) != self._values_second:
            self._values_second, self._values_room = int(now_s), MAX_VALUES_PER_S
        if self._values_room <= 0 or len(self._values) >= MAX_VALUES:
            self._dropped += 1
            return
        self._values_room -= 1
        self.revision += 1
        self._values.append(ValuePair(request_id, endpoint, epoch, given, shadow, now_s))

    def settle(self) -> None:
        """Counts everything that was noted. Called every few milliseconds."""
        touched = self._touched
        if touched:
            self._touched = []
            for tally in touched:
                tally.settle()

    def take_dropped(self) -> int:
        """Predictions and pairs that were lost since it was last asked, because there were more than are kept."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    # --- for the report ---

    def content(
        self, most: int
    ) -> tuple[
        tuple[TrackCounts, ...],
        tuple[PairCounts, ...],
        tuple[OutputSample, ...],
        tuple[PredictionRow, ...],
        tuple[ValuePair, ...],
    ]:
        """What a report says: counts, pairs, samples, and the oldest `most` predictions and pairs of values."""
        self.settle()
        tallies = [tally for tally in self._tallies.values() if tally.requests]
        samples = [sample for sample in [tally.sample() for tally in tallies if tally.sampling] if sample is not None]
        rows = tuple(self._predictions) if len(self._predictions) <= most else tuple(self._predictions)[:most]
        values = tuple(self._values) if len(self._values) <= most else tuple(self._values)[:most]
        pairs = tuple([mirror.pairs.counts() for mirror in self.mirrors.values()])
        return tuple([tally.counts() for tally in tallies]), pairs, tuple(samples), rows, values

    def acknowledge(self, revision: int, predictions_taken: int, values_taken: int = 0) -> None:
        """Control has a report of that revision; what it will not ask for again is dropped: the sent predictions and
        values, and the epochs long past."""
        self.acknowledged = revision
        for _ in range(predictions_taken):
            self._predictions.popleft()
        for _ in range(values_taken):
            self._values.popleft()
        if self._predictions or self._values:
            self.revision += 1  # there is more to tell
        newest: dict[str, set[int]] = {}
        for endpoint, epoch, _, _ in self._tallies:
            newest.setdefault(endpoint, set()).add(epoch)
        old = {
            endpoint: sorted(epochs)[: -KEPT_EPOCHS if endpoint in self.endpoints else len(epochs)]
            for endpoint, epochs in newest.items()
        }
        for key in [key for key, tally in self._tallies.items() if key[1] in old[key[0]]]:
            if self._tallies[key].revision <= revision:
                del self._tallies[key]
                self.mirrors.pop((key[0], key[1]), None)
