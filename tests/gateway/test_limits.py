"""Limits in one process: exact, fair, whole or not at all, and a bounded number of them."""

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperion.gateway.front.caller import ANONYMOUS, Caller
from hyperion.gateway.limits import book as limit_book
from hyperion.gateway.limits.book import LimitBook
from hyperion.gateway.limits.limiter import COUNTED, UNCOUNTED, Limiter
from hyperion.schema.errors import RateLimited
from hyperion.schema.protect import Cost, EndpointLimits, Limits, Quotas, TenantRecord
from hyperion.schema.usage import Amounts, OthersUsage, UsageRow

SECOND = 1_000_000_000
START = 1_000 * SECOND


def caller(tenant: str, key: str = "k", **record: Any) -> Caller:
    return Caller(tenant, f"key:{key}", frozenset(), TenantRecord(tenant, **record), key)


def limiter(limits: EndpointLimits | None = None, book: LimitBook | None = None, cost: Cost | None = None) -> Limiter:
    return Limiter(book or LimitBook(), "fraud", limits, cost)


def passes(one: Limiter, who: Caller, now_ns: int, rows: int = 1, end: bool = True) -> str:
    """ "" where a request is let in and started, else what refuses it."""
    try:
        one.enter(who, now_ns)
        one.start(who, rows, now_ns)
    except RateLimited as refusal:
        return refusal.message if refusal.retry_after_s > 0 else ""
    if end:
        one.end(who, rows, 0, now_ns)
    return ""


def count(one: Limiter, who: Caller, times: int, now_ns: int = START, **more: Any) -> int:
    return sum(not passes(one, who, now_ns, **more) for _ in range(times))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_limit_admits_more_than_burst_and_rate_and_none_holds_back_what_all_allow(data: st.DataObject) -> None:
    """Against plain buckets of fractions, one for each key, tenant, endpoint and pair of them."""
    rates = st.sampled_from([0.0, 0.5, 2.0, 10.0])
    limit = st.builds(Limits, rates, st.integers(0, 4), rates)
    record = {"limits": data.draw(limit), "key_limits": data.draw(limit)}
    of_endpoint, per_tenant, per_key = data.draw(limit), data.draw(limit), data.draw(limit)
    limits = EndpointLimits(
        of_endpoint.requests_per_second,
        of_endpoint.burst,
        of_endpoint.rows_per_second,
        per_tenant=per_tenant,
        per_key=per_key,
    )
    one = limiter(limits)
    callers = [caller(tenant, f"{tenant}{key}", **record) for tenant in "ab" for key in "12"]
    model: dict[tuple[str, str], list[float]] = {}
    now = START
    for _ in range(data.draw(st.integers(1, 40))):
        now += data.draw(st.integers(0, SECOND))
        who, rows = data.draw(st.sampled_from(callers)), data.draw(st.integers(1, 3))
        scopes = {
            "tenant " + who.tenant: record["limits"],
            "key " + who.key: record["key_limits"],
            "endpoint": of_endpoint,
            "per tenant " + who.tenant: per_tenant,
            "per key " + who.key: per_key,
        }
        wanted = []
        for scope, part in scopes.items():
            burst = part.burst or max(1, math.ceil(part.requests_per_second))
            if part.requests_per_second:
                wanted.append(((scope, "requests"), part.requests_per_second, burst, 1))
            if part.rows_per_second:
                whole = part.burst or max(1, math.ceil(part.rows_per_second))
                if part.burst and part.requests_per_second:
                    whole = max(1, math.ceil(part.rows_per_second * part.burst / part.requests_per_second))
                wanted.append(((scope, "rows"), part.rows_per_second, whole, rows))
        fits = True
        for key, rate, burst, needed in wanted:
            level, at = model.get(key, [float(burst), now])
            model[key] = [min(burst, level + (now - at) / SECOND * rate), now]
            fits &= model[key][0] >= min(needed, burst) - 1e-7
        assert (passes(one, who, now, rows) == "") == fits
        if fits:
            for key, _, _, needed in wanted:
                model[key][0] -= needed


