"""Identical requests at the same time are computed once; everybody keeps what is their own."""

import time
from typing import Any

import pytest
from msgspec.structs import replace

from hyperion.gateway.cache.flights import MAX_FOLLOWERS, Flights
from hyperion.gateway.pending import UNHEARD, PendingCall
from hyperion.schema.call import InferenceAnswer, InferenceCall, Tensor
from hyperion.schema.errors import ClientGone, DeadlineExceeded, HyperionError, ModelFailed, Unsupported
from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from hyperion.schema.snapshot import ServedVersion

pytestmark = pytest.mark.interpreted  # its pools are stand-ins, which compiled code does not take

CALL = InferenceCall("m", "", "", (Tensor("x", "FP32", (1, 1), bytes(4)),))
OUTPUTS = (Tensor("y", "FP32", (1, 1), b"\0\0\x80?"),)
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, 1)),))
SERVED = ServedVersion("3", "sha256:" + "ab" * 32, 1, "onnx", SIGNATURE, ModelOptions(), ())
MS = 1_000_000
KEY = b"k" * 32


class Caller:
    """A reply that writes down what it is told."""

    together = None

    def __init__(self, refuses: HyperionError | None = None) -> None:
        self.heard: list[InferenceAnswer | HyperionError] = []
        self.refuses = refuses

    def send(self, message: bytes) -> None:
        raise AssertionError(message)

    def answer(self, answer: InferenceAnswer) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.heard.append(answer)

    def fail(self, error: HyperionError) -> None:
        self.heard.append(error)


class Pool:
    """Where work is computed: ends a call as a `VersionPool` does, and tells the flights as a visit does."""

    model, served = "m", SERVED

    def __init__(self) -> None:
        self.queue: list[PendingCall] = []
        self.ended: list[tuple[str, str]] = []
        self.flights = Flights(self.finished)
        self.computed = 0
        self.began_ns = time.monotonic_ns()

    def submit(
        self, name: str, caller: Caller, budget_ms: int = 1_000, key: bytes = KEY, priority: int = 0
    ) -> PendingCall:
        pending = PendingCall(CALL, caller, "http", name, self.began_ns, self.began_ns + budget_ms * MS, 1)
        pending.priority = priority
        if not self.flights.join(key, pending, self):  # type: ignore[arg-type]
            self.enqueue(pending)
        return pending

    def enqueue(self, pending: PendingCall) -> None:
        pending.on_cancel = lambda one: self.end(one, ClientGone("left"))
        self.queue.append(pending)

    def finished(self, pending: PendingCall, error: HyperionError | None, *_: int) -> None:
        self.ended.append((pending.request_id, error.code if error else "ok"))
        if error is not None:
            self.flights.failed(pending, error)

    def end(self, pending: PendingCall, error: HyperionError | None) -> None:
        self.queue = [one for one in self.queue if one is not pending]
        pending.done = True
        pending.reply = UNHEARD
        self.finished(pending, error)

    def fail(self, error: HyperionError) -> None:
        """What is first in the queue fails."""
        pending = self.queue[0]
        reply = pending.reply
        self.end(pending, error)
        reply.fail(error)

    def compute(self) -> None:
        """What is first in the queue is answered."""
        pending = self.queue.pop(0)
        self.computed += 1
        try:
            pending.reply.answer(InferenceAnswer("m", "3", SERVED.digest, OUTPUTS))
        except HyperionError as error:
            reply = pending.reply
            self.end(pending, error)
            reply.fail(error)
            return
        pending.done = True
        pending.reply = UNHEARD
        self.flights.answered(pending, OUTPUTS, 5 * MS)
        self.ended.append((pending.request_id, "ok"))

    def look(self, after_ms: int) -> None:
        """The flights' look at deadlines, and then the pool's."""
        now_ns = self.began_ns + after_ms * MS
        self.flights.look_at_deadlines(now_ns)
        for pending in [one for one in self.queue if one.deadline_ns <= now_ns]:
            reply = pending.reply
            self.end(pending, DeadlineExceeded("too late"))
            reply.fail(DeadlineExceeded("too late"))

    @property
    def idle(self) -> bool:
        flights = self.flights
        return not (self.queue or flights._by_key or flights._by_work or flights._by_waiter or flights._shared)


