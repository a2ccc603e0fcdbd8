"""Another server that answers for an endpoint, seen from its pool: one link is one request that may be under way there.

Made by `gateway/upstream/site`. What travels over the link is the business of its carrier (`gateway/upstream/http`,
`gateway/upstream/grpc`); what becomes of the callers of a batch is decided here.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from hyperion.gateway.pending import DEGRADED, PendingCall
from hyperion.gateway.replica import Batch, Link, Outcomes
from hyperion.policy.breaker import is_time_over
from hyperion.policy.trace import NO_TRACE, select_trace
from hyperion.schema.call import Tensor
from hyperion.schema.errors import DeadlineExceeded, Fields, HyperionError, UpstreamFailed
from hyperion.schema.model import Signature
from hyperion.wire.frame_headers import Result
from hyperion.wire.oip.upstream import select_outputs
from hyperion.wire.tensor import join_rows

Done = Callable[[tuple[Tensor, ...], HyperionError | None, str], None]


class Ask:
    """One request to the upstream. `timeout_ns` is how long anybody waits for its answer; `request_id` is "" where it
    is several callers', and so `trace`, the caller's trace context, is empty then."""

    __slots__ = ("inputs", "outputs", "parameters", "request_id", "timeout_ns", "trace")

    def __init__(
        self,
        inputs: list[Tensor],
        outputs: tuple[str, ...],
        parameters: Mapping[str, Any],
        request_id: str,
        timeout_ns: int,
        trace: Fields = NO_TRACE,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.parameters = parameters
        self.request_id = request_id
        self.timeout_ns = timeout_ns
        self.trace = trace


class Carrier(Protocol):
    """Brings one request at a time to the upstream. `done(outputs, error, stand_in)` is called once, later, unless it
    is aborted; the error is `DeadlineExceeded` where the upstream says that the time is over, `stand_in` who answered
    there where that was not its model ("": it was)."""

    def infer(self, ask: Ask, done: Done) -> None:
        """Sends it. Raises Unsupported where it cannot be written down."""
        ...

    def abort(self) -> None:
        """Ends what is under way; nobody is told."""
        ...

    def close(self) -> None:
        """Ends everything."""
        ...


class UpstreamOutcomes(Outcomes, Protocol):
    """What a link tells the pool, beside what every link does."""

    def refused(self, pending: PendingCall, error: HyperionError, batch: Batch) -> None: ...
    def expired(self, link: "Link", batch: Batch, now_ns: int) -> None: ...
    def compute_apart(self, batch: Batch) -> None: ...
    def batch_gone(self) -> None: ...
    def unreachable(self, reason: str) -> None: ...


class UpstreamLink(Link):
    """One request at a time. It is `ready` while the upstream is known to answer."""

    def __init__(self, name: str, signature: Signature, outcomes: UpstreamOutcomes, carrier: Carrier) -> None:
        super().__init__(name, outcomes)
        self._signature = signature
        self._pool = outcomes
        self._carrier = carrier
        self._batch: Batch | None = None

    @property
    def has_credit(self) -> bool:
        return self.ready and self._batch is None

    def send(self, batch: Batch) -> None:
        calls = batch.calls
        self._hold(batch)
        self._batch = batch
        batch.sent_ns = time.monotonic_ns()
        batch.ends_ns = max([pending.deadline_ns for pending in calls])
        first = calls[0].call
        inputs = [join_rows([pending.call.inputs[index] for pending in calls]) for index in range(len(first.inputs))]
        ask = Ask(inputs, first.outputs, first.parameters, "", batch.ends_ns - batch.sent_ns)
        if len(calls) == 1:
            ask.request_id = calls[0].request_id
            ask.trace = select_trace(calls[0].reply.headers)
        try:
            self._carrier.infer(ask, self._done)
        except HyperionError as error:
            self._done((), error, "")

    def cancel(self, pending: PendingCall) -> None:
        batch = self._batch
        if batch is not None and pending in batch.calls:
            self.give_up(time.monotonic_ns())

    def give_up(self, now_ns: int) -> None:
        """Ends the request under way, if all its callers have left or its time is over."""
        batch = self._batch
        if batch is None:
            return
        if batch.ends_ns > now_ns:
            for pending in batch.calls:
                if not pending.done:
                    return
        self._carrier.abort()
        self._batch = None
        self._let_go(batch)
        self._pool.batch_gone()

    def close(self) -> None:
        """Ends the request under way; its callers are the pool's."""
        self.ready = False
        batch, self._batch = self._batch, None
        self._carrier.close()
        if batch is not None:
            self._let_go(batch)
            self._pool.link_lost(self, [batch], 0, "the gateway closed the connection")

    def _done(self, outputs: tuple[Tensor, ...], error: HyperionError | None, stand_in: str) -> None:
        """The upstream has answered, or cannot any more."""
        batch = self._batch
        if batch is None:
            return
        calls = batch.calls
        if error is None:
            try:
                outputs = select_outputs(outputs, self._signature, calls[0].call.outputs, batch.rows)
            except HyperionError as mismatch:
                error = mismatch
        batch.back_ns = self._freed_ns = time.monotonic_ns()
        took_ns = batch.back_ns - batch.sent_ns
        self._batch = None
        self._let_go(batch)
        if isinstance(error, DeadlineExceeded):
            if is_time_over(batch.ends_ns - batch.back_ns, batch.ends_ns - batch.sent_ns):
                self._pool.expired(self, batch, batch.back_ns)
                self._pool.batch_gone()
                return
            error = UpstreamFailed(error.message)
        failures = 0 if error is None or error.blame == "caller" else len(calls) - batch.expired
        self._note(batch, failures, took_ns)
        if error is None:
            result = Result((), (), took_ns)
            if stand_in:
                for pending in calls:
                    if not pending.done:
                        pending.served_by = stand_in
                        pending.reply.add_fields(DEGRADED)
            self._hand_out(calls, outputs, batch, result)
            self._pool.batch_done(batch, result)
            return
        if len(calls) > 1 and (error.blame == "caller" or error.blame == "model"):
            self._pool.compute_apart(batch)
        else:
            for pending in calls:
                if not pending.done:
                    self._pool.refused(pending, error, batch)
        self._pool.batch_gone()