def test_a_refused_request_uses_up_no_other_limit() -> None:
    one = limiter(EndpointLimits(requests_per_second=1, burst=10, concurrency=5, rows_per_second=1))
    noisy, quiet = caller("noisy", limits=Limits(requests_per_second=1, burst=3)), caller("quiet")
    assert count(one, noisy, 1_000) == 3
    assert count(one, quiet, 1_000) == 7
    assert "all callers of endpoint" in passes(one, quiet, START)
    assert 'tenant "noisy": over the limit of 1 requests per second' in passes(one, noisy, START)


def test_callers_of_two_tenants_whom_their_issuers_call_the_same_have_limits_of_their_own() -> None:
    one = limiter(EndpointLimits(per_key=Limits(requests_per_second=0.001, burst=2, concurrency=1)))
    noisy, quiet = (
        Caller(tenant, "jwt:alice", frozenset(), TenantRecord(tenant, key_limits=Limits(requests_per_second=0.001)))
        for tenant in ("noisy", "quiet")
    )
    assert [passes(one, noisy, START, end=False) == "" for _ in range(3)] == [True, False, False]
    assert passes(one, quiet, START) == ""


def test_what_start_refuses_gives_back_what_enter_charged() -> None:
    limits = EndpointLimits(requests_per_second=0.001, burst=2, concurrency=1)
    one = limiter(limits)
    who = caller("t", quotas=Quotas(rows_per_day=10))
    assert passes(one, who, START, end=False) == ""
    for _ in range(10):
        assert "1 requests are open" in passes(one, who, START)
    one.end(who, 1, 0, START)
    for _ in range(10):
        assert "quota of rows for this day" in passes(one, who, START, rows=10)
    assert passes(one, who, START) == ""
    assert "requests per second" in passes(one, who, START)


def test_a_request_larger_than_the_burst_passes_a_full_bucket_and_is_paid_for() -> None:
    one = limiter(EndpointLimits(rows_per_second=10, burst=10))
    who = caller("t")
    assert passes(one, who, START, rows=40) == ""
    assert "rows per second" in passes(one, who, START + 3 * SECOND)
    assert passes(one, who, START + 4 * SECOND - 1, rows=10) != ""
    assert passes(one, who, START + 4 * SECOND, rows=10) == ""


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_open_requests_never_exceed_the_limits_and_all_are_given_back(steps: list[tuple[str, bool]]) -> None:
    book = LimitBook(concurrency=4)
    one = limiter(EndpointLimits(concurrency=3, per_tenant=Limits(concurrency=2)), book)
    who = {tenant: caller(tenant) for tenant in "abc"}
    open_: Counter[str] = Counter()
    for tenant, starts in steps:
        if starts:
            full = open_[tenant] >= 2 or open_.total() >= 3
            assert bool(passes(one, who[tenant], START, end=False)) == full
            open_[tenant] += not full
        elif open_[tenant]:
            one.end(who[tenant], 1, 0, START)
            open_[tenant] -= 1
    assert sum(gate.open for gate in book.gates.values()) == 3 * open_.total()


def test_limits_go_on_where_they_were_over_snapshots_that_do_not_change_them() -> None:
    book = LimitBook()
    limits = EndpointLimits(requests_per_second=1, burst=5, concurrency=2)
    before = limiter(limits, book)
    who = caller("t", limits=Limits(requests_per_second=1, burst=4))
    assert count(before, who, 3) == 3
    before.enter(who, START)
    before.start(who, 1, START)
    again = caller("t", limits=Limits(requests_per_second=1, burst=4))
    after = limiter(limits, book)
    assert passes(after, again, START) != ""
    other = caller("u")
    assert passes(after, other, START, end=False) == ""
    assert "2 requests are open" in passes(after, caller("v"), START + 9 * SECOND)
    before.end(who, 1, 0, START)
    assert passes(after, caller("v"), START + 9 * SECOND) == ""
    loose = limiter(EndpointLimits(requests_per_second=1, burst=6), book)
    assert count(loose, caller("w"), 10) == 6, "a limit that has changed starts full"


@pytest.mark.interpreted
def test_idle_limits_are_forgotten_and_used_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_book, "MAX_BUCKETS", 100)
    book = LimitBook()
    one = limiter(EndpointLimits(per_key=Limits(requests_per_second=1, burst=2, concurrency=1)), book)
    busy = caller("t", "busy")
    assert passes(one, busy, START, end=False) == ""
    now = START
    for number in range(1_000):
        now += SECOND
        assert passes(one, caller("t", f"k{number}"), now) == ""
        assert len(book.buckets) <= 100
    assert "1 requests are open" in passes(one, busy, now)
    one.end(busy, 1, 0, now)
    assert passes(one, busy, now) == ""
    assert all(gate.open == 0 for gate in book.gates.values())


