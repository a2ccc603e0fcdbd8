"""What a gateway reports of an attempt at a job."""

from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from hyperion.gateway.front.caller import ANONYMOUS
from hyperion.gateway.front.guard import Guard, Visit
from hyperion.gateway.http.exchange import JSON, Exchange
from hyperion.gateway.jobs.desk import Desk
from hyperion.gateway.jobs.once import Once
from hyperion.gateway.jobs.runner import JobRunner
from hyperion.gateway.limits.limiter import UNCOUNTED
from hyperion.policy.redact import Redaction
from hyperion.schema.errors import HyperionError, Overloaded, RateLimited, RunnerLost, SchemaMismatch
from hyperion.schema.job import ClaimedJob, Finish, Held, Kept, StoredRequest
from hyperion.telemetry.logs import EventLog

JOB = ClaimedJob("j", 1, "acme", "m", StoredRequest("POST", "/v2/models/m/infer", (), b"{}"), 9, 30.0)


class Dated:
    date = b"today"


class Told(Desk):
    """Control, which is told everything at once."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "control.sock")
        self.told: list[Any] = []

    async def ask(self, request: Any, _timeout_s: float) -> Any:
        self.told.append(request)
        return Kept()


async def report(
    directory: Path, outcome: int | HyperionError, started: bool, *, endpoint: str = "m", **fields: bytes
) -> Finish:
    """Of an attempt that is answered or fails so, once quotas have counted it, or not."""
    visit = Visit(cast(Guard, None), ANONYMOUS, UNCOUNTED)

    def serve(exchange: Exchange) -> None:
        assert exchange.visit is visit
        visit.started = started
        if isinstance(outcome, HyperionError):
            exchange.fail(outcome)
        else:
            named = {name.replace("_", "-").encode(): one for name, one in fields.items()}
            exchange.respond(outcome, JSON, b"{}", named)

    desk = Told(directory)
    log = EventLog("test")
    runner = JobRunner(
        directory / "control.sock",
        desk,
        Once(desk, log),
        serve,
        lambda _: visit,
        {"m": Redaction(), "fields": Redaction(["input:x"])}.__getitem__,
        Dated(),
        lambda: 0,
        log,
    )
    await runner._attempt(replace(JOB, endpoint=endpoint), Held("j", 1))
    (finish,) = desk.told
    assert isinstance(finish, Finish)
    return finish


@pytest.mark.interpreted
@pytest.mark.parametrize("started", [True, False])
async def test_it_says_whether_quotas_have_counted_the_job(tmp_path: Path, started: bool) -> None:
    for status, kind in ((200, "done"), (503, "retry"), (422, "failed")):
        finish = await report(tmp_path, status, started)
        assert (finish.kind, finish.counted) == (kind, started)


@pytest.mark.interpreted
async def test_what_holds_for_the_moment_is_heeded_and_not_kept(tmp_path: Path) -> None:
    for error in (Overloaded("full", retry_after_s=3.0), RateLimited("over", retry_after_s=0.2)):
        finish = await report(tmp_path, error, True)
        assert (finish.kind, finish.told_s) == ("busy", max(1.0, error.retry_after_s))
    answer = (await report(tmp_path, 200, True, ratelimit=b'"tenant";r=1;t=2', x_other=b"y")).answer
    assert answer is not None
    names = [name for name, _ in answer.headers]
    assert ("x-other" in names, "ratelimit" in names) == (True, False)


@pytest.mark.interpreted
async def test_what_a_failed_job_quotes_of_somebody_is_not_kept(tmp_path: Path) -> None:
    error = SchemaMismatch('input "jane@example.com" is unknown; this model takes "x"')
    finish = await report(tmp_path, error, True)
    assert finish.reason == '422: {"error":"input \\"[email]\\" is unknown; this model takes \\"x\\""}'
    assert finish.answer is not None
    assert finish.answer.body.decode() == finish.reason.removeprefix("422: ")
    hidden = await report(tmp_path, error, True, endpoint="fields")
    assert hidden.reason == "422: its message is withheld, as the endpoint redacts fields"


@pytest.mark.interpreted
async def test_an_attempt_that_was_lost_counts_though_its_caller_would_be_told_to_come_back(tmp_path: Path) -> None:
    """Or a job that kills every replica would be tried for ever."""
    assert (await report(tmp_path, RunnerLost("it died"), True)).kind == "retry"
