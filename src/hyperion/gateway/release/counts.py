"""What this gateway has seen of the releases under way: counts per version and epoch, and sampled predictions.

`gateway/route` makes the tallies from a snapshot, `gateway/pipeline` gives each request that counts its tally, pools
and pipeline tell how it ended, `gateway/release/report` sends the sum to control. A caller never waits for the
counting. Never here: sockets, decisions.
"""

import random
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hyperion.gateway.pending import PendingCall
from hyperion.gateway.release.tally import Tally
from hyperion.schema.call import Tensor
from hyperion.schema.release import OutputSample, PairCounts, PredictionRow, Split, TrackCounts, ValuePair
from hyperion.schema.snapshot import ServedVersion
from hyperion.wire.tensor import split_rows

if TYPE_CHECKING:
    from hyperion.gateway.release.shadow import Mirror

MAX_PREDICTIONS: Final = 8_192
MAX_VALUES: Final = 8_192
MAX_VALUES_PER_S: Final = 200  # of pairs for labels: a verdict needs hundreds in all
KEPT_EPOCHS: Final = 16

Key = tuple[str, int, str, bool]


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
