"""Who sends requests: what a connection shows of its other end, and the caller that came of it.

A `Peer` is made by the edges, once per connection; a `Caller` by `gateway/front/identity`, once per set of credentials.
"""

from collections.abc import Mapping
from typing import Any, Final

from hyperion.schema.protect import TenantRecord

NOBODY: Final[Mapping[str, Any]] = {}
INFER: Final = "infer"


class Peer:
    """The other end of a connection: its address ("" for a Unix socket) and the names in its client certificate."""

    __slots__ = ("address", "names")

    def __init__(self, address: str = "", names: tuple[str, ...] = ()) -> None:
        self.address: Final = address
        self.names: Final = names


UNKNOWN_PEER: Final = Peer()


class Caller:
    """Somebody whose credentials were checked, or nobody in particular.

    `subject` says how it is known (`key:ID`, `jwt:SUB`, `cert:NAME`, `proxy:TENANT`, `anonymous`), `key` is the id of
    its API key ("" for none). `tenant` "" is nobody's. `record` is what the tenant may use; one that nobody has
    declared has the defaults. `expires_s` is when to look at the credentials again (seconds since 1970, 0 for never).
    """

    __slots__ = ("anonymous", "claims", "expires_s", "key", "record", "scopes", "subject", "tenant")

    def __init__(
        self,
        tenant: str,
        subject: str,
        scopes: frozenset[str],
        record: TenantRecord,
        key: str = "",
        claims: Mapping[str, Any] = NOBODY,
        expires_s: float = 0.0,
    ) -> None:
        self.tenant: Final = tenant
        self.subject: Final = subject
        self.scopes: Final = scopes
        self.record: Final = record
        self.key: Final = key
        self.claims: Final = claims
        self.expires_s: Final = expires_s
        self.anonymous: Final = subject == "anonymous"


ANONYMOUS: Final = Caller("", "anonymous", frozenset((INFER,)), TenantRecord(""))