@pytest.fixture
def pool() -> Any:
    """Nothing may be left when a test ends, and nobody may end twice."""
    pool = Pool()
    yield pool
    assert pool.idle
    names = [name for name, _ in pool.ended]
    assert len(names) == len(set(names))


def codes(*callers: Caller) -> list[list[str]]:
    return [[one.code if isinstance(one, HyperionError) else "ok" for one in caller.heard] for caller in callers]


def test_nobody_follows_a_version_of_another_name() -> None:
    pool, other = Pool(), Pool()
    other.flights, other.served = pool.flights, replace(SERVED, version="4")  # type: ignore[misc]
    pool.submit("one", Caller())
    other.submit("two", Caller())
    assert [len(one.queue) for one in (pool, other)] == [1, 1]


def test_identical_requests_are_computed_once_and_all_answered(pool: Pool) -> None:
    callers = [Caller() for _ in range(5)]
    for n, caller in enumerate(callers):
        pool.submit(f"r{n}", caller)
    assert len(pool.queue) == 1
    pool.compute()
    assert codes(*callers) == [["ok"]] * 5
    assert sorted(pool.ended) == [(f"r{n}", "ok") for n in range(5)]
    for caller in callers:
        (answer,) = caller.heard
        assert isinstance(answer, InferenceAnswer)
        assert (answer.version, answer.digest, answer.outputs, answer.served_by) == (
            "3",
            SERVED.digest,
            OUTPUTS,
            "model",
        )


def test_others_and_later_ones_are_computed_on_their_own(pool: Pool) -> None:
    callers = [Caller() for _ in range(3)]
    pool.submit("one", callers[0])
    pool.submit("other", callers[1], key=b"o" * 32)
    pool.compute()
    pool.submit("later", callers[2])
    pool.compute()
    pool.compute()
    assert pool.computed == 3
    assert codes(*callers) == [["ok"]] * 3


def test_a_leader_that_leaves_leaves_its_work_to_the_others(pool: Pool) -> None:
    callers = [Caller() for _ in range(3)]
    pendings = [pool.submit(f"r{n}", caller) for n, caller in enumerate(callers)]
    pendings[0].cancel()
    assert pool.ended == [("r0", "client_gone")]
    pool.compute()
    assert pool.computed == 1
    assert codes(*callers) == [[], ["ok"], ["ok"]]
    assert all(pending.done for pending in pendings)


def test_the_work_ends_when_the_last_waiter_leaves_in_whatever_order(pool: Pool) -> None:
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        callers = [Caller() for _ in range(3)]
        pendings = [pool.submit(f"{order} {n}", caller) for n, caller in enumerate(callers)]
        for n in order[:2]:
            pendings[n].cancel()
            assert len(pool.queue) == 1
        pendings[order[2]].cancel()
        assert not pool.queue
        assert pool.ended[-3:] == [(f"{order} {n}", "client_gone") for n in order]
        assert codes(*callers) == [[], [], []]
        for pending in pendings:
            pending.cancel()  # harmless
        assert pool.idle


def test_each_keeps_its_own_deadline(pool: Pool) -> None:
    callers = [Caller() for _ in range(4)]
    for n, budget_ms in enumerate((50, 20, 200, 100)):
        pool.submit(f"r{n}", callers[n], budget_ms)
    pool.look(20)
    assert codes(*callers) == [[], ["deadline_exceeded"], [], []]
    pool.look(50)
    assert codes(*callers) == [["deadline_exceeded"], ["deadline_exceeded"], [], []]
    assert str(callers[0].heard[0]).startswith("the deadline of 50 ms")
    pool.look(100)
    assert codes(callers[3]) == [["deadline_exceeded"]]
    pool.compute()
    assert codes(callers[2]) == [["ok"]]
    assert pool.computed == 1


def test_a_leader_whose_followers_have_gone_has_its_own_deadline_again(pool: Pool) -> None:
    leader, follower = Caller(), Caller()
    pool.submit("leader", leader, 50)
    pool.submit("follower", follower, 200).cancel()
    pool.look(50)
    assert codes(leader, follower) == [["deadline_exceeded"], []]


