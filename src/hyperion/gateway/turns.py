"""Whose turn it is in a queue: the waiting calls of one tenant at one priority, and all tenants of one priority.

Used by `gateway/batch` alone. Within a tenant the earliest deadline is first, among tenants the one with the smallest
tag (`policy/fairness`). Never here: the choice among priorities, what makes a batch.
"""

from bisect import insort
from collections import deque
from heapq import heapify, heappop, heappush, heapreplace
from operator import attrgetter
from typing import Final

from hyperion.gateway.pending import PendingCall
from hyperion.policy.fairness import LEAST_WEIGHT, next_tag, start_tag

MAX_RESTING: Final = 64  # tenants that are remembered though none of their calls wait

_order = attrgetter("order")

Turn = tuple[float, int, "Flow"]


class Total:
    """What all levels of one queue count together: rows, and flows that wait."""

    __slots__ = ("rows", "waiting")

    def __init__(self) -> None:
        self.rows = 0
        self.waiting = 0


class Flow:
    """The waiting calls of one tenant at one priority, in one lane per kind of call that may be merged. `rows` are
    theirs, `start` is its tag; `turn` is the number of the heap's entry that holds for it."""

    __slots__ = ("lanes", "level", "rows", "start", "tenant", "turn", "weight")

    def __init__(self, level: "Level", tenant: str, weight: float) -> None:
        self.level: Final = level
        self.tenant: Final = tenant
        self.weight = weight
        self.lanes: dict[object, deque[PendingCall]] = {}
        self.rows = 0
        self.start = level.virtual
        self.turn = 0

    def push(self, pending: PendingCall) -> None:
        """Adds a call at its place; nearly always that is the end."""
        lane = self.lanes.get(pending.key)
        if lane is None:
            lane = self.lanes[pending.key] = deque()
        if not lane or lane[-1].order <= pending.order:
            lane.append(pending)
        else:
            insort(lane, pending, key=_order)
        rows = pending.rows
        level = self.level
        if not self.rows:
            level.enter(self)
        self.rows += rows
        level.rows += rows
        level.total.rows += rows

    def lose(self, rows: int) -> None:
        """So many rows of it wait no longer."""
        level = self.level
        self.rows -= rows
        level.rows -= rows
        level.total.rows -= rows
        if rows and not self.rows:
            level.leave(self)

    def charge(self, rows: int, row_ns: float) -> None:
        """Moves its tag on by what so many rows cost."""
        start = self.start = next_tag(self.start, rows, row_ns, self.weight)
        if start > self.level.latest:
            self.level.latest = start

    def live_lane(self, key: object) -> deque[PendingCall] | None:
        """The calls of that kind, without those at the head that have ended; None if there are none."""
        lane = self.lanes.get(key)
        if lane is None:
            return None
        while lane and lane[0].done:
            self.lose(lane.popleft().rows)
        return lane or None

    def first_lane(self) -> deque[PendingCall] | None:
        """The lane whose head is the most urgent."""
        best: deque[PendingCall] | None = None
        for key in tuple(self.lanes) if len(self.lanes) > 1 else self.lanes:
            lane = self.lanes[key]
            while lane and lane[0].done:
                self.lose(lane.popleft().rows)
            if lane and (best is None or lane[0].order < best[0].order):
                best = lane
            elif not lane and len(self.lanes) > 1:
                del self.lanes[key]
        return best

    def newest(self) -> deque[PendingCall] | None:
        """The lane whose end is the least urgent, without calls that have ended at the ends of lanes."""
        best: deque[PendingCall] | None = None
        for lane in self.lanes.values():
            while lane and lane[-1].done:
                self.lose(lane.pop().rows)
            if lane and (best is None or lane[-1].order > best[-1].order):
                best = lane
        return best

    def keep(self, gone: set[int]) -> None:
        """Leaves out the calls whose ids are in `gone` and those that have ended."""
        rows = 0
        for key, lane in self.lanes.items():
            kept = self.lanes[key] = deque(p for p in lane if id(p) not in gone and not p.done)
            rows += sum([pending.rows for pending in kept])
        if rows < self.rows:
            self.lose(self.rows - rows)


