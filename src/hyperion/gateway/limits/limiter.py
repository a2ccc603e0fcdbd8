"""How much may come: rates, open requests and quotas of one endpoint's callers. Called by `gateway/front/guard` for
each request; costs a microsecond or two and waits for nothing.

A request is let in (`enter`) before its body is decoded, and started (`start`) when its rows are known; what started
ends (`end`), once. A request that one limit refuses gives back what the others have charged, so that it uses up none: a
tenant that is over its own limit takes nothing from the endpoint's. In one process limits are exact.
"""

from math import ceil, inf
from typing import Final

from hyperion.gateway.front.caller import Caller
from hyperion.gateway.limits.book import LOCAL, LimitBook
from hyperion.gateway.limits.buckets import Bucket, Gate
from hyperion.gateway.limits.usage import Meter
from hyperion.policy.quota import day_ends_s, month_ends_s
from hyperion.policy.rate_limit import SECOND, UNITS_PER_NS, burst_of, rows_burst_of, seconds_of, window_s
from hyperion.schema.errors import RateLimited
from hyperion.schema.protect import Cost, EndpointLimits, Limits, Quotas

MAX_PLANS: Final = 16_384
OPEN_AGAIN_S: Final = 1.0  # `retry-after` counts whole seconds
JOBS_LEAVE: Final = 4  # of how many places one is left to who waits for an answer
FREE: Final = Cost()
MOST: Final = 999_999_999_999_999  # an Integer of structured fields (RFC 9651) has no more digits
QUOTAS: Final = ("tenant", "tenant-rows", "tenant-tokens")  # how header fields name them, by measure
UNITS: Final = ("", ';qu="rows"', ';qu="tokens"')
PERIODS_S: Final = (("day", 86_400), ("month", 31 * 86_400))
# How a request came in: through `enter`; as an attempt at a job, which was let in when somebody asked for it; as a
# further attempt at a job that quotas have counted as a request, and as one only.
ENTERED: Final = 0
UNCOUNTED: Final = 1
COUNTED: Final = 2


class Rule:
    """One bucket of a plan, and how callers are told of it: `name` in header fields, `text` in refusals."""

    __slots__ = ("bucket", "name", "text")

    def __init__(self, bucket: Bucket, name: str, text: str) -> None:
        self.bucket: Final = bucket
        self.name: Final = name
        self.text: Final = text


