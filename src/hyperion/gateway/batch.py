"""The queue of one model version: calls in order of virtual deadline, in one lane per kind of call that may be merged.

Filled by `gateway/pool`, which takes batches out when a replica has a free credit. What makes a batch is decided by
`policy/batching`. Never here: sockets, replies.
"""

from bisect import insort
from collections import deque
from collections.abc import Iterator
from operator import attrgetter

from hyperion.gateway.pending import PendingCall
from hyperion.policy.batching import BatchLimits, BatchPlan, plan_batch, virtual_deadline
from hyperion.policy.latency import LatencyCurve

_order = attrgetter("order")


class WaitingQueue:
    """Waiting calls of one version. `rows` counts those that wait; groups set aside after a crash go first, alone."""

    def __init__(self, merge: bool) -> None:
        self._merge = merge
        self._lanes: dict[object, deque[PendingCall]] = {}
        self._suspects: deque[list[PendingCall]] = deque()
        self.rows = 0

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values())) + sum(map(len, self._suspects))

    def push(self, pending: PendingCall) -> None:
        """Adds a call at its place; nearly always that is the end."""
        pending.order = virtual_deadline(pending.deadline_ns, pending.call.priority)
        lane = self._lanes.get(pending.key)
        if lane is None:
            lane = self._lanes[pending.key] = deque()
        if not lane or lane[-1].order <= pending.order:
            lane.append(pending)
        else:
            insort(lane, pending, key=_order)
        self.rows += pending.rows

    def push_suspects(self, group: list[PendingCall]) -> None:
        """Adds calls that may only be computed together with each other, before everything else."""
        self._suspects.append(group)
        self.rows += sum(pending.rows for pending in group)

    def take(
        self, now_ns: int, curve: LatencyCurve, limits: BatchLimits
    ) -> tuple[list[PendingCall], list[PendingCall], bool]:
        """The next batch, the calls that are too late, and whether the batch is of suspects."""
        while self._suspects:
            group = self._suspects.popleft()
            self.rows -= sum(pending.rows for pending in group)
            batch = [p for p in group if not p.done and p.deadline_ns > now_ns]
            late = [p for p in group if not p.done and p.deadline_ns <= now_ns]
            if batch or late:
                return batch, late, True
        lane = self._first_lane()
        if lane is None:
            return [], [], False
        limits = limits if self._merge and not lane[0].stream else BatchLimits(1, limits.max_bytes, limits.post_ns)
        return (*self._split(lane, plan_batch(lane, now_ns, curve, limits)), False)

    def _first_lane(self) -> deque[PendingCall] | None:
        """The lane whose head is the most urgent, without calls that have ended at the heads of lanes."""
        best: deque[PendingCall] | None = None
        for key in tuple(self._lanes) if len(self._lanes) > 1 else self._lanes:
            lane = self._lanes[key]
            while lane and lane[0].done:
                self.rows -= lane.popleft().rows
            if lane and (best is None or lane[0].order < best[0].order):
                best = lane
            elif not lane and len(self._lanes) > 1:
                del self._lanes[key]
        return best

    def _split(self, lane: deque[PendingCall], plan: BatchPlan) -> tuple[list[PendingCall], list[PendingCall]]:
        seen = [lane.popleft() for _ in range(plan.seen)]
        for pending in seen:
            self.rows -= pending.rows
        if not plan.late:
            return [pending for pending in seen if not pending.done], []
        positions = frozenset(plan.late)
        batch = [pending for index, pending in enumerate(seen) if index not in positions and not pending.done]
        return batch, [seen[index] for index in plan.late if not seen[index].done]

    def expire(self, now_ns: int) -> list[PendingCall]:
        """Takes out and returns every call whose deadline has passed; ended ones go without a word."""
        late = [pending for pending in self if not pending.done and pending.deadline_ns <= now_ns]
        if late or any(pending.done for pending in self):
            gone = set(map(id, late))
            for key, lane in self._lanes.items():
                self._lanes[key] = deque(p for p in lane if id(p) not in gone and not p.done)
            groups = ([p for p in group if id(p) not in gone and not p.done] for group in self._suspects)
            self._suspects = deque(group for group in groups if group)
            self.rows = sum(pending.rows for pending in self)
        return late

    def drain(self) -> list[PendingCall]:
        """Takes everything out."""
        left = [pending for pending in self if not pending.done]
        self._lanes.clear()
        self._suspects.clear()
        self.rows = 0
        return left

    def __iter__(self) -> Iterator[PendingCall]:
        for lane in self._lanes.values():
            yield from lane
        for group in self._suspects:
            yield from group
