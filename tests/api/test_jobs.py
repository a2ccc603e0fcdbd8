"""Jobs over the management API: pages, filters, what may be done with them and by whom."""

from collections.abc import Iterator
from typing import Any

import pytest

from hyperion.policy.jobs import Next
from hyperion.schema.job import Held, StoredAnswer, StoredRequest, Submission
from hyperion.store import jobs
from tests.api.platform import Platform

REQUEST = StoredRequest("POST", "/v2/models/m/infer", (), b"secret question")


@pytest.fixture
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("jobs") / "home") as platform:
        yield platform


def put(platform: Platform, *names: str, now: float = 1.0, **fields: Any) -> None:
    with platform.database.write() as tx:
        jobs.put_many(tx, [Submission(name, "acme", "m", REQUEST, ttl_s=1e10, **fields) for name in names], now)


def end(platform: Platform, then: Next, answer: StoredAnswer | None, now: float = 2.0) -> None:
    """Ends whatever is queued and due."""
    with platform.database.write() as tx:
        for job in jobs.claim(tx, 100, now):
            jobs.finish(tx, Held(job.id, job.fence), then, answer, 3.0)


def test_jobs_are_listed_by_page_and_filter(platform: Platform) -> None:
    for number in range(5):
        put(platform, f"j{number}", now=float(number + 1))
    first = platform.ask("jobs?limit=3").json()
    rest = platform.ask(f"jobs?limit=3&after={first['next']}").json()
    assert [job["id"] for job in first["items"] + rest["items"]] == [f"j{number}" for number in range(5)]
    assert rest["next"] is None
    assert platform.ask("jobs?state=dead").json()["items"] == []
    assert len(platform.ask("jobs?endpoint=m&tenant=acme&state=queued").json()["items"]) == 5
    assert platform.ask("jobs?state=nonsense").status == 422
    assert platform.ask("jobs?after=gone").status == 404
    assert b"secret" not in platform.ask("jobs").body


def test_a_dead_job_is_shown_replayed_and_discarded(platform: Platform) -> None:
    put(platform, "a", callback="https://acme.example/")
    assert platform.ask("jobs/a/retry", {}).status == 409
    assert platform.ask("jobs/a/result").status == 409
    assert platform.ask("jobs/a", method="DELETE").status == 409
    end(platform, Next("dead", reason="gave up"), StoredAnswer(503, (("x", "y"),), b"\xff"))
    seen = platform.ask("jobs/a").json()
    assert (seen["state"], seen["reason"], seen["status"], seen["finished_at"]) == ("dead", "gave up", 503, 3.0)
    assert seen["callback"] == {"url": "https://acme.example/", "state": "pending", "attempts": 0, "reason": ""}
    assert platform.ask("jobs/a/result").json() == {
        "status": 503,
        "headers": {"x": "y"},
        "body": "/w==",
        "encoding": "base64",
    }
    assert platform.ask("jobs/a/request").json() == {
        "method": "POST",
        "path": "/v2/models/m/infer",
        "headers": {},
        "body": "secret question",
        "encoding": "utf-8",
    }
    assert platform.ask("jobs/a/cancel", {}).status == 409
    again = platform.ask("jobs/a/retry", {}).json()
    assert (again["state"], again["attempts"], again["reason"]) == ("queued", 0, "")
    assert platform.ask("jobs/a/cancel", {}).json()["state"] == "cancelled"
    assert platform.ask("jobs/a", method="DELETE").status == 204
    for path in ("jobs/a", "jobs/a/request", "jobs/a/result"):
        assert platform.ask(path).status == 404


def test_only_an_admin_reads_answers_and_secrets_and_a_caller_of_models_sees_no_jobs(platform: Platform) -> None:
    put(platform, "a", callback="https://acme.example/?theirs")
    end(platform, Next("done"), StoredAnswer(200, (), b"{}"))
    keys = {
        scope: platform.ask("keys", {"tenant": "t", "scopes": [scope]}).json()["key"]
        for scope in ("infer", "read", "deploy")
    }
    for path in ("jobs", "jobs/a"):
        assert platform.ask(path, token=keys["deploy"]).status == 200
        assert platform.ask(path, token=keys["infer"]).status == 403, "jobs are of all tenants"
        assert platform.ask(path, token=keys["read"]).status == 403
    for path in ("jobs/a/request", "jobs/a/result", "callback-secret?tenant=acme"):
        assert platform.ask(path).status == 200
        assert platform.ask(path, token=keys["deploy"]).status == 403
    for path in ("jobs/a/cancel", "jobs/a/retry"):
        assert platform.ask(path, {}, token=keys["read"]).status == 403
    assert platform.ask("jobs/a", method="DELETE", token=keys["read"]).status == 403


def test_who_ordered_what_is_in_the_ledger_and_never_what_was_asked(platform: Platform) -> None:
    put(platform, "a", "b", callback="https://acme.example/?theirs")
    end(platform, Next("dead"), StoredAnswer(503, (), b"secret answer"))
    assert platform.ask("jobs/a/cancel", {}).status == 409
    assert platform.ask("jobs/a/retry", {}, x_hyperion_actor="ann").status == 200
    assert platform.ask("jobs/a/cancel", {}).status == 200
    assert platform.ask("jobs/a", method="DELETE").status == 204
    entries = platform.ask("ledger/entries?kind=job.").json()["items"]
    of_a = {"endpoint": "m", "tenant": "acme"}
    assert [(entry["kind"], entry["subject"], entry["actor"], entry["detail"]) for entry in entries] == [
        ("job.retry", "a", "admin:ann", {**of_a, "state": "dead"}),
        ("job.cancel", "a", "admin", {**of_a, "state": "queued"}),
        ("job.discard", "a", "admin", {**of_a, "state": "cancelled"}),
    ]
    assert b"secret" not in platform.ask("ledger/entries").body
    assert b"theirs" not in platform.ask("ledger/entries").body
    key = platform.ask("keys", {"tenant": "t", "scopes": ["read"]}).json()["key"]
    assert b"acme" not in platform.ask("ledger/entries?kind=job.", token=key).body, "whose job it was is not for all"


def test_an_order_for_all_dead_letters_is_one_entry(platform: Platform) -> None:
    put(platform, "a", "b", "c")
    end(platform, Next("dead"), None)
    put(platform, "waiting")
    assert platform.ask("dead-jobs/retry?endpoint=other", {}).json() == {"ids": [], "more": False}
    assert platform.ask("dead-jobs/retry?endpoint=m", {}).json() == {"ids": ["a", "b", "c"], "more": False}
    assert platform.ask("jobs?state=dead").json()["items"] == []
    end(platform, Next("dead"), None, now=4e9)
    assert platform.ask("dead-jobs/discard", {}).json()["ids"] == ["a", "b", "c", "waiting"]
    assert platform.ask("jobs").json()["items"] == []
    entries = platform.ask("ledger/entries?kind=job.").json()["items"]
    assert [(entry["kind"], entry["subject"], entry["detail"]) for entry in entries] == [
        ("job.retry", "dead letters", {"endpoint": "m", "state": "dead", "count": 3}),
        ("job.discard", "dead letters", {"endpoint": "", "state": "dead", "count": 4}),
    ]
    read = platform.ask("keys", {"tenant": "t", "scopes": ["read"]}).json()["key"]
    assert platform.ask("dead-jobs/discard", {}, token=read).status == 403
