"""What is under way when an endpoint gets another protection, or another pool, still ends: once, and in time."""

import asyncio
import time
from collections.abc import Callable

from hyperion.gateway.cache.flights import Flights
from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.errors import RunnerLost
from hyperion.schema.protect import EndpointLimits, Fallback, Protection
from hyperion.schema.snapshot import ServedVersion
from hyperion.wire.json.plain import PLAIN_BYTES
from hyperion.wire.json.text import encode_flat
from tests.gateway.bad_upstream import bad_upstream
from tests.gateway.runners import Fifo
from tests.gateway.serving import Serving, infer, on_uvloop, serving
from tests.gateway.test_recovery import reach
from tests.gateway.test_swaps import again
from tests.gateway.test_upstream import ask

COALESCING = Protection(coalesce=True)


def flights_of(gateway: Serving, name: str) -> Flights:
    guard = gateway.pool(name).guard
    assert guard is not None
    assert guard.flights is not None
    return guard.flights


def followers(flights: Flights) -> int:
    return sum(len(flight.followers) for flight in flights._shared.values())


@on_uvloop
async def test_who_follows_is_answered_though_the_protection_changes_meanwhile() -> None:
    async with bad_upstream() as upstream, serving() as gateway:
        far = upstream.served(links=1, batch=True)
        await reach(gateway, COALESCING, ("far", far))
        flights = flights_of(gateway, "far")
        upstream.how, upstream.slow_s = "slow", 0.3
        clients = [await gateway.connect() for _ in range(5)]
        # Large, so that numpy is imported: from now on the answers of a batch are written together.
        encode_flat(Tensor("y", "FP32", (PLAIN_BYTES,), bytes(4 * PLAIN_BYTES)))
        for client, value in zip(clients, (9, 1, 2, 1, 2), strict=True):  # the second and third go as one batch
            client.send(ask(value))
        await gateway.until(lambda: followers(flights) == 2)
        await reach(gateway, Protection(coalesce=True, limits=EndpointLimits(concurrency=9)), ("far", far))
        for client in clients:
            assert (await client.answer()).status == 200
            client.leave()


@on_uvloop
async def test_who_follows_has_a_deadline_though_the_protection_changes_meanwhile(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=COALESCING)
        flights, fifo = flights_of(gateway, "obedient"), new_fifo()
        first, second = await gateway.connect(), await gateway.connect()
        first.send(infer(fifo.command))
        await fifo.reached()
        second.send(infer(fifo.command, x_request_timeout_ms=1500))
        await gateway.until(lambda: followers(flights) == 1)
        await gateway.protect(("obedient", obedient))
        assert (await second.answer()).status == 504
        fifo.release()
        assert (await first.answer()).status == 200
        first.leave()
        second.leave()


@on_uvloop
async def test_limits_are_given_back_though_the_endpoint_has_none_any_more(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    limited = Protection(limits=EndpointLimits(concurrency=1))
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), protection=limited)
        fifo = new_fifo()
        client = await gateway.connect()
        client.send(infer(fifo.command))
        await fifo.reached()
        await gateway.protect(("obedient", obedient))
        fifo.release()
        assert (await client.answer()).status == 200
        client.leave()
        await gateway.protect(("obedient", obedient), protection=limited)
        assert (await gateway.ask(infer("a"))).status == 200


@on_uvloop
async def test_an_attempt_goes_on_for_those_who_follow_when_its_caller_leaves() -> None:
    protection = Protection(coalesce=True, fallback=(Fallback(endpoint="near"),))
    async with bad_upstream() as upstream, bad_upstream() as second, serving() as gateway:
        await reach(gateway, protection, ("far", upstream.served()), ("near", second.served()))
        upstream.how, second.how, second.slow_s = "reset", "slow", 0.3
        flights = flights_of(gateway, "far")
        leader, follower = await gateway.connect(), await gateway.connect()
        leader.send(ask(3))
        await gateway.until(lambda: second.inferences == 1)
        follower.send(ask(3))
        await gateway.until(lambda: followers(flights) == 1)
        leader.leave()
        answer = await follower.answer()
        assert (answer.status, answer.output("y")) == (200, [6, 6])
        assert answer.headers["x-hyperion-served-by"] == "fallback:near"
        assert second.inferences == 1
        follower.leave()
        await gateway.until(lambda: len(gateway.events()) == 2)
        assert not flights._by_waiter
        assert not flights._by_work


@on_uvloop
async def test_one_who_follows_takes_no_time_from_the_fallback() -> None:
    protection = Protection(coalesce=True, fallback=(Fallback(endpoint="near"),))
    async with bad_upstream() as upstream, bad_upstream() as second, serving() as gateway:
        await reach(gateway, protection, ("far", upstream.served(deadline_ms=1000)), ("near", second.served()))
        upstream.how = "hang"
        flights = flights_of(gateway, "far")
        leader, follower = await gateway.connect(), await gateway.connect()
        leader.send(ask(3))
        await upstream.hung.wait()
        follower.send(ask(3))
        await gateway.until(lambda: followers(flights) == 1)
        for client in (leader, follower):
            answer = await client.answer()
            assert (answer.status, answer.headers["x-hyperion-served-by"]) == (200, "fallback:near")
            client.leave()


class Told:
    """A reply that waits for its failure."""

    together = None

    def __init__(self) -> None:
        self.error: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def send(self, message: bytes) -> None:
        raise AssertionError(message)

    def answer(self, answer: object) -> None:
        raise AssertionError(answer)

    def fail(self, error: Exception) -> None:
        self.error.set_result(error)

    def add_fields(self, fields: object) -> None:
        raise AssertionError(fields)


@on_uvloop
async def test_a_call_that_comes_to_a_closed_pool_is_told(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        old = gateway.pool()
        await gateway.serve(("obedient", again(obedient, 2)))
        await old.closed.wait()
        reply = Told()
        command = Tensor("command", "BYTES", (1, 1), b"\x01\0\0\0a")
        call = InferenceCall("obedient", "", "", (command,))
        gateway.pipeline.submit(
            call, reply, protocol="http", request_id="late", received_ns=time.monotonic_ns(), pool=old
        )
        assert isinstance(await asyncio.wait_for(reply.error, 20), RunnerLost)
