"""A refusal that stands: it is repeated for next to nothing, for those whom it concerns, and only while it holds."""

import select
import time
from collections.abc import Callable

import pytest

from hyperion.gateway.http.refusals import MAX_STANDING
from hyperion.gateway.pool import GLANCE_EVERY
from hyperion.policy.latency import LatencyCurve
from hyperion.schema.snapshot import ServedVersion
from tests.gateway.runners import Fifo
from tests.gateway.serving import Serving, get, infer, on_uvloop, serving
from tests.gateway.test_batches import changed, hold


def looks(gateway: Serving, patch: pytest.MonkeyPatch) -> list[str]:
    """The paths of requests that were not answered from a refusal that stands, from now on."""
    seen: list[str] = []
    serve = gateway.edge.serve

    def watch(exchange: object) -> None:
        seen.append(exchange.path.decode())  # type: ignore[attr-defined]
        serve(exchange)  # type: ignore[arg-type]

    patch.setattr(gateway.edge, "serve", watch)
    return seen


@on_uvloop
async def test_a_refusal_is_repeated_without_a_look_at_the_request_until_the_queue_has_lost_something(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient), queue_rows=2, access_log=False) as gateway:
        held = await hold(gateway, new_fifo())
        with pytest.MonkeyPatch.context() as patch, await gateway.connect() as client, await gateway.connect() as late:
            client.send(infer("a", "b"))
            await held.queued(2)
            first = await late.ask(infer("c"))
            seen = looks(gateway, patch)
            again = [await late.ask(infer("d" * n)) for n in range(1, 4)]
            assert seen == []
            assert {answer.status for answer in (first, *again)} == {503}
            assert {answer.body for answer in again} == {first.body}
            assert len({answer.headers.pop("x-request-id") for answer in (first, *again)}) == 4
            assert [list(answer.headers) for answer in again] == [list(first.headers)] * 3
            assert int(first.headers["retry-after"]) >= 1
            metrics = (await late.ask(get("/metrics"))).body.decode()
            assert 'hyperion_shed_total{reason="overloaded"} 4' in metrics
            assert 'endpoint="obedient",version="other",protocol="http",code="503"} 4' in metrics
            await held.release()
            assert (await client.answer()).said == ["a", "b"]
            assert (await late.ask(infer("e"))).said == ["e"]
            gateway.tick()
            assert gateway.edge.refusals.standing == {}
        held.client.leave()


@on_uvloop
async def test_a_refusal_stands_for_the_path_and_the_time_that_it_was_given_to(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient), queue_rows=2, access_log=False) as gateway:
        held = await hold(gateway, new_fifo())
        with pytest.MonkeyPatch.context() as patch, await gateway.connect() as client, await gateway.connect() as late:
            client.send(infer("a", "b"))
            await held.queued(2)
            others = [
                infer("c", x_request_timeout_ms=50_000),
                infer("c", prefer="respond-async"),  # a job need not come to the queue now,
                infer("c", idempotency_key="k"),  # and what is kept under a key never again
                infer("c", path="/v2/models/obedient/versions/1/infer"),
                infer("c").replace(b"POST ", b"GET ", 1),
            ]
            assert [(await late.ask(data)).status for data in (infer("c"), infer("c"))] == [503, 503]
            for other in others:
                with await gateway.connect() as another:
                    await another.ask(other)  # the head is known from here on
                    gateway.edge.refusals.standing.clear()
                    await late.ask(infer("c"))
                    seen = looks(gateway, patch)
                    status = 405 if other.startswith(b"GET") else 503
                    assert (await another.ask(other)).status == status
                    assert len(seen) == 1
                    patch.undo()
            await held.release()
            await client.answer()
        held.client.leave()


@on_uvloop
async def test_a_repeated_refusal_waits_for_its_turn_behind_what_the_same_client_asked_before(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient), queue_rows=2, access_log=False) as gateway:
        held = await hold(gateway, new_fifo())
        with await gateway.connect() as client, await gateway.connect() as late:
            client.send(infer("a", "b"))
            await held.queued(2)
            assert (await late.ask(infer("c"))).status == 503
            client.send(infer("d"))
            await gateway.until(lambda: "503" in str(gateway.metrics.collect().counters["hyperion_requests_total"]))
            await held.release()
            assert (await client.answer()).said == ["a", "b"]
            assert (await client.answer()).status == 503
        held.client.leave()