class GateRule:
    """One gate of a plan: at most `limit` may be open. At most `job_limit` of these are attempts at jobs: they come
    without end, and whoever waits for an answer would find all places taken."""

    __slots__ = ("gate", "job_limit", "limit", "text")

    def __init__(self, gate: Gate, limit: int, text: str) -> None:
        self.gate: Final = gate
        self.limit: Final = limit
        self.job_limit: Final = max(1, limit - max(1, limit // JOBS_LEAVE))
        self.text: Final = text


class Plan:
    """All limits of one caller at one endpoint."""

    __slots__ = ("gates", "generation", "meter", "policy", "requests", "rows")

    def __init__(self, generation: int, meter: Meter | None) -> None:
        self.generation: Final = generation
        self.meter: Final = meter
        self.requests: list[Rule] = []
        self.rows: list[Rule] = []
        self.gates: list[GateRule] = []
        self.policy = b""


class Limiter:
    """One endpoint's; made anew where its limits change. Everything that must outlive it is in the book."""

    __slots__ = ("_book", "_charges", "_cost", "_limits", "_plans", "endpoint")

    def __init__(self, book: LimitBook, endpoint: str, limits: EndpointLimits | None, cost: Cost | None) -> None:
        self.endpoint: Final = endpoint
        self._book: Final = book
        self._limits: Final = limits
        self._cost: Final = cost or FREE
        self._charges: Final = self._cost != FREE
        self._plans: dict[Caller, Plan] = {}  # by identity: one object stands for one set of credentials

    def enter(self, caller: Caller, now_ns: int) -> None:
        """Charges one request. Raises RateLimited, and charges nothing, where a rate does not allow it."""
        plan = self._plans.get(caller)
        if plan is None or plan.generation != self._book.generation:
            plan = self._make_plan(caller, now_ns)
        if plan.requests:
            _charge(plan.requests, 1, now_ns * UNITS_PER_NS)

    def start(self, caller: Caller, rows: int, now_ns: int, entry: int = ENTERED) -> None:
        """Charges the rows of a request that was let in, and opens it. Raises RateLimited, and gives back what `enter`
        charged, if it did, where rows, open requests or a quota do not allow it."""
        if now_ns >= self._book.day_ends_ns:
            self._book.roll(now_ns)
        plan = self._plans.get(caller)
        if plan is None or plan.generation != self._book.generation:
            plan = self._make_plan(caller, now_ns)
        meter = plan.meter
        try:
            for rule in plan.gates:
                if rule.gate.open >= rule.limit or (entry != ENTERED and rule.gate.jobs >= rule.job_limit):
                    raise _closed(rule)
            if meter is not None and meter.limited:
                self._check_quotas(meter, rows, entry)
            if plan.rows:
                _charge(plan.rows, rows, now_ns * UNITS_PER_NS)
        except RateLimited:
            if entry == ENTERED:
                for charged in plan.requests:
                    charged.bucket.give_back(1)
            raise
        for rule in plan.gates:
            rule.gate.open += 1
            if entry != ENTERED:
                rule.gate.jobs += 1
        if meter is not None:
            meter.rows += rows
            if entry != COUNTED:
                meter.requests += 1
            if self._charges:
                meter.cost += self._price(rows, entry)

    def end(self, caller: Caller, _rows: int, tokens: int, now_ns: int, entry: int = ENTERED) -> None:
        """Closes a request that was started, and charges its tokens. Rows and entry are those it was started with."""
        plan = self._plans.get(caller)
        if plan is None or plan.generation != self._book.generation:
            plan = self._make_plan(caller, now_ns)
        for rule in plan.gates:
            rule.gate.open -= 1
            if entry != ENTERED:
                rule.gate.jobs -= 1
        meter = plan.meter
        if meter is not None:
            self._book.usages.revision += 1
            if tokens:
                meter.tokens += tokens
                meter.cost += tokens * self._cost.per_token

    def headers(self, caller: Caller, now_ns: int) -> list[tuple[bytes, bytes]]:
        """The fields RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10): all limits and quotas of
        requests, rows and tokens, and what is left of the one that has least left. [] where there is none."""
        if now_ns >= self._book.day_ends_ns:
            self._book.roll(now_ns)
        plan = self._plans.get(caller)
        if plan is None or plan.generation != self._book.generation:
            plan = self._make_plan(caller, now_ns)
        if not plan.policy:
            return []
        now = now_ns * UNITS_PER_NS
        least = -1
        tightest: Rule | None = None
        for rule in plan.requests:
            remaining = rule.bucket.remaining(now)
            if least < 0 or remaining < least:
                least, tightest = remaining, rule
        for rule in plan.rows:
            remaining = rule.bucket.remaining(now)
            if least < 0 or remaining < least:
                least, tightest = remaining, rule
        meter = plan.meter
        if meter is not None and meter.limited:
            measure, left = meter.least_left()
            if left != inf and (tightest is None or left <= least):
                return [(b"ratelimit-policy", plan.policy), (b"ratelimit", self._quota_state(meter, measure, left))]
        if tightest is None:
            return []
        full_s = -(-tightest.bucket.full_after(now) // SECOND)
        state = f'"{tightest.name}";r={least};t={full_s if full_s < MOST else MOST}'
        return [(b"ratelimit-policy", plan.policy), (b"ratelimit", state.encode())]

    def _quota_state(self, meter: Meter, measure: int, left: float) -> bytes:
        """What is left of a quota, and when all of it will be there again."""
        period = meter.periods[measure]
        now_s = self._book.now_s()
        ends_s = day_ends_s(now_s) if period == "day" else month_ends_s(now_s)
        remaining = min(MOST, max(0, int(left)))
        return f'"{QUOTAS[measure]}-{period}";r={remaining};t={ceil(ends_s - now_s)}'.encode()

    def _price(self, rows: int, entry: int) -> float:
        """What a request of so many rows costs as it starts."""
        of_rows = rows * self._cost.per_row
        return of_rows if entry == COUNTED else self._cost.per_request + of_rows

    def _check_quotas(self, meter: Meter, rows: int, entry: int) -> None:
        cost = self._price(rows, entry)
        requests = 0 if entry == COUNTED else 1
        if meter.fits(rows, cost, requests):
            return
        measure, period = meter.used_up(rows, cost, requests)
        now_s = self._book.now_s()
        ends_s = day_ends_s(now_s) if period == "day" else month_ends_s(now_s)
        raise RateLimited(
            f'tenant "{meter.tenant}": its quota of {measure} for this {period} (UTC) is used up; it starts anew in '
            f"{ends_s - now_s:.0f} s, and who runs this platform can raise it (kind: Tenant, "
            f"quotas.{measure}_per_{period})",
            retry_after_s=ends_s - now_s,
        )

    def _make_plan(self, caller: Caller, now_ns: int) -> Plan:
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        book = self._book
        plan = Plan(-1, None)
        while plan.generation != book.generation:  # making one bucket may sweep away another
            plan = self._collect(caller, now_ns)
        self._plans[caller] = plan
        return plan

    def _collect(self, caller: Caller, now_ns: int) -> Plan:
        book, endpoint, record, limits = self._book, self.endpoint, caller.record, self._limits
        meter = book.usages.meter(caller.tenant) if caller.tenant else None
        if meter is not None:
            meter.set_quotas(record.quotas)
        plan = Plan(book.generation, meter)
        tenant = caller.tenant
        key = caller.key or f"{caller.subject} of {tenant}"  # two issuers may give one name to two tenants' callers
        whose = f'tenant "{tenant}"' if tenant else "callers without credentials"
        there = f'endpoint "{endpoint}"'
        policies = []
        # In this order: what the caller can do something about is named first.
        for name, scope, text, part in (
            ("key", f"key {key}", "this key", record.key_limits),
            ("tenant", f"tenant {tenant}", whose, record.limits),
            ("endpoint-key", f"endpoint {endpoint} key {key}", f"this key at {there}", _per_key(limits)),
            ("endpoint-tenant", f"endpoint {endpoint} tenant {tenant}", f"{whose} at {there}", _per_tenant(limits)),
            ("endpoint", f"endpoint {endpoint}", f"all callers of {there} together", limits),
            ("gateway", LOCAL, "all callers of this gateway together", _overall(book)),
        ):
            if part is None:
                continue
            policies += _add_rates(plan, book, name, scope, text, part, now_ns)
            if part.concurrency:
                share = book.workers if scope == LOCAL else book.share
                plan.gates.append(GateRule(book.gate(scope), max(1, part.concurrency // share), text))
        if meter is not None and record.quotas is not None:
            policies += _quota_policies(record.quotas)
        plan.policy = ", ".join(policies).encode()
        return plan


def _add_rates(plan: Plan, book: LimitBook, name: str, scope: str, text: str, limits: Limits, now_ns: int) -> list[str]:
    """Adds the buckets of these limits to the plan, and returns their items of RateLimit-Policy."""
    policies = []
    rate, rows_rate = limits.requests_per_second, limits.rows_per_second
    if rate > 0.0:
        burst = burst_of(rate, limits.burst)
        bucket = book.bucket(f"{scope} requests", rate, burst, now_ns, scope == LOCAL)
        plan.requests.append(Rule(bucket, name, f"{text}: over the limit of {rate:g} requests per second"))
        policies.append(f'"{name}";q={burst};w={min(MOST, window_s(rate, burst))}')
    if rows_rate > 0.0:
        burst = rows_burst_of(rate, limits.burst, rows_rate)
        bucket = book.bucket(f"{scope} rows", rows_rate, burst, now_ns, scope == LOCAL)
        plan.rows.append(Rule(bucket, f"{name}-rows", f"{text}: over the limit of {rows_rate:g} rows per second"))
        policies.append(f'"{name}-rows";q={burst};w={min(MOST, window_s(rows_rate, burst))};qu="rows"')
    return policies


def _quota_policies(quotas: Quotas) -> list[str]:
    """The items of RateLimit-Policy for quotas. Costs are no whole numbers, as these have to be."""
    given = (
        (quotas.requests_per_day, quotas.requests_per_month),
        (quotas.rows_per_day, quotas.rows_per_month),
        (quotas.tokens_per_day, quotas.tokens_per_month),
    )
    return [
        f'"{name}-{period}";q={min(MOST, quota)};w={window}{unit}'
        for name, unit, both in zip(QUOTAS, UNITS, given, strict=True)
        for quota, (period, window) in zip(both, PERIODS_S, strict=True)
        if quota
    ]


def _per_key(limits: EndpointLimits | None) -> Limits | None:
    return None if limits is None else limits.per_key


def _per_tenant(limits: EndpointLimits | None) -> Limits | None:
    return None if limits is None else limits.per_tenant


def _overall(book: LimitBook) -> Limits | None:
    if not (book.requests_per_second or book.concurrency):
        return None
    return Limits(requests_per_second=book.requests_per_second, concurrency=book.concurrency)


def _charge(rules: list[Rule], count: int, now: int) -> None:
    """Takes `count` from all of these buckets. Raises RateLimited, and takes from none, where one has not enough."""
    for rule in rules:
        wait = rule.bucket.take(count, now)
        if wait:
            for charged in rules:
                if charged is rule:
                    break
                charged.bucket.give_back(count)
            after_s = max(0.001, seconds_of(wait))
            raise RateLimited(f"{rule.text}; try again in {after_s:.3g} s", retry_after_s=after_s)


def _closed(rule: GateRule) -> RateLimited:
    message = f"{rule.text}: {rule.gate.open} requests are open, and no more may be; try again when one has ended"
    return RateLimited(message, retry_after_s=OPEN_AGAIN_S)
