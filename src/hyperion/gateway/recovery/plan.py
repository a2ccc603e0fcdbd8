"""How an endpoint's calls get past failures: its retry budget, its fallback chain, and who may be asked twice.

Made by `gateway/front/door` for an endpoint with `retry` or `fallback`; each of its calls takes a `Course`, which pools
ask before a caller hears of a failure. What is worth another attempt, when, and how much of the deadline each one gets
is decided by `policy/retry` and `policy/fallback`.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hyperion.gateway.pending import PendingCall
from hyperion.gateway.recovery.course import Course
from hyperion.gateway.recovery.hedging import Hedging
from hyperion.gateway.recovery.static_answer import StaticAnswer
from hyperion.gateway.setting import FindPool
from hyperion.policy.fallback import explain_misfit, share_ns
from hyperion.policy.graph.members import name_fallback
from hyperion.policy.retry import Budget, earn, spend
from hyperion.schema.call import InferenceAnswer
from hyperion.schema.errors import HyperionError, NotReady
from hyperion.schema.model import Signature
from hyperion.schema.protect import Fallback, Protection, Retry
from hyperion.schema.snapshot import ServedModel

if TYPE_CHECKING:
    from hyperion.gateway.pool import VersionPool

NO_RETRIES: Final = Retry(budget=0.0, attempts=1)
CACHED: Final = "cached"
STATIC: Final = "static"

Cached = Callable[[PendingCall], InferenceAnswer | None]


class Step:
    """One link of a chain: a pool to be found by `model` and `version`, or an answer at hand (`model` "")."""

    __slots__ = ("at_hand", "cached", "model", "name", "static", "version")

    def __init__(
        self, name: str, model: str = "", version: str = "", cached: bool = False, static: StaticAnswer | None = None
    ) -> None:
        self.name: Final = name
        self.model: Final = model
        self.version: Final = version
        self.cached: Final = cached
        self.static: Final = static
        self.at_hand: Final = not model


class Recovery:
    """One endpoint's. `find(model, version)` gives the pool that serves it now, members included, and raises; `cached`
    the last good answer to a call, expired or not, if there is one. `draw` gives random numbers in [0, 1)."""

    def __init__(
        self,
        endpoint: str,
        protection: Protection,
        signature: Signature,
        find: FindPool,
        cached: Cached,
        draw: Callable[[], float],
    ) -> None:
        self.protection: Final = protection
        self.signature: Final = signature
        self.rule: Final = protection.retry or NO_RETRIES
        self.draw: Final = draw
        self.find: Final = find
        self.cached: Final = cached
        steps, left_out = _read_chain(endpoint, protection.fallback, signature)
        self.steps: Final = steps
        self._left_out: Final = left_out  # why a link is not among them
        self.answers_at_hand: Final = any(step.at_hand for step in self.steps)
        self._hedged: dict[VersionPool, Hedging] = {}
        self._open: dict[PendingCall, Course] = {}  # those that a second replica may be asked for
        self._budget = Budget(0.0, time.monotonic_ns())

    def begin(self, pending: PendingCall, pool: "VersionPool") -> Course:
        """For each call that was admitted, before its pool gets it; where the course is `diverted`, the pool never
        does."""
        now_ns = time.monotonic_ns()
        self._budget = earn(self._budget, self.rule.budget, 1, now_ns)
        if self.rule.hedge and pool not in self._hedged:
            self._hedge(pool)
        course = Course(self, pending, pool)
        if self.rule.hedge:
            self._open[pending] = course
        if self.steps:
            share = share_ns(pending.deadline_ns - now_ns, self.later(-1), self.answers_at_hand)
            if share:
                pending.deadline_ns = now_ns + share
            if not pool.reachable:
                course.divert(now_ns, NotReady(f'model "{pool.model}" has no replica that answers', retry_after_s=1.0))
        return course

    def forget(self, pending: PendingCall) -> None:
        """The call has ended."""
        self._open.pop(pending, None)

    def later(self, index: int) -> int:
        """How many steps behind this one compute something, as far as is known now: no time is kept for the others."""
        return len([step for step in self.steps[index + 1 :] if not step.at_hand and self._reaches(step)])

    def _reaches(self, step: Step) -> bool:
        try:
            return self.find(step.model, step.version).reachable
        except HyperionError:
            return False

    def explain_misfit(self) -> str:
        """Which link of the chain is of no use, as far as is known now, and why; "" where none is."""
        for step in self.steps:
            if step.at_hand:
                continue
            try:
                other = self.find(step.model, step.version).signature
            except HyperionError:
                continue  # not there now
            reason = explain_misfit(self.signature, other)
            if reason:
                return f'its fallback "{step.name}" cannot stand in: {reason}'
        return self._left_out

    def pay(self, tries: int = 1) -> bool:
        """Whether the budget allows so many more tries; then they are paid."""
        budget = spend(earn(self._budget, 0.0, 0, time.monotonic_ns()), tries)
        if budget is None:
            return False
        self._budget = budget
        return True

    def _hedge(self, pool: "VersionPool") -> None:
        """Lets a pool ask second replicas; forgets those that are closed."""
        self._hedged = {known: hedging for known, hedging in self._hedged.items() if not known.closed.is_set()}
        self._hedged[pool] = hedging = Hedging(pool, self._twin, self.pay)
        pool.hedge_with(hedging)

    def _twin(self, pending: PendingCall) -> PendingCall | None:
        """A second try of a call that is under way in a pool of this endpoint."""
        course = self._open.get(pending)
        return None if course is None else course.twin()


def make_recovery(
    model: ServedModel,
    signature: Signature,
    find: FindPool,
    cached: Cached,
    draw: Callable[[], float],
    before: Recovery | None = None,
) -> Recovery | None:
    """The recovery of an endpoint, None where it asks for none; the one from `before` where that was made of the same,
    so that its budget goes on."""
    protection = model.protection
    if protection.retry is None and not protection.fallback:
        return None
    if before is not None and before.protection == protection and before.signature == signature:
        return before
    return Recovery(model.name, protection, signature, find, cached, draw)


def _read_chain(endpoint: str, chain: tuple[Fallback, ...], signature: Signature) -> tuple[tuple[Step, ...], str]:
    """The steps; one that cannot be used is left out, and why."""
    steps = []
    left_out = ""
    for index, link in enumerate(chain):
        if link.cached:
            steps.append(Step(CACHED, cached=True))
        elif link.static is not None:
            try:
                steps.append(Step(STATIC, static=StaticAnswer(signature, link.static)))
            except HyperionError as error:
                left_out = f"its fallback {index} is left out: {error.message}"
        elif link.model or link.version:
            steps.append(Step(link.model or link.version, name_fallback(endpoint, index)))
        else:
            name = link.endpoint or link.upstream
            steps.append(Step(name, name))
    return tuple(steps), left_out