@pytest.mark.interpreted
def test_under_a_flood_of_new_keys_the_emptiest_buckets_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_book, "MAX_BUCKETS", 100)
    book = LimitBook()
    one = limiter(EndpointLimits(per_key=Limits(requests_per_second=0.001, burst=5)), book)
    greedy = caller("t", "greedy")
    assert count(one, greedy, 10) == 5
    for number in range(1_000):
        assert passes(one, caller("t", f"k{number}"), START) == ""
    assert len(book.buckets) <= 100
    assert count(one, greedy, 10) == 0


def test_each_of_several_workers_takes_its_share() -> None:
    limits = EndpointLimits(requests_per_second=3, burst=30, concurrency=9)
    assert count(limiter(limits, LimitBook(workers=3)), caller("t"), 100) == 10
    assert count(limiter(limits, LimitBook(workers=3)), caller("t"), 100, end=False) == 3
    assert count(limiter(EndpointLimits(requests_per_second=1, burst=1), LimitBook(workers=3)), caller("t"), 9) == 1
    one = limiter(limits, LimitBook(workers=3))
    assert count(one, caller("t"), 100) == 10
    assert count(one, caller("t"), 100, START + 2 * SECOND + 1_000) == 2


def test_all_requests_to_the_gateway_are_limited_together() -> None:
    book = LimitBook(requests_per_second=5, concurrency=1)
    one, other = limiter(None, book), Limiter(book, "other", None, None)
    assert count(one, caller("t"), 3) == 3
    assert count(other, ANONYMOUS, 9) == 2
    assert "all callers of this gateway" in passes(one, caller("t"), START)


def test_callers_without_a_key_are_told_apart_by_who_they_are() -> None:
    one = limiter(EndpointLimits(per_key=Limits(requests_per_second=1)))
    ann, bob = (Caller("t", f"jwt:{name}", frozenset(), TenantRecord("t")) for name in ("ann", "bob"))
    assert [count(one, who, 5) for who in (ann, bob, ann, ANONYMOUS)] == [1, 1, 0, 1]


def test_quotas_are_kept_by_day_and_month_and_start_anew() -> None:
    midnight = 1_795_219_200.0  # 2026-11-21T00:00:00Z
    clock = [midnight - 10]
    book = LimitBook(wall=lambda: clock[0])
    one = limiter(None, book, Cost(per_request=1.0, per_row=0.5, per_token=0.25))
    who = caller("t", quotas=Quotas(requests_per_day=5, cost_per_month=20.0))
    assert count(one, who, 9, rows=2) == 5
    assert "quota of requests for this day (UTC) is used up; it starts anew in 10 s" in passes(one, who, START)
    clock[0] = midnight + 1
    now = START + 11 * SECOND
    one.enter(who, now)
    one.start(who, 2, now)
    one.end(who, 2, 32, now)
    assert book.usages.rows() == (
        UsageRow("t", "2026-11-20", Amounts(5, 10, 0, 10.0)),
        UsageRow("t", "2026-11-21", Amounts(1, 2, 32, 10.0)),
    )
    message = passes(one, who, now)
    assert "quota of cost for this month (UTC) is used up" in message
    clock[0] = midnight + 10 * 86_400
    assert passes(one, who, now + 10 * 86_400 * SECOND) == ""


def test_what_others_used_counts_and_the_larger_of_what_two_know() -> None:
    book = LimitBook(wall=lambda: 1_795_219_200.0)
    one = limiter(None, book)
    who = caller("t", quotas=Quotas(tokens_per_day=100))
    assert passes(one, who, START) == ""
    book.usages.take([OthersUsage("t", "2026-11-21", Amounts(tokens=60), Amounts(tokens=60))])
    book.usages.take([OthersUsage("t", "2026-11-21", Amounts(tokens=40), Amounts(tokens=40))])
    book.usages.take([OthersUsage("t", "2026-11-20", Amounts(tokens=900), Amounts(tokens=900))])
    one.enter(who, START)
    one.start(who, 1, START)
    one.end(who, 1, 39, START)
    assert passes(one, who, START) == ""
    one.enter(who, START)
    one.start(who, 1, START)
    one.end(who, 1, 1, START)
    assert "quota of tokens for this day" in passes(one, who, START)
    assert book.usages.has_quotas()


