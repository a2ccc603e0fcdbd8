"""The calls that a pool has taken, and how each of them ends: answered by a batch, alone or in parts, by another
attempt, or not at all. The base of `gateway/pool`.

Each call ends once, and its guard, its counts and the pipeline hear of it.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hyperion.gateway.dispatch import internal_error
from hyperion.gateway.pending import DEGRADED, INNER, MODEL, UNHEARD, PendingCall, past_deadline
from hyperion.gateway.replica import Batch
from hyperion.policy.redact import Redaction
from hyperion.schema.call import BatchAnswer, InferenceAnswer, Tensor
from hyperion.schema.errors import DeadlineExceeded, HyperionError
from hyperion.schema.snapshot import ServedVersion
from hyperion.telemetry.logs import EventLog
from hyperion.wire.frame_headers import Result

if TYPE_CHECKING:
    from hyperion.gateway.front.guard import Guard
    from hyperion.gateway.release.counts import Counts

Finished = Callable[[PendingCall, HyperionError | None, int, int, int], None]


class OpenCalls:
    """`finished` is as in `VersionPool`; `_cancel` is the pool's own."""

    def __init__(self, model: str, served: ServedVersion, finished: Finished, log: EventLog) -> None:
        self.model = model
        self.served = served
        self.streams = 0
        self.counts: Counts | None = None  # where its endpoint's requests are counted; there since anything was
        self.guard: Guard | None = None  # who lets callers in, where the endpoint asks for protection
        self.redaction = Redaction()  # what its endpoint keeps out of logs and stores
        self.brownout = 0  # how much optional work it has given up: `policy/brownout`
        self._finished = finished
        self._log = log

    # --- from the links ---

    def succeeded(
        self, pending: PendingCall, outputs: tuple[Tensor, ...], batch: Batch, result: Result, final: bool
    ) -> None:
        queue_ns = batch.formed_ns - pending.received_ns
        answer = InferenceAnswer(
            self.model,
            self.served.version,
            self.served.digest,
            outputs,
            pending.served_by,
            final,
            queue_ns,
            max(0, batch.back_ns - batch.formed_ns - result.compute_ns),
            result.compute_ns,
            pending.served_by != MODEL,
        )
        try:
            pending.parts += 1
            pending.reply.answer(answer)
        except HyperionError as error:
            self._fail(pending, error, batch)
            return
        except Exception as error:  # a bug of ours must cost this caller only
            self._log.write("error", "answer not sent", request_id=pending.request_id, error=repr(error))
            self._fail(pending, internal_error(pending.request_id), batch)
            return
        if not final:
            return
        if batch.stream:
            self._end(pending, None, queue_ns, result.compute_ns, batch.back_ns)
            return
        pending.done = True
        pending.reply = UNHEARD
        if pending.protocol == INNER:  # whose answer it is part of is counted elsewhere
            return
        batch.answered.append(pending)
        if pending.visit is not None:
            pending.visit.answered(pending, self.served, outputs, result.compute_ns)
        if self.counts is not None:
            self.counts.answered([pending], outputs, batch.back_ns, self.brownout)

    def succeeded_together(
        self, calls: list[PendingCall], outputs: tuple[Tensor, ...], batch: Batch, result: Result
    ) -> bool:
        """As `succeeded` for all calls of a batch, if their edge can write their answers together: that costs a third.
        False, and nothing done, if not."""
        together = calls[0].reply.together
        rows = calls[0].rows
        if together is None or batch.stream:
            return False
        replies = [pending.reply for pending in calls]
        for pending, reply in zip(calls, replies, strict=True):
            if pending.rows != rows or pending.done or reply.together is not together or pending.served_by != MODEL:
                return False
            if pending.visit is not None and pending.visit.guard is not self.guard:
                return False  # the endpoint has another guard by now, which knows nothing of who follows this call
        formed_ns = batch.formed_ns
        answer = BatchAnswer(
            self.model,
            self.served.version,
            self.served.digest,
            outputs,
            rows,
            [formed_ns - pending.received_ns for pending in calls],
            MODEL,
            max(0, batch.back_ns - formed_ns - result.compute_ns),
            result.compute_ns,
        )
        messages = together(replies, answer)
        if messages is None:
            return False
        for pending, reply, message in zip(calls, replies, messages, strict=True):
            try:
                reply.send(message)
            except Exception as error:  # a bug of ours must cost this caller only
                self._log.write("error", "answer not sent", request_id=pending.request_id, error=repr(error))
                self._fail(pending, internal_error(pending.request_id), batch)
                pending.tally = None  # it has ended, and was counted
                continue
            pending.done = True
            pending.reply = UNHEARD
            batch.answered.append(pending)
        if self.guard is not None and self.guard.remembers:
            self.guard.answered_together(calls, self.served, outputs, rows, result.compute_ns)
        if self.counts is not None:
            self.counts.answered(calls, outputs, batch.back_ns, self.brownout)
        return True

    def failed(self, pending: PendingCall, error: HyperionError, batch: Batch, detail: str) -> None:
        shown = self.redaction.failure(detail)
        self._log.write("error", "model raised", request_id=pending.request_id, endpoint=self.model, error=shown)
        self._fail(pending, error, batch)

    # --- for those who go on where the pool could not ---

    def adopt(self, pending: PendingCall) -> None:
        """A call that this pool does not queue, but whose end is its own to tell."""
        pending.on_cancel = self._cancel
        self.streams += pending.stream

    def disown(self, pending: PendingCall) -> None:
        """The opposite."""
        self.streams -= pending.stream

    def answer_elsewhere(self, pending: PendingCall, answer: InferenceAnswer) -> None:
        """Gives a call of this pool an answer that another attempt brought, whole or in parts."""
        try:
            if answer.degraded and not pending.parts:
                pending.reply.add_fields(DEGRADED)
            pending.parts += 1
            pending.reply.answer(answer)
        except HyperionError as error:
            self.fail_finally(pending, error)
            return
        except Exception as error:  # a bug of ours must cost this caller only
            self._log.write("error", "answer not sent", request_id=pending.request_id, error=repr(error))
            self.fail_finally(pending, internal_error(pending.request_id))
            return
        if answer.final:
            if not pending.stream and pending.visit is not None:
                pending.visit.answered(pending, self.served, answer.outputs, answer.compute_ns)
            self._end(pending, None, answer.queue_ns, answer.compute_ns, time.monotonic_ns())

    def fail_finally(self, pending: PendingCall, error: HyperionError) -> None:
        """Tells the caller that nobody could answer."""
        reply = pending.reply
        self._end(pending, error, 0, 0, time.monotonic_ns())
        reply.fail(error)

    def _fail(self, pending: PendingCall, error: HyperionError, batch: Batch | None) -> None:
        if pending.done or (pending.visit is not None and pending.visit.takes(error)):
            return
        queue_ns = batch.formed_ns - pending.received_ns if batch else 0
        reply = pending.reply
        self._end(pending, error, queue_ns, 0, time.monotonic_ns())
        reply.fail(error)

    def _end(
        self, pending: PendingCall, error: HyperionError | None, queue_ns: int, compute_ns: int, now_ns: int
    ) -> None:
        pending.done = True
        pending.reply = UNHEARD
        if pending.stream:
            self.streams -= 1
        if pending.protocol == INNER:
            return
        self._finished(pending, error, queue_ns, compute_ns, now_ns)

    def _expire(self, pending: PendingCall, where: str) -> None:
        course = None if pending.visit is None else pending.visit.course
        if course is not None and course.deadline_ns > pending.deadline_ns:  # others were to have the rest of it
            share_ms = (pending.deadline_ns - pending.received_ns) / 1e6
            error = DeadlineExceeded(f"its share of the deadline, {share_ms:.0f} ms, passed {where}")
        else:
            error = past_deadline(pending.received_ns, pending.deadline_ns, where)
        self._fail(pending, error, None)

    def _cancel(self, pending: PendingCall) -> None:
        """The caller left."""
        raise NotImplementedError
