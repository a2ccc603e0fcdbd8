"""Access tokens of the management API and of tenants: made, shown once, found by their secret, rotated, revoked.

Called by `control`'s desk. A secret is 256 random bits, so that its plain SHA-256 is enough to keep; the ledger has
ids only.
"""

import hashlib
import secrets
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, func, insert, or_, select, update

from hyperion.schema.errors import Conflict, NotFound
from hyperion.schema.protect import KeyRecord
from hyperion.store import ledger
from hyperion.store.tables import TOKEN
from hyperion.store.transaction import now, reached

PREFIX = "hyp_"
_SECRET_BYTES = 32
_SECRET_MAX = 256
PAGE_MAX = 1000


class TokenRow(msgspec.Struct, frozen=True):
    """A token without its secret. Times are in seconds since 1970; None is never."""

    id: str
    tenant: str
    scopes: tuple[str, ...]
    created_by: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None


def create(
    tx: Connection, tenant: str, scopes: Iterable[str], expires_at: float | None = None, *, actor: str, reason: str = ""
) -> tuple[TokenRow, str]:
    """Makes a token. Returns it, and its secret, which nobody can read again."""
    secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    row = TokenRow(secrets.token_hex(8), tenant, tuple(sorted(set(scopes))), actor, now(tx), expires_at)
    tx.execute(
        insert(TOKEN).values(
            id=row.id,
            tenant=tenant,
            scopes=" ".join(row.scopes),
            secret_hash=_hash(secret),
            created_by=actor,
            created_at=row.created_at,
            expires_at=expires_at,
            revoked_at=None,
        )
    )
    reached(tx, "token.create")
    detail = {"tenant": tenant, "scopes": row.scopes, "expires_at": expires_at}
    after = ledger.digest_of(row)
    ledger.append(tx, "token.create", row.id, actor=actor, reason=reason, after=after, detail=detail)
    return row, secret


def find(tx: Connection, secret: str) -> TokenRow | None:
    """The token of that secret; None where there is none, or it has expired or was revoked."""
    if not secret.startswith(PREFIX) or len(secret) > _SECRET_MAX:
        return None
    # The comparison is of hashes of 256 random bits: how long it takes tells nothing that helps to guess one.
    row = tx.execute(select(TOKEN).where(TOKEN.c.secret_hash == _hash(secret))).first()
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now(tx)):
        return None
    return _read(row)


def list_(tx: Connection, after: str = "", limit: int = PAGE_MAX) -> list[TokenRow]:
    """Up to `limit` (at most PAGE_MAX) tokens behind the id `after`, revoked and expired ones too, by id."""
    query = select(TOKEN).where(TOKEN.c.id > after).order_by(TOKEN.c.id)
    return [_read(row) for row in tx.execute(query.limit(max(0, min(limit, PAGE_MAX))))]


def live(tx: Connection) -> tuple[KeyRecord, ...]:
    """Every token that is neither expired nor revoked, as gateways know it: with its hash. By id."""
    query = select(TOKEN).where(*_is_live(now(tx))).order_by(TOKEN.c.id)
    return tuple(
        KeyRecord(row.id, row.secret_hash, row.tenant, tuple(row.scopes.split()), row.expires_at or 0.0)
        for row in tx.execute(query)
    )


def live_of(tx: Connection, tenant: str) -> list[TokenRow]:
    """The tokens of a tenant that are neither expired nor revoked, by id."""
    query = select(TOKEN).where(TOKEN.c.tenant == tenant, *_is_live(now(tx))).order_by(TOKEN.c.id)
    return [_read(row) for row in tx.execute(query)]


def count_live(tx: Connection) -> dict[str, int]:
    """How many tokens that are neither expired nor revoked each tenant has that has any."""
    query = select(TOKEN.c.tenant, func.count()).where(*_is_live(now(tx))).group_by(TOKEN.c.tenant)
    return {tenant: int(count) for tenant, count in tx.execute(query)}


def rotate(
    tx: Connection, token_id: str, overlap_s: float, *, actor: str, reason: str = ""
) -> tuple[TokenRow, str, TokenRow]:
    """Makes the successor of a token: of the same tenant and scopes, and valid from now for as long as the old one was
    when it was made. The old one ends after `overlap_s`, if not before. Returns the new one, its secret, and the old
    one. NotFound; Conflict where the old one has ended already."""
    old, at = _require(tx, token_id), now(tx)
    if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= at):
        ended = "was revoked" if old.revoked_at is not None else "has expired"
        raise Conflict(
            f"key {old.id} {ended} and cannot be rotated; make another: hyperion key create --tenant {old.tenant}"
        )
    (made,) = ledger.entries(tx, subject=old.id, kind="token.create", limit=1)  # an earlier rotation set another end
    given: float | None = made.detail["expires_at"]
    until = None if given is None else at + (given - old.created_at)
    new, secret = create(tx, old.tenant, old.scopes, until, actor=actor, reason=reason or f"successor of {old.id}")
    end = at + max(0.0, overlap_s)
    end = end if old.expires_at is None else min(end, old.expires_at)
    ending = msgspec.structs.replace(old, expires_at=end)
    tx.execute(update(TOKEN).where(TOKEN.c.id == old.id).values(expires_at=end))
    reached(tx, "token.rotate")
    before, after = ledger.digest_of(old), ledger.digest_of(ending)
    detail = {"tenant": old.tenant, "successor": new.id, "expires_at": end}
    ledger.append(tx, "token.rotate", old.id, actor=actor, reason=reason, before=before, after=after, detail=detail)
    return new, secret, ending


def revoke(tx: Connection, token_id: str, *, actor: str, reason: str = "") -> bool:
    """Ends a token. False where it was revoked before. NotFound."""
    old = _require(tx, token_id)
    if old.revoked_at is not None:
        return False
    new = msgspec.structs.replace(old, revoked_at=now(tx))
    tx.execute(update(TOKEN).where(TOKEN.c.id == token_id).values(revoked_at=new.revoked_at))
    reached(tx, "token.revoke")
    before, after = ledger.digest_of(old), ledger.digest_of(new)
    detail = {"tenant": old.tenant}
    ledger.append(tx, "token.revoke", token_id, actor=actor, reason=reason, before=before, after=after, detail=detail)
    return True


def _require(tx: Connection, token_id: str) -> TokenRow:
    row = tx.execute(select(TOKEN).where(TOKEN.c.id == token_id)).first()
    if row is None:
        raise NotFound(f"there is no key {token_id[:128]!r}; hyperion key list shows their ids")
    return _read(row)


def _is_live(at: float) -> tuple[ColumnElement[bool], ...]:
    return TOKEN.c.revoked_at.is_(None), or_(TOKEN.c.expires_at.is_(None), TOKEN.c.expires_at > at)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _read(row: Row[Any]) -> TokenRow:
    return TokenRow(
        row.id, row.tenant, tuple(row.scopes.split()), row.created_by, row.created_at, row.expires_at, row.revoked_at
    )
