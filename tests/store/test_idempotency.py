"""Idempotency keys over both databases: a key's call runs once, and everybody is told the same."""

import threading

from hyperion.policy.idempotency import KEPT_S, LEASE_S
from hyperion.schema.job import Abandon, Begin, Begun, Complete, HeldKey, KeyScope, StoredAnswer
from hyperion.store import idempotency
from hyperion.store.database import Database
from tests.store.places import Place

SCOPE = KeyScope("acme", "m", "k")
ANSWER = StoredAnswer(200, (("x", "y"),), b"\0body", b"\0trailers")


def begin(database: Database, *calls: Begin, now: float = 100.0) -> list[Begun]:
    with database.renewing() as tx:
        return idempotency.begin_many(tx, calls, now)


def decisions(begun: list[Begun]) -> list[str]:
    return [one.decision for one in begun]


def complete(database: Database, token: str, scope: KeyScope = SCOPE, now: float = 101.0) -> bool:
    with database.renewing() as tx:
        return idempotency.complete(tx, Complete(scope, token, ANSWER), now)


def test_the_first_runs_the_second_waits_and_the_third_is_told_the_answer(place: Place) -> None:
    database = place.open()
    assert begin(database, Begin(SCOPE, "f", "t1")) == [Begun("run", "t1")]
    assert begin(database, Begin(SCOPE, "f", "t1")) == [Begun("run", "t1")], "its answer was lost on the way"
    assert begin(database, Begin(SCOPE, "f", "t2")) == [Begun("in-progress", "t1")]
    assert begin(database, Begin(SCOPE, "g", "t2")) == [Begun("mismatch", "t1")]
    assert complete(database, "t1")
    assert complete(database, "t1")
    assert not complete(database, "t2")
    assert begin(database, Begin(SCOPE, "f", "t3"), now=LEASE_S + 200.0) == [Begun("replay", "t1", ANSWER)]
    assert decisions(begin(database, Begin(SCOPE, "g", "t3"))) == ["mismatch"]


def test_a_key_is_its_tenants_and_its_endpoints(place: Place) -> None:
    database = place.open()
    scopes = [KeyScope("a", "m", "k"), KeyScope("b", "m", "k"), KeyScope("a", "n", "k"), KeyScope("a", "m", "l")]
    assert decisions(begin(database, *[Begin(scope, "f", "t") for scope in scopes])) == ["run"] * 4


def test_of_the_same_key_twice_in_one_message_one_runs(place: Place) -> None:
    database = place.open()
    calls = [Begin(SCOPE, "f", "t1"), Begin(SCOPE, "f", "t2"), Begin(SCOPE, "g", "t3"), Begin(SCOPE, "f", "t1")]
    assert decisions(begin(database, *calls)) == ["run", "in-progress", "mismatch", "run"]


def test_a_lease_that_ends_lets_a_retry_run_and_the_first_attempt_can_no_longer_answer(place: Place) -> None:
    database = place.open()
    begin(database, Begin(SCOPE, "f", "t1"))
    with database.renewing() as tx:
        idempotency.renew(tx, [HeldKey(SCOPE, "t1"), HeldKey(SCOPE, "other")], 105.0)
    assert decisions(begin(database, Begin(SCOPE, "f", "t2"), now=105.0 + LEASE_S - 0.1)) == ["in-progress"]
    assert begin(database, Begin(SCOPE, "f", "t2"), now=105.0 + LEASE_S) == [Begun("run", "t1")]
    assert not complete(database, "t1")
    assert complete(database, "t2")


def test_an_abandoned_call_runs_again_at_once_but_a_completed_one_never(place: Place) -> None:
    database = place.open()
    begin(database, Begin(SCOPE, "f", "t1"))
    with database.renewing() as tx:
        idempotency.abandon(tx, Abandon(SCOPE, "t2"))
    assert decisions(begin(database, Begin(SCOPE, "f", "t2"))) == ["in-progress"]
    with database.renewing() as tx:
        idempotency.abandon(tx, Abandon(SCOPE, "t1"))
    assert begin(database, Begin(SCOPE, "f", "t2")) == [Begun("run", "t1")]
    assert complete(database, "t2")
    with database.renewing() as tx:
        idempotency.abandon(tx, Abandon(SCOPE, "t2"))
    assert decisions(begin(database, Begin(SCOPE, "f", "t3"))) == ["replay"]


def test_an_abandoned_key_is_free_for_another_payload(place: Place) -> None:
    database = place.open()
    begin(database, Begin(SCOPE, "f", "t1"))
    with database.renewing() as tx:
        idempotency.abandon(tx, Abandon(SCOPE, "t1"))
    assert begin(database, Begin(SCOPE, "g", "t2")) == [Begun("run", "t2")]
    assert not complete(database, "t1")
    assert complete(database, "t2")


def test_a_key_is_forgotten_after_a_day_and_is_then_as_good_as_new(place: Place) -> None:
    database = place.open()
    begin(database, Begin(SCOPE, "f", "t1"))
    complete(database, "t1")
    later = 101.0 + KEPT_S
    assert begin(database, Begin(SCOPE, "g", "t2"), now=later) == [Begun("run", "t2")]
    with database.renewing() as tx:
        assert not idempotency.expired(tx, later)
        assert idempotency.expired(tx, later + KEPT_S)
        assert idempotency.prune(tx, later + KEPT_S) == 1
    assert decisions(begin(database, Begin(SCOPE, "h", "t3"))) == ["run"]


def test_of_many_at_once_exactly_one_runs(place: Place) -> None:
    database = place.open()
    keys = [f"k{number}" for number in range(40)]
    found: list[tuple[str, str]] = []

    def work(name: str) -> None:
        order = keys if name in "ace" else keys[::-1]
        for at in range(0, len(keys), 8):
            calls = [Begin(KeyScope("a", "m", key), "f", name + key) for key in order[at : at + 8]]
            found.extend(zip(order[at : at + 8], decisions(begin(database, *calls)), strict=True))

    workers = [threading.Thread(target=work, args=(name,)) for name in "abcdef"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 240
    assert sorted(key for key, decision in found if decision == "run") == sorted(keys)
