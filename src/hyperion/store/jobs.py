"""Durable jobs: kept, claimed under a lease, finished exactly once, or given up with a reason.

Called by `control`. Times (`now`, `expires_at`…) are seconds since 1970 by the clock of the control process; control
processes that share a database should agree to a second or so. No function needs the writers' lock: each statement
holds by itself, and a claim skips rows that another control process is claiming.
"""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, Float, Row, bindparam, case, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from hyperion.policy.jobs import LEASE_S, Next
from hyperion.schema.job import (
    OVER,
    ClaimedJob,
    Held,
    JobView,
    State,
    StoredAnswer,
    Submission,
)
from hyperion.store import job_payloads
from hyperion.store.canonical import clean
from hyperion.store.tables import JOB
from hyperion.store.transaction import reached

CLAIM_BYTES: Final = 24 << 20  # of requests that one claim takes: they travel in one message
_CHUNK: Final = 500  # ids per statement: both databases bound the number of a statement's parameters
_ROWS: Final = 100


class Due(Struct, frozen=True):
    """What there is to do now: jobs to run, leases that have ended, callbacks to make, rows to forget."""

    queued: bool = False
    lost: bool = False
    callbacks: bool = False
    expired: bool = False


class Running(Struct, frozen=True):
    """What `finish` has to know of a job that runs."""

    attempts: int
    max_attempts: int
    backoff_s: float
    expires_at: float


def put_many(tx: Connection, jobs: Sequence[Submission], now: float) -> None:
    """Keep new jobs. One whose id is there already changes nothing."""
    build: Any = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    distinct = {job.id: job for job in jobs}
    ordered = [distinct[name] for name in sorted(distinct)]  # two such writes never deadlock
    new: list[str] = []
    for at in range(0, len(ordered), _ROWS):
        rows = [_new_row(job, now) for job in ordered[at : at + _ROWS]]
        statement = build(JOB).values(rows).on_conflict_do_nothing(index_elements=["id"])
        new += tx.execute(statement.returning(JOB.c.id)).scalars()
    job_payloads.put(tx, "request", [(name, job_payloads.encode(distinct[name].request)) for name in new])
    reached(tx, "jobs.put")


def claim(tx: Connection, most: int, now: float) -> list[ClaimedJob]:
    """Take up to `most` jobs that are due, the highest priority and the oldest first, under a lease of `LEASE_S`."""
    due = (
        select(JOB.c.id)
        .where(JOB.c.state == "queued", JOB.c.due_at <= now, JOB.c.expires_at > now)
        .order_by(JOB.c.priority, JOB.c.due_at)
        .limit(most)
        .with_for_update(skip_locked=True)
        .cte("due")  # which PostgreSQL evaluates once, as it locks rows; a plain subquery might be evaluated again
    )
    taken = (
        update(JOB)
        .where(JOB.c.id.in_(select(due.c.id)), JOB.c.state == "queued")
        .values(
            state="running",
            attempts=JOB.c.attempts + 1,
            fence=JOB.c.fence + 1,
            lease_until=now + LEASE_S,
            started_at=now,
        )
        .returning(
            *(JOB.c.id, JOB.c.fence, JOB.c.tenant, JOB.c.endpoint, JOB.c.priority, JOB.c.timeout_s, JOB.c.counted),
            JOB.c.created_at,
        )
    )
    rows = sorted(tx.execute(taken), key=lambda row: (row.priority, row.created_at))
    rows = _put_back(tx, rows, now)
    requests = job_payloads.get_requests(tx, [row.id for row in rows])
    reached(tx, "jobs.claim")
    return [
        ClaimedJob(
            row.id, row.fence, row.tenant, row.endpoint, requests[row.id], row.priority, row.timeout_s, row.counted
        )
        for row in rows
    ]


def renew(tx: Connection, held: Sequence[Held], now: float) -> list[Held]:
    """Prolong the leases, and return those that are gone: cancelled, or taken over by somebody else."""
    lost = []
    for job in sorted(held, key=lambda job: job.id):
        statement = update(JOB).where(JOB.c.id == job.id, JOB.c.fence == job.fence, JOB.c.state == "running")
        if not tx.execute(statement.values(lease_until=now + LEASE_S)).rowcount:
            lost.append(job)
    return lost


def running(tx: Connection, held: Held) -> Running | None:
    """The job, if whoever holds it may still finish it."""
    query = select(JOB.c.attempts, JOB.c.max_attempts, JOB.c.backoff_s, JOB.c.expires_at)
    row = tx.execute(
        query.where(JOB.c.id == held.id, JOB.c.fence == held.fence, JOB.c.state == "running").with_for_update()
    ).first()
    return None if row is None else Running(*row)


