"""The state of each endpoint's rollout, the rollouts that were, and the commands that people gave.

`control` keeps the state and answers commands; `api` pushes them. The body is JSON that only `policy.rollout` reads.
Every function takes a transaction of `Database`. `put` leaves the ledger to its caller, who knows what was decided and
on what evidence, and appends it in the same transaction.
"""

import msgspec
from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from hyperion.schema.errors import Conflict, NotFound
from hyperion.store import ledger
from hyperion.store.tables import ENDPOINT, ROLLOUT, ROLLOUT_COMMAND, ROLLOUT_HISTORY
from hyperion.store.transaction import now, reached

PAGE_MAX = 1000


class RolloutRow(msgspec.Struct, frozen=True):
    """A rollout as last decided. `revision` grows by one with each `put`. `body` is JSON."""

    endpoint: str
    rollout_id: str
    revision: int
    state: str
    body: bytes
    updated_at: float


class CommandRow(msgspec.Struct, frozen=True):
    """What somebody asked of a rollout: `verb` is promote, pause, resume, abort, undo and the like."""

    id: int
    endpoint: str
    verb: str
    argument: str
    actor: str
    reason: str
    at: float


def get(tx: Connection, endpoint: str) -> RolloutRow | None:
    """The endpoint's rollout, None before its first."""
    row = tx.execute(select(ROLLOUT).where(ROLLOUT.c.endpoint == endpoint)).first()
    return None if row is None else _read(row)


def list_(tx: Connection) -> list[RolloutRow]:
    """The rollouts of all endpoints, by endpoint."""
    return [_read(row) for row in tx.execute(select(ROLLOUT).order_by(ROLLOUT.c.endpoint))]


def put(tx: Connection, endpoint: str, rollout_id: str, state: str, body: bytes, *, expected_revision: int) -> int:
    """Replaces the endpoint's rollout and returns its new revision. `expected_revision` is the one that the decision
    was made on, 0 for none; Conflict where there is another now."""
    there = tx.execute(select(ROLLOUT.c.revision).where(ROLLOUT.c.endpoint == endpoint)).scalar() or 0
    if there != expected_revision:
        raise Conflict(
            f"endpoint {endpoint!r}: its rollout was changed meanwhile (revision {there}, expected "
            f"{expected_revision}); look at it again and decide anew"
        )
    values = {
        "rollout_id": rollout_id,
        "revision": there + 1,
        "state": state,
        "body": body.decode(),
        "updated_at": now(tx),
    }
    if there:
        tx.execute(update(ROLLOUT).where(ROLLOUT.c.endpoint == endpoint).values(**values))
    else:
        tx.execute(insert(ROLLOUT).values(endpoint=endpoint, **values))
    reached(tx, "rollout.put")
    if rollout_id:
        this = (ROLLOUT_HISTORY.c.endpoint == endpoint, ROLLOUT_HISTORY.c.rollout_id == rollout_id)
        if tx.execute(update(ROLLOUT_HISTORY).where(*this).values(**values)).rowcount == 0:
            tx.execute(insert(ROLLOUT_HISTORY).values(endpoint=endpoint, **values))
        reached(tx, "rollout.history")
    return there + 1


def forget(tx: Connection, endpoint: str) -> None:
    """Removes the state of a rollout; its history stays. For members of endpoints, which have no row of their own."""
    tx.execute(delete(ROLLOUT).where(ROLLOUT.c.endpoint == endpoint))
    reached(tx, "rollout.forget")


def history(tx: Connection, endpoint: str, limit: int = 100) -> list[RolloutRow]:
    """The last `limit` rollouts of the endpoint, the current one too, each as it was last decided; newest first."""
    table = ROLLOUT_HISTORY
    query = (
        select(table).where(table.c.endpoint == endpoint).order_by(table.c.updated_at.desc(), table.c.revision.desc())
    )
    return [_read(row) for row in tx.execute(query.limit(max(0, min(limit, PAGE_MAX))))]


def push_command(tx: Connection, endpoint: str, verb: str, *, actor: str, reason: str = "", argument: str = "") -> int:
    """Leaves a command for `control`, and returns its id. NotFound where there is no such endpoint."""
    if tx.execute(select(ENDPOINT.c.name).where(ENDPOINT.c.name == endpoint)).first() is None:
        raise NotFound(f"there is no endpoint {endpoint[:128]!r}; hyperion get Endpoint lists them")
    # Commands are never removed and writers are serial, so that the next number is free.
    number = int(tx.execute(select(func.coalesce(func.max(ROLLOUT_COMMAND.c.id), 0) + 1)).scalar_one())
    tx.execute(
        insert(ROLLOUT_COMMAND).values(
            id=number, endpoint=endpoint, verb=verb, argument=argument, actor=actor, reason=reason, at=now(tx)
        )
    )
    reached(tx, "rollout.command")
    detail = {"command": number, "verb": verb, "argument": argument}
    ledger.append(tx, "rollout.command", endpoint, actor=actor, reason=reason, detail=detail)
    return number


def commands(tx: Connection, endpoint: str = "") -> list[CommandRow]:
    """The commands that wait for an answer, oldest first; of one endpoint, where given."""
    query: Select[tuple[object, ...]] = select(ROLLOUT_COMMAND).where(ROLLOUT_COMMAND.c.outcome.is_(None))
    if endpoint:
        query = query.where(ROLLOUT_COMMAND.c.endpoint == endpoint)
    return [
        CommandRow(row.id, row.endpoint, row.verb, row.argument, row.actor, row.reason, row.at)
        for row in tx.execute(query.order_by(ROLLOUT_COMMAND.c.id))
    ]


def done(tx: Connection, command_id: int, outcome: str) -> bool:
    """Answers a command. False where it was answered before: the first answer stays."""
    changed = tx.execute(
        update(ROLLOUT_COMMAND)
        .where(ROLLOUT_COMMAND.c.id == command_id, ROLLOUT_COMMAND.c.outcome.is_(None))
        .values(outcome=outcome, done_at=now(tx))
    ).rowcount
    reached(tx, "rollout.done")
    return bool(changed)


def outcome_of(tx: Connection, command_id: int) -> str | None:
    """The answer to a command, None while there is none. NotFound for a number that no command has."""
    row = tx.execute(select(ROLLOUT_COMMAND.c.outcome).where(ROLLOUT_COMMAND.c.id == command_id)).first()
    if row is None:
        raise NotFound(f"there is no command {command_id}")
    return None if row.outcome is None else str(row.outcome)


def _read(row: Row[tuple[object, ...]]) -> RolloutRow:
    return RolloutRow(row.endpoint, row.rollout_id, row.revision, row.state, row.body.encode(), row.updated_at)