class Level:
    """All tenants of one priority. `virtual` is the tag of what was served last, `latest` the largest that any of
    them has had, `weight` that of all who wait."""

    __slots__ = (
        "_aside",
        "_number",
        "_turns",
        "flows",
        "latest",
        "priority",
        "rows",
        "total",
        "virtual",
        "waiting",
        "weight",
    )

    def __init__(self, priority: int, total: Total) -> None:
        self.priority: Final = priority
        self.total: Final = total
        self.flows: dict[str, Flow] = {}
        self.rows = 0
        self.waiting = 0  # flows with calls
        self.weight = 0.0
        self.virtual = 0.0
        self.latest = 0.0
        self._number = 0
        self._turns: list[Turn] = []  # a heap; kept where there is more than one flow
        self._aside: list[Turn] = []

    def flow_of(self, tenant: str, weight: float) -> Flow:
        """The tenant's flow, with that weight from now on."""
        flow = self.flows.get(tenant)
        if flow is None:
            if len(self.flows) > MAX_RESTING and len(self.flows) > 2 * self.waiting:
                self._forget()
            flow = self.flows[tenant] = Flow(self, tenant, weight)
            if len(self.flows) == 2:
                self.sort()
        elif flow.weight != weight:
            if flow.rows:
                self.weight += weight - flow.weight
            flow.weight = weight
        return flow

    def _forget(self) -> None:
        """Forgets who neither waits nor is ahead of the others."""
        for tenant, flow in list(self.flows.items()):
            if not flow.rows and flow.start <= self.virtual:
                del self.flows[tenant]

    def enter(self, flow: Flow) -> None:
        """Its first call begins to wait."""
        self.waiting += 1
        self.total.waiting += 1
        self.weight += flow.weight
        flow.start = start_tag(flow.start, self.virtual)
        if len(self.flows) > 1:
            self._number += 1
            flow.turn = self._number
            heappush(self._turns, (flow.start, flow.turn, flow))

    def leave(self, flow: Flow) -> None:
        """Its last call waits no longer."""
        self.waiting -= 1
        self.total.waiting -= 1
        self.weight -= flow.weight
        if not self.waiting:
            self.weight = 0.0  # exactly
            self.virtual = self.latest  # everybody was served: nobody is ahead or behind any more
            self._turns.clear()

    def first(self) -> Flow | None:
        """The flow whose turn it is."""
        if len(self.flows) > 1:
            turns = self._turns
            while turns:
                _, number, flow = turns[0]
                if flow.rows and number == flow.turn:
                    return flow
                heappop(turns)
            return None
        for flow in self.flows.values():
            return flow if flow.rows else None
        return None

    def first_with(self, key: object) -> Flow | None:
        """The flow with calls of that kind whose turn it is. Others are set aside until `settle`."""
        if len(self.flows) == 1:
            flow = self.first()
            return flow if flow is not None and flow.live_lane(key) is not None else None
        turns = self._turns
        while turns:
            _, number, flow = turns[0]
            if not flow.rows or number != flow.turn:
                heappop(turns)
                continue
            lane = flow.lanes.get(key)
            if lane and (not lane[0].done or flow.live_lane(key) is not None):
                return flow
            if flow.rows:
                self._aside.append(heappop(turns))
        return None

    def serve(self, flow: Flow, rows: int, row_ns: float) -> None:
        """The flow, whose turn it is, has given away so many rows."""
        start = flow.start
        if start > self.virtual:
            self.virtual = start
        flow.charge(rows, row_ns)
        if len(self.flows) > 1 and self._turns:
            if flow.rows:
                self._number += 1
                flow.turn = self._number
                heapreplace(self._turns, (flow.start, flow.turn, flow))
            else:
                heappop(self._turns)

    def most_over_share(self) -> Flow | None:
        """The flow with the most waiting rows for its weight."""
        return max(self.flows.values(), key=_excess, default=None)

    def settle(self) -> None:
        """Puts back what was set aside."""
        while self._aside:
            heappush(self._turns, self._aside.pop())

    def sort(self) -> None:
        """Makes the heap anew: tags have changed."""
        self._turns = []
        self._aside.clear()
        for flow in self.flows.values():
            if flow.rows:
                self._number += 1
                flow.turn = self._number
                self._turns.append((flow.start, flow.turn, flow))
        heapify(self._turns)


def _excess(flow: Flow) -> float:
    return flow.rows / max(flow.weight, LEAST_WEIGHT)
