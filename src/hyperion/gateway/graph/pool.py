"""The pool of an endpoint that is a graph: it has no replicas, but runs each call through the pools of its members.

Made by `gateway/pools` where the snapshot names a graph. To everything in front of it (guard, cache, recovery, metrics,
deadlines) it is a pool like any other, and a request to it is recorded once, as the graph's.
"""

import asyncio
import time
from typing import Final

from hyperion.gateway.dispatch import internal_error
from hyperion.gateway.graph.cascade import CascadeRun
from hyperion.gateway.graph.ensemble import EnsembleRun
from hyperion.gateway.graph.pipeline import PipelineRun
from hyperion.gateway.graph.run import PARTIAL, Run
from hyperion.gateway.graph.switch import SwitchRun
from hyperion.gateway.pending import MODEL, PendingCall
from hyperion.gateway.pool import VersionPool
from hyperion.gateway.setting import PoolSetting
from hyperion.policy.admission import QueueState
from hyperion.policy.brownout import SOFT
from hyperion.policy.graph.condition import Condition, parse_condition
from hyperion.policy.graph.members import name_member
from hyperion.policy.graph.plan import StepPlan, plan_graph
from hyperion.policy.graph.signature import Unfit
from hyperion.schema.call import InferenceAnswer, Tensor
from hyperion.schema.errors import HyperionError, NotReady, RunnerLost
from hyperion.schema.model import Signature
from hyperion.schema.protect import Graph, GraphStep
from hyperion.schema.snapshot import ServedVersion

Plans = tuple[StepPlan | None, ...]

LOOK_S: Final = 0.01  # at members that are being started
MAX_PLANS: Final = 256  # callers choose outputs in any order
_KINDS: Final[dict[str, type[Run]]] = {
    "pipeline": PipelineRun,
    "ensemble": EnsembleRun,
    "switch": SwitchRun,
    "cascade": CascadeRun,
}


