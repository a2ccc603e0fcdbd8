"""Limits that several gateways share: within the promised bound, with Redis, without it, and on the way between."""

import asyncio
import io
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperion.gateway.front.caller import Caller
from hyperion.gateway.limits import shared as shared_limits
from hyperion.gateway.limits.book import LimitBook
from hyperion.gateway.limits.limiter import Limiter
from hyperion.gateway.limits.shared import SharedLimits
from hyperion.policy import lease, rate_limit
from hyperion.policy.lease import PERIOD_S, admitted_most
from hyperion.policy.rate_limit import UNITS_PER_NS
from hyperion.schema.errors import MissingExtra, RateLimited
from hyperion.schema.protect import EndpointLimits, Quotas, TenantRecord
from hyperion.telemetry.logs import EventLog
from tests.gateway.redis_server import RedisServer
from tests.services import needs_module

needs_module("redis", extra="redis")
NANO = 1_000_000_000


class Gateway:
    """As much of one as limits: its book, an endpoint's limiter, and the task that shares them."""

    def __init__(self, url: str, limits: EndpointLimits, quotas: Quotas | None = None) -> None:
        self.book = LimitBook(leases=True)
        self.log = io.StringIO()
        self.shared = SharedLimits(url, self.book, EventLog("gateway", "text", self.log))
        self.limiter = Limiter(self.book, "e", limits, None)
        self.caller = Caller("t", "key:k", frozenset(), TenantRecord("t", quotas=quotas), "k")
        self.admitted = 0
        self.latest_s = 0.0

    def ask(self, rows: int = 1) -> str:
        """ "" where a request passes, else why not."""
        now_ns = time.monotonic_ns()
        try:
            self.limiter.enter(self.caller, now_ns)
            self.limiter.start(self.caller, rows, now_ns)
        except RateLimited as refusal:
            return refusal.message
        self.limiter.end(self.caller, rows, 0, now_ns)
        self.admitted += 1
        return ""

    async def overload(self, until: Callable[[], bool], times: int = 10) -> None:
        """Asks for more than there is until then."""
        while not until():
            for _ in range(times):
                self.ask()
            await asyncio.sleep(0.002)