@on_uvloop
async def test_callers_that_leave_the_queue_end_a_refusal(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient), queue_rows=2, access_log=False) as gateway:
        held = await hold(gateway, new_fifo())
        with await gateway.connect() as late:
            with await gateway.connect() as client:
                client.send(infer("a", "b"))
                await held.queued(2)
                assert [(await late.ask(infer("c"))).status for _ in range(2)] == [503, 503]
            await held.queued(0)
            late.send(infer("d"))
            await held.queued(1)
            await held.release()
            assert (await late.answer()).said == ["d"]
        held.client.leave()


@on_uvloop
async def test_no_more_refusals_stand_than_there_are_places_for(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient), queue_rows=2, access_log=False) as gateway:
        held = await hold(gateway, new_fifo())
        with await gateway.connect() as client, await gateway.connect() as late:
            client.send(infer("a", "b"))
            await held.queued(2)
            for n in range(MAX_STANDING + 10):
                assert (await late.ask(infer("c", x_request_timeout_ms=10_000 + n))).status == 503
                assert 0 < len(gateway.edge.refusals.standing) <= MAX_STANDING
            await held.release()
            await client.answer()
        held.client.leave()


@on_uvloop
async def test_with_an_access_log_every_refusal_has_its_line(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient), queue_rows=2) as gateway:
        held = await hold(gateway, new_fifo())
        with await gateway.connect() as client, await gateway.connect() as late:
            client.send(infer("a", "b"))
            await held.queued(2)
            for _ in range(3):
                assert (await late.ask(infer("c", x_request_id="refused-0"))).status == 503
            assert [line["request_id"] for line in gateway.events()].count("refused-0") == 3
            await held.release()
            await client.answer()
        held.client.leave()


@on_uvloop
async def test_a_replica_gets_its_next_batch_in_the_middle_of_a_turn_of_the_loop(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    """While requests pour in, the loop may read for long before it turns."""
    async with serving(("obedient", changed(obedient, max_batch_size=1))) as gateway:
        pool, fifo, second = gateway.pool(), new_fifo(), new_fifo()
        held = await hold(gateway, fifo)
        with await gateway.connect() as client:
            client.send(infer("a"), infer(second.command), infer("c"))
            await held.queued(3)
            fifo.release()
            (link,) = pool._links.values()
            ends = time.monotonic() + 30
            while pool.queue_state().queued_rows > 1 and time.monotonic() < ends:  # the loop does not turn here
                select.select([link._descriptor], [], [], 30)
                for _ in range(GLANCE_EVERY):
                    pool.glance()
            assert pool.queue_state().queued_rows <= 1  # the one behind may have followed, where the machine is slow
            await second.reached()
            second.release()
            assert [(await client.answer()).said for _ in range(3)] == [["a"], [second.command], ["c"]]
        held.client.leave()


@on_uvloop
async def test_a_slow_model_refuses_before_a_batch_waits_who_would_be_answered_too_late(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    """The queue is shorter than a batch, but a batch takes longer than the caller has."""
    async with serving(("obedient", obedient)) as gateway:
        held = await hold(gateway, new_fifo())
        pool = gateway.pool()
        with await gateway.connect() as client, await gateway.connect() as late:
            client.send(infer("a"))
            await held.queued(1)
            pool.curve, pool._slow = LatencyCurve(base_ns=1e9), True
            answer = await late.ask(infer("b", x_request_timeout_ms=1_500))
            assert (answer.status, "longer than the deadline allows" in answer.error) == (503, True)
            late.send(infer("c", x_request_timeout_ms=15_000))
            await held.queued(2)
            await held.release()
            assert ((await client.answer()).said, (await late.answer()).said) == (["a"], ["c"])
        held.client.leave()
