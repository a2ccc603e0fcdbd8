"""One model version in one gateway: its queue, its replicas, and the pump that joins the two.

Made by `gateway/route` from a snapshot. Decisions are `policy`'s: what makes a batch, what to do after a crash. A pool
that is retired (its version was replaced) finishes what it holds, then closes its connections.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hyperion.gateway.batch import WaitingQueue
from hyperion.gateway.connect import keep_connected
from hyperion.gateway.dispatch import Batch, ReplicaLink, internal_error
from hyperion.gateway.pending import SHADOW, UNHEARD, PendingCall
from hyperion.policy.admission import QueueState
from hyperion.policy.batching import BatchLimits, hold_ns, open_for_ns
from hyperion.policy.crash import plan_after_crash
from hyperion.policy.latency import LatencyCurve, fit_prior, observe, observe_pace
from hyperion.schema.call import BatchAnswer, InferenceAnswer, Tensor
from hyperion.schema.errors import ClientGone, DeadlineExceeded, HyperionError, PoisonRequest, RunnerLost
from hyperion.schema.snapshot import ServedVersion
from hyperion.telemetry.logs import EventLog
from hyperion.wire.frame_headers import Hello, Result

if TYPE_CHECKING:
    from hyperion.gateway.counts import Counts
    from hyperion.gateway.split import Watch

GLANCE_EVERY: Final = 16  # requests; each look costs a system call
SLOW_NS: Final = 20_000_000  # of a batch; a prediction costs some microseconds
MAX_STREAMS: Final = 256  # per replica; each one is a generator that the runner holds

Finished = Callable[[PendingCall, HyperionError | None, int, int, int], None]
BatchDone = Callable[["VersionPool", int, list[PendingCall], int, int, int], None]


class VersionPool:
    """`finished(pending, error, queue_ns, compute_ns, now_ns)` is called once for every call that was put in, but for
    those that a batch answered, of which `batch_done(pool, rows, answered, formed_ns, back_ns, compute_ns)` tells."""

    def __init__(
        self,
        model: str,
        served: ServedVersion,
        queue_rows: int,
        slot_bytes: int,
        finished: Finished,
        batch_done: BatchDone,
        log: EventLog,
    ) -> None:
        self.model = model
        self.served = served
        self.signature = served.signature
        self.batched = served.signature.batched
        self.deadline_ns = served.options.deadline_ms * 1_000_000
        self.curve = LatencyCurve()
        self.connected = asyncio.Event()
        self.closed = asyncio.Event()
        self.known_keys: dict[object, int] = {}  # each with a number that is shorter to look up
        self.next_key = 1
        self.streams = 0
        self.epoch = 0  # another one as soon as a newcomer's wait may have become shorter
        self.watch: Watch | None = None  # what is counted of its endpoint now
        self.counts: Counts | None = None  # where to; there since anything was
        self._queue = WaitingQueue(served.signature.batched)
        self._queue_rows = queue_rows
        self._limits = BatchLimits(served.options.max_batch_size, slot_bytes // 2)
        self._max_delay_ns = int(served.options.max_delay_ms * 1e6)
        self._finished = finished
        self._batch_done = batch_done
        self._log = log
        self._links: dict[str, ReplicaLink] = {}
        self._row_ns = 0.0  # the pace of the replicas while there was a backlog
        self._backlog_ns = 0  # when the last batch came back, if it left a backlog
        self._retired = False
        self._pump_scheduled = False
        self._until_glance = GLANCE_EVERY
        self._slow = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._connectors = [
            self._loop.create_task(keep_connected(replica, slot_bytes, self, self._links))
            for replica in served.replicas
        ]

    # --- state that others read ---

    @property
    def ready(self) -> bool:
        for link in self._links.values():  # spelled out because each request of a split asks  # noqa: SIM110
            if link.ready:
                return True
        return False

    def queue_state(self) -> QueueState:
        """For `policy/admission`."""
        links = self._links.values()
        return QueueState(
            self._queue.rows,
            sum(link.held_rows for link in links),
            sum(link.ready for link in links),
            self._queue_rows,
            self._limits.max_rows,
            self._row_ns,
        )

    @property
    def has_backlog(self) -> bool:
        """Whether more waits than the next batch will take, so that a newcomer's wait is worth a prediction."""
        rows = self._queue.rows
        return rows >= self._limits.max_rows or rows >= self._queue_rows

    @property
    def wait_matters(self) -> bool:
        """Whether a newcomer's wait is worth a prediction: there is a backlog, or the model takes so long that even the
        rest of the next batch may be too much."""
        return self.has_backlog or (self._slow and self._queue.rows > 0)

    @property
    def retired(self) -> bool:
        return self._retired

    # --- calls in ---

    def enqueue(self, pending: PendingCall) -> None:
        """Takes an admitted call; it will end in `finished`."""
        pending.on_cancel = self._cancel
        if pending.stream:
            self.streams += 1
        self._queue.push(pending)
        self._schedule_pump()
        if self._queue.rows > self._limits.max_rows:
            self.glance()

    def glance(self) -> None:
        """Called for each request, admitted or not, that comes while more waits than a batch takes. In such times one
        turn of the loop may read hundreds of requests; the replicas must not wait for its end with what they have
        computed, and then for their next batch."""
        self._until_glance -= 1
        if self._until_glance <= 0:
            self._until_glance = GLANCE_EVERY
            for link in tuple(self._links.values()):
                link.glance()

    def _cancel(self, pending: PendingCall) -> None:
        """The caller left. In the queue the call is passed over; a batch goes on without it; a stream is told to
        stop."""
        self._end(pending, ClientGone("the caller left before the answer"), 0, 0, time.monotonic_ns())
        if pending.stream:
            for link in self._links.values():
                link.cancel_stream(pending)

    def _schedule_pump(self) -> None:
        # Later in this turn of the loop: every request that was read in the same turn joins the same batch.
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Sends batches while something waits and a replica has credit."""
        self._pump_scheduled = False
        queue = self._queue
        while queue.rows:
            now_ns = time.monotonic_ns()
            link = self._pick_link(now_ns)
            if link is None:
                return
            if self._max_delay_ns:
                oldest_ns = min(pending.received_ns for pending in queue)
                held_ns = hold_ns(queue.rows, self._limits.max_rows, oldest_ns, self._max_delay_ns, now_ns)
                if held_ns:
                    self._loop.call_later(held_ns / 1e9, self._schedule_pump)
                    return
            calls, late, suspects = queue.take(now_ns, self.curve, self._limits)
            self.epoch += 1
            for pending in late:
                self._expire(pending, "before a replica could take it")
            if calls:
                link.send(Batch(calls, sum([pending.rows for pending in calls]), suspects, now_ns))
            elif not late and not queue.rows:
                break
        self._close_if_drained()

    def _pick_link(self, now_ns: int) -> ReplicaLink | None:
        """The replica with credit that holds the fewest rows. One that computes is left alone until it is nearly done,
        unless a full batch waits; then the pump runs again."""
        best: ReplicaLink | None = None
        full = self._queue.rows >= self._limits.max_rows
        soonest_ns = 0
        for link in self._links.values():
            if not link.has_credit or (best is not None and link.held_rows >= best.held_rows):
                continue
            computing = None if full else link.computing()
            open_ns = 0 if computing is None else open_for_ns(self.curve, *computing, now_ns)
            if not open_ns:
                best = link
            elif not soonest_ns or open_ns < soonest_ns:
                soonest_ns = open_ns
        if best is None and soonest_ns and self._timer is None:
            self._timer = self._loop.call_later(soonest_ns / 1e9, self._wake)
        return best

    def _wake(self) -> None:
        self._timer = None
        self._pump()

    # --- outcomes, from the links ---

    def link_ready(self, hello: Hello) -> None:
        if self.curve == LatencyCurve():
            self.curve = fit_prior(hello.bucket_seconds)
        self.connected.set()
        self.epoch += 1
        self._schedule_pump()

    def link_lost(self, link: ReplicaLink, held: list[Batch], computing: int, reason: str) -> None:
        """Puts the dead replica's calls back: those that it did not compute as they were, the batch that it died of in
        smaller groups."""
        if self._links.get(link.name) is link:
            del self._links[link.name]
        if not (self._retired and not held):
            rows = sum(batch.rows for batch in held)
            self._log.write("warning", "replica lost", replica=link.name, reason=reason, rows_held=rows)
        self._backlog_ns = 0
        self.epoch += 1
        for batch in held:
            for pending in batch.calls:
                if pending.protocol == SHADOW:  # a copy is tried once
                    self._fail(pending, RunnerLost("the replica died while it held the copy"), batch)
            if batch.stream and batch.calls[0].parts:
                error = RunnerLost("the replica died in the middle of the stream; send the request again")
                self._fail(batch.calls[0], error, batch)
            elif batch.id == computing:
                self._split_after_crash(batch)
            elif batch.suspects:
                self._queue.push_suspects([pending for pending in batch.calls if not pending.done])
            else:
                for pending in batch.calls:
                    if not pending.done:
                        self._queue.push(pending)
        self._schedule_pump()

    def _split_after_crash(self, batch: Batch) -> None:
        if len(batch.calls) == 1:
            batch.calls[0].deaths_alone += 1
        plan = plan_after_crash([pending.deaths_alone for pending in batch.calls])
        for index in plan.refuse:
            pending = batch.calls[index]
            error = PoisonRequest(
                f'this request ended the process of model "{self.model}" each of the {pending.deaths_alone} times '
                f"it was computed alone; it will not be tried again (request id {pending.request_id})"
            )
            self._fail(pending, error, batch)
        for group in plan.retry:
            calls = [batch.calls[index] for index in group if not batch.calls[index].done]
            if calls:
                self._queue.push_suspects(calls)

    def succeeded(
        self, pending: PendingCall, outputs: tuple[Tensor, ...], batch: Batch, result: Result, final: bool
    ) -> None:
        queue_ns = batch.formed_ns - pending.received_ns
        answer = InferenceAnswer(
            self.model,
            self.served.version,
            self.served.digest,
            outputs,
            "model",
            final,
            queue_ns,
            max(0, batch.back_ns - batch.formed_ns - result.compute_ns),
            result.compute_ns,
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
        batch.answered.append(pending)
        if self.counts is not None:
            self.counts.answered([pending], outputs, batch.back_ns)

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
            if pending.rows != rows or pending.done or reply.together is not together:
                return False
        formed_ns = batch.formed_ns
        answer = BatchAnswer(
            self.model,
            self.served.version,
            self.served.digest,
            outputs,
            rows,
            [formed_ns - pending.received_ns for pending in calls],
            "model",
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
        if self.counts is not None:
            self.counts.answered(calls, outputs, batch.back_ns)
        return True

    def failed(self, pending: PendingCall, error: HyperionError, batch: Batch, detail: str) -> None:
        self._log.write("error", "model raised", request_id=pending.request_id, endpoint=self.model, error=detail)
        self._fail(pending, error, batch)

    def batch_done(self, batch: Batch, result: Result) -> None:
        self.epoch += 1
        if not batch.stream:
            self._slow = result.compute_ns > SLOW_NS
            if self._backlog_ns:
                self._row_ns = observe_pace(self._row_ns, batch.rows, batch.back_ns - self._backlog_ns)
            self._backlog_ns = batch.back_ns if self.has_backlog else 0
            if not result.failures:
                self.curve = observe(self.curve, batch.rows, result.compute_ns)
            self._batch_done(self, batch.rows, batch.answered, batch.formed_ns, batch.back_ns, result.compute_ns)
        if self.has_backlog:
            self._pump()  # nobody who is read later in this turn could join a batch that is full already
        else:
            self._schedule_pump()

    # --- ends ---

    def _fail(self, pending: PendingCall, error: HyperionError, batch: Batch | None) -> None:
        if pending.done:
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
        self._finished(pending, error, queue_ns, compute_ns, now_ns)

    def _expire(self, pending: PendingCall, where: str) -> None:
        budget_ms = (pending.deadline_ns - pending.received_ns) / 1e6
        error = DeadlineExceeded(f"the deadline of {budget_ms:.0f} ms passed {where}")
        self._fail(pending, error, None)

    def look_at_deadlines(self, now_ns: int) -> None:
        """Ends every call whose deadline has passed, wherever it is. Called every few milliseconds."""
        if self._queue.rows:
            rows = self._queue.rows
            for pending in self._queue.expire(now_ns):
                self._expire(pending, "before a replica could take it")
            self.epoch += self._queue.rows < rows
        for link in self._links.values():
            for pending in link.expire(now_ns):
                self._expire(pending, "while the model was computing")
                if pending.stream:
                    link.cancel_stream(pending)

    # --- connections ---

    def retire(self) -> None:
        """Takes no more calls; closes when those that it holds have ended."""
        self._retired = True
        self.epoch += 1
        self._schedule_pump()

    def _close_if_drained(self) -> None:
        if self._retired and not self._queue.rows and all(link.idle for link in self._links.values()):
            self.close()

    def close(self) -> None:
        """Ends the connections; what is still held fails."""
        if self.closed.is_set():
            return
        self.closed.set()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._connectors:
            task.cancel()
        self._retired = True
        for pending in self._queue.drain():
            self._fail(pending, RunnerLost("the gateway is closing; send the request again"), None)
        for link in tuple(self._links.values()):
            link.close()

    async def wait_connected(self, timeout_s: float) -> bool:
        """Whether a replica became ready within the time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.connected.wait(), timeout_s)
        return self.connected.is_set()
