"""One model version in one gateway: its queue, its replicas, and the pump that joins the two.

Made by `gateway/route` from a snapshot. Decisions are `policy`'s: what makes a batch, what to do after a crash. A pool
that is retired (its version was replaced) finishes what it holds, then closes its connections.
"""

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Final

from hyperion.gateway.batch import WaitingQueue
from hyperion.gateway.connect import keep_connected
from hyperion.gateway.open_calls import OpenCalls
from hyperion.gateway.pending import SHADOW, PendingCall
from hyperion.gateway.recovery.breakers import Breakers
from hyperion.gateway.recovery.hedging import Hedging
from hyperion.gateway.replica import Batch, Link
from hyperion.gateway.room import displaced_by, overloaded
from hyperion.gateway.setting import PoolSetting
from hyperion.policy.admission import BUDGET_SHARE, QueueState, expected_wait_ns
from hyperion.policy.batching import BatchLimits, hold_ns, open_for_ns
from hyperion.policy.brownout import HEDGES, NO_LOAD, Brownout, look
from hyperion.policy.crash import plan_after_crash
from hyperion.policy.latency import LatencyCurve, expect, fit_prior, observe, observe_pace
from hyperion.schema.errors import (
    ClientGone,
    PoisonRequest,
    RunnerLost,
)
from hyperion.schema.protect import Breaker
from hyperion.schema.snapshot import ServedVersion
from hyperion.wire.frame_headers import Hello, Result
from hyperion.wire.json.nulls import Nulls

if TYPE_CHECKING:
    from hyperion.gateway.release.split import Watch

GLANCE_EVERY: Final = 16  # requests; each look costs a system call
SLOW_NS: Final = 20_000_000  # of a batch; a prediction costs some microseconds
MAX_STREAMS: Final = 256  # per replica; each one is a generator that the runner holds