def test_the_fields_say_all_policies_and_what_is_left_of_the_tightest() -> None:
    limits = EndpointLimits(requests_per_second=500, burst=1_000, per_tenant=Limits(rows_per_second=50))
    one = limiter(limits)
    who = caller("t", limits=Limits(requests_per_second=0.5, burst=3))
    assert passes(one, who, START) == ""
    assert dict(one.headers(who, START)) == {
        b"ratelimit-policy": b'"tenant";q=3;w=6, "endpoint-tenant-rows";q=50;w=1;qu="rows", "endpoint";q=1000;w=2',
        b"ratelimit": b'"tenant";r=2;t=2',
    }
    assert count(one, who, 9) == 2
    assert dict(one.headers(who, START))[b"ratelimit"] == b'"tenant";r=0;t=6'
    assert limiter().headers(ANONYMOUS, START) == []


def test_the_fields_say_the_tightest_of_requests_and_rows_together() -> None:
    """Or who is refused for its rows would be told of requests that are left."""
    one = limiter(EndpointLimits(requests_per_second=10, burst=20, rows_per_second=2))
    who = caller("t")
    assert dict(one.headers(who, START))[b"ratelimit"] == b'"endpoint-rows";r=4;t=0'
    assert "rows per second" in [passes(one, who, START, rows=4) for _ in range(2)][1]
    assert dict(one.headers(who, START))[b"ratelimit"] == b'"endpoint-rows";r=0;t=2'


def test_the_fields_say_quotas_and_when_they_start_anew() -> None:
    midnight = 1_795_219_200.0  # 2026-11-21
    clock = [midnight - 10]
    one = limiter(None, LimitBook(wall=lambda: clock[0]))
    quotas = Quotas(requests_per_day=2, requests_per_month=2, rows_per_month=50, tokens_per_day=1 << 50, cost_per_day=1)
    who = caller("t", quotas=quotas)
    assert passes(one, who, START, rows=3) == ""
    assert dict(one.headers(who, START)) == {
        b"ratelimit-policy": b'"tenant-day";q=2;w=86400, "tenant-month";q=2;w=2678400, '
        b'"tenant-rows-month";q=50;w=2678400;qu="rows", "tenant-tokens-day";q=999999999999999;w=86400;qu="tokens"',
        b"ratelimit": b'"tenant-month";r=1;t=864010',
    }
    assert count(one, who, 9) == 1
    assert dict(one.headers(who, START))[b"ratelimit"] == b'"tenant-month";r=0;t=864010'
    who = caller("u", quotas=Quotas(requests_per_day=2, rows_per_month=50), limits=Limits(requests_per_second=5))
    assert dict(one.headers(who, START))[b"ratelimit"] == b'"tenant-day";r=2;t=10'
    assert count(one, who, 9, rows=2) == 2
    assert dict(one.headers(who, START))[b"ratelimit"] == b'"tenant-day";r=0;t=10'
    clock[0] = midnight + 1
    assert dict(one.headers(who, START + 11 * SECOND))[b"ratelimit"] == b'"tenant-day";r=2;t=86399'
    assert limiter().headers(caller("v", quotas=Quotas(cost_per_day=1.0)), START) == []


def test_the_smallest_and_the_largest_limits_fit_into_the_fields() -> None:
    """An Integer of structured fields has at most 15 digits."""
    extreme = EndpointLimits(requests_per_second=1e-6, burst=10**9, rows_per_second=1e9)
    fields = dict(limiter(extreme).headers(caller("t"), START))
    assert fields[b"ratelimit-policy"] == (
        b'"endpoint";q=1000000000;w=999999999999999, "endpoint-rows";q=1000000000;w=1;qu="rows"'
    )
    assert fields[b"ratelimit"] == b'"endpoint";r=1000000000;t=0'


