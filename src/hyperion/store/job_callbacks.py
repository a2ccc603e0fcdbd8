"""Who is to be told that a job has ended, and how far that is. Called by `control/jobs/callbacks`.

A callback is claimed by putting its next try off: a control process that dies with it is followed by another.
"""

from typing import Final, Literal

from msgspec import Struct
from sqlalchemy import Connection, select, update

from hyperion.schema.job import State
from hyperion.store.canonical import clean
from hyperion.store.tables import JOB

MAX_REASON: Final = 300


class Callback(Struct, frozen=True):
    """One try at telling. `attempt` counts it; times are seconds since 1970."""

    job: str
    tenant: str
    endpoint: str
    state: State
    status: int
    reason: str
    finished_at: float
    url: str
    attempt: int


def claim(tx: Connection, most: int, now: float, lease_s: float) -> list[Callback]:
    """Up to `most` callbacks that are due; for others they are due again after `lease_s`."""
    due = (
        select(JOB.c.id)
        .where(JOB.c.delivery == "pending", JOB.c.delivery_due <= now)
        .order_by(JOB.c.delivery_due)
        .limit(most)
        .with_for_update(skip_locked=True)
        .cte("due")  # as in `jobs.claim`
    )
    taken = (
        update(JOB)
        .where(JOB.c.id.in_(select(due.c.id)), JOB.c.delivery == "pending")
        .values(delivery_due=now + lease_s, delivery_attempts=JOB.c.delivery_attempts + 1)
        .returning(
            *(JOB.c.id, JOB.c.tenant, JOB.c.endpoint, JOB.c.state, JOB.c.status, JOB.c.reason),
            *(JOB.c.finished_at, JOB.c.callback, JOB.c.delivery_attempts),
        )
    )
    return [Callback(*row) for row in tx.execute(taken)]


def settle(
    tx: Connection, callback: Callback, outcome: Literal["pending", "delivered", "failed"], due_at: float, reason: str
) -> bool:
    """Write down what came of a try; False where the job is gone, runs again, or somebody else tries."""
    mine = (
        update(JOB)
        .where(JOB.c.id == callback.job, JOB.c.delivery == "pending", JOB.c.finished_at == callback.finished_at)
        .where(JOB.c.delivery_attempts == callback.attempt)
    )
    values = {"delivery": outcome, "delivery_due": due_at, "delivery_reason": clean(reason)[:MAX_REASON]}
    return bool(tx.execute(mine.values(values)).rowcount)
