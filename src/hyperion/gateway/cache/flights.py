"""Identical requests that are under way at the same time: one of them is computed, all of them are answered.

Asked by `gateway/front/guard` for endpoints that coalesce, with the key of `gateway/cache/key`. The first call leads:
its `PendingCall` is what the pool computes. Those that follow never enter the pool; each keeps its own reply, deadline
and request id. A leader that leaves, or whose time is over, hands its place in the pool to a follower; the work ends
early only when nobody waits for it any more. What went wrong with the model is shared, what went wrong with one caller
is not.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hyperion.gateway.pending import DEGRADED, MODEL, UNHEARD, PendingCall, past_deadline
from hyperion.schema.call import InferenceAnswer, Tensor
from hyperion.schema.errors import ClientGone, DeadlineExceeded, HyperionError, InternalError

if TYPE_CHECKING:
    from hyperion.gateway.pool import VersionPool

MAX_FOLLOWERS: Final = 1_024  # of one computation; who comes then is computed alone
# A caller's own: it left, or cannot be told the answer in the form that it wants. The work's deadline is everybody's.
OWN_FAILURES: Final = frozenset(("client_gone", "unsupported", "internal"))

Finished = Callable[[PendingCall, HyperionError | None, int, int, int], None]


class Flight:
    """One computation. `work` is what the pool holds. `leader` is the call whose reply and deadline the work has now:
    itself, until it is handed over. `deadline_ns` is the leader's own, as the work's is the latest of all waiters.
    `cancel_work` is how the pool ends the work; None until somebody follows."""

    __slots__ = ("cancel_work", "deadline_ns", "followers", "key", "leader", "pool", "work")

    def __init__(self, key: bytes, work: PendingCall, pool: "VersionPool") -> None:
        self.key: Final = key
        self.work: Final = work
        self.pool: Final = pool
        self.leader = work
        self.deadline_ns = work.deadline_ns
        self.followers: list[PendingCall] = []
        self.cancel_work: Callable[[PendingCall], None] | None = None


class Flights:
    """The computations of one endpoint that are under way. `finished` is called once for each call that followed, or
    that left before its work was done, as the pool does for those that it ends."""

    __slots__ = ("_by_key", "_by_waiter", "_by_work", "_finished", "_shared")

    def __init__(self, finished: Finished) -> None:
        self._finished: Final = finished
        self._by_key: dict[bytes, Flight] = {}
        self._by_work: dict[PendingCall, Flight] = {}
        self._by_waiter: dict[PendingCall, Flight] = {}  # of those that have followers, or were handed over
        self._shared: dict[bytes, Flight] = {}

    def join(self, key: bytes, pending: PendingCall, pool: "VersionPool") -> bool:
        """Whether an admitted call follows another one: then it is answered here. If not, it has to be computed, and
        may be followed. Not for streams."""
        flight = self._by_key.get(key)
        if flight is None:
            self._by_key[key] = self._by_work[pending] = Flight(key, pending, pool)
            return False
        if flight.pool.served.version != pool.served.version:
            return False  # the same bytes, but the answer says whose it is
        # One that is more urgent would wait at the leader's place in the queue.
        if len(flight.followers) >= MAX_FOLLOWERS or pending.priority < flight.work.priority:
            return False
        if flight.cancel_work is None:
            flight.cancel_work = flight.work.on_cancel
            flight.work.on_cancel = self._leave
            self._by_waiter[flight.work] = flight
            self._shared[key] = flight
        flight.followers.append(pending)
        self._by_waiter[pending] = flight
        pending.on_cancel = self._leave
        # Where others are to have a part of the work's time, it is shorter than its leader's.
        if flight.deadline_ns <= flight.work.deadline_ns < pending.deadline_ns:
            flight.work.deadline_ns = pending.deadline_ns
        return True

    def took_off(self, work: PendingCall) -> None:
        """The pool has the work only now, and its own way to end it: those who follow already come before that."""
        flight = self._by_work.get(work)
        if flight is not None and flight.cancel_work is not None:
            flight.cancel_work = work.on_cancel
            work.on_cancel = self._leave

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._by_work)

    def has_followers(self, work: PendingCall) -> bool:
        """Whether anybody else waits for the work."""
        flight = self._by_work.get(work)
        return flight is not None and bool(flight.followers)

    # --- the end of the work ---

    def answered(self, work: PendingCall, outputs: tuple[Tensor, ...], compute_ns: int = 0) -> None:
        """The model has answered the work, whatever became of its leader's reply: all followers get the same."""
        flight = self._land(work)
        if flight is None or not flight.followers:
            return
        served, now_ns = flight.pool.served, time.monotonic_ns()
        for pending in flight.followers:
            queue_ns = max(0, now_ns - pending.received_ns - compute_ns)
            answer = InferenceAnswer(
                flight.pool.model,
                served.version,
                served.digest,
                outputs,
                work.served_by,
                queue_ns=queue_ns,
                compute_ns=compute_ns,
                degraded=work.served_by != MODEL,
            )
            self._tell(pending, answer, now_ns)

    def failed(self, work: PendingCall, error: HyperionError) -> None:
        """The work has ended without an answer. Where the failure is the leader's own, the first follower is computed
        in its place, and the others follow that."""
        flight = self._land(work)
        if flight is None or not flight.followers:
            return
        if error.code in OWN_FAILURES:
            self._compute_again(flight)
            return
        now_ns = time.monotonic_ns()
        for pending in flight.followers:
            late = error.code == DeadlineExceeded.code
            self._fail(pending, _too_late(pending) if late else error, now_ns)

    def _land(self, work: PendingCall) -> Flight | None:
        """Takes the flight out, if the work was one, and ends the handle that its leader holds."""
        flight = self._by_work.pop(work, None)
        if flight is None:
            return None
        del self._by_key[flight.key]
        if flight.cancel_work is not None:
            del self._shared[flight.key]
            self._by_waiter.pop(work, None)
            self._by_waiter.pop(flight.leader, None)
            if flight.leader is not work:
                flight.leader.done = True
                flight.leader.reply = UNHEARD
            for pending in flight.followers:
                self._by_waiter.pop(pending, None)
        return flight

    def _compute_again(self, flight: Flight) -> None:
        first, *others = flight.followers
        self._by_key[flight.key] = self._by_work[first] = Flight(flight.key, first, flight.pool)
        flight.pool.enqueue(first)
        for pending in others:
            if not self.join(flight.key, pending, flight.pool):  # more urgent than the one that is now the first
                flight.pool.enqueue(pending)

    # --- waiters that go before the work is done ---

    def _leave(self, pending: PendingCall) -> None:
        """The caller of a waiter has left."""
        flight = self._by_waiter.get(pending)
        if flight is None:
            return
        if pending is flight.leader:
            self._leader_goes(flight, ClientGone("the caller left before the answer"))
            return
        flight.followers.remove(pending)
        del self._by_waiter[pending]
        self._end(pending, ClientGone("the caller left before the answer"), time.monotonic_ns())

    def look_at_deadlines(self, now_ns: int) -> None:
        """Ends every waiter whose deadline has passed. Called every few milliseconds, before the pools' look at theirs:
        the work goes on as long as anybody has time."""
        for flight in tuple(self._shared.values()):
            late = [pending for pending in flight.followers if pending.deadline_ns <= now_ns]
            for pending in late:
                flight.followers.remove(pending)
                del self._by_waiter[pending]
                self._fail(pending, _too_late(pending), now_ns)
            if flight.deadline_ns <= now_ns and flight.followers:
                self._leader_goes(flight, _too_late_by(flight.deadline_ns, flight.work.received_ns))
            elif not flight.followers:
                flight.work.deadline_ns = min(flight.work.deadline_ns, flight.deadline_ns)

    def _leader_goes(self, flight: Flight, error: HyperionError) -> None:
        """Ends the leader. The work goes on for the follower with the most time, or ends if there is none."""
        work = flight.work
        if not flight.followers:
            cancel = flight.cancel_work
            work.on_cancel = None
            if cancel is not None:
                cancel(work)  # ends it as its leader's
            return
        now_ns = time.monotonic_ns()
        heir = flight.followers[0]
        for pending in flight.followers:
            if pending.deadline_ns > heir.deadline_ns:
                heir = pending
        flight.followers.remove(heir)
        gone = PendingCall(
            work.call, work.reply, work.protocol, work.request_id, work.received_ns, flight.deadline_ns, work.rows
        )
        gone.visit, gone.tally, gone.served = work.visit, work.tally, work.served
        if gone.visit is not None and gone.visit.course is not None and heir.visit is not None:
            # Its attempts are the work's, whoever waits for it.
            heir.visit.course, gone.visit.course = gone.visit.course, None
            heir.visit.course.deadline_ns = heir.deadline_ns
        work.reply, work.protocol, work.request_id = heir.reply, heir.protocol, heir.request_id
        work.received_ns, work.visit, work.tally, work.served = heir.received_ns, heir.visit, heir.tally, heir.served
        if flight.leader is not work:  # the handle of one that had come after the first
            del self._by_waiter[flight.leader]
            flight.leader.done = True
            flight.leader.reply = UNHEARD
        else:
            self._by_waiter.pop(work, None)
        flight.leader, flight.deadline_ns = heir, heir.deadline_ns
        heir.visit = heir.tally = None  # the work has them now
        if error.code == ClientGone.code:
            self._end(gone, error, now_ns)
        else:
            self._fail(gone, error, now_ns)

    # --- words to one caller ---

    def _tell(self, pending: PendingCall, answer: InferenceAnswer, now_ns: int) -> None:
        try:
            if answer.degraded:
                pending.reply.add_fields(DEGRADED)
            pending.reply.answer(answer)
        except HyperionError as error:
            self._fail(pending, error, now_ns)
            return
        except Exception:  # a bug of ours must cost this caller only
            self._fail(pending, InternalError(f"an internal error; quote request id {pending.request_id}"), now_ns)
            return
        self._end(pending, None, now_ns, answer.queue_ns)

    def _fail(self, pending: PendingCall, error: HyperionError, now_ns: int) -> None:
        reply = pending.reply
        self._end(pending, error, now_ns)
        reply.fail(error)

    def _end(self, pending: PendingCall, error: HyperionError | None, now_ns: int, queue_ns: int = 0) -> None:
        pending.done = True
        pending.reply = UNHEARD
        self._finished(pending, error, queue_ns, 0, now_ns)


def _too_late(pending: PendingCall) -> DeadlineExceeded:
    return _too_late_by(pending.deadline_ns, pending.received_ns)


def _too_late_by(deadline_ns: int, received_ns: int) -> DeadlineExceeded:
    return past_deadline(received_ns, deadline_ns, "while an identical request was computed")
