"""Usage over the management API."""

import time
from collections.abc import Iterator

import pytest

from hyperion.policy.quota import day_of, first_of_month
from hyperion.schema.usage import Amounts, UsageRow
from hyperion.store import usage
from tests.api.platform import Platform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("usage") / "home") as platform:
        yield platform


def test_what_a_tenant_used_is_told_by_day(platform: Platform) -> None:
    with platform.database.write() as tx:
        rows = [
            UsageRow("acme", "2026-03-01", Amounts(2, 20, 0, 0.5)),
            UsageRow("acme", "2026-03-04", Amounts(1, 1, 9)),
        ]
        usage.put_many(tx, {"a": rows, "b": [UsageRow("acme", "2026-03-04", Amounts(1))]})
    answer = platform.ask("tenants/acme/usage?first=2026-03-01&last=2026-03-31").json()
    assert answer == {
        "tenant": "acme",
        "first": "2026-03-01",
        "last": "2026-03-31",
        "total": {"requests": 4, "rows": 21, "tokens": 9, "cost": 0.5},
        "days": [
            {"day": "2026-03-01", "requests": 2, "rows": 20, "tokens": 0, "cost": 0.5},
            {"day": "2026-03-04", "requests": 2, "rows": 1, "tokens": 9, "cost": 0.0},
        ],
    }
    today = day_of(time.time())
    empty = platform.ask("tenants/nobody/usage").json()
    assert (empty["first"], empty["days"]) == (first_of_month(today), [])


def test_what_all_tenants_used_is_told_by_name_and_page(platform: Platform) -> None:
    with platform.database.write() as tx:
        given = [("b", "2026-04-01", 1), ("b", "2026-04-30", 2), ("a", "2026-04-02", 5), ("c", "2026-05-01", 9)]
        rows = [UsageRow(tenant, day, Amounts(count, 2 * count, 0, 0.5)) for tenant, day, count in given]
        usage.put_many(tx, {"x": rows, "y": [UsageRow("b", "2026-04-01", Amounts(10))]})
    first = platform.ask("usage?last=2026-04-30&limit=1").json()
    assert first == {
        "first": "2026-04-01",
        "last": "2026-04-30",
        "items": [{"tenant": "a", "requests": 5, "rows": 10, "tokens": 0, "cost": 0.5}],
        "next": "a",
    }
    second = platform.ask("usage?last=2026-04-30&after=a").json()
    assert second["items"] == [{"tenant": "b", "requests": 13, "rows": 6, "tokens": 0, "cost": 1.0}]
    assert second["next"] is None


def test_what_is_no_day_is_refused_and_so_is_who_may_only_read(platform: Platform) -> None:
    for days in ("first=1st", "first=2026-11-02&last=2026-11-01", "last=2026-13-01"):
        for path in ("tenants/acme/usage", "usage"):
            refused = platform.ask(f"{path}?{days}")
            assert (refused.status, refused.json()["code"]) == (422, "invalid_resource")
    for scope, status in {"deploy": 200, "read": 403, "infer": 403}.items():
        key = platform.ask("keys", {"tenant": "acme", "scopes": [scope]}).json()["key"]
        assert platform.ask("tenants/acme/usage", token=key).status == status
        assert platform.ask("usage", token=key).status == status
