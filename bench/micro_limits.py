"""What limits cost a request: `python -m bench.micro_limits` prints the microseconds of one call each.

The best run is what the code costs when nothing disturbs it; compare such figures only on one machine, side by side.
"""

import time
from collections.abc import Callable

from bench.micro_wire import time_call
from hyperion.gateway.front.caller import Caller
from hyperion.gateway.limits.book import LimitBook
from hyperion.gateway.limits.limiter import Limiter
from hyperion.schema.protect import EndpointLimits, Limits, Quotas, TenantRecord

PLENTY = 1e9


def main() -> None:
    """Prints the table."""
    rate = Limits(requests_per_second=PLENTY)
    both = EndpointLimits(requests_per_second=PLENTY, concurrency=1_000_000)
    rows = Limits(requests_per_second=PLENTY, rows_per_second=PLENTY, concurrency=1_000_000)
    quotas = Quotas(requests_per_day=1 << 50, tokens_per_month=1 << 50)
    cases = {
        "nothing but counting": (None, TenantRecord("t")),
        "two rates, one concurrency": (both, TenantRecord("t", limits=rate)),
        "the same and quotas": (both, TenantRecord("t", limits=rate, quotas=quotas)),
        "six rates, three concurrencies": (rows_of_all(rows), TenantRecord("t", limits=rows)),
    }
    for name, (limits, record) in cases.items():
        limiter = Limiter(LimitBook(), "e", limits, None)
        caller = Caller("t", "key:k", frozenset(), record, "k")
        print(f"{name:32} request {time_call(request(limiter, caller)):5.2f} µs", end="  ")
        print(f"headers {time_call(lambda limiter=limiter, caller=caller: limiter.headers(caller, NOW)):5.2f} µs")


NOW = time.monotonic_ns()


def rows_of_all(limits: Limits) -> EndpointLimits:
    """The same limits for the endpoint and each of its tenants."""
    rate, rows, concurrency = limits.requests_per_second, limits.rows_per_second, limits.concurrency
    return EndpointLimits(requests_per_second=rate, rows_per_second=rows, concurrency=concurrency, per_tenant=limits)


def request(limiter: Limiter, caller: Caller) -> Callable[[], None]:
    """Enters, starts and ends."""
    clock = time.monotonic_ns

    def run() -> None:
        now_ns = clock()
        limiter.enter(caller, now_ns)
        limiter.start(caller, 1, now_ns)
        limiter.end(caller, 1, 0, now_ns)

    return run


if __name__ == "__main__":
    main()
