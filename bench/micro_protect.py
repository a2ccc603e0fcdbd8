"""What each stage of a protected endpoint costs in the gateway, in µs a request: `python -m bench.micro_protect`.

The same in-memory harness as `bench/micro_gateway`, with one stage on at a time and with all of them. All variants are
measured in turn, several times over, and the best of each counts: what the code costs, without the machine's noise.
"""

import asyncio
import hashlib
import sys

import numpy as np  # noqa: F401  (the gateway has it once its first answers are out)
import uvloop

from bench.micro_gateway import SECRET, measure
from hyperion.schema.protect import (
    Access,
    Breaker,
    Cache,
    Directory,
    EndpointLimits,
    InputRule,
    KeyRecord,
    Limits,
    Protection,
    Retry,
    SchemaRules,
    TenantRecord,
)

CONNECTIONS = 64
PLENTY = Limits(requests_per_second=1e7, concurrency=100_000)
KEYS = Directory(keys=(KeyRecord("k", hashlib.sha256(SECRET).hexdigest(), "acme", ("infer",)),))
TENANTS = Directory(
    tenants=(TenantRecord("acme", limits=PLENTY, key_limits=Limits(requests_per_second=1e7)),), keys=KEYS.keys
)
LIMITS = EndpointLimits(requests_per_second=1e7, concurrency=100_000)
RULES = SchemaRules(inputs={"x": InputRule(min=-10, max=10, nan="reject")})
# A guard alone: who is let in and where the call's end is noted, but nothing is asked for.
GUARDED = Protection(access=Access(anonymous=True))
VARIANTS: dict[str, tuple[Protection, Directory]] = {
    "bare": (Protection(), Directory()),
    "guard": (GUARDED, Directory()),
    "key and tenant": (Protection(access=Access(tenants=("acme",))), KEYS),
    "limits: endpoint, tenant and key": (Protection(limits=LIMITS), TENANTS),
    "rules: a range on 20 numbers": (Protection(rules=RULES), Directory()),
    "cache, never hit": (Protection(cache=Cache()), Directory()),
    "coalescing, never shared": (Protection(coalesce=True), Directory()),
    "retry and breaker": (Protection(retry=Retry(), breaker=Breaker()), Directory()),
    "everything": (
        Protection(
            access=Access(tenants=("acme",)),
            limits=LIMITS,
            rules=RULES,
            cache=Cache(),
            coalesce=True,
            retry=Retry(),
            breaker=Breaker(),
        ),
        TENANTS,
    ),
}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    best = dict.fromkeys(VARIANTS, float("inf"))
    for _ in range(5):
        for name, (protection, directory) in VARIANTS.items():
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
                best[name] = min(best[name], loop.run(measure(CONNECTIONS, rounds, protection, directory)))
    for name, seconds in best.items():
        print(f"{name:34} {seconds * 1e6:6.2f} µs  {(seconds - best['bare']) * 1e6:+6.2f}")


if __name__ == "__main__":
    main()
