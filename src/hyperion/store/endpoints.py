"""Desired endpoints: what `apply` was last given. `control` makes it so; `api` writes it.

Every function takes a transaction of `Database`; those that change something append to the ledger in it.
"""

import msgspec
from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy import delete as delete_from

from hyperion.schema.errors import Conflict, NotFound
from hyperion.schema.resource import Endpoint
from hyperion.store import ledger
from hyperion.store.names import check_name
from hyperion.store.tables import ENDPOINT, ROLLOUT, ROLLOUT_COMMAND
from hyperion.store.transaction import now, reached

PAGE_MAX = 1000


class EndpointRow(msgspec.Struct, frozen=True):
    """An endpoint as it is to be. `generation` grows with each change of the spec (labels do not count). `deleting`
    endpoints are on their way out: `control` purges them when nothing serves them any more."""

    name: str
    resource: Endpoint
    generation: int
    created_at: float
    updated_at: float
    deleting: bool


def put(tx: Connection, endpoint: Endpoint, *, actor: str, reason: str = "") -> tuple[EndpointRow, bool]:
    """Adds or changes an endpoint. Returns it, and whether anything changed: putting what is there changes nothing.
    ModelRefused for a name that cannot be one, Conflict while an endpoint of that name is being deleted."""
    name = check_name(endpoint.metadata.name, "metadata.name")
    at = now(tx)
    old = get(tx, name)
    if old is None:
        row = EndpointRow(name, endpoint, 1, at, at, False)
        tx.execute(insert(ENDPOINT).values(name=name, created_at=at, deleting=False, **_columns(row)))
    elif old.deleting:
        raise Conflict(f"endpoint {name!r} is being deleted; apply it again when it is gone")
    elif old.resource == endpoint:
        return old, False
    else:
        generation = old.generation + (old.resource.spec != endpoint.spec)
        row = EndpointRow(name, endpoint, generation, old.created_at, at, False)
        tx.execute(update(ENDPOINT).where(ENDPOINT.c.name == name).values(**_columns(row)))
    reached(tx, "endpoint.put")
    before = ledger.digest_of(None if old is None else old.resource)
    after = ledger.digest_of(endpoint)
    detail = {"generation": row.generation, "model": endpoint.spec.model, "resource": endpoint}
    ledger.append(tx, "endpoint.apply", name, actor=actor, reason=reason, before=before, after=after, detail=detail)
    return row, True


def get(tx: Connection, name: str) -> EndpointRow | None:
    """The endpoint of that name."""
    row = tx.execute(select(ENDPOINT).where(ENDPOINT.c.name == name)).first()
    return None if row is None else _read(row)


def list_(tx: Connection, after: str = "", limit: int = PAGE_MAX) -> list[EndpointRow]:
    """Up to `limit` (at most PAGE_MAX) endpoints behind the name `after`, by name."""
    query = select(ENDPOINT).where(ENDPOINT.c.name > after).order_by(ENDPOINT.c.name)
    return [_read(row) for row in tx.execute(query.limit(max(0, min(limit, PAGE_MAX))))]


def delete(tx: Connection, name: str, *, actor: str, reason: str = "") -> bool:
    """Marks the endpoint for deletion. False where it is marked already. NotFound."""
    old = get(tx, name)
    if old is None:
        raise NotFound(f"there is no endpoint {name[:128]!r}; hyperion get Endpoint lists them")
    if old.deleting:
        return False
    tx.execute(update(ENDPOINT).where(ENDPOINT.c.name == name).values(deleting=True, updated_at=now(tx)))
    reached(tx, "endpoint.delete")
    before = ledger.digest_of(old.resource)
    detail = {"generation": old.generation}
    ledger.append(tx, "endpoint.delete", name, actor=actor, reason=reason, before=before, detail=detail)
    return True


def purge(tx: Connection, name: str, *, actor: str = "control", reason: str = "") -> bool:
    """Removes an endpoint that is marked for deletion, with the state of its rollout (its history stays) and answers
    the commands that it still had. False where there is none. Conflict where it is not marked."""
    old = get(tx, name)
    if old is None:
        return False
    if not old.deleting:
        raise Conflict(f"endpoint {name!r} is not being deleted")
    tx.execute(delete_from(ENDPOINT).where(ENDPOINT.c.name == name))
    tx.execute(delete_from(ROLLOUT).where(ROLLOUT.c.endpoint == name))
    reached(tx, "endpoint.purge")
    tx.execute(
        update(ROLLOUT_COMMAND)
        .where(ROLLOUT_COMMAND.c.endpoint == name, ROLLOUT_COMMAND.c.outcome.is_(None))
        .values(outcome="the endpoint was deleted", done_at=now(tx))
    )
    ledger.append(tx, "endpoint.purge", name, actor=actor, reason=reason, before=ledger.digest_of(old.resource))
    return True


def _columns(row: EndpointRow) -> dict[str, object]:
    resource = msgspec.json.encode(row.resource).decode()
    return {"resource": resource, "generation": row.generation, "updated_at": row.updated_at}


def _read(row: Row[tuple[object, ...]]) -> EndpointRow:
    resource = msgspec.json.decode(row.resource, type=Endpoint)
    return EndpointRow(row.name, resource, row.generation, row.created_at, row.updated_at, bool(row.deleting))
