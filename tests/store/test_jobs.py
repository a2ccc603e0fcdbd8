"""Jobs over both databases: claimed by one, finished once, given up with a reason, forgotten with what they held."""

import threading
from collections.abc import Sequence

import pytest

from hyperion.policy.jobs import LEASE_S, Next
from hyperion.schema.job import ClaimedJob, Held, JobView, StoredAnswer, StoredRequest, Submission
from hyperion.store import job_payloads, jobs
from hyperion.store.database import Database
from tests.store.places import Place

REQUEST = StoredRequest("POST", "/v2/models/m/infer", (("content-type", "application/json"),), b'{"inputs":[]}\0\xff')
ANSWER = StoredAnswer(200, (("content-type", "application/json"),), b"{}\0\xff")
DONE = Next("done")


def submission(name: str, **fields: object) -> Submission:
    return Submission(**{"id": name, "tenant": "acme", "endpoint": "m", "request": REQUEST, **fields})  # type: ignore[arg-type]


def put(database: Database, *given: Submission, now: float = 100.0) -> None:
    with database.renewing() as tx:
        jobs.put_many(tx, given, now)


def claim(database: Database, most: int = 10, now: float = 100.0) -> list[ClaimedJob]:
    with database.renewing() as tx:
        return jobs.claim(tx, most, now)


def finish(
    database: Database, job: Held, then: Next = DONE, answer: StoredAnswer | None = ANSWER, now: float = 101.0
) -> bool:
    with database.renewing() as tx:
        return jobs.finish(tx, job, then, answer, now)


def get(database: Database, name: str, tenant: str | None = None) -> JobView:
    with database.read() as tx:
        found = jobs.get(tx, name, tenant)
    assert found is not None
    return found


def held(job: ClaimedJob) -> Held:
    return Held(job.id, job.fence)


def payloads(database: Database) -> int:
    with database.read() as tx:
        return int(tx.exec_driver_sql("SELECT count(*) FROM job_payload").scalar() or 0)


def test_a_job_comes_back_as_it_was_given_and_ends_once(place: Place) -> None:
    database = place.open()
    put(database, submission("a"), submission("a"))
    put(database, submission("a", endpoint="other"), now=150.0)
    [job] = claim(database)
    assert (job.tenant, job.endpoint, job.request, job.fence) == ("acme", "m", REQUEST, 1)
    assert claim(database) == [], "who has it has it alone"
    assert finish(database, held(job))
    assert finish(database, held(job)), "the same again is as good"
    assert not finish(database, Held("a", 2)), "nobody else may"
    seen = get(database, "a", "acme")
    assert (seen.state, seen.status, seen.attempts, seen.finished_at) == ("done", 200, 1, 101.0)
    with database.read() as tx:
        assert job_payloads.get_answer(tx, "a") == ANSWER
        assert jobs.get(tx, "a", "another") is None
        assert jobs.get(tx, "b") is None


def test_the_highest_priority_goes_first_then_the_oldest(place: Place) -> None:
    database = place.open()
    for name, priority, now in (("late", 5, 3.0), ("early", 5, 1.0), ("urgent", 0, 4.0), ("last", 9, 0.0)):
        put(database, submission(name, priority=priority), now=now)
    assert [job.id for job in claim(database, 3)] == ["urgent", "early", "late"]
    assert [job.id for job in claim(database, 3)] == ["last"]


def test_a_lease_that_ends_gives_the_job_to_another_and_its_first_holder_cannot_finish_it(place: Place) -> None:
    database = place.open()
    put(database, submission("a"))
    [job] = claim(database)
    with database.renewing() as tx:
        assert jobs.renew(tx, [held(job)], 105.0) == []
        assert jobs.lost(tx, 105.0 + LEASE_S - 0.1) == []
        assert jobs.lost(tx, 105.0 + LEASE_S) == [held(job)]
        assert jobs.finish(tx, held(job), Next("queued", 116.0, "its gateway died"), None, 115.0, holder_lost=True)
        assert jobs.running(tx, held(job)) is None
    assert not finish(database, held(job)), "the first holder is late"
    assert claim(database, now=115.5) == []
    [again] = claim(database, now=116.0)
    assert (again.fence, get(database, "a").attempts) == (3, 2)
    with database.renewing() as tx:
        assert jobs.renew(tx, [held(job), held(again)], 117.0) == [held(job)]
    assert finish(database, held(again))


def test_an_attempt_that_does_not_count_is_given_back(place: Place) -> None:
    database = place.open()
    put(database, submission("a"))
    [job] = claim(database)
    assert finish(database, held(job), Next("queued", 102.0, "503: busy", counted=False), None)
    seen = get(database, "a")
    assert (seen.state, seen.attempts, seen.reason, seen.finished_at) == ("queued", 0, "503: busy", 0.0)


def test_a_cancelled_job_is_neither_claimed_nor_finished(place: Place) -> None:
    database = place.open()
    put(database, submission("waits"), submission("runs", priority=0))
    [job] = claim(database, 1)
    with database.renewing() as tx:
        assert not jobs.cancel(tx, "waits", 101.0, "another")
        assert jobs.cancel(tx, "waits", 101.0, "acme")
        assert jobs.cancel(tx, "runs", 101.0)
        assert not jobs.cancel(tx, "runs", 102.0)
    assert claim(database) == []
    assert not finish(database, held(job))
    assert {get(database, name).state for name in ("waits", "runs")} == {"cancelled"}


