"""How batch jobs fare: one row per `BatchJob`, which `control` keeps and `api` reads.

Every function takes a transaction of `Database`. That a run began or ended is in the ledger; its progress is not.
"""

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from hyperion.schema.batch import ENDED, BatchRun, Progress
from hyperion.store import ledger
from hyperion.store.tables import BATCH_RUN
from hyperion.store.transaction import reached


def put(tx: Connection, run: BatchRun) -> None:
    """Keep a run in place of what was known under its name. A change of its state goes to the ledger."""
    old = get(tx, run.name)
    body = msgspec.json.encode(run).decode()
    if old is None:
        tx.execute(insert(BATCH_RUN).values(name=run.name, body=body))
    else:
        tx.execute(update(BATCH_RUN).where(BATCH_RUN.c.name == run.name).values(body=body))
    reached(tx, "batch.put")
    if old is None or (old.run, old.state) != (run.run, run.state):
        detail = {"run": run.run, "generation": run.generation}
        if run.state in ENDED:
            detail |= {"rows": run.progress.rows, "skipped": run.progress.skipped, "summary": run.summary}
        ledger.append(tx, f"batchjob.{run.state}", run.name, actor="control", reason=run.reason, detail=detail)


def note_progress(tx: Connection, name: str, run: str, progress: Progress, reason: str) -> None:
    """Keep how far a run is, if it is still the one."""
    old = get(tx, name)
    if old is not None and old.run == run and old.state == "running":
        body = msgspec.json.encode(msgspec.structs.replace(old, progress=progress, reason=reason)).decode()
        tx.execute(update(BATCH_RUN).where(BATCH_RUN.c.name == name).values(body=body))


def get(tx: Connection, name: str) -> BatchRun | None:
    """The run of a job, None where none was thought of yet."""
    body = tx.execute(select(BATCH_RUN.c.body).where(BATCH_RUN.c.name == name)).scalar()
    return None if body is None else msgspec.json.decode(body, type=BatchRun)


def all_of(tx: Connection) -> dict[str, BatchRun]:
    """Every run, by the name of its job."""
    bodies = tx.execute(select(BATCH_RUN.c.body).order_by(BATCH_RUN.c.name)).scalars()
    return {run.name: run for run in (msgspec.json.decode(body, type=BatchRun) for body in bodies)}


def forget(tx: Connection, name: str) -> None:
    """Remove the run of a job that is gone. One that had not ended is cancelled, as the ledger says."""
    old = get(tx, name)
    tx.execute(delete(BATCH_RUN).where(BATCH_RUN.c.name == name))
    if old is not None and old.state not in ENDED:
        detail = {"run": old.run, "generation": old.generation, "rows": old.progress.rows}
        ledger.append(tx, "batchjob.cancelled", name, actor="control", reason="its resource is gone", detail=detail)
