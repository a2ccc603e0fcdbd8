"""The public keys of issuers as control last read them, so that a new control process has them though the issuer is
down. Every function takes a transaction of `Database`; nothing here is for the ledger: nobody decided it.
"""

from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select

from hyperion.store.tables import ISSUER_KEYS
from hyperion.store.transaction import now, reached


class IssuerKeys(msgspec.Struct, frozen=True):
    """A JWKS without what is private or of no use. `source` is where it was read; keys of another source do not
    count. `read_at` is in seconds since 1970."""

    name: str
    source: str
    keys: tuple[dict[str, Any], ...]
    read_at: float


def put(tx: Connection, name: str, source: str, keys: tuple[dict[str, Any], ...]) -> IssuerKeys:
    """Keeps the keys of the issuer of that name in place of those that it had."""
    row = IssuerKeys(name, source, keys, now(tx))
    tx.execute(delete(ISSUER_KEYS).where(ISSUER_KEYS.c.name == name))
    encoded = msgspec.json.encode(keys).decode()
    tx.execute(insert(ISSUER_KEYS).values(name=name, source=source, keys=encoded, read_at=row.read_at))
    reached(tx, "issuer_keys.put")
    return row


def all_(tx: Connection) -> dict[str, IssuerKeys]:
    """All of them, by the issuer's name."""
    return {
        row.name: IssuerKeys(
            row.name, row.source, msgspec.json.decode(row.keys, type=tuple[dict[str, Any], ...]), row.read_at
        )
        for row in tx.execute(select(ISSUER_KEYS))
    }


def forget(tx: Connection, name: str) -> None:
    """Drops the keys of an issuer that is gone."""
    tx.execute(delete(ISSUER_KEYS).where(ISSUER_KEYS.c.name == name))
