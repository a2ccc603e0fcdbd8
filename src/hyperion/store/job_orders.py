"""What people order about jobs: cancel, retry and discard, each with its entry in the ledger.

Called by the desk of `control`, in a transaction of `Database.write`, as the ledger is written alone. An entry says
who, when, what and of which job (endpoint, tenant, the state before); never what was asked or answered. Its subject is
the job's id. Orders for all dead letters are one entry, under `DEAD_LETTERS`, with what was chosen and how many there
were. What the tenant does to its own jobs through a gateway is `jobs` alone.
"""

from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, select

from hyperion.schema.job import JobView
from hyperion.store import jobs, ledger
from hyperion.store.canonical import clean
from hyperion.store.tables import JOB

DEAD_LETTERS: Final = "dead letters"  # no endpoint and no job can have this name
BULK_MAX: Final = 10_000  # jobs that one order takes: others wait for the transaction


class DeadOrder(Struct, frozen=True):
    """What an order for dead letters did: to which jobs, and whether there may be `more` than one order takes."""

    ids: tuple[str, ...]
    more: bool


def cancel(tx: Connection, job: JobView, now: float, *, actor: str) -> bool:
    """End a job that has not ended. False where it has by now."""
    if not jobs.cancel(tx, job.id, now, reason=f"cancelled by {actor}"):
        return False
    _note(tx, "job.cancel", job, actor)
    return True


def retry(tx: Connection, job: JobView, now: float, *, actor: str) -> bool:
    """Let a job that has ended run again, with all its attempts. False where it has not ended."""
    if not jobs.retry(tx, job.id, now):
        return False
    _note(tx, "job.retry", job, actor)
    return True


def discard(tx: Connection, job: JobView, *, actor: str) -> bool:
    """Forget a job that has ended. False where it has not, or is gone."""
    if not jobs.discard(tx, [job.id]):
        return False
    _note(tx, "job.discard", job, actor)
    return True


def retry_dead(tx: Connection, endpoint: str, now: float, *, actor: str) -> DeadOrder:
    """Let the oldest `BULK_MAX` dead letters, of one endpoint where given, run again."""
    dead = _dead(tx, endpoint)
    jobs.retry_many(tx, dead, now)
    return _note_dead(tx, "job.retry", endpoint, dead, actor)


def discard_dead(tx: Connection, endpoint: str, *, actor: str) -> DeadOrder:
    """Forget the oldest `BULK_MAX` dead letters, of one endpoint where given."""
    dead = _dead(tx, endpoint)
    jobs.discard(tx, dead)
    return _note_dead(tx, "job.discard", endpoint, dead, actor)


def _dead(tx: Connection, endpoint: str) -> list[str]:
    query = select(JOB.c.id).where(JOB.c.state == "dead").order_by(JOB.c.created_at, JOB.c.id).limit(BULK_MAX)
    query = query.where(JOB.c.endpoint == clean(endpoint)) if endpoint else query
    # Locked, so that what is counted is what is done: gateways' writes do not wait for this one on PostgreSQL. What
    # somebody else changes just now is left to the next order.
    return list(tx.execute(query.with_for_update(skip_locked=True)).scalars())


def _note(tx: Connection, kind: str, job: JobView, actor: str) -> None:
    detail = {"endpoint": job.endpoint, "tenant": job.tenant, "state": job.state}
    ledger.append(tx, kind, job.id, actor=actor, detail=detail)


def _note_dead(tx: Connection, kind: str, endpoint: str, dead: list[str], actor: str) -> DeadOrder:
    if dead:  # where nothing was done there is nothing to account for
        detail = {"endpoint": endpoint, "state": "dead", "count": len(dead)}
        ledger.append(tx, kind, DEAD_LETTERS, actor=actor, detail=detail)
    return DeadOrder(tuple(dead), more=len(dead) == BULK_MAX)
