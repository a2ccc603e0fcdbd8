"""What a pool sends its batches to: the part that runners (`gateway/dispatch`) and other servers
(`gateway/upstream/link`) have in common. Holds the batches that are under way, and gives each caller of one that came
back its outcome.
"""

from typing import TYPE_CHECKING, Protocol

from hyperion.gateway.pending import PendingCall
from hyperion.schema.call import Tensor
from hyperion.schema.errors import HyperionError
from hyperion.wire.frame_headers import Hello, Result
from hyperion.wire.tensor import split_rows

if TYPE_CHECKING:
    from hyperion.gateway.recovery.breakers import BreakerBook


class Batch:
    """Calls that were sent as one. `expired` of them were given up while it was under way; `ends_ns` is the last of
    their deadlines when it was sent."""

    __slots__ = (
        "answered",
        "back_ns",
        "calls",
        "ends_ns",
        "expired",
        "formed_ns",
        "id",
        "rows",
        "sent_ns",
        "slot",
        "stream",
        "suspects",
    )

    def __init__(self, calls: list[PendingCall], rows: int, suspects: bool, formed_ns: int) -> None:
        self.calls = calls
        self.rows = rows
        self.suspects = suspects
        self.stream = calls[0].stream
        self.formed_ns = formed_ns
        self.sent_ns = 0
        self.back_ns = 0
        self.answered: list[PendingCall] = []
        self.id = 0
        self.slot = -1
        self.expired = 0
        self.ends_ns = 0


class Outcomes(Protocol):
    """What a link tells the pool."""

    def mind(self, link: "Link") -> None: ...
    def link_ready(self, hello: Hello) -> None: ...
    def link_lost(self, link: "Link", held: list[Batch], computing: int, reason: str) -> None: ...
    def succeeded(
        self, pending: PendingCall, outputs: tuple[Tensor, ...], batch: Batch, result: Result, final: bool
    ) -> None: ...
    def succeeded_together(
        self, calls: list[PendingCall], outputs: tuple[Tensor, ...], batch: Batch, result: Result
    ) -> bool: ...
    def failed(self, pending: PendingCall, error: HyperionError, batch: Batch, detail: str) -> None: ...
    def batch_done(self, batch: Batch, result: Result) -> None: ...


class Link:
    """One replica. `ready` says that it answers, `held_rows` counts what it holds; `breaker` says, where there is one,
    whether it is to be left alone."""

    def __init__(self, name: str, outcomes: Outcomes) -> None:
        self.name = name
        self.ready = False
        self.held_rows = 0
        self.breaker: BreakerBook | None = None
        self._outcomes = outcomes
        self._held: dict[int, Batch] = {}
        self._next_id = 0
        self._freed_ns = 0

    @property
    def idle(self) -> bool:
        return not self._held

    @property
    def has_credit(self) -> bool:
        """Whether a batch may be sent now."""
        return False

    def send(self, batch: Batch) -> None:
        """Sends the batch; there must be credit."""
        raise NotImplementedError

    def cancel(self, pending: PendingCall) -> None:
        """Nobody waits for this call any more."""
        raise NotImplementedError

    def glance(self) -> None:
        """Takes what has come in by now, without waiting for the loop's next turn, where that can be done."""

    def close(self) -> None:
        """Ends the connection; the other side keeps on serving others."""
        raise NotImplementedError

    def give_up(self, now_ns: int) -> None:
        """Ends the batches that nobody waits for any more, where that can be done."""

    def holds(self, batch: Batch) -> bool:
        """Whether the batch is still under way here."""
        return self._held.get(batch.id) is batch

    def computing(self) -> tuple[int, int] | None:
        """Rows of the batch that it computes, and since when (monotonic ns); None where it holds none."""
        for batch in self._held.values():
            if not batch.stream:
                return batch.rows, max(batch.sent_ns, self._freed_ns)
        return None

    def expire(self, now_ns: int) -> list[tuple[PendingCall, Batch]]:
        """The held calls whose deadline has passed; the batch itself stays where it is."""
        late = []
        for batch in self._held.values():
            late += [(call, batch) for call in batch.calls if not call.done and call.deadline_ns <= now_ns]
        return late

    def _hold(self, batch: Batch) -> None:
        self._next_id += 1
        batch.id = self._next_id
        self._held[batch.id] = batch
        self.held_rows += batch.rows

    def _let_go(self, batch: Batch) -> None:
        del self._held[batch.id]
        self.held_rows -= batch.rows

    def _hand_out(self, calls: list[PendingCall], outputs: tuple[Tensor, ...], batch: Batch, result: Result) -> None:
        """Gives each of the calls its rows of the outputs, which are checked by now."""
        outcomes = self._outcomes
        if outcomes.succeeded_together(calls, outputs, batch, result):
            return
        if len(calls) == 1:
            if not calls[0].done:
                outcomes.succeeded(calls[0], outputs, batch, result, True)
            return
        counts = [pending.rows for pending in calls]
        parts = [split_rows(tensor, counts) for tensor in outputs]
        for pending, *pieces in zip(calls, *parts, strict=True):
            if not pending.done:
                outcomes.succeeded(pending, tuple(pieces), batch, result, True)

    def _note(self, batch: Batch, failures: int, took_ns: int) -> None:
        """Tells the breaker how the calls of a batch that came back ended; of those that were given up it knows."""
        breaker = self.breaker
        if breaker is not None:
            breaker.note(max(len(batch.calls) - batch.expired, failures), failures, took_ns, batch.back_ns)
