"""The requests and answers of jobs as bytes: beside the jobs, in the same database.

They may hold personal data, so they live and die in the very transactions that make and delete their job: nothing can
be left behind, as it could be among the blobs. Never read by lists. Called by `jobs`.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from sqlalchemy import Connection, delete, insert, select

from hyperion.schema.job import StoredAnswer, StoredRequest
from hyperion.store.tables import JOB_PAYLOAD

Part = Literal["request", "answer"]
_ENCODER = msgspec.msgpack.Encoder()
_REQUESTS = msgspec.msgpack.Decoder(StoredRequest)
_ANSWERS = msgspec.msgpack.Decoder(StoredAnswer)


def encode(payload: StoredRequest | StoredAnswer) -> bytes:
    """The payload as it is kept."""
    return _ENCODER.encode(payload)


def put(tx: Connection, part: Part, payloads: Sequence[tuple[str, bytes]]) -> None:
    """Keep payloads as (job, data); the jobs have none of that part yet."""
    rows = [{"job": job, "part": part, "size_bytes": len(data), "data": data} for job, data in payloads]
    if rows:
        tx.execute(insert(JOB_PAYLOAD), rows)


def sizes(tx: Connection, jobs: Sequence[str]) -> dict[str, int]:
    """Bytes of the requests of these jobs."""
    query = select(JOB_PAYLOAD.c.job, JOB_PAYLOAD.c.size_bytes)
    found = tx.execute(query.where(JOB_PAYLOAD.c.job.in_(jobs), JOB_PAYLOAD.c.part == "request"))
    return {row[0]: int(row[1]) for row in found}


def get_requests(tx: Connection, jobs: Sequence[str]) -> dict[str, StoredRequest]:
    """The requests of these jobs, by job."""
    query = select(JOB_PAYLOAD.c.job, JOB_PAYLOAD.c.data)
    found = tx.execute(query.where(JOB_PAYLOAD.c.job.in_(jobs), JOB_PAYLOAD.c.part == "request"))
    return {row[0]: _REQUESTS.decode(row[1]) for row in found}


def get_answer(tx: Connection, job: str) -> StoredAnswer | None:
    """The answer to the job, if there is one."""
    query = select(JOB_PAYLOAD.c.data).where(JOB_PAYLOAD.c.job == job, JOB_PAYLOAD.c.part == "answer")
    data = tx.execute(query).scalar()
    return None if data is None else _ANSWERS.decode(data)


def drop_answers(tx: Connection, jobs: Sequence[str]) -> None:
    """Forget the answers of jobs that run again."""
    tx.execute(delete(JOB_PAYLOAD).where(JOB_PAYLOAD.c.job.in_(jobs), JOB_PAYLOAD.c.part == "answer"))
