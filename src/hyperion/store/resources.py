"""Resources of every kind but Endpoint, as `apply` was last given them: for some nothing runs, others have a home of
their own for what they do.

Every function takes a transaction of `Database`; those that change something append to the ledger in it.
"""

from typing import Generic, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, insert, select, update
from sqlalchemy import delete as delete_from

from hyperion.schema.errors import InvalidResource, NotFound
from hyperion.schema.resource import BatchJob, Issuer, Tenant
from hyperion.store import ledger
from hyperion.store.names import is_valid_name
from hyperion.store.tables import RESOURCE
from hyperion.store.transaction import now, reached

PAGE_MAX = 1000
R = TypeVar("R", bound=Tenant | Issuer | BatchJob)
# Each kind's name in the ledger (`tenant.apply`) and on the command line (`hyperion get tenants`).
WORDS: dict[type[msgspec.Struct], str] = {Tenant: "tenant", Issuer: "issuer", BatchJob: "batchjob"}


class ResourceRow(msgspec.Struct, Generic[R], frozen=True):
    """A resource as it is to be. `generation` grows with each change of the spec (labels do not count)."""

    name: str
    resource: R
    generation: int
    created_at: float
    updated_at: float


def put(tx: Connection, resource: R, *, actor: str, reason: str = "") -> tuple[ResourceRow[R], bool]:
    """Adds or changes a resource. Returns it, and whether anything changed: putting what is there changes nothing.
    InvalidResource for a name that cannot be one."""
    kind, name = type(resource), resource.metadata.name
    if not is_valid_name(name):
        raise InvalidResource(f"metadata.name: {name[:80]!r} cannot be the name of a {WORDS[kind]}")
    old = get(tx, kind, name)
    if old is not None and old.resource == resource:
        return old, False
    at = now(tx)
    if old is None:
        row = ResourceRow(name, resource, 1, at, at)
        tx.execute(insert(RESOURCE).values(kind=kind.__name__, name=name, created_at=at, **_columns(row)))
    else:
        generation = old.generation + (old.resource.spec != resource.spec)
        row = ResourceRow(name, resource, generation, old.created_at, at)
        tx.execute(update(RESOURCE).where(*_is(kind, name)).values(**_columns(row)))
    reached(tx, "resource.put")
    before = ledger.digest_of(None if old is None else old.resource)
    after = ledger.digest_of(resource)
    detail = {"generation": row.generation, "resource": resource}
    entry = f"{WORDS[kind]}.apply"
    ledger.append(tx, entry, name, actor=actor, reason=reason, before=before, after=after, detail=detail)
    return row, True


def get(tx: Connection, kind: type[R], name: str) -> ResourceRow[R] | None:
    """The resource of that kind and name."""
    row = tx.execute(select(RESOURCE).where(*_is(kind, name))).first()
    return None if row is None else _read(kind, row)


def list_(tx: Connection, kind: type[R], after: str = "", limit: int = PAGE_MAX) -> list[ResourceRow[R]]:
    """Up to `limit` (at most PAGE_MAX) resources of a kind behind the name `after`, by name."""
    query = select(RESOURCE).where(RESOURCE.c.kind == kind.__name__, RESOURCE.c.name > after).order_by(RESOURCE.c.name)
    return [_read(kind, row) for row in tx.execute(query.limit(max(0, min(limit, PAGE_MAX))))]


def all_of(tx: Connection, kind: type[R]) -> list[ResourceRow[R]]:
    """Every resource of a kind, by name."""
    query = select(RESOURCE).where(RESOURCE.c.kind == kind.__name__).order_by(RESOURCE.c.name)
    return [_read(kind, row) for row in tx.execute(query)]


def delete(tx: Connection, kind: type[R], name: str, *, actor: str, reason: str = "") -> None:
    """Removes a resource; its entries stay in the ledger. NotFound."""
    word, old = WORDS[kind], get(tx, kind, name)
    if old is None:
        raise NotFound(f"there is no {word} {name[:128]!r}; hyperion get {word}s lists them")
    tx.execute(delete_from(RESOURCE).where(*_is(kind, name)))
    reached(tx, "resource.delete")
    before, detail = ledger.digest_of(old.resource), {"generation": old.generation}
    ledger.append(tx, f"{word}.delete", name, actor=actor, reason=reason, before=before, detail=detail)


def _is(kind: type[msgspec.Struct], name: str) -> tuple[ColumnElement[bool], ...]:
    return RESOURCE.c.kind == kind.__name__, RESOURCE.c.name == name


def _columns(row: ResourceRow[R]) -> dict[str, object]:
    document = msgspec.json.encode(row.resource).decode()
    return {"document": document, "generation": row.generation, "updated_at": row.updated_at}


def _read(kind: type[R], row: Row[tuple[object, ...]]) -> ResourceRow[R]:
    resource = msgspec.json.decode(row.document, type=kind)
    return ResourceRow(row.name, resource, row.generation, row.created_at, row.updated_at)
