"""Members from cheap to dear: each row is answered by the first one that is sure of it. Made by `gateway/graph/pool`.

Only the rows that a step is not sure of go on to the next, in the order in which they came; the answer has all rows in
their places, and a header field says which step answered how many. What is dearer is asked only where the deadline
leaves it time; otherwise the caller has the answer that is there, marked as degraded.
"""

import time
from struct import unpack
from typing import TYPE_CHECKING, Final

from hyperion.gateway.graph.run import Run, named, see
from hyperion.gateway.pending import PendingCall
from hyperion.policy.graph.cascade import find_unsure, find_unsure_in_array
from hyperion.policy.graph.plan import StepPlan
from hyperion.policy.graph.time import has_time
from hyperion.policy.latency import expect
from hyperion.schema.call import InferenceAnswer, Tensor
from hyperion.schema.errors import DeadlineExceeded, HyperionError, NotReady, Overloaded
from hyperion.schema.protect import Until
from hyperion.wire.rows import take_rows
from hyperion.wire.tensor import DATATYPES, to_numpy

if TYPE_CHECKING:
    from hyperion.gateway.graph.pool import GraphPool

CASCADE: Final = b"x-hyperion-cascade"
FEW_ELEMENTS: Final = 256  # up to here Python is faster than numpy
DEFAULT_UNTIL: Final = Until()


class CascadeRun(Run):
    """One request. `_places` has the step that answers each row so far, and the row's place in that step's answer."""

    __slots__ = ("_left", "_outputs", "_places", "_plans", "_rows")

    def __init__(self, pool: "GraphPool", pending: PendingCall) -> None:
        super().__init__(pool, pending)
        rows = pending.rows
        self._plans: tuple[StepPlan | None, ...] = ()
        self._left = list(range(rows))  # rows that the step under way has
        self._places: list[tuple[int, int]] = [(-1, -1)] * rows
        self._outputs: dict[int, dict[str, Tensor]] = {}  # of each step that answered
        self._rows: dict[int, list[int]] = {}  # and the rows that it was asked for, in their order

    def start(self) -> None:
        self._plans = self.pool.plan(self.wanted, frozenset())
        self._ask_from(0, None)

    def got(self, index: int, answer: InferenceAnswer) -> None:
        plan = self._plans[index]
        assert plan is not None, "it was asked"
        outputs = self._outputs[index] = see(plan, answer)
        self._rows[index] = self._left
        for place, row in enumerate(self._left):
            self._places[row] = (index, place)
        if index + 1 < len(self._plans):
            unsure = self._find_unsure(outputs[self.pool.deciding], self.pool.graph.steps[index].until)
            if unsure:
                self._left = [self._left[place] for place in unsure]
                self._ask_from(index + 1, None)
                return
        self._answer()

    def lost(self, index: int, error: HyperionError) -> None:
        step = self.pool.graph.steps[index]
        if step.soft:
            self.missing.append(step.name)
            self._ask_from(index + 1, error)
        elif self._outputs and isinstance(error, Overloaded | DeadlineExceeded):
            self._make_do_without(step.name)
        else:
            self.fail(error)

    # --- steps ---

    def _ask_from(self, index: int, error: HyperionError | None) -> None:
        """Gives the rows that are left to the next step. `error` is what kept the one before from answering."""
        pool = self.pool
        if index == len(self._plans):
            if self._outputs:
                self.degraded = True
                self._answer()
            else:
                self.fail(error or NotReady(f'"{pool.model}" has no step that answers', retry_after_s=1.0))
            return
        step, plan, member = pool.graph.steps[index], self._plans[index], pool.find_member(index)
        if plan is None or member is None or (step.soft and not member.reachable):
            self.lost(index, NotReady(f'step "{step.name}" of "{pool.model}" is not there now', retry_after_s=1.0))
            return
        if self._outputs:
            left_ns = self.pending.deadline_ns - time.monotonic_ns()
            if not has_time(left_ns, expect(member.curve, len(self._left))):
                self._make_do_without(step.name)
                return
        try:
            inputs = self._collect(plan)
        except KeyError:
            self.lost(index, NotReady(f'step "{step.name}" reads what a missing step answers', retry_after_s=1.0))
            return
        self.ask(index, plan, inputs, optional=bool(self._outputs))

    def _collect(self, plan: StepPlan) -> tuple[Tensor, ...]:
        """The inputs of a step, of the rows that are left. Raises KeyError where a step that it reads is missing."""
        whole = len(self._left) == len(self._places)
        inputs = []
        for feed in plan.feeds:
            source = feed.source
            if source.step:
                tensor = self._collect_answer(self.pool.places[source.step], source.name)
            else:
                tensor = self.given[source.name]
                if not whole:
                    tensor = take_rows(tensor, self._left)
            inputs.append(named(tensor, feed.tensor))
        return tuple(inputs)

    def _collect_answer(self, index: int, name: str) -> Tensor:
        """What an earlier step answered for the rows that are left: it was asked for all of them, and maybe more."""
        tensor, rows = self._outputs[index][name], self._rows[index]
        if len(rows) == len(self._left):
            return tensor
        places = {row: place for place, row in enumerate(rows)}
        return take_rows(tensor, [places[row] for row in self._left])

    def _find_unsure(self, scores: Tensor, until: Until | None) -> list[int]:
        """Places in the step's answer."""
        rows = len(self._left)
        until = until or DEFAULT_UNTIL
        columns = 1
        for length in scores.shape[1:] if self.pool.batched else scores.shape:
            columns *= length
        code = DATATYPES[scores.datatype].code
        if rows * columns <= FEW_ELEMENTS and code in ("e", "f", "d"):
            values = unpack(f"<{rows * columns}{code}", scores.data)
            return find_unsure([values[start : start + columns] for start in range(0, rows * columns, columns)], until)
        return find_unsure_in_array(to_numpy(scores).reshape(rows, columns), until)

    # --- the answer ---

    def _make_do_without(self, step: str) -> None:
        """Answers with what there is, as there is no time for this one."""
        self.degraded = True
        self.pool.book.count_degraded(self.pool.model, step)
        self._answer()

    def _answer(self) -> None:
        steps = self.pool.graph.steps
        counts = dict.fromkeys(range(len(steps)), 0)
        for index, _ in self._places:
            counts[index] += 1
        for index, count in counts.items():
            self.pool.book.count_rows(self.pool.model, steps[index].name, count)
        told = ",".join(f"{steps[index].name}={count}" for index, count in counts.items())
        self.finish(tuple([self._merge(name) for name in self.wanted]), [(CASCADE, told.encode())])

    def _merge(self, name: str) -> Tensor:
        """One output, each row from the step that answers it."""
        indexes = sorted({index for index, _ in self._places})
        if len(indexes) == 1:
            return named(self._outputs[indexes[0]][name], name)
        order = {index: number for number, index in enumerate(indexes)}
        tensors = [self._outputs[index][name] for index in indexes]
        return named(self.join(tensors, [(order[step], row) for step, row in self._places]), name)
