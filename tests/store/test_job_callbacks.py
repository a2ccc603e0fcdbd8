"""Callbacks over both databases: each is tried by one at a time, and what came of it is kept."""

from msgspec import structs

from hyperion.policy.jobs import Next
from hyperion.store import job_callbacks, jobs
from hyperion.store.database import Database
from hyperion.store.job_callbacks import Callback
from tests.store.places import Place
from tests.store.test_jobs import claim, finish, get, held, put, submission

URL = "https://acme.example/done"


def take(database: Database, now: float) -> list[Callback]:
    with database.renewing() as tx:
        return job_callbacks.claim(tx, 10, now, 60.0)


def test_a_callback_is_due_at_the_end_of_a_job_and_again_when_nobody_settles_it(place: Place) -> None:
    database = place.open()
    put(database, submission("told", callback=URL), submission("quiet"))
    assert take(database, 1e9) == []
    for job in claim(database):
        assert finish(database, held(job))
    [callback] = take(database, 101.0)
    assert (callback.job, callback.url, callback.state, callback.status, callback.attempt) == (
        *("told", URL, "done", 200),
        1,
    )
    assert take(database, 160.9) == []
    [again] = take(database, 161.0)
    assert again.attempt == 2
    with database.renewing() as tx:
        assert not job_callbacks.settle(tx, callback, "delivered", 0.0, ""), "somebody else tries"
        assert job_callbacks.settle(tx, again, "pending", 300.0, "it answered 500")
    assert take(database, 299.0) == []
    [third] = take(database, 300.0)
    with database.renewing() as tx:
        assert job_callbacks.settle(tx, third, "delivered", 0.0, "")
    seen = get(database, "told")
    assert (seen.delivery, seen.delivery_attempts, seen.delivery_reason) == ("delivered", 3, "")
    assert take(database, 1e9) == []
    assert get(database, "quiet").delivery == ""


def test_every_end_is_told(place: Place) -> None:
    database = place.open()
    put(database, *[submission(name, callback=URL, ttl_s=50.0) for name in ("dead", "cancelled", "late")])
    by_name = {job.id: job for job in claim(database)}
    assert finish(database, held(by_name["dead"]), Next("dead", reason="gave up"), None)
    assert finish(database, held(by_name["late"]), Next("queued", 110.0), None)
    with database.renewing() as tx:
        assert jobs.cancel(tx, "cancelled", 102.0)
        jobs.expire(tx, 150.0)
    assert sorted((one.job, one.state) for one in take(database, 150.0)) == [
        *(("cancelled", "cancelled"), ("dead", "dead"), ("late", "dead"))
    ]


def test_a_job_that_runs_again_is_told_of_again_and_its_old_callback_settles_nothing(place: Place) -> None:
    database = place.open()
    put(database, submission("a", callback=URL))
    [job] = claim(database)
    assert finish(database, held(job))
    [callback] = take(database, 101.0)
    with database.renewing() as tx:
        assert jobs.retry(tx, "a", 102.0)
        assert not job_callbacks.settle(tx, callback, "failed", 0.0, "")
    [job] = claim(database, now=102.0)
    assert finish(database, held(job), now=103.0)
    [again] = take(database, 103.0)
    assert again == structs.replace(callback, finished_at=103.0)
