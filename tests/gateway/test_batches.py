"""What is computed together, in which order, by when: batches, deadlines, priorities, refusals, models that raise."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from hyperion.gateway.batch import WaitingQueue
from hyperion.gateway.pending import PendingCall
from hyperion.gateway.pool import VersionPool
from hyperion.policy.batching import BatchLimits
from hyperion.policy.latency import LatencyCurve
from hyperion.schema.call import InferenceAnswer, InferenceCall, Tensor
from hyperion.schema.errors import HyperionError
from hyperion.schema.snapshot import ServedVersion
from tests.gateway.runners import Fifo
from tests.gateway.serving import Client, Serving, get, infer, on_uvloop, serving


def changed(served: ServedVersion, **options: Any) -> ServedVersion:
    return structs.replace(served, options=structs.replace(served.options, **options))


class Held:
    """A replica that computes until it is released and has the next batch in its hands: what comes now waits here."""

    def __init__(self, gateway: Serving, fifo: Fifo, client: Client) -> None:
        self.gateway = gateway
        self.fifo = fifo
        self.client = client

    async def hold(self) -> None:
        self.client.send(infer(self.fifo.command))
        await self.fifo.reached()
        self.client.send(infer("next"))
        await self.gateway.until(lambda: self.gateway.pool().queue_state().running_rows == 2)

    async def release(self) -> None:
        self.fifo.release()
        assert (await self.client.answer()).said == [self.fifo.command]
        assert (await self.client.answer()).said == ["next"]

    async def queued(self, rows: int) -> None:
        await self.gateway.until(lambda: self.gateway.pool().queue_state().queued_rows == rows)


async def hold(gateway: Serving, fifo: Fifo) -> Held:
    held = Held(gateway, fifo, await gateway.connect())
    await held.hold()
    return held


@on_uvloop
async def test_requests_that_are_read_together_are_computed_together(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            client.send(infer("a"), infer("b", "c"), infer("d"))
            answers = [await client.answer() for _ in range(3)]
            assert [answer.said for answer in answers] == [["a"], ["b", "c"], ["d"]]
            assert [answer.output("rows") for answer in answers] == [[4], [4, 4], [4]]


@on_uvloop
async def test_only_requests_for_the_same_outputs_and_parameters_share_a_batch(obedient: ServedVersion) -> None:
    def wanting(parameters: dict[str, Any], *outputs: str) -> bytes:
        body = json.loads(infer("x", parameters=parameters).partition(b"\r\n\r\n")[2])
        body["outputs"] = [{"name": name} for name in outputs]
        return infer("x").partition(b"content-length")[0] + (
            b"content-length: %d\r\n\r\n%b" % (len(text := json.dumps(body).encode()), text)
        )

    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            client.send(
                wanting({}, "rows"), wanting({"a": 1}, "rows"), wanting({}, "rows"), wanting({}, "rows", "said")
            )
            answers = [await client.answer() for _ in range(4)]
            assert [answer.output("rows") for answer in answers] == [[2], [1], [2], [1]]
            assert [len(answer.json()["outputs"]) for answer in answers] == [1, 1, 1, 2]


@on_uvloop
async def test_a_batch_has_no_more_rows_than_the_model_wants(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", changed(obedient, max_batch_size=3))) as gateway:
        held = await hold(gateway, new_fifo())
        with await gateway.connect() as client:
            client.send(*(infer(f"n{number}") for number in range(7)), infer(*"abcde"))
            await held.queued(12)
            await held.release()
            rows = [(await client.answer()).output("rows")[0] for _ in range(8)]
            assert rows == [3, 3, 3, 3, 3, 3, 1, 5]
        held.client.leave()


@on_uvloop
async def test_a_model_that_does_not_batch_gets_one_request_at_a_time(obedient: ServedVersion) -> None:
    alone = structs.replace(obedient, signature=structs.replace(obedient.signature, batched=False))
    async with serving(("obedient", alone)) as gateway:
        with await gateway.connect() as client:
            client.send(infer("a"), infer("b"))
            assert [(await client.answer()).output("rows") for _ in range(2)] == [[1], [1]]


@on_uvloop
async def test_a_batch_waits_for_more_where_a_delay_was_asked_for_and_no_longer_once_it_is_full(
    obedient: ServedVersion,
) -> None:
    async with serving(("obedient", changed(obedient, max_batch_size=2, max_delay_ms=600_000.0))) as gateway:
        with await gateway.connect() as one, await gateway.connect() as two:
            one.send(infer("a"))
            await gateway.until(lambda: gateway.pool().queue_state().queued_rows == 1)
            await two.ask(get("/v2/health/live"))
            assert gateway.pool().queue_state().queued_rows == 1
            assert (await two.ask(infer("b"))).output("rows") == [2]
            assert (await one.answer()).output("rows") == [2]


@on_uvloop
async def test_a_batch_that_is_held_back_goes_when_its_delay_is_over(obedient: ServedVersion) -> None:
    async with serving(("obedient", changed(obedient, max_delay_ms=3.0))) as gateway:
        assert (await gateway.ask(infer("a"))).output("rows") == [1]


@on_uvloop
async def test_large_tensors_come_back_as_they_went(obedient: ServedVersion) -> None:
    """Through the shared memory, next to each other in one batch."""
    texts = ["x" * 90_000, "y" * 250_000, "z" * 10]
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            for _ in range(3):
                client.send(*map(infer, texts))
                assert [(await client.answer()).said for _ in texts] == [[text] for text in texts]


# --- deadlines and priorities ---


@pytest.mark.parametrize(
    "late",
    [
        infer("late", x_request_timeout_ms=20),
        infer("late", parameters={"timeout": 20_000}),
        infer("late", parameters={"timeout": 90_000_000}, x_request_timeout_ms=20),
    ],
)
@on_uvloop
async def test_a_request_is_answered_by_its_deadline_while_it_waits(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo], late: bytes
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        held = await hold(gateway, new_fifo())
        with await gateway.connect() as client:
            answer = await client.ask(late)
            assert (answer.status, answer.error) == (
                504,
                "the deadline of 20 ms passed before a replica could take it",
            )
            assert gateway.pool().queue_state().queued_rows == 0
            await held.release()
            assert (await client.ask(infer("good"))).said == ["good"]
        held.client.leave()


@on_uvloop
async def test_a_request_is_answered_by_its_deadline_while_it_is_computed(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            fifo = new_fifo()
            client.send(infer(fifo.command, x_request_timeout_ms=500), infer("patient"))
            await fifo.reached()
            answer = await client.answer()
            assert (answer.status, answer.error) == (504, "the deadline of 500 ms passed while the model was computing")
            fifo.release()
            assert (await client.answer()).said == ["patient"]


@on_uvloop
async def test_who_hears_of_a_late_call_and_sends_more_takes_no_credit_from_the_batch_behind_it(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", changed(obedient, max_batch_size=1))) as gateway:
        fifo, client = new_fifo(), await gateway.connect()
        client.send(infer(fifo.command))
        await fifo.reached()  # one of two credits is left
        pool: VersionPool = gateway.pool()
        told: list[str] = []

        class Late:
            together = None
            headers: dict[bytes, bytes] = {}

            def answer(self, answer: InferenceAnswer) -> None:
                told.append("")

            def fail(self, error: HyperionError) -> None:
                told.append(error.code)
                pool._pump()  # as a client does whose next request was read already

        for received_ns in (1, time.monotonic_ns(), time.monotonic_ns()):
            call = InferenceCall("obedient", "", "", (Tensor("command", "BYTES", (1, 1), b"\x01\x00\x00\x00x"),))
            reply: Any = Late()
            gateway.pipeline.submit(call, reply, protocol="http", request_id="id", received_ns=received_ns)
        await gateway.until(lambda: told)
        fifo.release()
        await gateway.until(lambda: len(told) == 3)
        client.leave()
        assert told == ["deadline_exceeded", "", ""]


@on_uvloop
async def test_the_deadline_of_the_model_holds_where_the_caller_names_none_or_a_longer_one(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", changed(obedient, deadline_ms=500))) as gateway:
        with await gateway.connect() as client:
            fifo = new_fifo()
            client.send(infer(fifo.command, x_request_timeout_ms=60_000))
            await fifo.reached()
            assert "500 ms" in (await client.answer()).error
            fifo.release()


@pytest.mark.parametrize("how", ["header", "parameter"])
@on_uvloop
async def test_what_is_more_urgent_is_computed_first(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo], how: str
) -> None:
    def with_priority(name: str, priority: int) -> bytes:
        if how == "header":
            return infer(name, x_hyperion_priority=priority)
        return infer(name, parameters={"priority": priority})

    async with serving(("obedient", changed(obedient, max_batch_size=1))) as gateway:
        held = await hold(gateway, new_fifo())
        with await gateway.connect() as client:
            client.send(with_priority("low", 9), with_priority("high", 0), with_priority("middle", 4), infer("usual"))
            await held.queued(4)
            await held.release()
            turns = {answer.said[0]: answer.output("turn") for answer in [await client.answer() for _ in range(4)]}
            assert sorted(turns, key=turns.__getitem__) == ["high", "usual", "middle", "low"]
        held.client.leave()


# --- overload ---


@on_uvloop
async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient), queue_rows=4) as gateway:
        held = await hold(gateway, new_fifo())
        with await gateway.connect() as client, await gateway.connect() as refused:
            client.send(infer("a", "b"), infer("c"), infer("d"))
            await held.queued(4)
            answer = await refused.ask(infer("e"))
            assert (answer.status, int(answer.headers["retry-after"]) >= 1) == (503, True)
            assert answer.error == 'model "obedient" is overloaded: the queue is full (4 of 4 rows)'
            assert (await refused.ask(get("/v2/health/live"))).status == 200
            metrics = (await refused.ask(get("/metrics"))).body.decode()
            assert 'hyperion_shed_total{reason="overloaded"} 1' in metrics
            assert 'hyperion_queue_depth{endpoint="obedient",version="1"} 4' in metrics
            assert 'hyperion_inflight{endpoint="obedient",version="1"} 2' in metrics
            await held.release()
            assert [(await client.answer()).status for _ in range(3)] == [200] * 3
            assert (await refused.ask(infer("f"))).said == ["f"]
        held.client.leave()


@on_uvloop
async def test_a_request_that_could_not_be_computed_in_time_is_not_let_into_the_queue(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", changed(obedient, max_batch_size=1))) as gateway:
        held = await hold(gateway, new_fifo())
        gateway.pool().curve = LatencyCurve(base_ns=1e9)  # a batch takes a second
        with await gateway.connect() as client:
            client.send(*(infer("x", x_request_timeout_ms=30_000) for _ in range(5)))
            await held.queued(5)
            answer = await gateway.ask(infer("late", x_request_timeout_ms=13_000))  # 8 s are more than half of that
            assert (answer.status, answer.error) == (
                503,
                'model "obedient" is overloaded: the queue is longer than the deadline allows',
            )
            assert answer.headers["retry-after"] == "4"
        held.fifo.release()
        held.client.leave()


@on_uvloop
async def test_callers_that_left_do_not_fill_the_queue(obedient: ServedVersion, new_fifo: Callable[[], Fifo]) -> None:
    async with serving(("obedient", obedient), queue_rows=4) as gateway:
        held = await hold(gateway, new_fifo())
        for _ in range(3):
            with await gateway.connect() as client:
                client.send(infer("a"), infer("b"), infer("c"), infer("d"))
                await held.queued(4)
            await held.queued(0)
        await held.release()
        held.client.leave()


@on_uvloop
async def test_a_gateway_that_shuts_down_refuses_new_work(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        gateway.pipeline.draining = True
        answer = await gateway.ask(infer("x"))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "shutting down" in answer.error
        assert (await gateway.ask(get("/v2/health/ready"))).status == 503


# --- failures of the model ---


@on_uvloop
async def test_a_request_that_the_model_cannot_compute_fails_alone_and_its_message_stays_in_the_log(
    obedient: ServedVersion,
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as client:
            commands = ["a", "raise", "b", "c", "raise", "d", "e"]
            client.send(*(infer(command, x_request_id=f"id-of-{n}") for n, command in enumerate(commands)))
            answers = [await client.answer() for _ in commands]
        assert [answer.status for answer in answers] == [500 if command == "raise" else 200 for command in commands]
        assert [answer.said for answer in answers if answer.status == 200] == [["a"], ["b"], ["c"], ["d"], ["e"]]
        for answer in answers:
            assert b"secret" not in answer.body
        assert answers[1].error == (
            'model "obedient" raised ValueError for this request; its message is in the log under request id id-of-1'
        )
        raised = gateway.events("model raised")
        assert [event["request_id"] for event in raised] == ["id-of-1", "id-of-4"]
        assert all("a secret of the model" in event["error"] for event in raised)


# --- the queue by itself ---


class Nobody:
    together = None

    def send(self, message: bytes) -> None: ...
    def answer(self, answer: object) -> None: ...
    def fail(self, error: object) -> None: ...


def pending(rows: int, deadline_ns: int, key: int, priority: int, stream: bool) -> PendingCall:
    call = InferenceCall("m", "", "", (), priority=priority)
    made = PendingCall(call, Nobody(), "http", "id", 0, deadline_ns, rows, rows, stream)
    made.key = (key, stream)
    return made


CALLS = st.builds(
    pending, st.integers(1, 9), st.integers(0, 100), st.integers(0, 2), st.integers(0, 9), st.booleans()
)  # fmt: skip
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), CALLS),
        st.tuples(st.just("suspects"), st.lists(CALLS, min_size=1, max_size=3)),
        st.tuples(st.just("take"), st.integers(0, 100)),
        st.tuples(st.just("expire"), st.integers(0, 100)),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.tuples(st.just("drain"), st.none()),
    ),
    max_size=40,
)


@given(STEPS, st.booleans())
def test_whatever_happens_every_call_leaves_the_queue_once_and_its_rows_are_counted(
    steps: list[tuple[str, Any]], merge: bool
) -> None:
    queue = WaitingQueue(merge)
    inside: list[PendingCall] = []
    now_ns = 0

    def gone(calls: list[PendingCall]) -> None:
        for call in calls:
            assert not call.done
            inside.remove(call)

    for verb, what in steps:
        if verb == "push":
            queue.push(what)
            inside.append(what)
        elif verb == "suspects":
            queue.push_suspects(what)
            inside += what
        elif verb == "take":
            now_ns = what
            calls, late, _suspects = queue.take(now_ns, LatencyCurve(), BatchLimits(8, 50, 0))
            assert all(call.deadline_ns >= now_ns for call in calls)
            assert all(call.deadline_ns <= now_ns for call in late)
            assert len({call.key for call in calls}) <= 1 or _suspects
            assert sum(call.rows for call in calls) <= 8 or len(calls) == 1 or _suspects
            assert merge or len(calls) <= 1 or _suspects
            gone(calls + late)
        elif verb == "expire":
            now_ns = what
            gone(queue.expire(now_ns))
            inside = [call for call in inside if not call.done]
            assert all(call.deadline_ns > now_ns for call in inside)
            assert len(queue) == len(inside)
            assert queue.rows == sum(call.rows for call in inside)
        elif verb == "leave" and inside:
            inside[what % len(inside)].done = True
        elif verb == "drain":
            gone(queue.drain())
            inside = [call for call in inside if not call.done]
            assert not inside
        assert queue.rows == sum(call.rows for call in queue)
        inside = [call for call in inside if not call.done or call in list(queue)]
    while queue.rows:
        calls, late, _ = queue.take(now_ns, LatencyCurve(), BatchLimits(8, 50, 0))
        gone(calls + late)
    assert all(call.done for call in inside)
