"""Jobs and idempotent calls over the store: what gateways ask of them, and what becomes due by itself.

Synchronous, safe to share between threads; called by `board`. Everything may be asked twice.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection

from hyperion.policy.jobs import follow
from hyperion.schema.errors import HyperionError
from hyperion.schema.job import (
    MAX_PAYLOAD_BYTES,
    Abandon,
    Answer,
    Begin,
    Begun,
    Cancel,
    ClaimedJob,
    Complete,
    Failed,
    Finish,
    Held,
    Kept,
    Look,
    Lost,
    Renew,
    Request,
    Seen,
    Submit,
)
from hyperion.store import idempotency, job_payloads, jobs
from hyperion.store.database import Database

TEND_KEYS_S: Final = 60.0
COUNT_S: Final = 10.0  # it reads every job that is kept
LOST: Final = "the gateway that ran it is gone"
TOO_MUCH: Final = Failed("overloaded", "too much was asked for at once; ask again")


class JobDesk:
    """`clock` gives seconds since 1970, `draw` random numbers in [0, 1)."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._clock = clock
        self._draw = draw
        self._tend_keys_at = 0.0
        self._count_at = 0.0
        self.callbacks_due = False  # as `tend` last saw it, and so are
        self.counts: dict[tuple[str, ...], float] = {}  # jobs by endpoint and state

    def answer(self, requests: Sequence[Request]) -> tuple[tuple[Answer, ...], bool]:
        """The answers, in order, and whether there are new jobs. Where the store cannot be used now, each says so."""
        try:
            if all(isinstance(request, Look) for request in requests):
                with self._database.read() as tx:
                    return self._answer(tx, requests), False
            with self._database.renewing() as tx:
                answers = self._answer(tx, requests)
        except HyperionError as error:
            return (Failed(error.code, error.message),) * len(requests), False
        return answers, any(isinstance(request, Submit) for request in requests)

    def claim(self, most: int) -> tuple[ClaimedJob, ...]:
        """Take up to `most` jobs that are due. Raises `StorageFailed`."""
        now = self._clock()
        with self._database.read() as tx:
            if not jobs.due(tx, now).queued:
                return ()
        with self._database.renewing() as tx:
            return tuple(jobs.claim(tx, most, now))

    def tend(self) -> bool:
        """Take back what nobody runs any more, and forget what is old; whether jobs are waiting. Writes only where
        there is something to write. Raises `StorageFailed`."""
        now = self._clock()
        with self._database.read() as tx:
            due = jobs.due(tx, now)
            self.callbacks_due = due.callbacks
            if now >= self._count_at:
                self._count_at = now + COUNT_S
                self.counts = {key: float(count) for key, count in jobs.count(tx).items()}
            old_keys = now >= self._tend_keys_at and idempotency.expired(tx, now)
        if now >= self._tend_keys_at:
            self._tend_keys_at = now + TEND_KEYS_S
        if due.lost or due.expired or old_keys:
            with self._database.renewing() as tx:
                for held in jobs.lost(tx, now) if due.lost else ():
                    self._take_back(tx, held, now)
                if due.expired:
                    jobs.expire(tx, now)
                if old_keys:
                    idempotency.prune(tx, now)
        return due.queued or due.lost

    def queued(self, endpoint: str) -> float:
        """How many of the endpoint's jobs waited some seconds ago."""
        return self.counts.get((endpoint, "queued"), 0.0)

    def _answer(self, tx: Connection, requests: Sequence[Request]) -> tuple[Answer, ...]:
        now = self._clock()
        calls = [request for request in requests if isinstance(request, Begin)]
        begun = iter(idempotency.begin_many(tx, calls, now) if calls else ())
        new = [request.job for request in requests if isinstance(request, Submit)]
        if new:
            jobs.put_many(tx, new, now)
        answers: list[Answer] = []
        total_bytes = 0
        for request in requests:
            answer = next(begun) if isinstance(request, Begin) else self._answer_one(tx, request, now)
            if isinstance(answer, Begun | Seen) and answer.answer is not None:
                total_bytes += len(answer.answer.body)
                if total_bytes > MAX_PAYLOAD_BYTES and answers:
                    answer = TOO_MUCH
            answers.append(answer)
        return tuple(answers)

    def _answer_one(self, tx: Connection, request: Request, now: float) -> Answer:
        if isinstance(request, Complete):
            return Kept(idempotency.complete(tx, request, now))
        if isinstance(request, Abandon):
            idempotency.abandon(tx, request)
        elif isinstance(request, Renew):
            idempotency.renew(tx, request.keys, now)
            return Lost(tuple(jobs.renew(tx, request.jobs, now)))
        elif isinstance(request, Finish):
            return Kept(self._finish(tx, request, now))
        elif isinstance(request, Cancel):
            jobs.cancel(tx, request.id, now, request.tenant, "cancelled by its owner")
            return Seen(jobs.get(tx, request.id, request.tenant))
        elif isinstance(request, Look):
            job = jobs.get(tx, request.id, request.tenant)
            whole = job is not None and request.whole
            return Seen(job, job_payloads.get_answer(tx, request.id) if whole else None)
        return Kept()

    def _finish(self, tx: Connection, request: Finish, now: float) -> bool:
        job = jobs.running(tx, request.job)
        if job is None:
            return jobs.is_finished(tx, request.job)
        then = follow(
            request.kind,
            request.reason,
            job.attempts,
            job.max_attempts,
            job.backoff_s,
            job.expires_at,
            now,
            self._draw(),
            request.told_s,
        )
        return jobs.finish(tx, request.job, then, request.answer, now, counted=request.counted)

    def _take_back(self, tx: Connection, held: Held, now: float) -> None:
        job = jobs.running(tx, held)
        if job is not None:
            then = follow(
                "retry", LOST, job.attempts, job.max_attempts, job.backoff_s, job.expires_at, now, self._draw()
            )
            jobs.finish(tx, held, then, None, now, holder_lost=True)
