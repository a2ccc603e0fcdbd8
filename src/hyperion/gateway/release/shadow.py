"""Copies of requests for a version that never answers: made after the answer was given, bounded, compared, counted.

Made by `gateway/route` for a split with a shadow; `gateway/release/counts` offers it what was answered. A copy waits
behind everything else, is tried once, and whatever becomes of it no caller learns.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hyperion.gateway.admit import admit
from hyperion.gateway.pending import NO_HEADERS, SHADOW, PendingCall
from hyperion.gateway.release.binning import value_of
from hyperion.gateway.release.compare import NOTHING, compare, first_text
from hyperion.policy.brownout import COPIES
from hyperion.schema.call import InferenceAnswer, InferenceCall, Tensor
from hyperion.schema.errors import Fields, HyperionError, Overloaded
from hyperion.schema.release import PairCounts, Split
from hyperion.wire.tensor import split_rows

if TYPE_CHECKING:
    from hyperion.gateway.pool import VersionPool
    from hyperion.gateway.release.counts import Counts
    from hyperion.gateway.release.tally import Tally

DELAY_S: Final = 0.001  # lets the loop write the answers first
LOWEST_PRIORITY: Final = 9
MAX_OPEN: Final = 64
MAX_OPEN_ROWS: Final = 1_024
MAX_OPEN_BYTES: Final = 32 << 20
MAX_SLICES: Final = 32
OTHER: Final = "other"


class Pairs:
    """`PairCounts` while they are being counted."""

    def __init__(self, endpoint: str, epoch: int) -> None:
        self._endpoint = endpoint
        self._epoch = epoch
        self.pairs = 0
        self.flips = 0
        self.disagreements = 0
        self.abs_sum = 0.0
        self.abs_max = 0.0
        self.sums = [0.0] * 5
        self.failed = 0
        self.dropped = 0
        self.slices: dict[str, tuple[int, int]] = {}

    def add(
        self,
        given: tuple[Tensor, ...],
        shadow: tuple[Tensor, ...],
        slice_name: str | None,
        hidden: frozenset[str] = NOTHING,
    ) -> None:
        """Counts one pair; `slice_name` None is in no slice, and `hidden` are outputs of which no number is told."""
        found = compare(given, shadow, hidden)
        self.pairs += 1
        self.flips += found.flipped
        self.disagreements += found.disagrees
        self.abs_sum += found.largest
        self.abs_max = max(self.abs_max, found.largest)
        x, y = found.given, found.shadow
        for index, term in enumerate((x, y, x * x, y * y, x * y)):
            self.sums[index] += term
        if slice_name is not None:
            if slice_name not in self.slices and len(self.slices) >= MAX_SLICES - 1:
                slice_name = OTHER
            pairs, disagreements = self.slices.get(slice_name, (0, 0))
            self.slices[slice_name] = (pairs + 1, disagreements + found.disagrees)

    def counts(self) -> PairCounts:
        """Everything so far."""
        x, y, xx, yy, xy = self.sums
        return PairCounts(
            self._endpoint,
            self._epoch,
            self.pairs,
            self.flips,
            self.disagreements,
            self.abs_sum,
            self.abs_max,
            x,
            y,
            xx,
            yy,
            xy,
            self.failed,
            self.dropped,
            dict(self.slices),
        )


class Copy:
    """One request for the shadow, with the answer that its caller has got; the `Reply` to it."""

    __slots__ = ("_mirror", "call", "outputs", "request_id", "rows", "size_bytes")

    together = None
    headers = NO_HEADERS

    def __init__(self, mirror: "Mirror", pending: PendingCall, outputs: tuple[Tensor, ...]) -> None:
        self._mirror = mirror
        self.call = pending.call
        self.request_id = pending.request_id
        self.rows = pending.rows
        self.size_bytes = pending.size_bytes
        self.outputs = outputs

    def send(self, message: bytes) -> None:
        raise AssertionError(f"{len(message)} bytes that nobody wrote for the shadow")

    def answer(self, answer: InferenceAnswer) -> None:
        if answer.final:
            self._mirror.answered(self, answer)

    def add_fields(self, fields: Fields) -> None:
        """Nothing: nobody reads them."""

    def fail(self, error: HyperionError) -> None:
        self._mirror.failed(self, error)


class Mirror:
    """The shadow of one endpoint in one epoch: takes copies for `pool` and counts in `tally` and `pairs`."""

    def __init__(self, counts: "Counts", endpoint: str, split: Split, tally: "Tally", pool: "VersionPool") -> None:
        self.pool = pool
        self.pairs = Pairs(endpoint, split.epoch)
        self.open = 0
        self._open_rows = 0
        self._open_bytes = 0
        self._counts = counts
        self._tally = tally
        self._share = split.shadow_share
        self._version = split.shadow
        self._slice_input = split.slice_input
        self._epoch = split.epoch
        self._endpoint = endpoint
        self._keep_values = split.keep_values
        self._waiting: list[Copy] = []
        self._loop = asyncio.get_running_loop()

    def take(self, calls: list[PendingCall], outputs: tuple[Tensor, ...], brownout: int = 0) -> None:
        """These calls were answered with the rows of `outputs`, in their order. Takes copies of its share of them; none
        at a level of `brownout` at which those who answered give up copies."""
        pieces: list[list[Tensor]] | None = None
        draw: Callable[[], float] = self._counts.random
        share = self._share
        for index, pending in enumerate(calls):
            if share < 1.0 and draw() >= share:
                continue
            if brownout >= COPIES or not self._has_room(pending):
                self.pairs.dropped += 1
                self._counts.revision += 1
                continue
            own = outputs
            if len(calls) > 1:
                if pieces is None:
                    rows = [other.rows for other in calls]
                    pieces = [split_rows(tensor, rows) for tensor in outputs]
                own = tuple([column[index] for column in pieces])
            copy = Copy(self, pending, own)
            self.open += 1
            self._open_rows += copy.rows
            self._open_bytes += copy.size_bytes
            if not self._waiting:
                self._loop.call_later(DELAY_S, self._send)
            self._waiting.append(copy)

    def _has_room(self, pending: PendingCall) -> bool:
        return (
            self.open < MAX_OPEN
            and self._open_rows + pending.rows <= MAX_OPEN_ROWS
            and self._open_bytes + pending.size_bytes <= MAX_OPEN_BYTES
            and self.pool.ready
        )

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        now_ns = time.monotonic_ns()
        pool = self.pool
        for copy in waiting:
            call = copy.call
            call = InferenceCall(
                call.model, self._version, call.id, call.inputs, call.outputs, call.parameters, LOWEST_PRIORITY
            )
            pending = PendingCall(call, copy, SHADOW, copy.request_id, now_ns)
            pending.served = self._version
            try:
                admit(pool, pending, 0)
            except HyperionError as error:
                pending.done = True
                copy.fail(error)
                continue
            pending.tally = self._tally
            pool.enqueue(pending)

    def answered(self, copy: Copy, answer: InferenceAnswer) -> None:
        """The shadow has answered, too."""
        self._close(copy)
        redaction = self.pool.redaction
        name: str | None = None
        if self._slice_input and self._slice_input not in redaction.inputs:
            name = ""
            for tensor in copy.call.inputs:
                if tensor.name == self._slice_input:
                    name = first_text(tensor)
                    break
        self.pairs.add(copy.outputs, answer.outputs, name, redaction.outputs)
        if self._keep_values:
            self._keep(copy, answer)

    def _keep(self, copy: Copy, answer: InferenceAnswer) -> None:
        """Keeps what both predicted, in the first output that the version has: a caller may have asked for others."""
        specs = self.pool.signature.outputs
        output = specs[0].name if specs else ""
        if output in self.pool.redaction.outputs:
            return
        given, shadow = value_of(copy.outputs, output), value_of(answer.outputs, output)
        if given is not None and shadow is not None:
            self._counts.keep_values(copy.request_id, self._endpoint, self._epoch, given, shadow)

    def failed(self, copy: Copy, error: HyperionError) -> None:
        """The shadow has not answered."""
        self._close(copy)
        if isinstance(error, Overloaded):
            self.pairs.dropped += 1
        else:
            self.pairs.failed += 1

    def _close(self, copy: Copy) -> None:
        self.open -= 1
        self._open_rows -= copy.rows
        self._open_bytes -= copy.size_bytes
        self._counts.revision += 1
