"""Everything that says who may call, read at once: tenants, issuers with their keys, and live API keys.

Called by `control/callers/directory`. Reads only.
"""

import msgspec
from sqlalchemy import Connection

from hyperion.schema.protect import KeyRecord
from hyperion.schema.resource import Issuer, Tenant
from hyperion.store import issuer_keys, ledger, resources, tokens
from hyperion.store.issuer_keys import IssuerKeys


class AccessPage(msgspec.Struct, frozen=True):
    """One reading. `mark` grows with whatever is decided: as long as it is the same nothing of this has changed but
    `read`, the keys of issuers by the issuer's name."""

    mark: int
    tenants: tuple[Tenant, ...] = ()
    issuers: tuple[Issuer, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    read: dict[str, IssuerKeys] = {}


def mark_of(tx: Connection) -> int:
    """The mark of what would be read now. Each of its changes has an entry in the ledger."""
    return ledger.size(tx)


def read_page(tx: Connection) -> AccessPage:
    """One consistent reading."""
    return AccessPage(
        mark_of(tx),
        tuple(row.resource for row in resources.all_of(tx, Tenant)),
        tuple(row.resource for row in resources.all_of(tx, Issuer)),
        tokens.live(tx),
        issuer_keys.all_(tx),
    )