class GraphPool(VersionPool):
    """`find(model, version)` gives the pool that serves an endpoint or a member now, and raises HyperionError. Members
    that are endpoints with a rollout under way are asked for their default version."""

    def __init__(self, model: str, served: ServedVersion, setting: PoolSetting) -> None:
        assert served.graph is not None, "a graph is what makes it one"
        graph: Graph = served.graph
        self.graph = graph
        self.output_names = tuple([spec.name for spec in served.signature.outputs])
        self.deciding = graph.output or self.output_names[0]
        self.places = {step.name: index for index, step in enumerate(graph.steps)}
        self.conditions: list[Condition | None] = [
            parse_condition(step.when) if step.when else None for step in graph.steps
        ]
        self._find_pool = setting.find
        self._members = [_name(model, step) for step in graph.steps]
        self._given = [spec.name for spec in served.signature.inputs]
        self.book = setting.graphs
        self._runs: dict[PendingCall, Run] = {}
        self._plans: dict[tuple[tuple[str, ...], frozenset[str]], Plans] = {}
        self._planned: dict[str, Signature] = {}  # of the members, as the plans took them to be
        super().__init__(model, served, setting)
        self.remote = True  # its members are among the pools: it adds nothing to this gateway's readiness

    def _connect(self, setting: PoolSetting) -> "list[asyncio.Task[None]]":  # noqa: ARG002
        return [self._loop.create_task(self._wait_for_members())]

    async def _wait_for_members(self) -> None:
        while not self.ready:  # noqa: ASYNC110  members come and go: no event is that of all of them
            await asyncio.sleep(LOOK_S)
        self.connected.set()

    # --- its members ---

    def find_member(self, index: int) -> VersionPool | None:
        """The pool of a step, None where it is not served."""
        try:
            return self._find_pool(self._members[index], "")
        except HyperionError:
            return None

    def plan(self, wanted: tuple[str, ...], without: frozenset[str]) -> Plans:
        """What the steps do for these outputs, without those that are missing. Raises `Unfit`."""
        signatures: dict[str, Signature] = {}
        for index, step in enumerate(self.graph.steps):
            pool = self.find_member(index)
            if pool is not None:
                signatures[step.name] = pool.signature
        if signatures != self._planned:
            self._planned = signatures
            self._plans.clear()
        key = (wanted, without)
        plans = self._plans.get(key)
        if plans is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            there = {name: signature for name, signature in signatures.items() if name not in without}
            plans = self._plans[key] = plan_graph(self.graph, there, self._given, wanted, self.deciding)
        return plans

    def list_absent(self) -> list[str]:
        """Soft steps that cannot take part now, so that nobody need wait for them. While a member is so overloaded that
        it gives up what is optional, that is all of them, if there are others."""
        absent, soft, spared = [], [], False
        for index, step in enumerate(self.graph.steps):
            pool = self.find_member(index)
            spared = spared or (pool is not None and pool.brownout >= SOFT)
            if step.soft:
                soft.append(step.name)
                if pool is None or not pool.reachable:
                    absent.append(step.name)
        return soft if spared and len(soft) < len(self.graph.steps) else absent

    # --- state that others read ---

    @property
    def ready(self) -> bool:
        """Whether every member that has to answer can, and any member at all."""
        any_ready = False
        for index, step in enumerate(self.graph.steps):
            pool = self.find_member(index)
            if pool is not None and pool.ready:
                any_ready = True
            elif not step.soft:
                return False
        return any_ready

    @property
    def reachable(self) -> bool:
        any_reachable = False
        for index, step in enumerate(self.graph.steps):
            pool = self.find_member(index)
            if pool is not None and pool.reachable:
                any_reachable = True
            elif not step.soft:
                return False
        return any_reachable

    def queue_state(self) -> QueueState:
        """Nothing waits here: what waits, and what is refused, is the members'."""
        rows = sum([pending.rows for pending in self._runs])
        return QueueState(0, rows, 0, self._queue_rows, self._limits.max_rows, 0.0)

    @property
    def has_backlog(self) -> bool:
        return False

    @property
    def wait_matters(self) -> bool:
        return False

    # --- calls ---

    def enqueue(self, pending: PendingCall) -> None:
        pending.on_cancel = self._cancel
        run = _KINDS[self.graph.kind](self, pending)
        self._runs[pending] = run
        try:
            run.start()
        except Unfit as problem:
            run.fail(NotReady(f'"{self.model}" cannot answer now: {problem}', retry_after_s=1.0))
        except HyperionError as error:
            if not run.over:
                run.fail(error)
        except Exception as error:  # a bug of ours must cost this caller only
            self.broke(run, error)

    def finished_run(self, run: Run, outputs: tuple[Tensor, ...], fields: list[tuple[bytes, bytes]]) -> None:
        """For a run: this is the answer."""
        pending, served = run.pending, self.served
        if self._end_run(run) is None:
            return
        pending.served_by = PARTIAL if run.degraded else MODEL
        passed_ns = time.monotonic_ns() - pending.received_ns
        answer = InferenceAnswer(
            self.model,
            served.version,
            served.digest,
            outputs,
            pending.served_by,
            queue_ns=run.queue_ns,
            compute_ns=min(run.compute_ns, passed_ns),
            degraded=run.degraded,
        )
        if fields:
            pending.reply.add_fields(fields)
        self.answer_elsewhere(pending, answer)
        if self.counts is not None and pending.tally is not None:
            self.counts.answered([pending], outputs, time.monotonic_ns())
        self._close_if_drained()

    def failed_run(self, run: Run, error: HyperionError) -> None:
        """For a run: it cannot answer."""
        if self._end_run(run) is not None:
            self._fail(run.pending, error, None)
            self._close_if_drained()

    def broke(self, run: Run, error: Exception) -> None:
        """A run met something that must not be."""
        self._log.write("error", "graph broke", request_id=run.pending.request_id, error=repr(error))
        self.failed_run(run, internal_error(run.pending.request_id))

    def _end_run(self, run: Run) -> Run | None:
        ended = self._runs.pop(run.pending, None)
        run.stop()
        return ended

    def _cancel(self, pending: PendingCall) -> None:
        run = self._runs.get(pending)
        if run is not None:
            self._end_run(run)
        super()._cancel(pending)
        self._close_if_drained()

    def is_idle(self) -> bool:
        return not self._runs and super().is_idle()

    def look_at_deadlines(self, now_ns: int) -> None:
        for pending, run in tuple(self._runs.items()):
            if pending.deadline_ns <= now_ns:
                steps = run.list_busy()
                self._end_run(run)
                self._expire(pending, f"while the graph waited for {steps}")
            else:
                run.follow_deadline()
        self._close_if_drained()

    # --- connections ---

    def _close_if_drained(self) -> None:
        if self._retired and not self._runs:
            self.close()

    def close(self) -> None:
        for run in tuple(self._runs.values()):
            if self._end_run(run) is not None:
                self._fail(run.pending, RunnerLost("the gateway is closing; send the request again"), None)
        super().close()


def _name(owner: str, step: GraphStep) -> str:
    """The endpoint that a step calls."""
    return name_member(owner, step.name) if step.model else step.endpoint or step.upstream
