"""Usage on its way: what gateways report is kept once, and each learns what the others counted."""

from pathlib import Path

import pytest

from hyperion.control.callers.usage import Counted, Sums, UsageKeeper
from hyperion.control.callers.usage_book import UsageBook, UsageDesk
from hyperion.schema.errors import InvalidResource, StorageFailed
from hyperion.schema.release import GatewayReport
from hyperion.schema.usage import Amounts, OthersUsage, UsageRow
from hyperion.store.database import open_home

NOW = 1_795_262_400.0  # 2026-11-21T12:00:00Z
TODAY = "2026-11-21"


def report(life: str, requests: int, tenant: str = "acme", day: str = TODAY) -> GatewayReport:
    return GatewayReport(life, 0, usage=(UsageRow(tenant, day, Amounts(requests)),))


class Scene:
    """A keeper on a real store; `restart` makes the next life of control."""

    def __init__(self, home: Path) -> None:
        self.said: list[str] = []
        self.now = NOW
        self.home = home
        self.restart()

    def restart(self) -> None:
        self.database = open_home(self.home)
        self.book = UsageBook(self.database)
        self.keeper = UsageKeeper(lambda: ["acme"], self.said.append, lambda: self.now)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def others(of_day: int, of_month: int, day: str = TODAY) -> tuple[OthersUsage, ...]:
    return (OthersUsage("acme", day, Amounts(of_day), Amounts(of_month)),)


async def test_each_gateway_learns_what_the_others_counted_over_restarts_of_all(scene: Scene) -> None:
    assert scene.keeper.take(report("a", 3)) == ()
    scene.keeper.take(report("b", 4))
    scene.keeper.take(report("b", 4, "unlimited"))
    scene.keeper.take(report("b", 5))
    await scene.keeper.keep(scene.book)
    assert scene.keeper.take(report("a", 3)) == others(5, 5)
    assert scene.keeper.take(report("b", 5)) == others(3, 3)
    scene.restart()
    await scene.keeper.keep(scene.book)
    assert scene.keeper.take(report("b2", 1)) == others(8, 8), "the gateway's next life"
    await scene.keeper.keep(scene.book)
    scene.now += 86_400
    await scene.keeper.keep(scene.book)
    assert scene.keeper.take(report("a", 2, day="2026-11-22")) == others(0, 6, "2026-11-22")


async def test_what_the_store_does_not_take_now_it_takes_later(scene: Scene) -> None:
    class Failing:
        def keep(self, counted: Counted, tenants: tuple[str, ...], now: float) -> Sums:
            raise StorageFailed("the database is away")

    scene.keeper.take(report("a", 3))
    scene.keeper.take(report("b", 3))
    await scene.keeper.keep(Failing())
    scene.keeper.take(report("b", 4))
    await scene.keeper.keep(Failing())
    assert scene.said == ["usage cannot be kept now, and is later: the database is away"]
    await scene.keeper.keep(scene.book)
    assert scene.keeper.take(report("c", 0)) == others(7, 7)


def test_the_desk_reads_months_and_refuses_what_is_no_day(scene: Scene) -> None:
    scene.book.keep({"a": (UsageRow("acme", TODAY, Amounts(2)), UsageRow("acme", "2026-10-31", Amounts(1)))}, (), NOW)
    desk = UsageDesk(scene.database, lambda: NOW)
    assert desk.read("acme")[:2] == ("2026-11-01", TODAY)
    assert desk.read("acme")[3] == Amounts(2)
    assert desk.read("acme", "2026-10-01")[3] == Amounts(3)
    assert desk.read("acme", last="2026-10-31")[3] == Amounts(1)
    with pytest.raises(InvalidResource, match="YYYY-MM-DD"):
        desk.read("acme", "yesterday")