def test_all_fail_late_together_where_the_last_one_is_late(pool: Pool) -> None:
    callers = [Caller() for _ in range(3)]
    for n, caller in enumerate(callers):
        pool.submit(f"r{n}", caller, 50)
    pool.look(60)
    assert codes(*callers) == [["deadline_exceeded"]] * 3


def test_what_the_model_did_is_shared(pool: Pool) -> None:
    callers = [Caller() for _ in range(3)]
    for n, caller in enumerate(callers):
        pool.submit(f"r{n}", caller)
    pool.fail(ModelFailed("it raised"))
    assert codes(*callers) == [["model_failed"]] * 3


def test_a_batch_that_would_be_too_late_for_the_last_is_too_late_for_all(pool: Pool) -> None:
    callers = [Caller(), Caller()]
    for n, caller in enumerate(callers):
        pool.submit(f"r{n}", caller, 100 + n)
    pool.fail(DeadlineExceeded("would be too late"))
    assert codes(*callers) == [["deadline_exceeded"]] * 2
    assert "101 ms" in str(callers[1].heard[0])


def test_an_answer_that_the_leader_cannot_take_is_still_the_others(pool: Pool) -> None:
    """It wants JSON where only binary will do: that is its own failure."""
    callers = [Caller(Unsupported("no JSON for BF16")), Caller(), Caller()]
    for n, caller in enumerate(callers):
        pool.submit(f"r{n}", caller)
    pool.compute()
    assert codes(*callers) == [["unsupported"], [], []]
    pool.compute()
    assert codes(*callers) == [["unsupported"], ["ok"], ["ok"]]


def test_an_answer_that_a_follower_cannot_take_is_its_own_failure(pool: Pool) -> None:
    callers = [Caller(), Caller(Unsupported("no JSON for BF16")), Caller()]
    for n, caller in enumerate(callers):
        pool.submit(f"r{n}", caller)
    pool.compute()
    assert codes(*callers) == [["ok"], ["unsupported"], ["ok"]]


def test_a_bug_in_one_reply_costs_nobody_else(pool: Pool) -> None:
    class Broken(Caller):
        def answer(self, answer: InferenceAnswer) -> None:
            raise RuntimeError("a bug")

    callers = [Caller(), Broken(), Caller()]
    for n, caller in enumerate(callers):
        pool.submit(f"r{n}", caller)
    pool.compute()
    assert codes(*callers) == [["ok"], ["internal"], ["ok"]]


def test_work_that_ended_behind_the_flights_back_is_computed_again(pool: Pool) -> None:
    """As after a retry, which gives the pool its own way to end a call back."""
    callers = [Caller() for _ in range(3)]
    leader, *_ = [pool.submit(f"r{n}", caller) for n, caller in enumerate(callers)]
    pool.end(leader, ClientGone("left"))
    pool.compute()
    assert codes(*callers) == [[], ["ok"], ["ok"]]


def test_who_is_more_urgent_does_not_wait_behind_who_is_less(pool: Pool) -> None:
    low, high, lower = Caller(), Caller(), Caller()
    pool.submit("low", low, priority=5)
    pool.submit("high", high, priority=1)
    pool.submit("lower", lower, priority=9)
    assert len(pool.queue) == 2
    pool.compute()
    assert codes(low, high, lower) == [["ok"], [], ["ok"]]
    pool.compute()


def test_among_those_who_are_computed_again_the_urgent_do_not_wait_either(pool: Pool) -> None:
    callers = [Caller(Unsupported("no")), Caller(), Caller()]
    for n, (caller, priority) in enumerate(zip(callers, (1, 5, 2), strict=True)):
        pool.submit(f"r{n}", caller, priority=priority)
    pool.compute()
    assert len(pool.queue) == 2
    pool.compute()
    pool.compute()
    assert codes(*callers) == [["unsupported"], ["ok"], ["ok"]]


def test_followers_are_bounded(pool: Pool) -> None:
    callers = [Caller() for _ in range(MAX_FOLLOWERS + 3)]
    for n, caller in enumerate(callers):
        pool.submit(f"r{n}", caller)
    assert len(pool.queue) == 3
    for _ in range(3):
        pool.compute()
    assert codes(*callers) == [["ok"]] * len(callers)
