"""The desk's verbs over jobs, for the management API. Synchronous, safe to share between threads."""

import time
from collections.abc import Callable

from hyperion.policy.callbacks import derive_secret
from hyperion.schema.errors import Conflict, NotFound
from hyperion.schema.job import OVER, JobView, StoredAnswer
from hyperion.store import job_payloads, jobs
from hyperion.store.database import Database


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
            job = jobs.get(tx, job_id)
        if job is None:
            raise NotFound(f'there is no job "{job_id}", or not any more; see: hyperion job list')
        return job

    def result(self, job_id: str) -> StoredAnswer:
        """The job's answer. Raises `NotFound`, and `Conflict` where it has none."""
        job = self.get(job_id)
        with self._database.read() as tx:
            answer = job_payloads.get_answer(tx, job_id)
        if answer is None:
            raise Conflict(f"the job is {job.state} and has no answer{f': {job.reason}' if job.reason else ''}")
        return answer

    def cancel(self, job_id: str, *, actor: str) -> JobView:
        """End a job that has not ended. Raises `NotFound`, and `Conflict` where it has."""
        with self._database.renewing() as tx:
            done = jobs.cancel(tx, job_id, self._clock(), reason=f"cancelled by {actor}")
        job = self.get(job_id)
        if not done:
            raise Conflict(f"the job is {job.state} already")
        return job

    def retry(self, job_id: str) -> JobView:
        """Let a job that has ended run again. Raises `NotFound`, and `Conflict` where it has not."""
        with self._database.renewing() as tx:
            done = jobs.retry(tx, job_id, self._clock())
        job = self.get(job_id)
        if not done:
            raise Conflict(f"the job is {job.state}; only one that has ended can run again")
        return job

    def discard(self, job_id: str) -> None:
        """Forget a job that has ended, with all that was asked and answered. Raises `NotFound`, and `Conflict` where
        it has not."""
        job = self.get(job_id)
        with self._database.renewing() as tx:
            if not jobs.discard(tx, [job_id]) and job.state not in OVER:
                raise Conflict(f"the job is {job.state}; cancel it first")

    def secret(self, tenant: str) -> str:
        """What callbacks to this tenant are signed with."""
        return derive_secret(self._master, tenant)
