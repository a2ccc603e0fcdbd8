"""The queue of one model version: by priority with ageing, then fair by tenant, then earliest deadline first.

Filled by `gateway/pool`, which takes batches out when a replica has a free credit. Whose turn it is among tenants is
kept in `gateway/turns`, what makes a batch is decided by `policy/batching`. Never here: sockets, replies.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

from hyperion.gateway.front.caller import ANONYMOUS, Caller
from hyperion.gateway.pending import PendingCall
from hyperion.gateway.turns import Flow, Level, Total
from hyperion.policy.batching import BatchLimits, BatchPlan, plan_batch, virtual_arrival
from hyperion.policy.fairness import is_over_share, row_cost_ns, rows_ahead
from hyperion.policy.latency import LatencyCurve

CONTENDED_TAKES: Final = 256  # batches for which it is remembered that not all calls were of one kind of caller

Taken = tuple[list[PendingCall], list[PendingCall], bool]


class WaitingQueue(Total):
    """Waiting calls of one version. `rows` counts those that wait; groups set aside after a crash go first, alone.
    `contended` is positive while callers of several tenants or priorities were seen lately."""

    __slots__ = ("_last", "_last_caller", "_last_priority", "_levels", "_merge", "_suspects", "contended")

    def __init__(self, merge: bool) -> None:
        super().__init__()
        self._merge: Final = merge
        self._levels: dict[int, Level] = {0: Level(0, self)}
        self._last = self._levels[0].flow_of("", 1.0)  # where the last call went: mostly the next one goes there, too
        self._last_caller = ANONYMOUS
        self._last_priority = 0
        self._suspects: deque[list[PendingCall]] = deque()
        self.contended = 0

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def push(self, pending: PendingCall) -> None:
        """Adds a call at its place."""
        pending.order = pending.deadline_ns
        if pending.caller is not self._last_caller or pending.priority != self._last_priority:
            self._turn_to(pending.caller, pending.priority)
        flow = self._last
        lane = flow.lanes.get(pending.key)
        if lane is not None and lane and flow.rows and lane[-1].order <= pending.order:
            lane.append(pending)  # at the end, as nearly always
            rows = pending.rows
            flow.rows += rows
            flow.level.rows += rows
            self.rows += rows
        else:
            flow.push(pending)

    def _turn_to(self, caller: Caller, priority: int) -> None:
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = Level(priority, self)
        flow = level.flows.get(caller.tenant)
        if flow is None or flow.weight != caller.record.weight:
            flow = level.flow_of(caller.tenant, caller.record.weight)
        if flow is not self._last:
            self.contended = CONTENDED_TAKES
            self._last = flow
        self._last_caller = caller
        self._last_priority = priority

    def push_suspects(self, group: list[PendingCall]) -> None:
        """Adds calls that may only be computed together with each other, before everything else."""
        self._suspects.append(group)
        self.rows += sum(pending.rows for pending in group)

    # --- batches out ---

    def take(self, now_ns: int, curve: LatencyCurve, limits: BatchLimits) -> Taken:
        """The next batch, the calls that are too late, and whether the batch is of suspects."""
        while self._suspects:
            group = self._suspects.popleft()
            self.rows -= sum(pending.rows for pending in group)
            batch = [p for p in group if not p.done and p.deadline_ns > now_ns]
            late = [p for p in group if not p.done and p.deadline_ns <= now_ns]
            if batch or late:
                return batch, late, True
        if self.contended:
            self.contended -= 1
        flow = self._first_flow()
        lane = None
        while flow is not None:
            lane = flow.first_lane()
            if lane is not None:
                break
            flow = self._first_flow()  # all its calls had ended
        if flow is None or lane is None:
            return [], [], False
        if not self._merge or lane[0].stream:
            limits = BatchLimits(1, limits.max_bytes, limits.post_ns)
        if self.waiting > 1:
            return self._take_in_turn(flow, lane, now_ns, curve, limits)
        return _split(flow, lane, plan_batch(lane, now_ns, curve, limits))

    def _first_flow(self) -> Flow | None:
        """Whose turn it is: of the priorities, the one whose next call goes first for its age."""
        if self.waiting == 1 and self._last.rows:
            return self._last
        best: Flow | None = None
        best_order = 0
        for level in self._levels.values():
            flow = level.first() if level.waiting else None
            while flow is not None:
                lane = flow.first_lane()
                if lane is not None:
                    order = virtual_arrival(lane[0].received_ns, level.priority)
                    if best is None or order < best_order:
                        best, best_order = flow, order
                    break
                flow = level.first()
        return best

    def first_flow_with(self, key: object) -> Flow | None:
        """The same, of those with calls of that kind."""
        best: Flow | None = None
        best_order = 0
        for level in self._levels.values():
            flow = level.first_with(key) if level.waiting else None
            if flow is not None:
                order = virtual_arrival(flow.lanes[key][0].received_ns, level.priority)
                if best is None or order < best_order:
                    best, best_order = flow, order
        return best

    def _take_in_turn(
        self, flow: Flow, lane: deque[PendingCall], now_ns: int, curve: LatencyCurve, limits: BatchLimits
    ) -> Taken:
        """A batch of calls that may be merged with the one whose turn it is, from all who wait, in their turns."""
        row_ns = row_cost_ns(curve, limits.max_rows)
        turns = InTurn(self, flow, lane, row_ns)
        plan = plan_batch(turns, now_ns, curve, limits)
        if len(turns.served) < plan.seen:
            turns.serve()
        for level in self._levels.values():
            level.settle()
        batch, late = [], []
        more_ns = 0.0  # per row: a batch that was not full cost its rows more than was thought
        if self.waiting and 0 < plan.rows < limits.max_rows:
            more_ns = max(0.0, row_cost_ns(curve, plan.rows) - row_ns)
        positions = frozenset(plan.late)
        changed: set[Level] = set()
        for index, (flow, pending) in enumerate(turns.served):
            if index < plan.seen and index not in positions:
                batch.append(pending)
                if not more_ns:
                    continue
                flow.charge(pending.rows, more_ns)
            else:
                flow.charge(-pending.rows, row_ns)  # it cost nothing
                if index < plan.seen:
                    late.append(pending)
                else:
                    flow.push(pending)
            changed.add(flow.level)
        for level in changed:
            level.sort()
        return batch, late, False

    # --- who goes before whom ---

    def rows_ahead(self, priority: int, caller: Caller) -> int:
        """How many of the rows that wait would go before a newcomer of that kind."""
        rows = self.rows
        if self.waiting == 1 and caller is self._last_caller and priority == self._last_priority and self._last.rows:
            return rows
        for level in self._levels.values():
            if level.priority >= priority:
                rows -= level.rows
        own = self._levels.get(priority)
        if own is None or not own.rows:
            return rows
        weight = caller.record.weight
        flow = own.flows.get(caller.tenant)
        if flow is None or not flow.rows:
            return rows + rows_ahead(own.rows, 0, weight, own.weight + weight)
        return rows + rows_ahead(own.rows, flow.rows, flow.weight, own.weight)

    def give_way(self, priority: int, caller: Caller, rows: int) -> PendingCall | None:
        """Takes out the newest call of the lowest priority, and there of the tenant that is over its share the most,
        if it is less urgent than a newcomer of that kind; `rows` are all that the newcomer's tenant would have waiting
        at its priority. None if everybody who waits has as much right to."""
        lane = self._least_urgent(priority, caller, rows)
        if lane is None:
            return None
        flow, calls = lane
        pending = calls.pop()
        flow.lose(pending.rows)
        return pending

    def gives_way(self, priority: int, caller: Caller, rows: int) -> bool:
        """Whether there is such a call for a newcomer of `rows` rows."""
        level = self._levels.get(priority)
        flow = None if level is None else level.flows.get(caller.tenant)
        own = 0 if flow is None else flow.rows
        return self._least_urgent(priority, caller, own + rows) is not None

    def own_rows(self, priority: int, caller: Caller) -> int:
        """Rows that wait of the caller's tenant at that priority."""
        level = self._levels.get(priority)
        flow = None if level is None else level.flows.get(caller.tenant)
        return 0 if flow is None else flow.rows

    def _least_urgent(self, priority: int, caller: Caller, rows: int) -> tuple[Flow, deque[PendingCall]] | None:
        for lowest in sorted(self._levels, reverse=True):
            if lowest < priority:
                return None
            level = self._levels[lowest]
            if not level.rows:
                continue
            flow = level.most_over_share()
            while flow is not None and flow.rows:
                if lowest == priority:
                    weight = caller.record.weight
                    if flow.tenant == caller.tenant or not is_over_share(flow.rows, flow.weight, rows, weight):
                        return None
                lane = flow.newest()
                if lane is not None:
                    return flow, lane
                flow = level.most_over_share()
        return None

    # --- ends ---

    def expire(self, now_ns: int) -> list[PendingCall]:
        """Takes out and returns every call whose deadline has passed; ended ones go without a word."""
        late = [pending for pending in self if not pending.done and pending.deadline_ns <= now_ns]
        if late or any(pending.done for pending in self):
            gone = set(map(id, late))
            for flow in self._flows():
                if flow.rows:
                    flow.keep(gone)
            before = sum([pending.rows for group in self._suspects for pending in group])
            groups = ([p for p in group if id(p) not in gone and not p.done] for group in self._suspects)
            self._suspects = deque(group for group in groups if group)
            self.rows -= before - sum([pending.rows for group in self._suspects for pending in group])
        return late

    def drain(self) -> list[PendingCall]:
        """Takes everything out."""
        left = [pending for pending in self if not pending.done]
        everything = set(map(id, left))
        for flow in self._flows():
            if flow.rows:
                flow.keep(everything)
        self._suspects.clear()
        self.rows = 0
        return left

    def _flows(self) -> list[Flow]:
        return [flow for level in self._levels.values() for flow in level.flows.values()]

    def __iter__(self) -> Iterator[PendingCall]:
        for flow in self._flows():
            for lane in flow.lanes.values():
                yield from lane
        for group in self._suspects:
            yield from group


