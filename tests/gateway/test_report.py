"""Control learns what was counted, whatever becomes of it in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from msgspec import structs

from hyperion.gateway.front.caller import Caller
from hyperion.gateway.limits.book import LimitBook
from hyperion.gateway.limits.limiter import Limiter
from hyperion.gateway.release.report import Reporter
from hyperion.schema.errors import RateLimited
from hyperion.schema.protect import Quotas, TenantRecord
from hyperion.schema.release import GatewayReport, Split, Track
from hyperion.schema.snapshot import ServedVersion
from hyperion.schema.usage import Amounts, OthersUsage, UsageRow
from hyperion.wire.link import Decoder, Done, Report, encode
from tests.gateway.serving import Serving, infer, on_uvloop, serving

SPLIT = Split(1, "salt", (Track("1", 0.5), Track("2", 0.5)))


class Control:
    """As much of control as takes reports; `deaf` answers none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reports: list[GatewayReport] = []
        self.deaf = False
        self.usage: tuple[OthersUsage, ...] = ()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = Decoder()
        while data := await reader.read(1 << 16):
            for message in decoder.feed(data):
                assert isinstance(message, Report)
                self.reports.append(message.report)
                if self.deaf:
                    writer.close()
                    return
                writer.write(encode(Done(usage=self.usage)))
        writer.close()


@asynccontextmanager
async def reporting(gateway: Serving, path: Path) -> AsyncIterator[Reporter]:
    reporter = Reporter(path, 3, gateway.counts, gateway.metrics.count_dropped)
    task = asyncio.create_task(reporter.run())
    try:
        yield reporter
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def requests_in(report: GatewayReport) -> int:
    return sum(track.requests for track in report.counts)


@on_uvloop
async def test_reports_are_cumulative_and_come_only_with_news(obedient: ServedVersion, tmp_path: Path) -> None:
    control = Control(tmp_path / "c.sock")
    await control.start()
    async with serving(access_log=False) as gateway, reporting(gateway, control.path) as reporter:
        await gateway.release(SPLIT, obedient, structs.replace(obedient, version="2"))
        for total in (1, 2, 3):
            assert (await gateway.ask(infer("x"))).status == 200
            await gateway.until(lambda total=total: control.reports and requests_in(control.reports[-1]) == total)  # type: ignore[misc]
        heard = len(control.reports)
        assert {(report.incarnation, report.worker) for report in control.reports} == {(reporter.incarnation, 3)}
        await asyncio.sleep(0.35)
        assert len(control.reports) == heard
    await control.stop()


@on_uvloop
async def test_while_control_is_away_everything_is_kept_and_predictions_come_once_it_says_so(
    obedient: ServedVersion, tmp_path: Path
) -> None:
    control = Control(tmp_path / "c.sock")
    async with serving(access_log=False) as gateway, reporting(gateway, control.path):
        await gateway.release(SPLIT, obedient, structs.replace(obedient, version="2"), log_sample=1.0)
        for number in range(5):
            assert (await gateway.ask(infer("x", x_request_id=f"id{number}"))).status == 200
        ids = [f"id{number}" for number in range(5)]
        control.deaf = True
        await control.start()
        await gateway.until(lambda: len(control.reports) >= 2)
        control.deaf = False
        for report in control.reports:
            assert requests_in(report) == 5
            assert sorted(row.id for row in report.predictions) == ids
        await gateway.until(lambda: gateway.counts.revision == gateway.counts.acknowledged)
        assert (await gateway.ask(infer("x", x_request_id="last"))).status == 200
        await gateway.until(lambda: requests_in(control.reports[-1]) == 6)
        assert [row.id for row in control.reports[-1].predictions] == ["last"]
    await control.stop()


@on_uvloop
async def test_an_endpoint_without_a_split_says_nothing(obedient: ServedVersion, tmp_path: Path) -> None:
    control = Control(tmp_path / "c.sock")
    await control.start()
    async with serving(("obedient", obedient), access_log=False) as gateway, reporting(gateway, control.path):
        assert (await gateway.ask(infer("x"))).status == 200
        await asyncio.sleep(0.25)
        assert control.reports == []
        assert gateway.pool().counts is None
    await control.stop()


@on_uvloop
async def test_usage_goes_to_control_and_that_of_others_comes_back(obedient: ServedVersion, tmp_path: Path) -> None:
    control = Control(tmp_path / "c.sock")
    day = "2026-11-21"
    control.usage = (OthersUsage("acme", day, Amounts(8), Amounts(8)),)
    await control.start()
    book = LimitBook(wall=lambda: 1_795_262_400.0)
    limiter = Limiter(book, "e", None, None)
    acme = Caller("acme", "key:k", frozenset(), TenantRecord("acme", quotas=Quotas(requests_per_day=10)), "k")
    async with serving(("obedient", obedient), access_log=False) as gateway:
        reporter = Reporter(control.path, 0, gateway.counts, gateway.metrics.count_dropped, book)
        task = asyncio.create_task(reporter.run())
        await gateway.until(lambda: book.usages.meter("acme").others[0].requests == 8)
        for _ in range(2):
            limiter.enter(acme, 0)
            limiter.start(acme, 3, 0)
            limiter.end(acme, 3, 0, 0)
        with pytest.raises(RateLimited, match="quota of requests"):
            limiter.start(acme, 3, 0)
        await gateway.until(lambda: bool(control.reports[-1].usage))
        assert control.reports[-1].usage == (UsageRow("acme", day, Amounts(2, 6)),)
        heard = len(control.reports)
        await gateway.until(lambda: len(control.reports) > heard)  # as the tenant has quotas
        task.cancel()
    await control.stop()
