"""How much of the bare data plane's throughput an endpoint keeps that asks for everything:
`python -m bench.protected [PAIRS] [SECONDS]`.

Two servers side by side, with one gateway worker each and the same small model: one whose endpoints ask for nothing,
and one with a key, limits of endpoint, tenant and key, a range on each number, a cache that is never hit, a breaker,
retries and tenants that share fairly. `wrk` asks them in turn, A B B A, and no request twice; two bare endpoints are
the A/A control. Start it with PYTHONPATH at a compiled build (docs/performance.md).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.endpoints import Platform, compare

TENANT = """apiVersion: hyperion/v1
kind: Tenant
metadata: {name: acme}
spec:
  limits: {requests_per_second: 10000000, concurrency: 100000}
  key_limits: {requests_per_second: 10000000}
  weight: 2
"""
EVERYTHING = """access: {tenants: [acme]}
  limits: {requests_per_second: 10000000, concurrency: 100000}
  schema: {inputs: {input: {min: -100, max: 10000000, nan: reject}}}
  cache: {ttl_s: 60, max_mb: 64}
  retry: {budget: 0.2}
  breaker: {failures: 0.5}"""
NOTHING = "deadline_ms: 30000"


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        with (
            Platform(home / "open", {"bare": NOTHING, "twin": NOTHING}) as plain,
            Platform(home / "closed", {"everything": EVERYTHING}, TENANT, "acme") as guarded,
        ):
            for platform, endpoint in ((plain, "bare"), (plain, "twin"), (guarded, "everything")):
                platform.drive(endpoint, 0, seconds)
            compare((plain, "twin"), (plain, "bare"), 0, pairs, seconds)
            compare((guarded, "everything"), (plain, "bare"), 0, pairs, seconds)


if __name__ == "__main__":
    main()