@asynccontextmanager
async def sharing(*gateways: Gateway) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(gateway.shared.run()) for gateway in gateways]
    try:
        await eventually(lambda: all(gateway.shared.connected for gateway in gateways))
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def eventually(true: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  what becomes true is several processes' doing
            await asyncio.sleep(0.005)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def after(seconds: float) -> Callable[[], bool]:
    ends_s = time.monotonic() + seconds
    return lambda: time.monotonic() > ends_s


@pytest.mark.parametrize(
    ("rate", "burst", "askers"), [(200.0, 100, 3), (200.0, 100, 1), (1_000.0, 300, 3), (3.0, 1, 3)]
)
async def test_gateways_together_admit_what_the_limit_says(
    redis: RedisServer, rate: float, burst: int, askers: int
) -> None:
    gateways = [Gateway(redis.url, EndpointLimits(requests_per_second=rate, burst=burst)) for _ in range(3)]
    async with sharing(*gateways):
        await eventually(lambda: all(gateway.book.share == 3 for gateway in gateways))
        began_s = time.monotonic()
        busy = after(2.0)
        await asyncio.gather(*[gateway.overload(busy) for gateway in gateways[:askers]])
        elapsed_s = time.monotonic() - began_s
    total = sum(gateway.admitted for gateway in gateways)
    assert total <= admitted_most(rate, burst, 3, elapsed_s)
    assert total >= 0.5 * (burst + rate * elapsed_s)


async def test_redis_is_killed_and_comes_back_empty_under_load(redis: RedisServer) -> None:
    rate, burst = 300.0, 150
    gateways = [Gateway(redis.url, EndpointLimits(requests_per_second=rate, burst=burst)) for _ in range(3)]
    async with sharing(*gateways):
        await eventually(lambda: all(gateway.book.share == 3 for gateway in gateways))
        began_s = time.monotonic()
        ended = asyncio.Event()
        load = [asyncio.create_task(gateway.overload(ended.is_set)) for gateway in gateways]
        await asyncio.sleep(1.0)
        await asyncio.to_thread(redis.kill)
        await eventually(lambda: all(gateway.shared.outages == 1 for gateway in gateways))
        before = [gateway.admitted for gateway in gateways]
        await asyncio.sleep(1.0)
        assert all(gateway.admitted > had for gateway, had in zip(gateways, before, strict=True))
        await asyncio.to_thread(redis.start)
        await eventually(lambda: all(gateway.shared.connected for gateway in gateways))
        await asyncio.sleep(1.0)
        assert [gateway.book.share for gateway in gateways] == [3, 3, 3]
        ended.set()
        await asyncio.gather(*load)
        elapsed_s = time.monotonic() - began_s
    total = sum(gateway.admitted for gateway in gateways)
    assert total <= admitted_most(rate, burst, 3, elapsed_s, outages=1)
    assert total >= 0.5 * (burst + rate * elapsed_s)


async def test_a_redis_that_does_not_answer_is_as_good_as_away(redis: RedisServer) -> None:
    gateways = [Gateway(redis.url, EndpointLimits(requests_per_second=1_000, burst=400)) for _ in range(2)]
    async with sharing(*gateways):
        await eventually(lambda: all(gateway.book.share == 2 for gateway in gateways))
        assert gateways[0].ask() == ""
        redis.hang()
        await eventually(lambda: not any(gateway.shared.connected for gateway in gateways))
        assert [gateway.ask() for gateway in gateways] == ["", ""]
        assert "each gateway has its share of the limits" in gateways[0].log.getvalue()
        redis.go_on()
        await eventually(lambda: all(gateway.shared.connected for gateway in gateways))
        assert [gateway.ask() for gateway in gateways] == ["", ""]


async def test_a_redis_that_was_never_there_is_told_of_once_and_seen_in_the_metrics(redis: RedisServer) -> None:
    """Or a wrong address or password would make limits larger, and nobody would know."""
    redis.kill()
    gateway = Gateway(redis.url, EndpointLimits(requests_per_second=1))
    task = asyncio.create_task(gateway.shared.run())
    await eventually(lambda: gateway.shared.outages == 1)
    assert gateway.shared.gauges() == {"hyperion_redis_connected": {(): 0.0}}
    assert gateway.shared.counters() == {"hyperion_redis_outages_total": {(): 1.0}}
    assert "Redis is away" in gateway.log.getvalue()
    redis.start()
    await eventually(lambda: gateway.shared.connected)
    assert gateway.shared.gauges() == {"hyperion_redis_connected": {(): 1.0}}
    assert gateway.log.getvalue().count("Redis is away") == gateway.shared.outages == 1
    task.cancel()


async def test_without_redis_from_the_start_each_gateway_has_its_share() -> None:
    gateway = Gateway("redis://127.0.0.1:1/0", EndpointLimits(requests_per_second=0.001, burst=9))
    gateway.book.take_share(3)
    task = asyncio.create_task(gateway.shared.run())
    await asyncio.sleep(0.05)
    assert [gateway.ask() == "" for _ in range(5)] == [True, True, True, False, False]
    task.cancel()


async def test_a_request_of_more_rows_than_a_lease_passes_and_is_paid_for(redis: RedisServer) -> None:
    one, other = (Gateway(redis.url, EndpointLimits(rows_per_second=1, burst=100)) for _ in range(2))
    async with sharing(one, other):
        await eventually(lambda: one.book.share == other.book.share == 2)
        assert one.ask(rows=200) == ""
        (bucket,) = one.book.shared_buckets()
        await eventually(lambda: bucket.level < -90)
        assert other.ask(rows=1) == "", "in advance"
        (bucket,) = other.book.shared_buckets()
        await eventually(lambda: bucket.level < -90)
        assert "rows per second" in one.ask(rows=1)
        assert [other.ask(rows=1) == "" for _ in range(20)].count(True) == lease.advance(100, 2) - 1


async def test_leases_that_nobody_needs_are_given_back_and_forgotten(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_limits, "QUIET", 0)
    one, other = (Gateway(redis.url, EndpointLimits(requests_per_second=1_000, burst=100)) for _ in range(2))
    async with sharing(one, other):
        assert [one.ask() for _ in range(10)] == [""] * 10
        (bucket,) = one.book.shared_buckets()
        await eventually(lambda: not bucket.asked and not bucket.credit and not bucket.owed)
        assert other.ask() == ""
        (seen,) = other.book.shared_buckets()
        await eventually(lambda: not seen.asked and seen.level >= 90)
        now_ns = time.monotonic_ns() + 60 * NANO
        await eventually(lambda: bucket.is_idle(now_ns * UNITS_PER_NS))
        one.book.sweep(now_ns)
        assert one.book.shared_buckets() == []


async def test_quotas_count_what_all_gateways_used_and_survive_an_empty_redis(redis: RedisServer) -> None:
    quotas = Quotas(requests_per_day=10, rows_per_month=1_000)
    one, other = (Gateway(redis.url, EndpointLimits(), quotas) for _ in range(2))

    def known(gateway: Gateway) -> float:
        return gateway.book.usages.meter("t").totals()[0].requests

    async with sharing(one, other):
        assert [one.ask() for _ in range(6)] == [""] * 6
        assert other.ask() == ""
        await eventually(lambda: known(one) == known(other) == 7)
        redis.kill()
        assert one.ask() == ""
        redis.start()
        await eventually(lambda: known(other) == 8)
        assert [other.ask() == "" for _ in range(4)] == [True, True, False, False]
        await eventually(lambda: known(one) == 10)
        assert "quota of requests for this day" in one.ask()


async def test_without_redis_py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis.asyncio", None)
    with pytest.raises(MissingExtra, match="redis"):
        await SharedLimits("redis://x", LimitBook(leases=True), EventLog("gateway", "text", io.StringIO())).run()


class Server:
    """What `shared_script.LEASE` does, in Python and on a clock of the test's own."""

    def __init__(self, gateways: int) -> None:
        self.gateways = gateways
        self.now_s = 0.0
        self.level: dict[str, tuple[float, float]] = {}
        self.leases: dict[tuple[str, str], tuple[int, float]] = {}
        self.lost = False

    async def __call__(self, keys: list[str], values: list[Any]) -> list[int]:
        me, answer = values[0], [self.gateways]
        for number, key in enumerate(keys[1:]):
            rate, burst, held, owed, wanted = (float(value) for value in values[3 + 5 * number : 8 + 5 * number])
            level, told = self.level.get(key, (burst, self.now_s))
            leases = {
                who: tokens
                for (where, who), (tokens, ends_s) in self.leases.items()
                if where == key and ends_s > self.now_s
            }
            mine = max(held, leases.pop(me, 0))
            level = min(level + (self.now_s - told) * rate, burst - sum(leases.values()) - mine) - owed
            grant = max(0, int(min(wanted, math.floor(level))))
            self.level[key] = level - grant, self.now_s
            self.leases[key, me] = int(held) + grant, self.now_s + 15.0
            answer += [grant, math.floor(level - grant)]
        if self.lost:
            raise TimeoutError
        return answer


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32))
def test_no_window_admits_more_than_the_bound_whatever_is_asked_where(seed: int) -> None:
    """The real buckets and exchanges over a model of the server: any requests at any gateway, exchanges late or lost
    on the way, but for what a lease is given back after: a gateway that runs does that in time."""
    drawn = random.Random(seed)
    rate, burst = drawn.choice([0.5, 10.0, 200.0, 5_000.0]), drawn.choice([1, 5, 100, 1_000])
    number = drawn.randint(1, 4)
    server = Server(number)
    gateways = [Gateway("", EndpointLimits(requests_per_second=rate, burst=burst)) for _ in range(number)]
    for gateway in gateways:
        gateway.book.take_share(number)
        gateway.book.start_leases(0)
    passed: list[tuple[float, int]] = []

    async def exchange(gateway: Gateway) -> None:
        due = gateway.shared._due_buckets(int(server.now_s * NANO) * UNITS_PER_NS)
        with suppress(TimeoutError):
            await gateway.shared._exchange(server, due)

    async def run() -> None:
        for _ in range(drawn.randint(1, 80)):
            pause_s = drawn.choice([0.0, PERIOD_S / 2, PERIOD_S, 0.5, 20.0])
            if pause_s > 1.0:
                for _ in range(2):
                    server.now_s += 5.1
                    for gateway in gateways:
                        await exchange(gateway)
            server.now_s += pause_s
            gateway = drawn.choice(gateways)
            now_ns = int(server.now_s * NANO)
            count = 0
            for _ in range(drawn.choice([0, 1, 2, 30, 300])):
                with suppress(RateLimited):
                    gateway.limiter.enter(gateway.caller, now_ns)
                    count += 1
            passed.append((server.now_s, count))
            if drawn.random() < 0.5:
                server.lost = drawn.random() < 0.1
                await exchange(gateway)
                server.lost = False

    asyncio.run(run())
    for first in range(len(passed)):
        total = 0
        for at_s, count in passed[first:]:
            total += count
            assert total <= admitted_most(rate, burst, number, at_s - passed[first][0]) + 1e-6


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_script_does_what_its_model_does(redis: RedisServer, data: st.DataObject) -> None:
    """On a rate that brings nothing, as the clock of Redis is its own."""
    redis_asyncio = needs_module("redis.asyncio", extra="redis")
    burst = data.draw(st.integers(1, 50))
    steps = data.draw(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.integers(-10, 20), st.integers(0, 60)),
            min_size=1,
            max_size=12,
        )
    )

    async def run() -> None:
        client = redis_asyncio.Redis.from_url(redis.url)
        await client.flushall()
        script = client.register_script(shared_limits.LEASE)
        model = Server(0)
        for me, held, owed, wanted in steps:
            arguments = [me, 1_000_000, 60_000_000, "1e-09", burst, held, owed, wanted]
            real = await script(["gateways", "bucket"], arguments)
            assert real[1:] == (await model(["gateways", "bucket"], arguments))[1:]
        await client.aclose()

    asyncio.run(run())


async def test_the_slowest_and_largest_limit_is_kept_like_any_other(redis: RedisServer) -> None:
    """Numbers that Redis could not read would take it away from all limits."""
    least, most = rate_limit.LEAST_PER_SECOND, rate_limit.MOST_AT_ONCE
    gateway = Gateway(redis.url, EndpointLimits(least, most, rows_per_second=least))
    async with sharing(gateway):
        assert gateway.ask(rows=most) == ""
        await eventually(
            lambda: gateway.shared.outages > 0 or all(one.level < most for one in gateway.book.shared_buckets())
        )
        assert (gateway.shared.connected, gateway.shared.outages) == (True, 0)