@pytest.mark.interpreted
def test_nobody_in_particular_has_no_meter_and_too_many_tenants_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperion.gateway.limits.usage.MAX_TENANTS", 2)
    book = LimitBook(wall=lambda: 1_795_219_200.0)
    one = limiter(None, book)
    for who in (ANONYMOUS, *(caller(name) for name in "abcd")):
        assert passes(one, who, START) == ""
    assert {row.tenant: row.used.requests for row in book.usages.rows()} == {"a": 1, "b": 1, "*": 2}


@pytest.mark.interpreted
def test_who_has_not_come_for_a_day_and_this_month_leaves_its_place_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperion.gateway.limits.usage.MAX_TENANTS", 2)
    clock = [1_795_996_800.0]  # 2026-11-30
    book = LimitBook(wall=lambda: clock[0])
    one = limiter(None, book)
    now = START
    for day, (came, known) in enumerate([("ab", "ab"), ("a", "ab"), ("a", "a"), ("ac", "ac"), ("a", "ac")]):
        clock[0] = 1_795_996_800.0 + day * 86_400
        now += 86_401 * SECOND
        for name in came:
            assert passes(one, caller(name), now) == ""
        book.roll(now)
        assert "".join(sorted(book.usages.meters)) == known
        assert {name: book.usages.meters[name].requests for name in came} == dict.fromkeys(came, 1)


def test_a_job_counts_as_one_request_however_often_it_is_tried() -> None:
    one = limiter(cost=Cost(per_request=1.0, per_row=0.5), book=(book := LimitBook(wall=lambda: 1_795_219_200.0)))
    who = caller("acme", quotas=Quotas(requests_per_day=1, rows_per_day=7))
    for entry in (UNCOUNTED, COUNTED, COUNTED):
        one.start(who, 2, START, entry)
        one.end(who, 2, 0, START)
    (row,) = book.usages.rows()
    assert (row.used.requests, row.used.rows, row.used.cost) == (1, 6, 4.0)
    with pytest.raises(RateLimited, match="quota of requests"):
        one.start(who, 1, START, UNCOUNTED)
    with pytest.raises(RateLimited, match="quota of rows"):  # which is what it uses anew each time
        one.start(who, 2, START, COUNTED)
    one.start(who, 1, START, COUNTED)


def test_attempts_at_jobs_are_bound_by_rows_and_open_requests_of_their_tenant() -> None:
    limits = Limits(rows_per_second=0.001, burst=4, concurrency=2)
    one, who = limiter(), caller("acme", limits=limits)
    jobs = Caller("acme", "jobs:acme", frozenset(), who.record)
    assert passes(one, who, START, rows=1, end=False) == ""
    one.start(jobs, 1, START, UNCOUNTED)
    with pytest.raises(RateLimited, match="2 requests are open"):
        one.start(jobs, 1, START, COUNTED)
    one.end(jobs, 1, 0, START, UNCOUNTED)
    with pytest.raises(RateLimited, match="rows per second"):
        one.start(jobs, 3, START, COUNTED)


def test_who_was_not_charged_as_a_request_is_given_nothing_back() -> None:
    one, who = limiter(EndpointLimits(requests_per_second=0.001, burst=2, concurrency=1)), caller("acme")
    assert passes(one, who, START, end=False) == ""
    for _ in range(3):  # attempts at a job, which was charged when it was sent
        with pytest.raises(RateLimited):
            one.start(who, 1, START, UNCOUNTED)
    one.end(who, 1, 0, START)
    assert count(one, who, 5) == 1


@pytest.mark.parametrize(("places", "for_jobs"), [(1, 1), (2, 1), (4, 3), (8, 6), (64, 48)])
def test_attempts_at_jobs_leave_places_to_who_waits_for_an_answer(places: int, for_jobs: int) -> None:
    one = limiter(EndpointLimits(concurrency=places))
    who = caller("acme")
    for _ in range(for_jobs):
        one.start(who, 1, START, UNCOUNTED)
    for entry in (UNCOUNTED, COUNTED):
        with pytest.raises(RateLimited, match=f"{for_jobs} requests are open"):
            one.start(who, 1, START, entry)
    assert count(one, who, places, end=False) == places - for_jobs
    one.end(who, 1, 0, START, UNCOUNTED)
    one.start(who, 1, START, COUNTED)  # which those who wait for answers do not hold up for ever
