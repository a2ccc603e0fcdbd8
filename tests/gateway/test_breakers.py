"""Replicas that fail are left alone as long as another one answers, and never all of them."""

import io
import json
import time
from pathlib import Path

from hyperion.gateway.recovery.breakers import BreakerBook, Breakers
from hyperion.schema.protect import Breaker
from hyperion.telemetry.logs import EventLog
from tests.gateway.runners import config_of, kept_runners, served_by
from tests.gateway.serving import infer, on_uvloop, serving

SECOND = 1_000_000_000
RULE = Breaker(min_calls=4, open_s=1.0, slow_ms=100.0)


def books(*names: str, rule: Breaker = RULE) -> tuple[Breakers, list[BreakerBook], io.StringIO]:
    stream = io.StringIO()
    breakers = Breakers("e", EventLog("gateway 0", "json", stream), lambda: 0.0, lambda: names)
    assert breakers.follow(rule)
    return breakers, [book for name in names if (book := breakers.book_of(name)) is not None], stream


def test_without_a_rule_there_are_none() -> None:
    breakers = Breakers("e", EventLog("gateway 0", "json", io.StringIO()), lambda: 0.0, lambda: ["a"])
    assert breakers.book_of("a") is None
    assert not breakers.follow(None)
    assert breakers.gauges() == {}


def test_one_of_two_is_left_alone_and_then_the_other_is_not() -> None:
    breakers, (a, b), log = books("a", "b")
    a.note(4, 4, 0, 0)
    b.note(4, 4, 0, 0)
    assert breakers.gauges() == {"a": 2.0, "b": 0.0}
    assert (a.admits(0), b.admits(0), a.left_s(0), b.left_s(0)) == (False, True, 1.0, 0.0)
    a.began(SECOND)
    assert breakers.gauges()["a"] == 1.0
    a.note(1, 0, 0, SECOND)
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(event["event"], event["replica"]) for event in events] == [
        ("breaker open", "a"),
        ("breaker half-open", "a"),
        ("breaker closed", "a"),
    ]
    assert events[0]["open_s"] == 1.0


def test_successes_of_a_second_count_in_it_though_they_are_added_up_later() -> None:
    _, (a, _), _ = books("a", "b")
    for _ in range(10):
        a.note(1, 0, 0, 5 * SECOND)
    a.note(4, 3, 0, 6 * SECOND)
    assert sum(a.state.calls) == 14
    assert a.admits(6 * SECOND)  # 3 of 14 are fewer than half
    a.note(12, 11, 0, 16 * SECOND)  # the ten are forgotten by then
    assert not a.admits(16 * SECOND)


def test_slow_calls_are_failures_and_impatient_timeouts_are_not() -> None:
    _, (a, _), _ = books("a", "b")
    assert not a.note_timeout(1, 0.0, SECOND, 0)
    assert a.note_timeout(SECOND, 0.0, SECOND, 0)
    a.note(3, 0, 101_000_000, 0)
    assert not a.admits(0)


def test_one_that_does_not_answer_may_be_left_alone() -> None:
    breakers, (a,), _ = books("a")
    gone = breakers.book_of("gone")
    assert gone is not None
    gone.note(4, 4, 0, 0)
    a.note(4, 4, 0, 0)
    assert breakers.gauges() == {"a": 0.0, "gone": 2.0}


@on_uvloop
async def test_requests_avoid_the_replica_whose_breaker_is_open_until_it_is_the_only_one(tmp_path: Path) -> None:
    configs = [config_of(tmp_path, 0), config_of(tmp_path, 1)]
    async with kept_runners(*configs) as runners, serving(("obedient", served_by(configs))) as gateway:
        pool = gateway.pool()
        await gateway.until(lambda: pool.queue_state().replicas == 2)
        pool.follow_breaker(Breaker(min_calls=4, open_s=60.0))
        first, second = pool.links()
        assert first.breaker is not None
        first.breaker.note(4, 4, 0, time.monotonic_ns())
        assert pool.breaker_states()[first.name] == 2.0
        for _ in range(5):
            assert (await gateway.ask(infer("x"))).status == 200
        assert first._next_id == 0
        (other,) = [runner for runner in runners if runner.config.replica == second.name]
        other.kill()
        await gateway.until(lambda: pool.queue_state().replicas == 1)
        assert (await gateway.ask(infer("the last one is never left alone"))).status == 200