def finish(
    tx: Connection,
    held: Held,
    then: Next,
    answer: StoredAnswer | None,
    now: float,
    *,
    holder_lost: bool = False,
    counted: bool = False,
) -> bool:
    """Write down what follows from an attempt; False where the job is not this holder's any more. The same again
    changes nothing. With `holder_lost` the holder itself, should it still live, can no longer finish it. `counted`
    says that quotas have counted the job."""
    over = then.state in OVER
    values: dict[str, object] = {"state": then.state, "reason": clean(then.reason)}
    if over:
        values |= _ended(now) | {"status": answer.status if answer is not None else 0}
    else:
        values |= {"due_at": then.due_at}
        if not then.counted:
            values |= {"attempts": JOB.c.attempts - 1}
    if holder_lost:
        values |= {"fence": JOB.c.fence + 1}
    if counted:
        values |= {"counted": True}
    statement = update(JOB).where(JOB.c.id == held.id, JOB.c.fence == held.fence, JOB.c.state == "running")
    if not tx.execute(statement.values(values)).rowcount:
        return is_finished(tx, held)
    if over and answer is not None:
        job_payloads.put(tx, "answer", [(held.id, job_payloads.encode(answer))])
    reached(tx, "jobs.finish")
    return True


def is_finished(tx: Connection, held: Held) -> bool:
    """Whether this holder's attempt was written down already."""
    query = select(JOB.c.state).where(JOB.c.id == held.id, JOB.c.fence == held.fence)
    return tx.execute(query).scalar() in (*OVER, "queued")


def lost(tx: Connection, now: float, limit: int = _CHUNK) -> list[Held]:
    """Jobs whose lease has ended: whoever ran them is gone."""
    query = select(JOB.c.id, JOB.c.fence).where(JOB.c.state == "running", JOB.c.lease_until <= now)
    return [Held(row.id, row.fence) for row in tx.execute(query.order_by(JOB.c.id).limit(limit))]


_NOW: Final = bindparam("now", type_=Float)


def _any_of(*conditions: Any) -> Any:
    return select(JOB.c.id).where(*conditions).exists()


_DUE: Final = select(  # asked twice a second by a platform that has nothing else to do
    _any_of(JOB.c.state == "queued", JOB.c.due_at <= _NOW, JOB.c.expires_at > _NOW),
    _any_of(JOB.c.state == "running", JOB.c.lease_until <= _NOW),
    _any_of(JOB.c.delivery == "pending", JOB.c.delivery_due <= _NOW),
    _any_of(JOB.c.expires_at <= _NOW, JOB.c.state != "running"),
)


def due(tx: Connection, now: float) -> Due:
    """What there is to do."""
    return Due(*map(bool, tx.execute(_DUE, {"now": now}).one()))


def get(tx: Connection, job_id: str, tenant: str | None = None) -> JobView | None:
    """The job, of that tenant where one is given."""
    query = select(JOB).where(JOB.c.id == clean(job_id))
    row = tx.execute(query if tenant is None else query.where(JOB.c.tenant == tenant)).first()
    return None if row is None else _view(row)


def list_(
    tx: Connection,
    *,
    state: str = "",
    endpoint: str = "",
    tenant: str | None = None,
    after: tuple[float, str] = (0.0, ""),
    limit: int = 100,
) -> list[JobView]:
    """Jobs by age, those behind `after` (when it was made, id), of one state, endpoint and tenant where asked."""
    query = select(JOB).where(or_(JOB.c.created_at > after[0], (JOB.c.created_at == after[0]) & (JOB.c.id > after[1])))
    for column, value in ((JOB.c.state, state), (JOB.c.endpoint, endpoint), (JOB.c.tenant, tenant)):
        if value:
            query = query.where(column == clean(value))
    return [_view(row) for row in tx.execute(query.order_by(JOB.c.created_at, JOB.c.id).limit(limit))]


def count(tx: Connection) -> dict[tuple[str, str], int]:
    """How many jobs there are, by endpoint and state."""
    query = select(JOB.c.endpoint, JOB.c.state, func.count()).group_by(JOB.c.endpoint, JOB.c.state)
    return {(row[0], row[1]): int(row[2]) for row in tx.execute(query)}


def cancel(tx: Connection, job_id: str, now: float, tenant: str | None = None, reason: str = "cancelled") -> bool:
    """End a job that has not ended; whoever runs it can no longer finish it. False where there is none such."""
    statement = update(JOB).where(JOB.c.id == clean(job_id), JOB.c.state.in_(("queued", "running")))
    if tenant is not None:
        statement = statement.where(JOB.c.tenant == tenant)
    ended = {"state": "cancelled", "fence": JOB.c.fence + 1, "reason": clean(reason)}
    return bool(tx.execute(statement.values(ended | _ended(now))).rowcount)


