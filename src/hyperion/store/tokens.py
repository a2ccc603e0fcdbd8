"""Access tokens of the management API and of tenants: made, shown once, found by their secret, revoked.

Called by `api`. A secret is 256 random bits, so that its plain SHA-256 is enough to keep; the ledger has ids only.
"""

import hashlib
import secrets
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from hyperion.schema.errors import NotFound
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


def revoke(tx: Connection, token_id: str, *, actor: str, reason: str = "") -> bool:
    """Ends a token. False where it was revoked before. NotFound."""
    row = tx.execute(select(TOKEN).where(TOKEN.c.id == token_id)).first()
    if row is None:
        raise NotFound(f"there is no key {token_id[:128]!r}; hyperion key list shows their ids")
    if row.revoked_at is not None:
        return False
    old = _read(row)
    new = msgspec.structs.replace(old, revoked_at=now(tx))
    tx.execute(update(TOKEN).where(TOKEN.c.id == token_id).values(revoked_at=new.revoked_at))
    reached(tx, "token.revoke")
    before, after = ledger.digest_of(old), ledger.digest_of(new)
    detail = {"tenant": old.tenant}
    ledger.append(tx, "token.revoke", token_id, actor=actor, reason=reason, before=before, after=after, detail=detail)
    return True


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _read(row: Row[Any]) -> TokenRow:
    return TokenRow(
        row.id, row.tenant, tuple(row.scopes.split()), row.created_by, row.created_at, row.expires_at, row.revoked_at
    )
