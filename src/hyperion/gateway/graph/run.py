"""One request on its way through a graph: which members are under way for it, and what becomes of their answers.

Made by `gateway/graph/pool` for each call; what the kinds of graphs do is in a file each (`gateway/graph/pipeline`,
`graph_ensemble`, `graph_switch`, `graph_cascade`). A member's call is a call of its own in the member's pool, so that
it is queued, merged and dispatched like any other; the caller's call stays open until the graph has its answer.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from hyperion.gateway.admit import admit
from hyperion.gateway.pending import INNER, PendingCall
from hyperion.policy.graph.plan import StepPlan
from hyperion.policy.graph.time import optional_ns
from hyperion.schema.call import InferenceAnswer, InferenceCall, Tensor
from hyperion.schema.errors import DeadlineExceeded, Fields, HyperionError, ModelFailed, NotReady, SchemaMismatch
from hyperion.wire.rows import merge_rows

if TYPE_CHECKING:
    from hyperion.gateway.graph.pool import GraphPool

MISSING: Final = b"x-hyperion-missing"
PARTIAL: Final = "partial"  # who served, where not all did that should have: nothing that is kept


class Run:
    """One request. `given` are its inputs by name, `wanted` the outputs that it is to have; `missing` the soft steps
    that could not take part; `degraded` says that the answer is a lesser one. Ends in `finish` or `fail`, once, unless
    it is stopped before."""

    __slots__ = (
        "_deadline_ns",
        "_under_way",
        "compute_ns",
        "degraded",
        "given",
        "missing",
        "over",
        "pending",
        "pool",
        "queue_ns",
        "wanted",
    )

    def __init__(self, pool: "GraphPool", pending: PendingCall) -> None:
        call = pending.call
        self.pool: Final = pool
        self.pending: Final = pending
        self.given: Final = {tensor.name: tensor for tensor in call.inputs}
        self.wanted: Final = call.outputs or pool.output_names
        self.missing: list[str] = []
        self.degraded = False
        self.over = False
        self.queue_ns = 0
        self.compute_ns = 0  # of all members together
        self._deadline_ns = pending.deadline_ns
        self._under_way: dict[int, PendingCall] = {}

    # --- what a kind of graph says ---

    def start(self) -> None:
        """Asks the first members."""
        raise NotImplementedError

    def got(self, index: int, answer: InferenceAnswer) -> None:
        """Step `index` has answered."""
        raise NotImplementedError

    def lost(self, index: int, error: HyperionError) -> None:
        """Step `index` will not answer."""
        raise NotImplementedError

    # --- what it does for that ---

    @property
    def busy(self) -> bool:
        """Whether a member is under way."""
        return bool(self._under_way)

    def list_busy(self) -> str:
        """The steps that are under way, for people."""
        names = [f'"{self.pool.graph.steps[index].name}"' for index in self._under_way]
        return f"step {', '.join(names)}" if names else "its steps"

    def ask(self, index: int, plan: StepPlan, inputs: tuple[Tensor, ...], optional: bool = False) -> None:
        """Gives the member of step `index` a call of its own. An `optional` one ends in time for an answer without it.
        A refusal goes to `lost`, maybe before this returns."""
        parent = self.pending
        now_ns = time.monotonic_ns()
        left_ns = parent.deadline_ns - now_ns
        if optional:
            left_ns = optional_ns(left_ns)
        pool = self.pool.find_member(index)
        if pool is None:
            name = self.pool.graph.steps[index].name
            self.lost(index, NotReady(f'step "{name}" of "{self.pool.model}" is not there now', retry_after_s=1.0))
            return
        if left_ns <= 0:
            self.lost(index, DeadlineExceeded("the deadline passed before all steps of the graph were asked"))
            return
        parameters = parent.call.parameters
        call = InferenceCall(pool.model, "", parent.call.id, inputs, plan.asks, parameters, parent.call.priority)
        reply = Member(self, index)
        inner = PendingCall(call, reply, INNER, parent.request_id, now_ns)
        inner.priority = parent.priority
        inner.caller = parent.caller
        inner.served = pool.served.version
        try:
            admit(pool, inner, left_ns)
        except HyperionError as error:
            self.lost(index, error)
            return
        self._under_way[index] = inner
        pool.enqueue(inner)

    def feed(self, plan: StepPlan) -> tuple[Tensor, ...]:
        """What a step takes of the request alone."""
        return tuple([named(self.given[feed.source.name], feed.tensor) for feed in plan.feeds])

    def choose(self, outputs: "dict[str, Tensor]") -> tuple[Tensor, ...]:
        """Those that the caller wants, of what one step gave. Raises ModelFailed."""
        chosen = []
        for name in self.wanted:
            tensor = outputs.get(name)
            if tensor is None:  # of a version that was planned for before it was replaced
                raise ModelFailed(f'no step of "{self.pool.model}" gave the output "{name}"')
            chosen.append(named(tensor, name))
        return tuple(chosen)

    def join(self, tensors: "list[Tensor]", places: "list[tuple[int, int]]") -> Tensor:
        """One output whose row i is row `places[i][1]` of `tensors[places[i][0]]`. Raises ModelFailed."""
        try:
            return merge_rows(tensors, places)
        except SchemaMismatch as error:
            raise ModelFailed(f'the steps of "{self.pool.model}" do not answer alike: {error.message}') from error

    def finish(self, outputs: tuple[Tensor, ...], fields: "list[tuple[bytes, bytes]]") -> None:
        """The graph's answer, with header fields."""
        for name in self.missing:
            self.pool.book.count_degraded(self.pool.model, name)
        if self.missing:
            self.degraded = True
            fields = [*fields, (MISSING, ",".join(self.missing).encode())]
        self.over = True
        self.pool.finished_run(self, outputs, fields)

    def fail(self, error: HyperionError) -> None:
        """The graph cannot answer."""
        self.over = True
        self.pool.failed_run(self, error)

    # --- told by the pool ---

    def stop(self) -> None:
        """Nobody waits any more: ends the members that are under way."""
        self.over = True
        under_way = list(self._under_way.values())
        self._under_way.clear()
        for inner in under_way:
            inner.cancel()

    def follow_deadline(self) -> None:
        """Others wait for the same answer now, and longer: so may its members."""
        before_ns, self._deadline_ns = self._deadline_ns, self.pending.deadline_ns
        if before_ns != self._deadline_ns:
            for inner in self._under_way.values():
                if inner.deadline_ns == before_ns:
                    inner.deadline_ns = self._deadline_ns

    # --- told by the members ---

    def answered(self, index: int, answer: InferenceAnswer) -> None:
        """A member has answered."""
        if self._under_way.pop(index, None) is None:
            return
        self.queue_ns = max(self.queue_ns, answer.queue_ns)
        self.compute_ns += answer.compute_ns
        self.degraded = self.degraded or answer.degraded
        try:
            self.got(index, answer)
        except HyperionError as error:
            if not self.over:
                self.fail(error)
        except Exception as error:  # a bug of ours, or arrays that do not go together: costs this caller only
            self.pool.broke(self, error)

    def failed(self, index: int, error: HyperionError) -> None:
        """A member has failed."""
        if self._under_way.pop(index, None) is not None and not self.over:
            self.lost(index, error)


class Member:
    """The `Reply` to one member's call."""

    __slots__ = ("_index", "_run")

    together = None

    def __init__(self, run: Run, index: int) -> None:
        self._run: Final = run
        self._index: Final = index

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        return self._run.pending.reply.headers

    def send(self, message: bytes) -> None:
        raise AssertionError(f"{len(message)} bytes that nobody wrote for a member")

    def answer(self, answer: InferenceAnswer) -> None:
        self._run.answered(self._index, answer)

    def fail(self, error: HyperionError) -> None:
        self._run.failed(self._index, error)

    def add_fields(self, fields: Fields) -> None:
        """What stands in front of a caller does not stand in front of a member."""


def see(plan: StepPlan, answer: InferenceAnswer) -> dict[str, Tensor]:
    """A step's outputs by the names that others see."""
    return {plan.names.get(tensor.name, tensor.name): tensor for tensor in answer.outputs}


def named(tensor: Tensor, name: str) -> Tensor:
    """The tensor under that name."""
    return tensor if tensor.name == name else Tensor(name, tensor.datatype, tensor.shape, tensor.data)
