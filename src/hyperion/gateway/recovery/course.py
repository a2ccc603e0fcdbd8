"""One call on its way past failures: the attempts that follow the first one, each in its turn, until one has answered.

Made by `gateway/recovery/plan` for each call of an endpoint with `retry` or `fallback`. An attempt is a call of its own
in some pool, so that nothing is left behind where the one before it failed; the caller's call stays open meanwhile, and
the first answer is its answer.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from hyperion.gateway.admit import admit
from hyperion.gateway.pending import INNER, UNHEARD, PendingCall
from hyperion.policy.fallback import falls_back, share_ns
from hyperion.policy.retry import is_worth_it, wait_s
from hyperion.schema.call import InferenceAnswer, InferenceCall
from hyperion.schema.errors import Fields, HyperionError, NotReady

if TYPE_CHECKING:
    from hyperion.gateway.pool import VersionPool
    from hyperion.gateway.recovery.plan import Recovery, Step


class Course:
    """One call on its way. `diverted` says that its own pool never got it."""

    __slots__ = (
        "_asked",
        "_attempt",
        "_closing",
        "_error",
        "_recovery",
        "_step",
        "_timer",
        "_tries",
        "_twin",
        "deadline_ns",
        "diverted",
        "pending",
        "pool",
    )

    def __init__(self, recovery: "Recovery", pending: PendingCall, pool: "VersionPool") -> None:
        self.pending: Final = pending
        self.pool: Final = pool
        self.diverted = False
        self._recovery: Final = recovery
        self.deadline_ns = pending.deadline_ns  # the caller's, or another's who waits for the same
        self._asked = pool  # last
        self._step = -1  # the endpoint itself
        self._tries = 1  # on this step
        self._attempt: PendingCall | None = None
        self._twin: PendingCall | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False  # an answer at hand is about to be given
        self._error: HyperionError | None = None  # the first one: the others are those of stand-ins

    # --- asked by the visit ---

    def divert(self, now_ns: int, error: HyperionError) -> None:
        """The pool cannot answer now: others are asked at once, if any of them takes the call."""
        self._error = error
        self.diverted = True
        pending = self.pending
        share_end_ns, pending.deadline_ns = pending.deadline_ns, self.deadline_ns
        self.pool.adopt(pending)
        if not self._advance(error, now_ns):
            self.pool.disown(pending)
            self.diverted = False
            self._step = -1
            self._error = None
            pending.deadline_ns = share_end_ns

    def takes(self, error: HyperionError) -> bool:
        """The call has failed in its own pool: whether another attempt is made or under way, so that its caller is to
        wait."""
        pending = self.pending
        now_ns = time.monotonic_ns()
        if pending.parts:
            return False
        if self._closing:
            return True
        if now_ns >= self.deadline_ns:
            self._drop()  # only what is at hand can answer now
        elif self._attempt is not None or self._timer is not None:
            return True  # what failed just now was given up before
        if self._error is None:
            self._error = error
        if not self._next(error, now_ns):
            return False
        pending.deadline_ns = self.deadline_ns
        if pending.tally is not None:  # the version has failed, whoever answers
            pending.tally.ended(pending, error, now_ns - pending.received_ns)
            pending.tally = None
        return True

    def ended(self) -> None:
        """The call has its answer, or its caller has left: what is still under way is not wanted any more."""
        self._recovery.forget(self.pending)
        self._drop()

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        attempt, twin = self._attempt, self._twin
        self._attempt = self._twin = None
        if attempt is not None:
            attempt.cancel()
        if twin is not None:
            twin.cancel()

    # --- what next ---

    def _next(self, error: HyperionError, now_ns: int) -> bool:
        """Makes, or plans, the attempt that follows a failure. False where there is none."""
        return self._retry(error, now_ns) or self._advance(error, now_ns)

    def _retry(self, error: HyperionError, now_ns: int) -> bool:
        """Plans another try of the same step."""
        recovery = self._recovery
        if self._asked.failing or not is_worth_it(error.code, set(self.pending.call.parameters)):
            return False
        left_ns = self._share_ns(now_ns)
        wait = wait_s(recovery.rule, self._tries, error.retry_after_s, left_ns * 1e-9, recovery.draw())
        if wait is None or not recovery.pay():
            return False
        self._tries += 1
        self._timer = asyncio.get_running_loop().call_later(wait, self._try_again)
        return True

    def _try_again(self) -> None:
        self._timer = None
        if self.pending.done:
            return
        pool: VersionPool | None = self.pool
        now_ns = time.monotonic_ns()
        if self._step >= 0:
            step = self._recovery.steps[self._step]
            pool = self._find(step.model, step.version)
        elif self.pool.retired:  # another one has its place
            pool = self._find(self.pool.model, self.pool.served.version)
        if pool is None:
            self._failed_on(NotReady("who was to be asked again is not served any more"), now_ns)
            return
        error = self._start(pool, self._share_ns(now_ns), now_ns)
        if error is not None:
            self._failed_on(error, now_ns)

    def _share_ns(self, now_ns: int) -> int:
        """Nanoseconds that an attempt of the present step gets."""
        recovery = self._recovery
        return share_ns(self.deadline_ns - now_ns, recovery.later(self._step), recovery.answers_at_hand)

    def _advance(self, error: HyperionError, now_ns: int) -> bool:
        """Goes down the chain to the first step that takes the call."""
        recovery = self._recovery
        while self._step + 1 < len(recovery.steps):
            self._step += 1
            self._tries = 1
            step = recovery.steps[self._step]
            if not falls_back(error.code, error.blame, step.at_hand):
                continue
            if step.at_hand:
                answer = self._at_hand(step)
                if answer is not None:
                    # Later in this turn of the loop: the pool that asked has to know first that it was taken.
                    self._closing = True
                    self._timer = asyncio.get_running_loop().call_later(0, self._give_at_hand, answer)
                    return True
                continue
            pool = self._find(step.model, step.version)
            if pool is None or pool is self.pool or not pool.reachable:
                continue
            if self._start(pool, self._share_ns(now_ns), now_ns) is None:
                return True
        return False

    def _find(self, model: str, version: str) -> "VersionPool | None":
        try:
            return self._recovery.find(model, version)
        except HyperionError:
            return None

    def _at_hand(self, step: "Step") -> InferenceAnswer | None:
        pending = self.pending
        if step.cached:
            return self._recovery.cached(pending)  # streams are not kept
        assert step.static is not None
        rows = pending.rows
        outputs = step.static.outputs(pending.call.outputs, rows)
        served = self.pool.served
        return None if outputs is None else InferenceAnswer(self.pool.model, served.version, served.digest, outputs)

    def _give_at_hand(self, answer: InferenceAnswer) -> None:
        self._timer = None
        if not self.pending.done:
            self._give(answer)

    def _start(self, pool: "VersionPool", time_ns: int, now_ns: int) -> HyperionError | None:
        """Gives the pool an attempt of its own. The error where it does not take it."""
        if time_ns <= 0:
            return NotReady("there is no time left")
        attempt = self._make(pool, now_ns, Attempt(self))
        try:
            admit(pool, attempt, time_ns)
        except HyperionError as error:
            attempt.reply = UNHEARD  # they know each other
            return error
        self._attempt = attempt
        self._asked = pool
        pool.enqueue(attempt)
        return None

    def _make(self, pool: "VersionPool", now_ns: int, reply: "Attempt") -> PendingCall:
        pending = self.pending
        call = pending.call
        inner = InferenceCall(pool.model, "", call.id, call.inputs, call.outputs, call.parameters, call.priority)
        attempt = PendingCall(inner, reply, INNER, pending.request_id, now_ns, stream=pending.stream)
        attempt.priority = pending.priority
        attempt.caller = pending.caller
        attempt.served = pool.served.version
        reply.pending = attempt
        return attempt

    def twin(self) -> PendingCall | None:
        """The same call again, for another replica of the same pool; None where more than the first try is made
        already."""
        pending = self.pending
        if self._attempt is not None or self._timer is not None or self._twin is not None:
            return None
        twin = self._make(self.pool, time.monotonic_ns(), Attempt(self))
        twin.key, twin.rows, twin.size_bytes = pending.key, pending.rows, pending.size_bytes
        twin.deadline_ns = pending.deadline_ns
        self.pool.adopt(twin)
        self._twin = twin
        return twin

    # --- told by the attempts ---

    def answered(self, attempt: PendingCall, answer: InferenceAnswer) -> None:
        """An attempt has brought the answer, or a part of it."""
        if self.pending.done or (attempt is not self._attempt and attempt is not self._twin):
            return
        if answer.final:  # it has ended by itself
            if attempt is self._attempt:
                self._attempt = None
            else:
                self._twin = None
        self._give(answer)

    def failed(self, attempt: PendingCall, error: HyperionError) -> None:
        """An attempt has failed."""
        if attempt is self._twin:
            self._twin = None  # the first try is still under way
        elif attempt is self._attempt:
            self._attempt = None
            if not self.pending.done:
                self._failed_on(error, time.monotonic_ns())

    def _failed_on(self, error: HyperionError, now_ns: int) -> None:
        if not self.pending.parts and self._next(error, now_ns):
            return
        first = self._error
        self.pool.fail_finally(self.pending, error if first is None or self.pending.parts else first)

    def _give(self, answer: InferenceAnswer) -> None:
        pending = self.pending
        if self._step >= 0:
            name = f"fallback:{self._recovery.steps[self._step].name}"
            pending.served_by = name
            answer = replace(answer, model=pending.call.model, served_by=name, degraded=True)
        elif answer.degraded:  # by the pool's own upstream
            pending.served_by = answer.served_by
        self.pool.answer_elsewhere(pending, answer)


class Attempt:
    """The `Reply` to one attempt."""

    __slots__ = ("_course", "pending")

    together = None

    def __init__(self, course: Course) -> None:
        self._course = course
        self.pending: PendingCall | None = None

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        return self._course.pending.reply.headers

    def send(self, message: bytes) -> None:
        raise AssertionError(f"{len(message)} bytes that nobody wrote for an attempt")

    def answer(self, answer: InferenceAnswer) -> None:
        if self.pending is not None:
            self._course.answered(self.pending, answer)

    def fail(self, error: HyperionError) -> None:
        if self.pending is not None:
            self._course.failed(self.pending, error)

    def add_fields(self, fields: Fields) -> None:
        """What stands in front of a caller does not stand in front of an attempt."""
