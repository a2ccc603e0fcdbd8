"""The desk's verbs over jobs, for the management API. Synchronous, safe to share between threads. What somebody orders
is in the ledger (`store/job_orders`)."""

import time
from collections.abc import Callable

from sqlalchemy import Connection

from hyperion.policy.callbacks import derive_secret
from hyperion.schema.errors import Conflict, NotFound
from hyperion.schema.job import OVER, JobView, StoredAnswer, StoredRequest
from hyperion.store import job_orders, job_payloads, jobs
from hyperion.store.database import Database
from hyperion.store.job_orders import DeadOrder


class Jobs:
    """`master` is what the secrets of callbacks are derived from."""

    def __init__(self, database: Database, master: bytes = b"", clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._master = master
        self._clock = clock

    def list_(
        self, state: str = "", endpoint: str = "", tenant: str = "", after: str = "", limit: int = 100
    ) -> list[JobView]:
        """Jobs by age, those behind the job `after`; of one state, endpoint or tenant where asked. Raises `NotFound`
        where `after` is not there any more."""
        with self._database.read() as tx:
            start = (0.0, "")
            if after:
                last = jobs.get(tx, after)
                if last is None:
                    raise NotFound(f'the job "{after}" is not there any more; start the list anew')
                start = (last.created_at, last.id)
            return jobs.list_(tx, state=state, endpoint=endpoint, tenant=tenant, after=start, limit=limit)

    def get(self, job_id: str) -> JobView:
        """One job. Raises `NotFound`."""
        with self._database.read() as tx:
            return _require(tx, job_id)

    def result(self, job_id: str) -> StoredAnswer:
        """The job's answer. Raises `NotFound`, and `Conflict` where it has none."""
        job = self.get(job_id)
        with self._database.read() as tx:
            answer = job_payloads.get_answer(tx, job_id)
        if answer is None:
            raise Conflict(f"the job is {job.state} and has no answer{f': {job.reason}' if job.reason else ''}")
        return answer

    def request(self, job_id: str) -> StoredRequest:
        """What was asked. Raises `NotFound`."""
        with self._database.read() as tx:
            return job_payloads.get_requests(tx, [_require(tx, job_id).id])[job_id]

    def cancel(self, job_id: str, *, actor: str) -> JobView:
        """End a job that has not ended. Raises `NotFound`, and `Conflict` where it has."""
        with self._database.write() as tx:
            done = job_orders.cancel(tx, _require(tx, job_id), self._clock(), actor=actor)
            job = _require(tx, job_id)
        if not done:
            raise Conflict(f"the job is {job.state} already")
        return job

    def retry(self, job_id: str, *, actor: str) -> JobView:
        """Let a job that has ended run again. Raises `NotFound`, and `Conflict` where it has not."""
        with self._database.write() as tx:
            done = job_orders.retry(tx, _require(tx, job_id), self._clock(), actor=actor)
            job = _require(tx, job_id)
        if not done:
            raise Conflict(f"the job is {job.state}; only one that has ended can run again")
        return job

    def discard(self, job_id: str, *, actor: str) -> None:
        """Forget a job that has ended, with all that was asked and answered. Raises `NotFound`, and `Conflict` where
        it has not."""
        with self._database.write() as tx:
            job = _require(tx, job_id)
            if not job_orders.discard(tx, job, actor=actor) and job.state not in OVER:
                raise Conflict(f"the job is {job.state}; cancel it first")

    def retry_dead(self, endpoint: str = "", *, actor: str) -> DeadOrder:
        """Let dead letters, of one endpoint where given, run again."""
        with self._database.write() as tx:
            return job_orders.retry_dead(tx, endpoint, self._clock(), actor=actor)

    def discard_dead(self, endpoint: str = "", *, actor: str) -> DeadOrder:
        """Forget dead letters, of one endpoint where given, with all that was asked and answered."""
        with self._database.write() as tx:
            return job_orders.discard_dead(tx, endpoint, actor=actor)

    def secret(self, tenant: str) -> str:
        """What callbacks to this tenant are signed with."""
        return derive_secret(self._master, tenant)


def _require(tx: Connection, job_id: str) -> JobView:
    job = jobs.get(tx, job_id)
    if job is None:
        raise NotFound(f'there is no job "{job_id}", or not any more; see: hyperion job list')
    return job
