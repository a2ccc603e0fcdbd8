"""Members that are all asked at the same time, and whose answers become one. Made by `gateway/graph/pool`.

A hard member has to answer; a soft one that does not is left out, and header fields say so: the answer is worth less,
but the service goes on.
"""

from typing import TYPE_CHECKING, Final

from hyperion.gateway.graph.run import Run
from hyperion.gateway.pending import PendingCall
from hyperion.policy.graph.ensemble import average, present_share, stack, vote
from hyperion.schema.call import InferenceAnswer, Tensor
from hyperion.schema.errors import HyperionError, ModelFailed, NotReady
from hyperion.schema.protect import GraphStep
from hyperion.wire.tensor import from_numpy, to_numpy

if TYPE_CHECKING:
    from hyperion.gateway.graph.pool import GraphPool

CONFIDENCE: Final = b"x-hyperion-confidence"


class EnsembleRun(Run):
    """One request."""

    __slots__ = ("_answers", "_asking", "_error")

    def __init__(self, pool: "GraphPool", pending: PendingCall) -> None:
        super().__init__(pool, pending)
        self._answers: dict[int, Tensor] = {}
        self._asking = True  # not all are asked yet
        self._error: HyperionError | None = None

    def start(self) -> None:
        pool = self.pool
        self.missing = pool.list_absent()
        plans = pool.plan(self.wanted, frozenset(self.missing))
        for index, step in enumerate(pool.graph.steps):
            plan = plans[index]
            if plan is not None:
                self.ask(index, plan, self.feed(plan), optional=step.soft)
            elif not step.soft:
                self.fail(NotReady(f'step "{step.name}" of "{pool.model}" is not there now', retry_after_s=1.0))
            if self.over:
                return
        self._asking = False
        self._settle()

    def got(self, index: int, answer: InferenceAnswer) -> None:
        self._answers[index] = answer.outputs[0]
        self._settle()

    def lost(self, index: int, error: HyperionError) -> None:
        step = self.pool.graph.steps[index]
        if not step.soft:
            self.fail(error)
            return
        self._error = error
        self.missing.append(step.name)
        self._settle()

    def _settle(self) -> None:
        """Answers once nobody is waited for any more."""
        if self._asking or self.busy:
            return
        pool = self.pool
        if not self._answers:
            self.fail(self._error or NotReady(f'"{pool.model}" has no member that answers', retry_after_s=1.0))
            return
        steps = pool.graph.steps
        there = [(steps[index], self._answers[index]) for index in sorted(self._answers)]
        fields = []
        if self.missing:
            share = present_share([step.weight for step, _ in there], [step.weight for step in steps])
            fields.append((CONFIDENCE, b"%.2f" % share))
        self.finish((self._combine(there),), fields)

    def _combine(self, there: list[tuple[GraphStep, Tensor]]) -> Tensor:
        pool = self.pool
        first = there[0][1]
        for step, tensor in there:
            if tensor.shape != first.shape:
                raise ModelFailed(
                    f'"{pool.deciding}" of step "{step.name}" has the shape {list(tensor.shape)}, that of step '
                    f'"{there[0][0].name}" {list(first.shape)}: they cannot be combined'
                )
        how = pool.graph.combine
        weights = [step.weight for step, _ in there]
        answers = [to_numpy(tensor) for _, tensor in there]
        if how == "average":
            combined = average(answers, weights)
        elif how == "vote":
            combined = vote(answers, weights)
        else:
            combined = stack(answers, pool.batched)
        return from_numpy(pool.deciding, combined, first.datatype)
