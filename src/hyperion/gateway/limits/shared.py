"""Limits that hold for all gateways together, by way of Redis. A task of `gateway/process`, where there is a Redis.

About each `policy/lease.PERIOD_S` one round trip exchanges, for all buckets that were asked for something, what was
used against tokens for what comes next; and less often what tenants used. No request waits for it. While Redis is away
or slow each gateway has its share of each limit by itself, and Redis is tried again; how much more or less may pass
then is in docs/limits.md.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from hyperion.gateway.limits.book import LimitBook
from hyperion.gateway.limits.buckets import Bucket
from hyperion.gateway.limits.shared_script import GATEWAYS_KEY, LEASE, PREFIX, USAGE
from hyperion.gateway.limits.usage import Meter
from hyperion.policy.lease import PERIOD_S, lease_wanted
from hyperion.policy.quota import add, first_of_month
from hyperion.policy.rate_limit import SECOND, UNITS_PER_NS
from hyperion.schema.errors import MissingExtra
from hyperion.schema.usage import Amounts, OthersUsage
from hyperion.telemetry.logs import EventLog

if TYPE_CHECKING:
    from redis.asyncio import Redis

ANSWER_S: Final = 0.25  # a Redis that takes longer is away
RETRY_S: Final = (0.1, 0.25, 0.5, 1.0)
PRESENT_US: Final = 3_000_000  # a gateway that says nothing for so long is not counted any more
PRESENCE_S: Final = 1.0  # says so at least this often
SURE_S: Final = 5.0  # after so long all gateways have found a Redis that came back
LEASE_US: Final = 15_000_000
QUIET: Final = 5 * SECOND  # after so long without a request a lease is given back
USAGE_S: Final = 0.2
CHUNK: Final = 256  # buckets or tenants in one call: Redis does nothing else meanwhile
DAY_KEPT_S: Final = 3 * 86_400
MONTH_KEPT_S: Final = 63 * 86_400


class SharedLimits:
    """`url` as redis-py takes it (`redis://host:6379/0`). `outages` counts how often Redis went away, or was not there
    at first."""

    def __init__(self, url: str, book: LimitBook, log: EventLog) -> None:
        self.name: Final = secrets.token_hex(6)
        self._url = url
        self._book = book
        self._log = log
        self._away = False  # and the log says so
        self.outages = 0
        self._told: dict[str, Amounts] = {}  # what Redis knows of this gateway, by tenant
        self._present_at = self._usage_at = self._connected_at = 0.0

    @property
    def connected(self) -> bool:
        """Whether Redis answers."""
        return self._book.leasing

    def gauges(self) -> dict[str, dict[tuple[str, ...], float]]:
        """What stands now, for the metrics."""
        return {"hyperion_redis_connected": {(): float(self.connected)}}

    def counters(self) -> dict[str, dict[tuple[str, ...], float]]:
        """What was counted, for the metrics."""
        return {"hyperion_redis_outages_total": {(): float(self.outages)}}

    async def run(self) -> None:
        """Exchanges for ever. Raises MissingExtra without redis-py."""
        errors, connect = await asyncio.to_thread(_load)
        attempt = 0
        while True:
            client = connect(self._url)
            try:
                await self._exchange_until_lost(client)
            except (errors, OSError, TimeoutError) as error:
                attempt = 0 if self._book.leasing else attempt + 1
                self._lose(str(error) or type(error).__name__)
            finally:
                await client.aclose()
            _end_if_cancelled()
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])

    async def _exchange_until_lost(self, client: "Redis") -> None:
        leases, usage = client.register_script(LEASE), client.register_script(USAGE)
        self._told.clear()
        self._present_at = self._usage_at = 0.0
        self._connected_at = time.monotonic()
        await self._exchange(leases, [])  # before anything is leased: who is there
        self._book.start_leases(time.monotonic_ns())
        self._away = False
        self._log.write("info", "limits are shared through Redis", gateways=self._book.share)
        while True:
            began_s = time.monotonic()
            due = self._due_buckets(time.monotonic_ns() * UNITS_PER_NS)
            for at in range(0, len(due), CHUNK):
                await self._exchange(leases, due[at : at + CHUNK])
            if not due and began_s - self._present_at > PRESENCE_S:
                await self._exchange(leases, [])
            if began_s - self._usage_at > USAGE_S:
                self._usage_at = began_s
                await self._tell_usage(usage)
            _end_if_cancelled()
            await asyncio.sleep(max(0.001, PERIOD_S - (time.monotonic() - began_s)))

    def _lose(self, reason: str) -> None:
        if self._book.leasing:
            self._book.end_leases(time.monotonic_ns())
        if not self._away:
            self._away = True
            self.outages += 1
            self._log.write(
                "warning", "Redis is away: each gateway has its share of the limits", error=reason, of=self._book.share
            )

    def _due_buckets(self, now: int) -> list[Bucket]:
        due = []
        for bucket in self._book.shared_buckets():
            if bucket.is_due(now, QUIET):
                if bucket.asked:
                    bucket.asked_at = now
                due.append(bucket)
        return due

    async def _exchange(self, script: Any, buckets: list[Bucket]) -> None:
        """One call. What is owed counts as told even if no answer comes: `Bucket.end_lease` then knows what to do."""
        gateways = self._book.share
        keys, values = [GATEWAYS_KEY], [self.name, PRESENT_US, LEASE_US]
        for bucket in buckets:
            owed, asked, largest = bucket.owed, bucket.asked, bucket.largest
            bucket.owed = bucket.asked = bucket.largest = 0
            if bucket.credit < 0 or not asked:  # a large request took more than there was; or nobody needs it
                owed -= bucket.credit
                bucket.credit = 0
            rate, burst, held = bucket.per_second, bucket.burst, bucket.credit
            wanted = lease_wanted(asked, largest, held, rate, burst, gateways) if asked else 0
            keys.append(f"{PREFIX}rate:{bucket.name}")
            values += [repr(rate), burst, held, owed, wanted]
        answer = await script(keys, values)
        self._present_at = time.monotonic()
        now = time.monotonic_ns() * UNITS_PER_NS
        for number, bucket in enumerate(buckets):
            bucket.hear(answer[1 + 2 * number], answer[2 + 2 * number], now)
        sure = self._present_at - self._connected_at > SURE_S
        self._book.take_share(max(answer[0], 0 if sure else gateways))

    async def _tell_usage(self, script: Any) -> None:
        book = self._book
        book.roll(time.monotonic_ns())
        changed = [
            meter
            for meter in book.usages.meters.values()
            if meter.limited or self._told.get(meter.tenant) != meter.used()
        ]
        for at in range(0, len(changed), CHUNK):
            await self._tell(script, changed[at : at + CHUNK])

    async def _tell(self, script: Any, meters: list[Meter]) -> None:
        keys: list[str] = []
        values: list[Any] = [self.name]
        told = []
        for meter in meters:
            day, used = meter.day, meter.used()
            told.append((meter, day, used))
            keys += [f"{PREFIX}used:{meter.tenant}:{day}", f"{PREFIX}used:{meter.tenant}:{first_of_month(day)[:7]}"]
            values += [DAY_KEPT_S, _write(used), MONTH_KEPT_S, _write(add(used, meter.earlier))]
        answer = await script(keys, values)
        for number, (meter, day, used) in enumerate(told):
            self._told[meter.tenant] = used
            others = OthersUsage(meter.tenant, day, _read(answer[2 * number]), _read(answer[2 * number + 1]))
            meter.take_others(others)


def _end_if_cancelled() -> None:
    """redis-py may answer a task that is cancelled in the middle of a call as if nothing had been."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _load() -> tuple[type[Exception], Callable[[str], "Redis"]]:
    """What redis-py raises, and how to connect with it."""
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError
    except ImportError as error:
        raise MissingExtra("--redis-url needs redis-py: pip install 'hyperion-inference[redis]'") from error

    def connect(url: str) -> "Redis":
        # It must not try again by itself: what was sent may have been done.
        return Redis.from_url(
            url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S, retry=Retry(NoBackoff(), 0)
        )

    return RedisError, connect


def _write(used: Amounts) -> str:
    return f"{used.requests!r} {used.rows!r} {used.tokens!r} {used.cost!r}"


def _read(text: bytes) -> Amounts:
    requests, rows, tokens, cost = (float(part) for part in text.split())
    return Amounts(requests, rows, tokens, cost)
