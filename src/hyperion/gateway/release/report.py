"""Sends control what this gateway has counted, over a connection of its own. A task of `gateway/process`.

Counts are cumulative, so a lost report costs nothing; sampled predictions and values go again until control has
said that it has them. While control is away the counting goes on, and is told later.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hyperion.gateway.limits.book import LimitBook
from hyperion.gateway.release.counts import Counts
from hyperion.schema.errors import HyperionError, InternalError
from hyperion.schema.release import GatewayReport
from hyperion.wire.link import Decoder, Done, Report, encode

LIVE_S: Final = 0.1  # between reports while a release is under way
IDLE_S: Final = 2.0
USAGE_S: Final = 1.0  # and while tenants have quotas
RETRY_S: Final = (0.1, 0.25, 0.5, 1.0, 2.0)
ANSWER_S: Final = 10.0
MAX_ROWS: Final = 1_000  # predictions, and pairs of values, in one report


class Reporter:
    """`dropped(records)` is told of sampled predictions that were lost. `book` has what tenants use of this gateway,
    and takes what they use of others."""

    def __init__(
        self,
        socket_path: Path,
        worker: int,
        counts: Counts,
        dropped: Callable[[int], None],
        book: LimitBook | None = None,
    ) -> None:
        self._socket_path = socket_path
        self._worker = worker
        self._counts = counts
        self._dropped = dropped
        self._book = book
        self._told = -1  # the revision of the usage that control has; a new gateway asks for that of others
        self.incarnation = f"{worker}-{secrets.token_hex(6)}"

    async def run(self) -> None:
        """Reports for ever."""
        attempt = 0
        while True:
            try:
                await self._report_until_lost()
                attempt = 0
            except (OSError, TimeoutError, asyncio.IncompleteReadError, HyperionError):
                # Control is away: nothing to do but to try again; the counts are kept meanwhile.
                attempt += 1
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])

    async def _report_until_lost(self) -> None:
        await self._until_news()
        reader, writer = await asyncio.open_unix_connection(str(self._socket_path))
        with contextlib.closing(writer):
            decoder = Decoder()
            while True:
                told = 0 if self._book is None else self._book.usages.revision
                revision, report = self.make_report()
                writer.write(encode(Report(report)))
                await writer.drain()
                async with asyncio.timeout(ANSWER_S):
                    done = await self._until_done(reader, decoder)
                self._told = told
                if self._book is not None:
                    self._book.usages.take(done.usage)
                self._counts.acknowledge(revision, len(report.predictions), len(report.values))
                await self._until_news()

    async def _until_news(self) -> None:
        """Until there is something to tell, and then the time that lies between reports."""
        counts = self._counts
        waited_s = 0.0
        while True:
            await asyncio.sleep(LIVE_S)
            waited_s += LIVE_S
            counts.settle()
            lost = counts.take_dropped()
            if lost:
                self._dropped(lost)
            if counts.revision != counts.acknowledged and (counts.live or waited_s >= IDLE_S):
                return
            if self._has_usage() and (waited_s >= USAGE_S or self._told < 0):
                return

    def _has_usage(self) -> bool:
        """Whether tenants used anything, or it matters what they use of other gateways."""
        if self._book is None:
            return False
        self._book.roll(time.monotonic_ns())  # clocks are set
        return self._book.usages.revision != self._told or self._book.usages.has_quotas()

    def make_report(self) -> tuple[int, GatewayReport]:
        """The revision of the counts, and all of them."""
        tracks, pairs, samples, predictions, values = self._counts.content(MAX_ROWS)
        usage = () if self._book is None else self._book.usages.rows()
        report = GatewayReport(self.incarnation, self._worker, tracks, pairs, samples, predictions, values, usage)
        return self._counts.revision, report

    async def _until_done(self, reader: asyncio.StreamReader, decoder: Decoder) -> Done:
        while True:
            data = await reader.read(1 << 16)
            if not data:
                raise ConnectionResetError("control closed the link")
            for answer in decoder.feed(data):
                if not isinstance(answer, Done):
                    raise InternalError("control gave no answer to the report")
                return answer
