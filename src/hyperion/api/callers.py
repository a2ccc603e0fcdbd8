"""Who calls: the scopes of a token, what each route needs, and the name under which the ledger knows the caller."""

from collections.abc import Iterable
from typing import Annotated, Literal

from fastapi import Depends
from fastapi.requests import HTTPConnection
from msgspec import Struct

from hyperion.schema.errors import Forbidden, Unauthenticated

Scope = Literal["read", "infer", "deploy", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "infer", "deploy", "admin")
# What else a scope gives: whoever may deploy may look; whoever may only call models may not, as what else is served,
# and how it fares, is for those who operate it. An admin may do everything.
_IMPLIED: dict[str, frozenset[str]] = {
    "read": frozenset(("read",)),
    "infer": frozenset(("infer",)),
    "deploy": frozenset(("read", "deploy")),
    "admin": frozenset(SCOPES),
}
ADMIN_NAME = "admin"
_LONGEST_CLAIM = 128


class Caller(Struct, frozen=True):
    """Somebody with a valid token. `name` is what the ledger says: `admin`, or the key's id, and behind a colon the
    person that the client says it acts for."""

    name: str
    scopes: frozenset[str]

    def require(self, scope: Scope) -> None:
        """Raise `Forbidden` unless this caller has `scope`."""
        if scope not in self.scopes:
            held = ", ".join(sorted(self.scopes)) or "none"
            raise Forbidden(f'this needs the scope "{scope}", and this key has {held}; ask an admin for such a key')


def make_caller(key: str, scopes: Iterable[str], claim: str = "") -> Caller:
    """Return the caller of a key. `claim` is what the client says of the person: kept if it is short and printable.

    >>> ada = make_caller("k1", ["deploy"], "ada@laptop")
    >>> ada.name, sorted(ada.scopes)
    ('k1:ada@laptop', ['deploy', 'read'])
    """
    person = claim.strip()
    fits = person and len(person) <= _LONGEST_CLAIM and person.isprintable()
    given = frozenset(name for scope in scopes for name in _IMPLIED.get(scope, ()))
    return Caller(f"{key}:{person}" if fits else key, given)


def caller_of(connection: HTTPConnection) -> Caller:
    """The caller that `Guard` let in."""
    caller = connection.scope.get("state", {}).get("caller")
    if not isinstance(caller, Caller):
        raise Unauthenticated("a token is needed")
    return caller


def _check_read(connection: HTTPConnection) -> Caller:
    return _check(connection, "read")


def _check_deploy(connection: HTTPConnection) -> Caller:
    return _check(connection, "deploy")


def _check_label(connection: HTTPConnection) -> Caller:
    caller = caller_of(connection)
    if not caller.scopes & {"infer", "deploy"}:
        caller.require("infer")
    return caller


def _check_admin(connection: HTTPConnection) -> Caller:
    return _check(connection, "admin")


def _check(connection: HTTPConnection, scope: Scope) -> Caller:
    caller = caller_of(connection)
    caller.require(scope)
    return caller


Reader = Annotated[Caller, Depends(_check_read)]
Labeller = Annotated[Caller, Depends(_check_label)]
Deployer = Annotated[Caller, Depends(_check_deploy)]
Admin = Annotated[Caller, Depends(_check_admin)]
