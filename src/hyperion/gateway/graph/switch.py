"""One of several members, chosen by what the request says. Made by `gateway/graph/pool`."""

from struct import unpack_from
from typing import TYPE_CHECKING, Final

from hyperion.gateway.graph.run import Run, see
from hyperion.gateway.pending import PendingCall
from hyperion.policy.graph.condition import Value, holds
from hyperion.policy.graph.plan import StepPlan
from hyperion.schema.call import InferenceAnswer, Tensor
from hyperion.schema.errors import HyperionError, NotReady, SchemaMismatch
from hyperion.wire.tensor import DATATYPES, to_numpy

if TYPE_CHECKING:
    from hyperion.gateway.graph.pool import GraphPool

LENGTH_BYTES: Final = 4  # before each element of BYTES


class SwitchRun(Run):
    """One request. A soft step that cannot answer is passed over, and the next one that fits is asked."""

    __slots__ = ("_plans",)

    def __init__(self, pool: "GraphPool", pending: PendingCall) -> None:
        super().__init__(pool, pending)
        self._plans: tuple[StepPlan | None, ...] = ()

    def start(self) -> None:
        self._plans = self.pool.plan(self.wanted, frozenset())
        self._ask_from(0, None)

    def got(self, index: int, answer: InferenceAnswer) -> None:
        plan = self._plans[index]
        assert plan is not None, "it was asked"
        self.finish(self.choose(see(plan, answer)), [])

    def lost(self, index: int, error: HyperionError) -> None:
        step = self.pool.graph.steps[index]
        if step.soft:
            self.missing.append(step.name)
            self._ask_from(index + 1, error)
        else:
            self.fail(error)

    def _ask_from(self, start: int, error: HyperionError | None) -> None:
        """Asks the first step from there on that fits. `error` is what kept an earlier one from answering."""
        pool = self.pool
        for index in range(start, len(self._plans)):
            condition = pool.conditions[index]
            if condition is not None and not holds(condition, self._look_up(condition.name)):
                continue
            step, plan = pool.graph.steps[index], self._plans[index]
            if plan is not None:
                self.ask(index, plan, self.feed(plan), optional=step.soft)
            else:
                self.lost(index, NotReady(f'step "{step.name}" of "{pool.model}" is not there now', retry_after_s=1.0))
            return
        if error is not None:
            self.fail(error)
            return
        conditions = "; ".join(step.when for step in pool.graph.steps)
        self.fail(SchemaMismatch(f'no step of "{pool.model}" is for this request; there are those where {conditions}'))

    def _look_up(self, name: str) -> Value | bytes | None:
        """An input's first value, or a request parameter."""
        tensor = self.given.get(name)
        if tensor is not None:
            return first_value(tensor)
        value = self.pending.call.parameters.get(name)
        return value if isinstance(value, str | int | float) else None


def first_value(tensor: Tensor) -> Value | bytes | None:
    """The first element, None where there is none.

    >>> first_value(Tensor("x", "INT32", (2,), bytes([7, 0, 0, 0, 9, 0, 0, 0])))
    7
    """
    data = tensor.data
    if 0 in tensor.shape:
        return None
    datatype = DATATYPES[tensor.datatype]
    if not datatype.size:
        (length,) = unpack_from("<I", data)
        return bytes(data[LENGTH_BYTES : LENGTH_BYTES + length])
    if not datatype.code:
        return float(to_numpy(tensor).flat[0])
    value: Value = unpack_from(f"<{datatype.code}", data)[0]
    return value
