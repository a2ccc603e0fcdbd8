"""`hyperion job …`: what was to be answered later."""

import base64
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.show import print_json, print_table

STATES = ("queued", "running", "done", "failed", "dead", "cancelled")
_JSON = click.option("--json", "as_json", is_flag=True, help="for scripts")


@click.group("job", short_help="See, cancel, replay and discard asynchronous jobs.")
def command() -> None:
    """Jobs: requests that were sent with `prefer: respond-async`."""


@command.command("list")
@click.option("--state", type=click.Choice(STATES), help="only those")
@click.option("--dead", is_flag=True, help="the dead letters: as --state dead")
@click.option("--endpoint", default="", help="only its jobs")
@click.option("--tenant", default="", help="only its jobs")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="so many at most")
@_JSON
@add_connection
def list_jobs(
    admin: Admin, state: str | None, dead: bool, endpoint: str, tenant: str, limit: int, as_json: bool
) -> None:
    """List jobs, oldest first."""
    found = _find(admin, "dead" if dead else state or "", endpoint, tenant, limit)
    if as_json:
        print_json(found)
        return
    rows = [
        (job["id"], job["endpoint"], job["tenant"], job["state"], str(job["attempts"]), _age(job), job["reason"][:60])
        for job in found
    ]
    print_table(("id", "endpoint", "tenant", "state", "attempts", "age", "reason"), rows)


@command.command("show")
@click.argument("job_id", metavar="ID")
@_JSON
@add_connection
def show(admin: Admin, job_id: str, as_json: bool) -> None:
    """Show one job."""
    job = admin.get("jobs", job_id)
    if as_json:
        print_json(job)
        return
    for name, value in job.items():
        if value not in (None, ""):
            print(f"{name:<14}{value}")


@command.command("result")
@click.argument("job_id", metavar="ID")
@_JSON
@add_connection
def result(admin: Admin, job_id: str, as_json: bool) -> None:
    """Write what a job was answered to the standard output."""
    _write_body(admin.get("jobs", job_id, "result"), as_json)


@command.command("request")
@click.argument("job_id", metavar="ID")
@_JSON
@add_connection
def request(admin: Admin, job_id: str, as_json: bool) -> None:
    """Write what a job was asked to the standard output."""
    _write_body(admin.get("jobs", job_id, "request"), as_json)


@command.command("cancel")
@click.argument("job_ids", metavar="ID…", nargs=-1, required=True)
@_JSON
@add_connection
def cancel(admin: Admin, job_ids: Sequence[str], as_json: bool) -> None:
    """End jobs that have not ended."""
    _tell([admin.post("jobs", job_id, "cancel") for job_id in job_ids], "cancelled", as_json)


def _choosing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Jobs by their ids, or all dead letters."""
    function = click.option("--endpoint", default="", help="with --dead: only of this endpoint")(function)
    function = click.option("--dead", is_flag=True, help="all dead letters")(function)
    return click.argument("job_ids", metavar="[ID…]", nargs=-1)(function)


@command.command("retry")
@_choosing
@_JSON
@add_connection
def retry(admin: Admin, job_ids: Sequence[str], dead: bool, endpoint: str, as_json: bool) -> None:
    """Let jobs that have ended run again (replay)."""
    _check_chosen(job_ids, dead)
    if dead:
        _tell_dead(admin.post("dead-jobs", "retry", endpoint=endpoint), "queued again", as_json)
    else:
        _tell([admin.post("jobs", job_id, "retry") for job_id in job_ids], "queued again", as_json)


@command.command("discard")
@_choosing
@_JSON
@add_connection
def discard(admin: Admin, job_ids: Sequence[str], dead: bool, endpoint: str, as_json: bool) -> None:
    """Forget jobs that have ended, with all that was asked and answered."""
    _check_chosen(job_ids, dead)
    if dead:
        _tell_dead(admin.post("dead-jobs", "discard", endpoint=endpoint), "discarded", as_json)
        return
    for job_id in job_ids:
        admin.delete("jobs", job_id)
    _tell([{"id": job_id} for job_id in job_ids], "discarded", as_json)


@command.command("secret")
@click.option("--tenant", default="", help="whose callbacks are to be verified  [default: callers without credentials]")
@_JSON
@add_connection
def secret(admin: Admin, tenant: str, as_json: bool) -> None:
    """Show what the callbacks to a tenant are signed with."""
    found = admin.get("callback-secret", tenant=tenant)
    if as_json:
        print_json(found)
    else:
        print(found["secret"])


def _find(admin: Admin, state: str, endpoint: str, tenant: str, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for job in admin.pages("jobs", state=state, endpoint=endpoint, tenant=tenant):
        if len(found) == limit:
            break
        found.append(job)
    return found


def _write_body(told: dict[str, Any], as_json: bool) -> None:
    """The bytes as they are, or, for scripts, with all that belongs to them."""
    if as_json:
        print_json(told)
        return
    body = told["body"]
    sys.stdout.buffer.write(base64.b64decode(body) if told["encoding"] == "base64" else body.encode())
    sys.stdout.buffer.flush()


def _check_chosen(job_ids: Sequence[str], dead: bool) -> None:
    """Raises `UsageError` unless jobs are named, or all dead ones are meant."""
    if bool(job_ids) == dead:
        raise click.UsageError("name the jobs (hyperion job list), or take all dead ones with --dead")


def _tell(done: list[Any], what: str, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    for job in done:
        print(f"job {job['id']} is {what}")
    if not done:
        print("there are none")


def _tell_dead(done: dict[str, Any], what: str, as_json: bool) -> None:
    _tell([{"id": job_id} for job_id in done["ids"]], what, as_json)
    if done["more"]:
        print(f"these were the oldest {len(done['ids'])}; run it again for the others", file=sys.stderr)


def _age(job: dict[str, Any]) -> str:
    seconds = max(0.0, time.time() - float(job["created_at"]))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
