"""The metrics of the whole platform: those of every gateway, merged."""

import asyncio
from pathlib import Path

import msgspec

from hyperion.api.records import Management
from hyperion.telemetry.exposition import decode, merge, render
from hyperion.telemetry.metrics import MetricsData

_TIMEOUT_S = 2.0
_MAX_BYTES = 64 << 20


async def collect_metrics(management: Management) -> bytes:
    """Return Prometheus text: what the gateways count, and what control knows.

    A gateway that does not answer in time is left out, as its process is then restarted.
    """
    run_dir = Path(management.config.run_dir)
    sockets = [run_dir / f"gateway-{worker}.sock" for worker in range(management.config.gateway_workers)]
    answers = await asyncio.gather(*map(_ask, sockets), return_exceptions=True)
    parts = [answer for answer in answers if isinstance(answer, MetricsData)]
    return render(merge([*parts, MetricsData({}, management.gauges(), {})]))


async def _ask(socket: Path) -> MetricsData:
    async with asyncio.timeout(_TIMEOUT_S):
        reader, writer = await asyncio.open_unix_connection(str(socket), limit=_MAX_BYTES)
        try:
            return decode(await reader.read(-1))
        except msgspec.DecodeError as error:
            raise ConnectionError(f"{socket.name}: {error}") from error
        finally:
            writer.close()
