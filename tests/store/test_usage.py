"""Usage over both databases: counted once, whatever is reported twice, late, or by a gateway that is gone."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperion.schema.usage import Amounts, DayUsage, UsageRow
from hyperion.store import usage
from hyperion.store.database import Database
from tests.store.places import Place

TODAY = "2026-11-21"


def row(tenant: str, day: str, requests: int, rows: int = 0, tokens: int = 0, cost: float = 0.0) -> UsageRow:
    return UsageRow(tenant, day, Amounts(requests, rows, tokens, cost))


def put(database: Database, **counted: list[UsageRow]) -> None:
    with database.write() as tx:
        usage.put_many(tx, counted)


def sums(database: Database, *tenants: str) -> usage.Sums:
    with database.read() as tx:
        return usage.sums_of(tx, tenants, TODAY)


def days(database: Database, tenant: str, first: str = "2026-01-01", last: str = "2026-12-31") -> list[DayUsage]:
    with database.read() as tx:
        return usage.days_of(tx, tenant, first, last)


def test_the_sums_are_of_day_and_month_by_gateway(place: Place) -> None:
    database = place.open()
    put(database, a=[row("acme", TODAY, 3, 30, 300, 1.5), row("acme", "2026-11-01", 1), row("acme", "2026-10-31", 50)])
    put(database, b=[row("acme", TODAY, 4), row("other", TODAY, 7), row("acme", "2026-11-22", 90)])
    assert sums(database, "acme", "nobody") == {
        "acme": {
            "a": (Amounts(3, 30, 300, 1.5), Amounts(4, 30, 300, 1.5)),
            "b": (Amounts(4), Amounts(4)),
        }
    }
    assert sums(database) == {}
    assert days(database, "acme", "2026-11-01", TODAY) == [
        DayUsage("2026-11-01", Amounts(1)),
        DayUsage(TODAY, Amounts(7, 30, 300, 1.5)),
    ]
    assert usage.total_of(days(database, "acme", TODAY, TODAY)) == Amounts(7, 30, 300, 1.5)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), min_size=1, max_size=12))
def test_a_report_that_comes_twice_or_late_changes_nothing(place: Place, reports: list[tuple[str, int]]) -> None:
    database = place.open()
    with database.write() as tx:
        usage.prune(tx, "2027-01-01")
    largest = dict.fromkeys("ab", 0)
    for life, requests in reports:
        put(database, **{life: [row("acme", TODAY, requests, tokens=9 - requests)]})
        largest[life] = max(largest[life], requests)
    assert usage.total_of(days(database, "acme")).requests == sum(largest.values())


def test_many_rows_and_odd_names_are_kept_and_old_days_forgotten(place: Place) -> None:
    database = place.open()
    put(database, a=[row(f"t{number}", TODAY, number + 1) for number in range(450)] + [row("a\0b\ud800", TODAY, 5)])
    assert len(sums(database, *[f"t{number}" for number in range(450)])) == 450
    for odd, known in (("a\0b\ud800", 1), ("\0", 0)):  # as a path or a query may have them
        assert len(days(database, odd)) == known
        with database.read() as tx:
            assert len(usage.tenants_of(tx, TODAY, TODAY, odd, 500)) == 450 * known
    put(database, a=[row("acme", "2025-01-01", 1), row("acme", TODAY, 2)])
    with database.write() as tx:
        assert usage.prune(tx, "2025-06-01") == 1
    assert [day.day for day in days(database, "acme", "2000-01-01")] == [TODAY]