class VersionPool(OpenCalls):
    """The pool of `model` in its version `served`. `setting` says whom it tells of what becomes of its calls."""

    def __init__(self, model: str, served: ServedVersion, setting: PoolSetting) -> None:
        super().__init__(model, served, setting.finished, setting.log)
        self.signature = served.signature
        self.batched = served.signature.batched
        self.deadline_ns = served.options.deadline_ms * 1_000_000
        self.curve = LatencyCurve()
        self.connected = asyncio.Event()
        self.closed = asyncio.Event()
        self.known_keys: dict[object, int] = {}  # each with a number that is shorter to look up
        self.next_key = 1
        self.remote = served.upstream is not None  # whose readiness is not this gateway's
        self.epoch = 0  # another one as soon as a newcomer's wait may have become shorter
        self.watch: Watch | None = None  # what is counted of its endpoint now
        self.nulls: Nulls = None  # what stands for a null in JSON, by input
        self.queue = WaitingQueue(served.signature.batched)
        self._queue_rows = setting.queue_rows
        self._limits = BatchLimits(served.options.max_batch_size, setting.slot_bytes // 2)
        self._max_delay_ns = int(served.options.max_delay_ms * 1e6)
        self._batch_done = setting.batch_done
        self._links: dict[str, Link] = {}
        self._breakers = Breakers(model, setting.log, random.random, self._answering)
        self._hedging: Hedging | None = None
        self._row_ns = 0.0  # the pace of the replicas while there was a backlog
        self._backlog_ns = 0  # when the last batch came back, if it left a backlog
        self._overload = Brownout()
        self._retired = False
        self._pump_scheduled = False
        self._until_glance = GLANCE_EVERY
        self._slow = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._connectors = self._connect(setting)

    def _connect(self, setting: PoolSetting) -> "list[asyncio.Task[None]]":
        """Starts what keeps the links; called once, at the end of the constructor."""
        return [
            self._loop.create_task(keep_connected(replica, setting.slot_bytes, self, self._links))
            for replica in self.served.replicas
        ]

    # --- state that others read ---

    @property
    def ready(self) -> bool:
        for link in self._links.values():  # spelled out because each request of a split asks  # noqa: SIM110
            if link.ready:
                return True
        return False

    @property
    def reachable(self) -> bool:
        """Whether a call that is put in now has a chance to be computed soon."""
        return self.ready

    @property
    def failing(self) -> bool:
        """Whether so much fails that another try of the same call would only add to it."""
        return False

    def queue_state(self) -> QueueState:
        """For `policy/admission`."""
        links = self._links.values()
        return QueueState(
            self.queue.rows,
            sum(link.held_rows for link in links),
            sum(link.ready for link in links),
            self._queue_rows,
            self._limits.max_rows,
            self._row_ns,
        )

    @property
    def has_backlog(self) -> bool:
        """Whether more waits than the next batch will take, so that a newcomer's wait is worth a prediction."""
        rows = self.queue.rows
        return rows >= self._limits.max_rows or rows >= self._queue_rows

    @property
    def wait_matters(self) -> bool:
        """Whether a newcomer's wait is worth a prediction: there is a backlog, or the model takes so long that even the
        rest of the next batch may be too much."""
        return self.has_backlog or (self._slow and self.queue.rows > 0)

    @property
    def retired(self) -> bool:
        return self._retired

    # --- what protects it ---

    def follow_breaker(self, rule: Breaker | None) -> None:
        """Leaves replicas alone by this rule from now on; None leaves none alone."""
        if self._breakers.follow(rule):
            for link in self._links.values():
                self.mind(link)

    def mind(self, link: Link) -> None:
        """Gives a link its breaker, if there is one."""
        link.breaker = self._breakers.book_of(link.name)

    def breaker_states(self) -> dict[str, float]:
        """0 closed, 1 half-open, 2 open, by the name of the replica, or `upstream`."""
        return self._breakers.gauges()

    def hedge_with(self, hedging: Hedging | None) -> None:
        """Asks a second replica as this says, from now on."""
        self._hedging = hedging

    def links(self) -> list[Link]:
        """The connections that there are now."""
        return list(self._links.values())

    def _answering(self) -> list[str]:
        return [link.name for link in self._links.values() if link.ready]

    # --- calls in ---

    def enqueue(self, pending: PendingCall) -> None:
        """Takes an admitted call; it will end in `finished`."""
        pending.on_cancel = self._cancel
        if pending.stream:
            self.streams += 1
        self.queue.push(pending)
        self._schedule_pump()
        if self.queue.rows > self._limits.max_rows:
            self.glance()
            if self.queue.waiting > 1:
                self._make_room(pending)

    def _make_room(self, newcomer: PendingCall) -> None:
        """Those who waited behind it leave, as there is no time for all."""
        rows = self.queue.rows - newcomer.rows
        for victim in displaced_by(self, self.queue, newcomer):
            self._fail(victim, overloaded(self, "calls with a higher priority or of other tenants came first"), None)
        self.epoch += self.queue.rows < rows

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
        for link in self._links.values():
            link.cancel(pending)

    def _schedule_pump(self) -> None:
        # Later in this turn of the loop: every request that was read in the same turn joins the same batch.
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Sends batches while something waits and a replica has credit."""
        self._pump_scheduled = False
        queue = self.queue
        while queue.rows:
            now_ns = time.monotonic_ns()
            link = self._pick_link(now_ns)
            if link is None:
                self._stuck(now_ns)
                return
            if self._max_delay_ns and queue.rows < self._limits.max_rows:
                oldest_ns = min(pending.received_ns for pending in queue)
                held_ns = hold_ns(queue.rows, self._limits.max_rows, oldest_ns, self._max_delay_ns, now_ns)
                if held_ns:
                    self._loop.call_later(held_ns / 1e9, self._schedule_pump)
                    return
            calls, late, suspects = queue.take(now_ns, self.curve, self._limits)
            self.epoch += 1
            if calls:
                self._send(link, Batch(calls, sum([pending.rows for pending in calls]), suspects, now_ns), now_ns)
            for pending in late:  # not before: who hears of it may send more, and that batch has the credit
                self._expire(pending, "before a replica could take it")
            if not (calls or late or queue.rows):
                break
        self._close_if_drained()

    def _send(self, link: Link, batch: Batch, now_ns: int) -> None:
        if link.breaker is not None:
            link.breaker.began(now_ns)
        if self._hedging is not None and self.brownout < HEDGES:
            self._hedging.plan(link, batch, expect(self.curve, batch.rows))
        link.send(batch)

    def _pick_link(self, now_ns: int) -> Link | None:
        """The replica with credit that holds the fewest rows. One that computes is left alone until it is nearly done,
        unless a full batch waits that nobody more urgent could want to be in; then the pump runs again. One whose
        breaker is open is left alone as long as another one answers."""
        best: Link | None = None
        full = self.queue.rows >= self._limits.max_rows and not self.queue.contended
        soonest_ns = 0
        ignored = False
        for link in self._links.values():
            if not link.has_credit or (best is not None and link.held_rows >= best.held_rows):
                continue
            if link.breaker is not None and not link.breaker.admits(now_ns):
                if not ignored and self._admitting(now_ns):
                    continue
                ignored = True
            computing = None if full else link.computing()
            open_ns = 0 if computing is None else open_for_ns(self.curve, *computing, now_ns)
            if not open_ns:
                best = link
            elif not soonest_ns or open_ns < soonest_ns:
                soonest_ns = open_ns
        if best is None and soonest_ns and self._timer is None:
            self._timer = self._loop.call_later(soonest_ns / 1e9, self._wake)
        return best

    def _admitting(self, now_ns: int) -> bool:
        """Whether breakers are heeded: some replica that answers may be called."""
        for link in self._links.values():
            if link.ready and (link.breaker is None or link.breaker.admits(now_ns)):
                return True
        return False

    def _stuck(self, now_ns: int) -> None:  # noqa: ARG002
        """Something waits, and no link takes it now, nor will after the end: of calls that came with a delay."""
        if self.closed.is_set():
            for pending in self.queue.drain():
                self._fail(pending, RunnerLost("the version was replaced meanwhile; send the request again"), None)

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

    def link_lost(self, link: Link, held: list[Batch], computing: int, reason: str) -> None:
        """Puts the dead replica's calls back: those that it did not compute as they were, the batch that it died of in
        smaller groups."""
        if self._links.get(link.name) is link:
            del self._links[link.name]
        if not (self._retired and not held):
            rows = sum(batch.rows for batch in held)
            self._log.write("warning", "replica lost", replica=link.name, reason=reason, rows_held=rows)
        self._backlog_ns = 0
        self.epoch += 1
        if link.breaker is not None:
            died = sum([len(batch.calls) for batch in held if batch.id == computing])
            link.breaker.note(died, died, 0, time.monotonic_ns())
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
                self.queue.push_suspects([pending for pending in batch.calls if not pending.done])
            else:
                for pending in batch.calls:
                    if not pending.done:
                        self.queue.push(pending)
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
                self.queue.push_suspects(calls)

    def batch_done(self, batch: Batch, result: Result) -> None:
        self.epoch += 1
        if not batch.stream:
            if self._hedging is not None and not result.failures:
                self._hedging.observe(batch, expect(self.curve, batch.rows))
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

    def look_at_deadlines(self, now_ns: int) -> None:
        """Ends every call whose deadline has passed, wherever it is. Called every few milliseconds."""
        if self.queue.rows or self.brownout or self._overload.load > NO_LOAD:
            self._look_at_load(now_ns)
        if self.queue.rows:
            rows = self.queue.rows
            for pending in self.queue.expire(now_ns):
                self._expire(pending, "before a replica could take it")
            self.epoch += self.queue.rows < rows
        if self._retired:
            self._close_if_drained()
        for link in tuple(self._links.values()):
            for pending, batch in link.expire(now_ns):
                self._expire_held(link, pending, batch, now_ns)
                link.cancel(pending)
            link.give_up(now_ns)

    def is_idle(self) -> bool:
        """Whether nothing here changes by the passing of time alone: no call is open, no load ebbs away."""
        if self.queue.rows or self.brownout or self._overload.load > NO_LOAD or self._retired:
            return False
        return all(not link.held_rows for link in self._links.values())

    def _expire_held(self, link: Link, pending: PendingCall, batch: Batch, now_ns: int) -> None:
        """The time of a call is over that the link holds, or held until now."""
        if link.breaker is not None:
            expected_ns = expect(self.curve, batch.rows)
            held_ns = now_ns - max(batch.sent_ns, pending.received_ns)
            batch.expired += link.breaker.note_timeout(held_ns, expected_ns, self.deadline_ns, now_ns)
        self._expire(pending, "while the model was computing")

    def _look_at_load(self, now_ns: int) -> None:
        """Gives up optional work, or takes it up again."""
        wait_ns = expected_wait_ns(self.queue_state(), self.curve) if self.has_backlog else 0.0
        state = look(self._overload, wait_ns, BUDGET_SHARE * self.deadline_ns, now_ns)
        if state.level != self.brownout:
            self.brownout = state.level
            self._log.write("warning" if state.level else "info", "brown-out", endpoint=self.model, step=state.level)
        self._overload = state

    # --- connections ---

    def retire(self) -> None:
        """Takes no more calls; closes when those that it holds have ended."""
        self._retired = True
        self.epoch += 1
        self._schedule_pump()

    def _close_if_drained(self) -> None:
        if self._retired and not self.queue.rows and all(link.idle for link in self._links.values()):
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
        for pending in self.queue.drain():
            self._fail(pending, RunnerLost("the gateway is closing; send the request again"), None)
        for link in tuple(self._links.values()):
            link.close()

    async def wait_connected(self, timeout_s: float) -> bool:
        """Whether a replica became ready within the time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.connected.wait(), timeout_s)
        return self.connected.is_set()
