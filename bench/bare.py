"""Bare ONNX Runtime: the model alone in a process of its own, one thread, at one batch size. The limit of compute.

``python -m bench.bare WORKLOAD BATCH SECONDS`` prints one line of JSON; ``measure`` runs that and reads it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from bench import served
from bench.env import REPOSITORY
from bench.workloads import WORKLOADS

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Bare:
    """Rows per second and the time of one batch in ms (median)."""

    batch: int
    rows_per_s: float
    batch_ms: float


def measure(workload: str, batch: int, seconds: float) -> Bare:
    """Measure in a fresh process, so that nothing of the harness shares its interpreter."""
    import os

    from bench.process import THREADS

    command = [sys.executable, "-m", "bench.bare", workload, str(batch), str(seconds)]
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return Bare(**json.loads(done.stdout))


def main() -> None:
    name, batch, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    workload = WORKLOADS[name]
    run = served.load(workload)
    x = np.concatenate(list(islice(cycle(workload.samples), batch)))
    end_warm_up = time.perf_counter() + min(1.0, seconds / 4)
    while time.perf_counter() < end_warm_up:
        run(x)
    times, begun = [], time.perf_counter()
    while (now := time.perf_counter()) < begun + seconds:
        run(x)
        times.append(time.perf_counter() - now)
    rate = batch * len(times) / (time.perf_counter() - begun)
    print(json.dumps({"batch": batch, "rows_per_s": rate, "batch_ms": float(np.median(times)) * 1e3}))


if __name__ == "__main__":
    main()
