"""The process of one `BatchJob`, a child of the supervisor from start to end. Called by `cli/process`.

It tells the supervisor how far it is, and control reads that there. Once it is done it says so and waits to be stopped:
a process that left would be started again. Killed, it is started again and goes on.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec
from msgspec import Struct

from hyperion.batch.run import Run
from hyperion.batch.start import Setup, run_batch
from hyperion.schema.batch import BatchConfig, Progress, Summary
from hyperion.schema.config import EXIT_REFUSED
from hyperion.schema.errors import HyperionError
from hyperion.store.batch_places import check_places, read_databases

NICE: Final = 10  # behind everything that somebody waits for; its runners inherit it
TELL_S: Final = 0.5


class Told(Struct, frozen=True):
    """One status line: how far it is, or what it did."""

    progress: Progress = Progress()
    summary: Summary | None = None


def run(config: BatchConfig, notify: Callable[[str], None]) -> int:
    """Score until the end, or until SIGTERM; returns the exit code. `notify` takes `STATUS=…` and `ERROR=…`."""
    stop = threading.Event()
    runs: list[Run] = []

    def on_term(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        for one in runs:
            one.stop()

    signal.signal(signal.SIGTERM, on_term)
    os.nice(NICE)
    next_s = 0.0
    last = Progress()

    def tell(progress: Progress) -> None:
        nonlocal next_s, last
        last = progress
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + TELL_S
            notify(f"STATUS={write_status(Told(progress))}")

    def started(one: Run) -> None:
        runs.append(one)
        if stop.is_set():
            one.stop()

    try:
        databases = read_databases(config.platform.batch_databases)
        spec = check_places(config.spec, config.platform.batch_dirs, databases)
        setup = Setup(
            config.platform,
            Path(config.platform.run_dir),
            databases,
            max(1, config.platform.cores - 1),
            restart=spec.replace,
            run=config.run,
        )
        summary = run_batch(spec, setup, tell, started)
    except HyperionError as error:
        notify(f"ERROR={error.message}")
        return 1 if error.retryable else EXIT_REFUSED
    if summary is None:
        return 0
    rest = msgspec.structs.replace(last, rows=summary.rows, skipped=summary.skipped, fraction=1.0, eta_s=0.0)
    notify(f"STATUS={write_status(Told(rest, summary))}")
    while not stop.wait(60.0):
        pass
    return 0


def write_status(told: Told) -> str:
    """As text without line breaks."""
    return msgspec.json.encode(told).decode()
