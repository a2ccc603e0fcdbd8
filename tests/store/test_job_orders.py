"""Orders about jobs over both databases: each is done with its entry in the ledger, or not at all."""

import pytest

from hyperion.policy.jobs import Next
from hyperion.schema.job import Held, JobView, StoredAnswer, StoredRequest, Submission
from hyperion.store import job_orders, job_payloads, jobs, ledger
from hyperion.store.database import Database
from tests.store.places import Place

REQUEST = StoredRequest("POST", "/v2/models/m/infer", (), b"{}")


def put_dead(database: Database, *names: str, endpoint: str = "m") -> None:
    with database.renewing() as tx:
        jobs.put_many(tx, [Submission(name, "acme", endpoint, REQUEST) for name in names], 100.0)
        for job in jobs.claim(tx, 100, 100.0):
            jobs.finish(tx, Held(job.id, job.fence), Next("dead"), StoredAnswer(503, (), b"x"), 101.0)


def get(database: Database, name: str) -> JobView:
    with database.read() as tx:
        job = jobs.get(tx, name)
    assert job is not None
    return job


def kinds(database: Database) -> list[tuple[str, str]]:
    return [(entry.kind, entry.subject) for entry in ledger.entries(database, kind="job.")]


def test_an_order_that_changes_nothing_leaves_no_entry(place: Place) -> None:
    database = place.open()
    put_dead(database, "a")
    dead = get(database, "a")
    with database.write() as tx:
        assert not job_orders.cancel(tx, dead, 102.0, actor="ann")
        assert job_orders.retry(tx, dead, 102.0, actor="ann")
        assert not job_orders.retry(tx, dead, 102.0, actor="ann"), "it waits already"
        assert not job_orders.discard(tx, dead, actor="ann")
        assert job_orders.retry_dead(tx, "", 102.0, actor="ann").ids == ()
        assert job_orders.discard_dead(tx, "", actor="ann").ids == ()
    assert kinds(database) == [("job.retry", "a")]
    assert get(database, "a").state == "queued"


def test_an_order_that_fails_did_nothing(place: Place) -> None:
    """The change and its entry are one transaction: neither is there without the other."""

    def fail(point: str) -> None:
        if point == "ledger.entry":
            raise RuntimeError("torn")

    put_dead(place.open(), "a")
    database = place.open(fault=fail)
    dead = get(database, "a")
    with pytest.raises(RuntimeError, match="torn"), database.write() as tx:
        job_orders.retry(tx, dead, 102.0, actor="ann")
    assert get(database, "a").state == "dead"
    assert kinds(database) == []


def test_all_dead_letters_of_one_endpoint_run_again_without_their_answers(place: Place) -> None:
    database = place.open()
    put_dead(database, "a", "b")
    put_dead(database, "c", endpoint="other")
    with database.write() as tx:
        assert job_orders.retry_dead(tx, "m", 200.0, actor="ann") == job_orders.DeadOrder(("a", "b"), more=False)
        assert job_payloads.get_answer(tx, "a") is None
    assert [get(database, name).state for name in "abc"] == ["queued", "queued", "dead"]
    assert (get(database, "a").due_at, get(database, "a").attempts) == (200.0, 0)
    [entry] = ledger.entries(database, kind="job.")
    assert (entry.actor, entry.detail) == ("ann", {"endpoint": "m", "state": "dead", "count": 2})


def test_one_order_takes_the_oldest_and_says_that_there_are_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_orders, "BULK_MAX", 2)
    database = place.open()
    put_dead(database, "a", "b", "c")
    with database.write() as tx:
        assert job_orders.discard_dead(tx, "", actor="ann") == job_orders.DeadOrder(("a", "b"), more=True)
        assert job_orders.discard_dead(tx, "", actor="ann") == job_orders.DeadOrder(("c",), more=False)