class InTurn:
    """The calls that may be merged with the head of `lane`, in their turns. Each is taken out of the queue when the
    next one is asked for; the last one by `serve`, if it was wanted."""

    __slots__ = ("_flow", "_key", "_lane", "_queue", "_row_ns", "_started", "served")

    def __init__(self, queue: WaitingQueue, flow: Flow, lane: deque[PendingCall], row_ns: float) -> None:
        self.served: list[tuple[Flow, PendingCall]] = []
        self._queue: Final = queue
        self._key: Final = lane[0].key
        self._row_ns: Final = row_ns
        self._flow = flow
        self._lane = lane
        self._started = False

    def __iter__(self) -> "InTurn":
        return self

    def __next__(self) -> PendingCall:
        if self._started:
            self.serve()
            flow = self._queue.first_flow_with(self._key)
            if flow is None:
                raise StopIteration
            self._flow, self._lane = flow, flow.lanes[self._key]
        self._started = True
        return self._lane[0]

    def serve(self) -> None:
        """Takes out the call that was offered last."""
        flow = self._flow
        pending = self._lane.popleft()
        flow.lose(pending.rows)
        flow.level.serve(flow, pending.rows, self._row_ns)
        self.served.append((flow, pending))


def _split(flow: Flow, lane: deque[PendingCall], plan: BatchPlan) -> Taken:
    """As planned for a lane with which no other one competes."""
    seen = [lane.popleft() for _ in range(plan.seen)]
    flow.lose(sum([pending.rows for pending in seen]))
    if not plan.late:
        return [pending for pending in seen if not pending.done], [], False
    positions = frozenset(plan.late)
    batch = [pending for index, pending in enumerate(seen) if index not in positions and not pending.done]
    return batch, [seen[index] for index in plan.late if not seen[index].done], False
