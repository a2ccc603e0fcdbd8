"""Fair queues: whose calls make the next batch where tenants and priorities wait for the same model, and who leaves."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.gateway.batch import CONTENDED_TAKES, WaitingQueue
from hyperion.gateway.front.caller import Caller
from hyperion.gateway.pending import UNHEARD, PendingCall
from hyperion.gateway.turns import MAX_RESTING
from hyperion.policy.batching import AGEING_NS, BatchLimits
from hyperion.policy.latency import LatencyCurve
from hyperion.schema.call import InferenceCall
from hyperion.schema.protect import TenantRecord

FAR = 1 << 50
LIMITS = BatchLimits(8, 1 << 20, 0)
ONE = BatchLimits(1, 1 << 20, 0)
INSTANT = LatencyCurve()


def caller(tenant: str, weight: float = 1.0) -> Caller:
    return Caller(tenant, f"key:{tenant}", frozenset(), TenantRecord(tenant, weight=weight))


WHO = {name: caller(name, weight) for name, weight in (("a", 1.0), ("b", 1.0), ("c", 3.0), ("d", 0.5))}


def a_call(
    tenant: str = "a",
    rows: int = 1,
    deadline_ns: int = FAR,
    kind: int = 0,
    priority: int = 0,
    stream: bool = False,
    received_ns: int = 0,
) -> PendingCall:
    call = InferenceCall("m", "", "", (), priority=priority)
    made = PendingCall(call, UNHEARD, "http", f"{tenant}{rows}", received_ns, deadline_ns, rows, rows, stream)
    made.key = (kind, stream)
    made.caller = WHO[tenant]
    return made


def filled(*groups: tuple[int, dict[str, Any]], merge: bool = True) -> WaitingQueue:
    """A queue with so many calls of each kind, in that order."""
    queue = WaitingQueue(merge)
    for count, how in groups:
        for _ in range(count):
            queue.push(a_call(**how))
    return queue


def tenants(calls: list[PendingCall]) -> Counter[str]:
    return Counter(call.caller.tenant for call in calls)


# --- batches ---


def test_a_newcomer_is_in_the_next_batch_however_much_another_tenant_has_waiting() -> None:
    queue = filled((500, {"tenant": "a"}), (1, {"tenant": "b"}))
    batch, late, _ = queue.take(0, INSTANT, LIMITS)
    assert (tenants(batch), late) == ({"a": 7, "b": 1}, [])


def test_a_batch_holds_the_waiting_tenants_by_their_weights() -> None:
    queue = filled((100, {"tenant": "a"}), (100, {"tenant": "b"}), (100, {"tenant": "c"}))
    seen = Counter[str]()
    for _ in range(10):
        seen += tenants(queue.take(0, INSTANT, LIMITS)[0])
    assert seen.total() == 80
    assert all(abs(seen[name] - 80 * weight / 5) <= 3 for name, weight in (("a", 1), ("b", 1), ("c", 3)))


def test_large_calls_count_for_their_rows() -> None:
    queue = filled((100, {"tenant": "a", "rows": 4}), (100, {"tenant": "b", "rows": 1}))
    rows = Counter[str]()
    for _ in range(10):
        for call in queue.take(0, INSTANT, LIMITS)[0]:
            rows[call.caller.tenant] += call.rows
    assert abs(rows["a"] - rows["b"]) <= 8


def test_calls_that_nobody_can_share_a_batch_with_cost_a_whole_one() -> None:
    """Who sends every request with parameters of its own gets half of the time, not half of the rows."""
    queue = WaitingQueue(merge=True)
    for kind in range(200):
        queue.push(a_call("a", kind=kind + 1))
    for _ in range(400):
        queue.push(a_call("b"))
    curve = LatencyCurve(base_ns=1e6)  # a batch takes as long whatever is in it
    batches = [tenants(queue.take(0, curve, LIMITS)[0]) for _ in range(40)]
    assert 15 <= sum("a" in batch for batch in batches) <= 25
    assert all(batch["b"] == 8 for batch in batches if "b" in batch)


def test_within_a_tenant_the_earliest_deadline_is_first() -> None:
    queue = WaitingQueue(merge=False)
    for index in range(6):
        queue.push(a_call("a", rows=1 + index, deadline_ns=FAR - index))
        queue.push(a_call("b", rows=1 + index, deadline_ns=FAR - 10 + index))
    order = [queue.take(0, INSTANT, ONE)[0][0] for _ in range(12)]
    assert [call.rows for call in order if call.caller is WHO["a"]] == [6, 5, 4, 3, 2, 1]
    assert [call.rows for call in order if call.caller is WHO["b"]] == [1, 2, 3, 4, 5, 6]


def test_a_higher_priority_goes_first_whoever_has_it() -> None:
    queue = filled((3, {"tenant": "a", "priority": 3}), (20, {"tenant": "b"}), (1, {"tenant": "b", "priority": 3}))
    assert [tenants(queue.take(0, INSTANT, LIMITS)[0]) for _ in range(2)] == [{"b": 8}, {"b": 8}]
    assert tenants(queue.take(0, INSTANT, LIMITS)[0]) == {"b": 5, "a": 3}


def test_a_low_priority_that_has_waited_long_enough_goes_before_a_high_one() -> None:
    for age_ns, first in ((2 * AGEING_NS + 1, "a"), (2 * AGEING_NS - 1, "b")):
        queue = filled((1, {"tenant": "a", "priority": 2}), merge=False)
        for _ in range(9):
            queue.push(a_call("b", received_ns=age_ns))
        assert tenants(queue.take(0, INSTANT, ONE)[0]) == {first: 1}


@pytest.mark.parametrize("merge", [True, False])
def test_a_short_deadline_buys_no_priority(merge: bool) -> None:
    """Or whoever may have the lowest priority only would go first by saying that it is in a hurry."""
    queue = filled((3, {"tenant": "a", "priority": 9, "deadline_ns": 1_000}), merge=merge)
    for _ in range(9):
        queue.push(a_call("b", received_ns=1))
    assert tenants(queue.take(0, INSTANT, LIMITS if merge else ONE)[0]) == {"b": 8 if merge else 1}


def test_what_is_too_late_is_not_charged_for() -> None:
    queue = filled((40, {"tenant": "a", "deadline_ns": 5}), (40, {"tenant": "a"}), (40, {"tenant": "b"}))
    slow = LatencyCurve(base_ns=10.0)
    served, late = Counter[str](), 0
    for _ in range(5):
        batch, gone, _ = queue.take(0, slow, LIMITS)
        served += tenants(batch)
        late += len(gone)
    assert late == 40
    assert abs(served["a"] - served["b"]) <= 2


def test_where_nobody_can_be_in_time_one_is_tried_and_the_others_keep_their_places() -> None:
    queue = filled((3, {"tenant": "a", "deadline_ns": 50}), (3, {"tenant": "b", "deadline_ns": 50}))
    batch, late, _ = queue.take(0, LatencyCurve(base_ns=1e6), LIMITS)
    assert (len(batch), len(late), queue.rows) == (1, 0, 5)
    assert tenants(list(queue)) + tenants(batch) == {"a": 3, "b": 3}


def test_a_full_batch_is_closed_late_only_where_others_may_come() -> None:
    queue = filled((20, {"tenant": "a"}))
    assert queue.contended  # nobody was there before, so "a" is another one
    while queue.contended:
        queue.push(a_call("a"))
        queue.take(0, INSTANT, ONE)
    queue.push(a_call("a"))
    assert queue.contended == 0
    queue.push(a_call("b"))
    assert queue.contended == CONTENDED_TAKES


def test_tenants_that_come_once_are_forgotten() -> None:
    queue = WaitingQueue(merge=True)
    for number in range(1000):
        for name in (f"t{number}", "a"):
            call = a_call("a")
            call.caller = caller(name)
            queue.push(call)
        queue.take(0, INSTANT, LIMITS)
    assert len(queue._flows()) <= MAX_RESTING + 3


def test_a_new_weight_holds_from_the_next_call_on() -> None:
    queue = filled((50, {"tenant": "a"}), (50, {"tenant": "b"}))
    heavier = a_call("a")
    heavier.caller = caller("a", weight=7.0)
    queue.push(heavier)
    batches = sum([tenants(queue.take(0, INSTANT, LIMITS)[0]) for _ in range(3)], Counter[str]())
    assert batches["a"] >= 20


# --- properties ---

CALLS = st.builds(
    a_call,
    st.sampled_from("abcd"),
    st.integers(1, 9),
    st.integers(0, 100),
    st.integers(0, 2),
    st.integers(0, 2),
    st.booleans(),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), CALLS),
        st.tuples(st.just("push"), CALLS),
        st.tuples(st.just("suspects"), st.lists(CALLS, min_size=1, max_size=3)),
        st.tuples(st.just("take"), st.integers(0, 100)),
        st.tuples(st.just("expire"), st.integers(0, 100)),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.tuples(st.just("room"), CALLS),
        st.tuples(st.just("drain"), st.none()),
    ),
    max_size=60,
)


@given(STEPS, st.booleans(), st.sampled_from([0.0, 30.0]))
def test_whatever_happens_each_call_leaves_once_and_everything_is_counted(
    steps: list[tuple[str, Any]], merge: bool, base_ns: float
) -> None:
    queue = WaitingQueue(merge)
    inside: dict[int, PendingCall] = {}
    curve = LatencyCurve(base_ns=base_ns)

    def gone(calls: list[PendingCall]) -> None:
        for call in calls:
            assert not call.done
            del inside[id(call)]

    def take(now_ns: int) -> None:
        waiting = any(not call.done for call in queue)
        calls, late, suspects = queue.take(now_ns, curve, LIMITS)
        assert suspects or len({call.key for call in calls}) <= 1
        assert suspects or sum(call.rows for call in calls) <= 8 or len(calls) == 1
        assert waiting == bool(calls or late)  # work conserving
        gone(calls + late)

    for verb, what in steps:
        if verb == "push":
            queue.push(what)
            inside[id(what)] = what
        elif verb == "suspects":
            queue.push_suspects(what)
            inside.update((id(call), call) for call in what)
        elif verb == "take":
            take(what)
        elif verb == "expire":
            gone(queue.expire(what))
            assert all(call.deadline_ns > what and not call.done for call in queue)
        elif verb == "leave" and inside:
            list(inside.values())[what % len(inside)].done = True
        elif verb == "room":
            rows = queue.own_rows(what.priority, what.caller) + what.rows
            foreseen = queue.gives_way(what.priority, what.caller, what.rows)
            victim = queue.give_way(what.priority, what.caller, rows)
            assert foreseen == (victim is not None)
            if victim is not None:
                assert (victim.priority, victim.caller) != (what.priority, what.caller)
                assert victim.priority >= what.priority
                gone([victim])
        elif verb == "drain":
            gone(queue.drain())
            assert queue.rows == len(queue) == 0
        assert queue.rows == sum(call.rows for call in queue)
        assert queue.waiting == len([flow for flow in queue._flows() if flow.rows])
        assert 0 <= queue.rows_ahead(1, WHO["a"]) <= queue.rows
        for call in [call for call in inside.values() if call.done]:
            if all(call is not other for other in queue):
                del inside[id(call)]
    while queue.rows:
        take(0)
    assert all(call.done for call in inside.values())


ARRIVALS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 4)), min_size=1, max_size=30)


@given(st.lists(ARRIVALS, min_size=1, max_size=20), st.integers(1, 8))
def test_tenants_that_wait_all_the_time_get_their_shares_whatever_the_others_do(
    turns: list[list[tuple[str, int]]], most: int
) -> None:
    """Between any two batches: two of them differ, per weight, by no more than the rows of a batch and a call."""
    queue = WaitingQueue(merge=True)
    served: Counter[str] = Counter()
    limits = BatchLimits(most, 1 << 20, 0)
    for _ in range(400):
        queue.push(a_call("a"))
        queue.push(a_call("c"))
    for arrivals in turns:
        for tenant, rows in arrivals:
            if tenant in "bd":
                queue.push(a_call(tenant, rows))
        for call in queue.take(0, INSTANT, limits)[0]:
            served[call.caller.tenant] += call.rows
        assert abs(served["a"] - served["c"] / 3) <= 2
    assert queue.own_rows(0, WHO["a"]) == 400 - served["a"]


@given(st.integers(1, 200), st.integers(0, 4), st.integers(1, 8))
def test_nobody_starves(others: int, priority: int, most: int) -> None:
    """A call of low priority is served before those of a higher one that come so much later."""
    queue = WaitingQueue(merge=True)
    mine = a_call("d", priority=priority)
    queue.push(mine)
    later_ns = 1 + priority * AGEING_NS
    for _ in range(others):
        queue.push(a_call("a", deadline_ns=1_000, received_ns=later_ns))
    batch, _, _ = queue.take(0, INSTANT, BatchLimits(most, 1 << 20, 0))
    assert batch[0] is mine


# --- who leaves ---


def room_for(queue: WaitingQueue, call: PendingCall) -> PendingCall | None:
    return queue.give_way(call.priority, call.caller, queue.own_rows(call.priority, call.caller) + call.rows)


def test_the_newest_of_the_lowest_priority_leaves_first() -> None:
    queue = filled((2, {"tenant": "b", "priority": 5}), (3, {"tenant": "a", "priority": 7}))
    newest = a_call("a", deadline_ns=FAR + 1, priority=7)
    queue.push(newest)
    assert room_for(queue, a_call("d", priority=6)) is newest
    left = [room_for(queue, a_call("d", priority=6)) for _ in range(4)]
    assert [None if call is None else call.priority for call in left] == [7, 7, 7, None]


def test_of_the_same_priority_the_tenant_leaves_that_is_over_its_share() -> None:
    queue = filled((6, {"tenant": "a"}), (9, {"tenant": "c"}))
    left = []
    for _ in range(9):
        victim = room_for(queue, a_call("b"))
        if victim is None:
            break
        left.append(victim.caller.tenant)
        queue.push(a_call("b"))
    assert Counter(left)["a"] in (3, 4)
    assert queue.own_rows(0, WHO["b"]) in (3, 4)  # as many as the other one with that weight, and no more
    assert room_for(queue, a_call("a")) is None


def test_a_tenant_does_not_push_out_its_own() -> None:
    queue = filled((9, {"tenant": "a"}))
    assert room_for(queue, a_call("a")) is None
    assert room_for(queue, a_call("a", priority=3)) is None


def test_calls_that_have_ended_are_nobody_to_push_out() -> None:
    queue = filled((4, {"tenant": "a", "priority": 9}))
    for call in queue:
        call.done = True
    assert room_for(queue, a_call("b")) is None
    assert queue.rows == 0


@pytest.mark.parametrize(
    ("priority", "tenant", "ahead"),
    [
        (0, "a", 20),
        (0, "b", 1),  # one of "a" may have come first
        (4, "a", 20),
        (5, "b", 20 + 3),  # while it is served, "c" is three times
        (5, "d", 20 + 6),
        (5, "c", 20 + 10),
        (6, "a", 30),
    ],
)
def test_what_waits_before_a_newcomer(priority: int, tenant: str, ahead: int) -> None:
    queue = filled((20, {"tenant": "a"}), (10, {"tenant": "c", "priority": 5}))
    assert queue.rows_ahead(priority, WHO[tenant]) == ahead
