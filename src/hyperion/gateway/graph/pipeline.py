"""Steps that read what others answered: each one is asked as soon as all that it reads is there, so that those which do
not need each other run at the same time. Made by `gateway/graph/pool`.
"""

from typing import TYPE_CHECKING

from hyperion.gateway.graph.run import Run, named, see
from hyperion.gateway.pending import PendingCall
from hyperion.policy.graph.plan import StepPlan
from hyperion.policy.graph.signature import Unfit
from hyperion.schema.call import InferenceAnswer, Tensor
from hyperion.schema.errors import HyperionError, ModelFailed, SchemaMismatch

if TYPE_CHECKING:
    from hyperion.gateway.graph.pool import GraphPool


class PipelineRun(Run):
    """One request. Where a soft step is missing, those behind it read the tensor of the same name from before it, if
    there is one."""

    __slots__ = ("_asked", "_plans", "_produced")

    def __init__(self, pool: "GraphPool", pending: PendingCall) -> None:
        super().__init__(pool, pending)
        self._plans: tuple[StepPlan | None, ...] = ()
        self._asked: set[int] = set()
        self._produced: dict[int, dict[str, Tensor]] = {}

    def start(self) -> None:
        self.missing = self.pool.list_absent()
        self._plans = self.pool.plan(self.wanted, frozenset(self.missing))
        self._go_on()

    def got(self, index: int, answer: InferenceAnswer) -> None:
        plan = self._plans[index]
        assert plan is not None, "it was asked"
        outputs = self._produced[index] = see(plan, answer)
        if index == len(self._plans) - 1:
            self.finish(self.choose(outputs), [])
        else:
            self._go_on()

    def lost(self, index: int, error: HyperionError) -> None:
        step = self.pool.graph.steps[index]
        if not step.soft:
            self.fail(self._explain(index, error))
            return
        self.missing.append(step.name)
        try:
            self._plans = self.pool.plan(self.wanted, frozenset(self.missing))
        except Unfit:  # nothing else can stand for what it answers
            self.fail(error)
            return
        self._go_on()

    def _go_on(self) -> None:
        """Asks the steps whose inputs are all there."""
        for index in range(len(self._plans)):
            plan = self._plans[index]  # another one as soon as a step turned out to be missing
            if plan is None or index in self._asked or not all(one in self._produced for one in plan.after):
                continue
            self._asked.add(index)
            self.ask(index, plan, self._collect(plan), optional=self.pool.graph.steps[index].soft)
            if self.over:
                return

    def _collect(self, plan: StepPlan) -> tuple[Tensor, ...]:
        places = self.pool.places
        inputs = []
        for feed in plan.feeds:
            source = feed.source
            found = self._produced[places[source.step]] if source.step else self.given
            inputs.append(named(found[source.name], feed.tensor))
        return tuple(inputs)

    def _explain(self, index: int, error: HyperionError) -> HyperionError:
        """What does not fit a step is the fault of the steps before it, not of the caller."""
        plan = self._plans[index]
        if isinstance(error, SchemaMismatch) and plan is not None and plan.after:
            name = self.pool.graph.steps[index].name
            return ModelFailed(f'step "{name}" cannot take what the steps before it answered: {error.message}')
        return error
