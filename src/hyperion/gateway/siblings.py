"""Metrics across the workers of one machine: each answers on a Unix socket, and any of them can collect all.

Used by `gateway/process`. A worker that does not answer in time is left out rather than waited for.
"""

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from hyperion.telemetry.exposition import decode, encode, merge, render
from hyperion.telemetry.metrics import Metrics, MetricsData

TIMEOUT_S: Final = 1.0
MAX_BYTES: Final = 64 << 20


def socket_of(run_dir: Path, worker: int) -> Path:
    """Where a worker answers for its metrics."""
    return run_dir / f"gateway-{worker}.sock"


async def fetch(path: Path) -> MetricsData | None:
    """The metrics of the worker at `path`, or None when it does not answer."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=MAX_BYTES)
            try:
                return decode(await reader.read(-1))
            finally:
                writer.close()
    except (OSError, TimeoutError, msgspec.DecodeError):
        return None


class Siblings:
    """This worker's metrics, and how to get at those of the others."""

    def __init__(self, run_dir: Path, worker: int, workers: int, metrics: Metrics) -> None:
        self._run_dir = run_dir
        self._worker = worker
        self._workers = workers
        self._metrics = metrics

    async def answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """For asyncio.start_unix_server: sends this worker's metrics to whoever connects."""
        writer.write(encode(self._metrics.collect()))
        try:
            await writer.drain()
        except OSError:
            return  # the asker left
        finally:
            writer.close()

    async def scrape(self) -> bytes:
        """All workers' metrics as Prometheus text."""
        others = [fetch(socket_of(self._run_dir, n)) for n in range(self._workers) if n != self._worker]
        parts = [part for part in await asyncio.gather(*others) if part is not None]
        return render(merge([self._metrics.collect(), *parts]))
