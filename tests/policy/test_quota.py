"""Quotas: of the UTC calendar, and refusing exactly what does not fit."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.quota import (
    MEASURES,
    NOTHING,
    add,
    day_ends_s,
    day_of,
    first_of_month,
    fits,
    largest,
    month_ends_s,
    room_of,
    tighter_periods,
    used_up,
)
from hyperion.schema.protect import Quotas
from hyperion.schema.usage import Amounts

COUNTS = st.integers(0, 20)
AMOUNTS = st.builds(Amounts, COUNTS, COUNTS, COUNTS, COUNTS)
QUOTAS = st.builds(Quotas, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("now", "day", "day_ends", "month_ends"),
    [
        ("2026-11-21T12:00:00", "2026-11-21", "2026-11-22", "2026-12-01"),
        ("2026-12-31T23:59:59.999", "2026-12-31", "2027-01-01", "2027-01-01"),
        ("2028-02-29T00:00:00", "2028-02-29", "2028-03-01", "2028-03-01"),
        ("2027-01-31T00:00:00", "2027-01-31", "2027-02-01", "2027-02-01"),
        ("2027-01-01T00:00:00", "2027-01-01", "2027-01-02", "2027-02-01"),
    ],
)
def test_days_and_months_are_those_of_utc(now: str, day: str, day_ends: str, month_ends: str) -> None:
    assert day_of(at(now)) == day
    assert day_ends_s(at(now)) == at(day_ends)
    assert month_ends_s(at(now)) == at(month_ends)


@given(st.floats(0, 4e9))
def test_a_day_lies_within_its_month_and_both_end_after_now(time_s: float) -> None:
    assert first_of_month(day_of(time_s)) <= day_of(time_s)
    assert time_s < day_ends_s(time_s) <= month_ends_s(time_s)
    assert day_of(day_ends_s(time_s)) > day_of(time_s)
    assert first_of_month(day_of(month_ends_s(time_s))) == day_of(month_ends_s(time_s))


@given(QUOTAS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_the_room_says_what_the_quotas_say(quotas: Quotas, of_day: Amounts, of_month: Amounts, more: Amounts) -> None:
    """The quick look of the hot path, at what is left, agrees with the long one that names the quota."""
    room = room_of(quotas, of_day, of_month)
    refused = used_up(quotas, of_day, of_month, more) != ("", "")
    assert refused == any(not fits(getattr(more, name), getattr(room, name)) for name in MEASURES)


@given(QUOTAS, st.lists(st.integers(1, 5), max_size=30))
def test_never_more_rows_than_the_quota_are_admitted_and_none_is_withheld(quotas: Quotas, sizes: list[int]) -> None:
    used = NOTHING
    for rows in sizes:
        more = Amounts(1, rows)
        measure, period = used_up(quotas, used, used, more)
        if measure:
            limit = getattr(quotas, f"{measure}_per_{period}")
            assert getattr(used, measure) + getattr(more, measure) > limit
        else:
            used = add(used, more)
    for name in ("requests", "rows"):
        for period in ("day", "month"):
            assert getattr(used, name) <= (getattr(quotas, f"{name}_per_{period}") or math.inf)


def test_the_month_is_named_where_both_are_used_up_and_what_comes_later_refuses_only_once_it_is_there() -> None:
    assert used_up(Quotas(requests_per_day=1, requests_per_month=1), Amounts(1), Amounts(1), Amounts(1)) == (
        "requests",
        "month",
    )
    tokens = Quotas(tokens_per_day=100)
    assert used_up(tokens, Amounts(tokens=99), NOTHING, Amounts(1)) == ("", "")
    assert used_up(tokens, Amounts(tokens=100), NOTHING, Amounts(1)) == ("tokens", "day")
    assert largest(Amounts(1, 5), Amounts(2, 4)) == Amounts(2, 5)


@given(QUOTAS, AMOUNTS, AMOUNTS)
def test_the_tighter_period_is_the_one_whose_room_it_is(quotas: Quotas, of_day: Amounts, of_month: Amounts) -> None:
    room = room_of(quotas, of_day, of_month)
    for name, period in zip(MEASURES, tighter_periods(quotas, of_day, of_month), strict=True):
        left = getattr(room, name)
        assert (period == "") == math.isinf(left)
        if period:
            used = of_day if period == "day" else of_month
            assert getattr(quotas, f"{name}_per_{period}") - getattr(used, name) == left