def test_a_dead_job_runs_again_with_all_its_attempts(place: Place) -> None:
    database = place.open()
    put(database, submission("a", callback="https://acme.example/done"))
    [job] = claim(database)
    with database.renewing() as tx:
        assert not jobs.retry(tx, "a", 101.0), "it runs"
    assert finish(database, held(job), Next("dead", reason="gave up"), StoredAnswer(503, (), b""))
    assert get(database, "a").delivery == "pending"
    with database.renewing() as tx:
        assert jobs.retry(tx, "a", 200.0)
    seen = get(database, "a")
    assert (seen.state, seen.attempts, seen.reason, seen.status, seen.delivery) == ("queued", 0, "", 0, "")
    [again] = claim(database, now=200.0)
    assert finish(database, held(again))


def test_what_waited_too_long_dies_and_what_ended_long_ago_is_gone_with_its_payloads(place: Place) -> None:
    database = place.open()
    put(database, submission("done"), submission("late", ttl_s=50.0), submission("runs", ttl_s=50.0))
    done, *others = sorted(claim(database, 3), key=lambda job: job.id)
    assert finish(database, held(done))
    late = next(job for job in others if job.id == "late")
    assert finish(database, held(late), Next("queued", 110.0, "busy"), None)
    assert claim(database, now=151.0) == [], "its time is over"
    with database.renewing() as tx:
        assert jobs.expire(tx, 151.0) == 1
    assert (get(database, "late").state, get(database, "runs").state) == ("dead", "running")
    assert "time was over" in get(database, "late").reason
    with database.renewing() as tx:
        assert jobs.expire(tx, 201.0) == 1
        assert jobs.expire(tx, 101.0 + 86_400.0) == 1
    with database.read() as tx:
        assert [job.id for job in jobs.list_(tx)] == ["runs"]
    assert payloads(database) == 1


def test_only_what_has_ended_is_discarded(place: Place) -> None:
    database = place.open()
    put(database, submission("a"), submission("b"))
    job = claim(database, 1)[0]
    assert finish(database, held(job))
    with database.renewing() as tx:
        assert jobs.discard(tx, ["a", "b", "none"]) == 1
    assert payloads(database) == 1


def test_a_list_is_cut_into_pages_and_filtered(place: Place) -> None:
    database = place.open()
    for number in range(5):
        put(database, submission(f"j{number}", endpoint="ab"[number % 2], tenant="xy"[number // 3]), now=float(number))
    with database.read() as tx:
        first = jobs.list_(tx, limit=3)
        rest = jobs.list_(tx, after=(first[-1].created_at, first[-1].id))
        assert [job.id for job in first + rest] == [f"j{number}" for number in range(5)]
        assert [job.id for job in jobs.list_(tx, endpoint="a", tenant="y", state="queued")] == ["j4"]
        assert jobs.list_(tx, state="done") == []
        assert jobs.count(tx) == {("a", "queued"): 3, ("b", "queued"): 2}


def test_due_says_what_there_is_to_do(place: Place) -> None:
    database = place.open()

    def due(now: float) -> tuple[bool, ...]:
        with database.read() as tx:
            found = jobs.due(tx, now)
        return found.queued, found.lost, found.callbacks, found.expired

    assert due(1e12) == (False, False, False, False)
    put(database, submission("a", callback="https://x.example/"))
    assert due(99.0) == (False, False, False, False)
    assert due(100.0) == (True, False, False, False)
    [job] = claim(database)
    assert due(100.0) == (False, False, False, False)
    assert due(100.0 + LEASE_S) == (False, True, False, False)
    assert finish(database, held(job))
    assert due(101.0) == (False, False, True, False)
    assert due(101.0 + 86_400.0) == (False, False, True, True)


def test_a_claim_takes_no_more_than_fits_into_a_message(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "CLAIM_BYTES", 100)
    database = place.open()
    big = StoredRequest("POST", "/", (), b"x" * 200)
    put(database, *[submission(f"j{number}", request=big, priority=number) for number in range(3)])
    assert [[job.id for job in claim(database)] for _ in range(4)] == [["j0"], ["j1"], ["j2"], []]
    assert get(database, "j2").attempts == 1


def test_many_that_claim_at_once_never_get_the_same_job(place: Place) -> None:
    database = place.open()
    put(database, *[submission(f"{number:03}") for number in range(200)])
    taken: list[str] = []

    def work() -> None:
        while found := claim(database, 7):
            taken.extend(job.id for job in found)

    workers: Sequence[threading.Thread] = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    while rest := claim(database, 7):  # where rows were locked by others, a claim may have come back with nothing
        taken.extend(job.id for job in rest)
    assert sorted(taken) == [f"{number:03}" for number in range(200)]


def test_that_quotas_counted_a_job_is_known_until_somebody_lets_it_run_anew(place: Place) -> None:
    database = place.open()
    put(database, submission("a"))
    for counted, expected in ((False, False), (True, False), (False, True), (False, True)):
        [job] = claim(database)
        assert job.counted is expected
        with database.renewing() as tx:
            assert jobs.finish(tx, held(job), Next("queued", 100.0, counted=False), None, 100.0, counted=counted)
    [job] = claim(database)
    assert finish(database, held(job), Next("dead"), None)
    with database.renewing() as tx:
        assert jobs.retry(tx, "a", 102.0)
    [job] = claim(database, now=102.0)
    assert not job.counted