def retry(tx: Connection, job_id: str, now: float) -> bool:
    """Let a job that has ended run again, with all its attempts; False where there is none such. What it was done with
    is forgotten."""
    return bool(retry_many(tx, [job_id], now))


def retry_many(tx: Connection, job_ids: Sequence[str], now: float) -> int:
    """`retry` for each. Returns how many."""
    again: dict[str, object] = {"state": "queued", "attempts": 0, "fence": JOB.c.fence + 1, "due_at": now}
    again |= {
        "counted": False,
        "started_at": 0.0,
        "finished_at": 0.0,
        "expires_at": now + JOB.c.ttl_s,
        "status": 0,
        "reason": "",
    }
    again |= {"delivery": "", "delivery_attempts": 0, "delivery_due": 0.0, "delivery_reason": ""}
    total = 0
    for at in range(0, len(job_ids), _CHUNK):
        chunk = [clean(job_id) for job_id in job_ids[at : at + _CHUNK]]
        statement = update(JOB).where(JOB.c.id.in_(chunk), JOB.c.state.in_(sorted(OVER))).values(again)
        done = list(tx.execute(statement.returning(JOB.c.id)).scalars())
        job_payloads.drop_answers(tx, done)
        total += len(done)
    return total


def discard(tx: Connection, job_ids: Sequence[str]) -> int:
    """Forget jobs that have ended, with what was asked and answered. Returns how many."""
    total = 0
    for at in range(0, len(job_ids), _CHUNK):
        chunk = [clean(job_id) for job_id in job_ids[at : at + _CHUNK]]
        total += tx.execute(delete(JOB).where(JOB.c.id.in_(chunk), JOB.c.state.in_(sorted(OVER)))).rowcount
    return total


def expire(tx: Connection, now: float, limit: int = _CHUNK) -> int:
    """Give up what waited too long, and forget what ended long ago, some at a time. Returns how many."""
    old = select(JOB.c.id).where(JOB.c.expires_at <= now).limit(limit).scalar_subquery()
    late = update(JOB).where(JOB.c.id.in_(old), JOB.c.state == "queued")
    given_up = {"state": "dead", "fence": JOB.c.fence + 1, "reason": "its time was over before it was done"}
    count = tx.execute(late.values(given_up | _ended(now))).rowcount
    gone = delete(JOB).where(JOB.c.id.in_(old), JOB.c.expires_at <= now, JOB.c.state.in_(sorted(OVER)))
    return count + tx.execute(gone).rowcount


def _put_back(tx: Connection, rows: list[Row[Any]], now: float) -> list[Row[Any]]:
    """Those whose requests fit into one message; the others wait for the next claim."""
    sizes = job_payloads.sizes(tx, [row.id for row in rows])
    kept: list[Row[Any]] = []
    total = 0
    for row in rows:
        total += sizes.get(row.id, 0)
        if kept and total > CLAIM_BYTES:
            again = {"state": "queued", "attempts": JOB.c.attempts - 1, "due_at": now}
            tx.execute(update(JOB).where(JOB.c.id == row.id).values(again))
        else:
            kept.append(row)
    return kept


def _ended(now: float) -> dict[str, Any]:
    """What is written of a job that has ended, whatever its end: from now on it is kept for its `ttl_s`."""
    called = case((JOB.c.callback != "", "pending"), else_="")
    return {"finished_at": now, "expires_at": now + JOB.c.ttl_s, "delivery": called, "delivery_due": now}


def _new_row(job: Submission, now: float) -> dict[str, object]:
    state: State = "queued"
    return {
        "id": job.id,
        "tenant": clean(job.tenant),
        "endpoint": clean(job.endpoint),
        "state": state,
        "priority": job.priority,
        "attempts": 0,
        "max_attempts": max(1, job.attempts),
        "backoff_s": job.backoff_s,
        "timeout_s": job.timeout_s,
        "ttl_s": job.ttl_s,
        "fence": 0,
        "lease_until": 0.0,
        "created_at": now,
        "due_at": now,
        "started_at": 0.0,
        "finished_at": 0.0,
        "expires_at": now + job.ttl_s,
        "status": 0,
        "reason": "",
        "callback": clean(job.callback),
        "delivery": "",
        "delivery_attempts": 0,
        "delivery_due": 0.0,
        "delivery_reason": "",
        "counted": False,
    }


def _view(row: Row[Any]) -> JobView:
    return JobView(**{name: row._mapping[name] for name in JobView.__struct_fields__})
