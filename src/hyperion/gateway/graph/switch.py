"""One of several members for each row, chosen by what the request says. Made by `gateway/graph/pool`."""

from struct import unpack_from
from typing import TYPE_CHECKING, Final

from hyperion.gateway.graph.run import Run, see
from hyperion.gateway.pending import PendingCall
from hyperion.policy.graph.condition import Value, holds
from hyperion.policy.graph.plan import StepPlan
from hyperion.schema.call import InferenceAnswer, Tensor
from hyperion.schema.errors import HyperionError, NotReady, SchemaMismatch
from hyperion.wire.rows import take_rows
from hyperion.wire.tensor import DATATYPES, to_numpy

if TYPE_CHECKING:
    from hyperion.gateway.graph.pool import GraphPool

LENGTH_BYTES: Final = 4  # before each element of BYTES


class SwitchRun(Run):
    """One request. Each row is for the first step whose condition holds for it; those of one step go there together. A
    soft step that cannot answer is passed over, and the next one that fits is asked for its rows."""

    __slots__ = ("_asking", "_columns", "_error", "_left", "_next", "_parts", "_places", "_plans", "_rows")

    def __init__(self, pool: "GraphPool", pending: PendingCall) -> None:
        super().__init__(pool, pending)
        rows = pending.rows if pool.batched else 1
        self._plans: tuple[StepPlan | None, ...] = ()
        self._asking = False
        self._error: HyperionError | None = None  # what kept a soft step from answering
        self._columns: dict[str, list[Value | bytes | None]] = {}
        self._left = list(range(rows))  # rows that no step has
        self._next = [0] * rows  # the first step that may have each row
        self._rows: dict[int, list[int]] = {}  # those that each step under way has
        self._parts: list[dict[str, Tensor]] = []  # what came back
        self._places: list[tuple[int, int]] = [(-1, -1)] * rows  # the part that has each row, and where in it

    def start(self) -> None:
        self._plans = self.pool.plan(self.wanted, frozenset())
        self._go_on()

    def got(self, index: int, answer: InferenceAnswer) -> None:
        plan = self._plans[index]
        assert plan is not None, "it was asked"
        rows = self._rows.pop(index)
        for place, row in enumerate(rows):
            self._places[row] = (len(self._parts), place)
        self.pool.book.count_rows(self.pool.model, self.pool.graph.steps[index].name, len(rows))
        self._parts.append(see(plan, answer))
        self._go_on()

    def lost(self, index: int, error: HyperionError) -> None:
        step = self.pool.graph.steps[index]
        if not step.soft:
            self.fail(error)
            return
        if step.name not in self.missing:
            self.missing.append(step.name)
        self._error = error
        rows = self._rows.pop(index)
        for row in rows:
            self._next[row] = index + 1
        self._left += rows
        self._go_on()

    # --- steps ---

    def _go_on(self) -> None:
        """Gives the rows that are left to the steps that they are for; answers once no row is."""
        if self._asking or self.busy:
            return
        self._asking = True
        while self._left and not self.busy:
            groups = self._group()
            if not groups:
                return
            self._left = []
            self._rows = groups
            for index, rows in tuple(groups.items()):
                self._ask_for(index, rows)
                if self.over:
                    return
        self._asking = False
        if not self.busy:
            self._answer()

    def _group(self) -> dict[int, list[int]]:
        """The rows that are left by the steps that they are for. Fails, and returns nothing, where there is none."""
        names = sorted({condition.name for condition in self.pool.conditions if condition is not None})
        known: dict[tuple[Value | bytes | None, ...], int] = {}  # rows mostly have one of a few values
        groups: dict[int, list[int]] = {}
        for row in sorted(self._left):
            values = (self._next[row], *[self._look_up(name, row) for name in names])
            index = known.get(values, -1)
            if index < 0:
                index = known[values] = self._choose(row)
                if index == len(self._plans):
                    self._refuse(row)
                    return {}
            groups.setdefault(index, []).append(row)
        return groups

    def _choose(self, row: int) -> int:
        """The step that a row is for; as many as there are where it is for none."""
        conditions = self.pool.conditions
        for index in range(self._next[row], len(conditions)):
            condition = conditions[index]
            if condition is None or holds(condition, self._look_up(condition.name, row)):
                return index
        return len(conditions)

    def _refuse(self, row: int) -> None:
        if self._error is not None:
            self.fail(self._error)
            return
        pool = self.pool
        what = f"row {row} of this request" if len(self._places) > 1 else "this request"
        conditions = "; ".join(step.when for step in pool.graph.steps)
        self.fail(SchemaMismatch(f'no step of "{pool.model}" is for {what}; there are those where {conditions}'))

    def _ask_for(self, index: int, rows: list[int]) -> None:
        pool = self.pool
        step, plan, member = pool.graph.steps[index], self._plans[index], pool.find_member(index)
        if plan is None or (step.soft and (member is None or not member.reachable)):
            self.lost(index, NotReady(f'step "{step.name}" of "{pool.model}" is not there now', retry_after_s=1.0))
            return
        inputs = self.feed(plan)
        if len(rows) < len(self._places):
            inputs = tuple([take_rows(tensor, rows) for tensor in inputs])
        self.ask(index, plan, inputs, optional=step.soft)

    def _look_up(self, name: str, row: int) -> Value | bytes | None:
        """A row's first value of an input, or a request parameter."""
        tensor = self.given.get(name)
        if tensor is None:
            value = self.pending.call.parameters.get(name)
            return value if isinstance(value, str | int | float) else None
        if len(self._places) == 1:
            return first_value(tensor)
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = first_values(tensor)
        return column[row]

    # --- the answer ---

    def _answer(self) -> None:
        if len(self._parts) == 1:
            self.finish(self.choose(self._parts[0]), [])
            return
        parts = [self.choose(part) for part in self._parts]
        outputs = [self.join([part[at] for part in parts], self._places) for at in range(len(self.wanted))]
        self.finish(tuple(outputs), [])


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


def first_values(tensor: Tensor) -> list[Value | bytes | None]:
    """The first element of each row, None where rows have none.

    >>> first_values(Tensor("x", "INT8", (2, 2), bytes([7, 0, 9, 0])))
    [7, 9]
    """
    rows = tensor.shape[0]
    if 0 in tensor.shape:
        return [None] * rows
    values: list[Value | bytes | None] = to_numpy(tensor).reshape(rows, -1)[:, 0].tolist()
    return values
