"""What the response cache gives and what it costs: `python -m bench.cache [PAIRS] [SECONDS]`.

One server, one gateway worker, the same small model (20 floats → MLP 64-32 → 2) as endpoints with a cache and without;
`wrk` asks them in turn, A B B A, so that drift hits both alike. Three loads: unique requests to two endpoints without a
cache, which is the A/A control; unique requests to one with a cache; and 100 requests that repeat, on 1 to 64
connections: the fewer wait together, the fewer share a batch, and the more one that is computed costs.
Prints the median of the pairs' ratios with its bootstrap interval. Start it with PYTHONPATH at a compiled build
(docs/performance.md).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.endpoints import Platform, compare

REPEATED = 100
CONNECTIONS = (1, 4, 16, 64)
# All have a guard, so that what is compared is the cache alone.
OPEN = "access: {anonymous: true}"
ENDPOINTS = {"bare": OPEN, "twin": OPEN, "cached": f"{OPEN}\n  cache: {{ttl_s: 600, max_mb: 256}}"}


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
    with tempfile.TemporaryDirectory() as name, Platform(Path(name), ENDPOINTS) as platform:
        for endpoint in ENDPOINTS:  # warm; and the cache learns what unique requests are worth
            platform.drive(endpoint, 0, seconds)
        bare, twin, cached = [(platform, endpoint) for endpoint in ENDPOINTS]
        compare(twin, bare, 0, pairs, seconds)
        compare(cached, bare, 0, pairs, seconds)
        for connections in CONNECTIONS:
            compare(cached, bare, REPEATED, pairs, seconds, connections)
        print(*platform.metrics(), sep="\n")


if __name__ == "__main__":
    main()
