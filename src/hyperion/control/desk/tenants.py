"""The verbs over tenants and issuers. Part of the desk."""

import importlib.util
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from hyperion.schema.errors import Conflict, MissingExtra, NotFound
from hyperion.schema.resource import Issuer, Resource, Tenant
from hyperion.store import issuer_keys, resources, tokens
from hyperion.store.changes import Change, compare, delete
from hyperion.store.database import Database
from hyperion.store.reading import suggest
from hyperion.store.resources import WORDS, ResourceRow
from hyperion.store.views import IssuerFound, IssuerState, TenantFound

_SHOWN = 3  # of the keys that keep a tenant from being deleted
K = TypeVar("K", bound=Tenant | Issuer)


class Tenants:
    """Tenants and issuers. `welcome` is called after each change, from any thread; `state` says what is known of the
    keys of the issuer of that name."""

    def __init__(self, database: Database, welcome: Callable[[], None], state: Callable[[str], IssuerState]) -> None:
        self._database = database
        self._welcome = welcome
        self._state = state

    def list_tenants(self, after: str = "", limit: int = 100) -> list[TenantFound]:
        """Tenants by name, those behind `after`."""
        with self._database.read() as tx:
            counts = tokens.count_live(tx)
            return [TenantFound(row, counts.get(row.name, 0)) for row in resources.list_(tx, Tenant, after, limit)]

    def get_tenant(self, name: str) -> TenantFound:
        """One tenant. Raises `NotFound`."""
        with self._database.read() as tx:
            row = _require(tx, Tenant, name)
            return TenantFound(row, len(tokens.live_of(tx, name)))

    def list_issuers(self, after: str = "", limit: int = 100) -> list[IssuerFound]:
        """Issuers by name, those behind `after`."""
        with self._database.read() as tx:
            rows = resources.list_(tx, Issuer, after, limit)
        return [IssuerFound(row, self._state(row.name)) for row in rows]

    def get_issuer(self, name: str) -> IssuerFound:
        """One issuer. Raises `NotFound`."""
        with self._database.read() as tx:
            return IssuerFound(_require(tx, Issuer, name), self._state(name))

    def delete_tenant(self, name: str, *, dry_run: bool = False, actor: str, reason: str = "") -> Change:
        """Forget a tenant. Raises `NotFound`, and `Conflict` where somebody can still come in as it."""
        return self._delete(Tenant, name, dry_run, actor, reason)

    def delete_issuer(self, name: str, *, dry_run: bool = False, actor: str, reason: str = "") -> Change:
        """Forget an issuer: its tokens count no more. Raises `NotFound`."""
        return self._delete(Issuer, name, dry_run, actor, reason)

    def compare(self, tx: Connection, resource: Tenant | Issuer) -> Change:
        """What applying the resource would change."""
        row = resources.get(tx, type(resource), resource.metadata.name)
        return compare(None if row is None else row.resource, resource)

    def check(self, tx: Connection, given: Sequence[Resource]) -> None:
        """Raise `Conflict` where, with `given` applied, it would not be clear who somebody is: two tenants with one
        name of a certificate, two issuers with the same tokens. `MissingExtra` where no token could be checked here."""
        if any(isinstance(resource, Issuer) for resource in given) and importlib.util.find_spec("joserfc") is None:
            raise MissingExtra("kind Issuer: tokens need joserfc: pip install 'hyperion-inference[oidc]'")
        owners: dict[str, str] = {}
        for tenant in _with(tx, Tenant, given):
            for name in tenant.spec.certificates:
                other = owners.setdefault(name, tenant.metadata.name)
                if other != tenant.metadata.name:
                    raise Conflict(
                        f'tenant "{tenant.metadata.name}": spec.certificates: {name!r} is of tenant "{other}" already'
                    )
        known: dict[tuple[str, str], str] = {}
        for issuer in _with(tx, Issuer, given):
            other = known.setdefault((issuer.spec.issuer, issuer.spec.audience), issuer.metadata.name)
            if other != issuer.metadata.name:
                raise Conflict(
                    f'issuer "{issuer.metadata.name}": "{other}" has the same spec.issuer and spec.audience already'
                )

    def _delete(self, kind: type[K], name: str, dry_run: bool, actor: str, reason: str) -> Change:
        with self._database.read() if dry_run else self._database.write() as tx:
            row = _require(tx, kind, name)
            if kind is Tenant:
                _check_empty(tx, name)
            if not dry_run:
                resources.delete(tx, kind, name, actor=actor, reason=reason)
                if kind is Issuer:
                    issuer_keys.forget(tx, name)
        if not dry_run:
            self._welcome()
        return delete(row.resource)


def _require(tx: Connection, kind: type[K], name: str) -> ResourceRow[K]:
    row = resources.get(tx, kind, name)
    if row is None:
        word, known = WORDS[kind], [other.name for other in resources.all_of(tx, kind)]
        raise NotFound(f'{word} "{name[:128]}" is not known here{suggest(name, known)}; see: hyperion get {word}s')
    return row


def _check_empty(tx: Connection, name: str) -> None:
    """Whoever could still come in would do so without the tenant's limits."""
    keys = [row.id for row in tokens.live_of(tx, name)]
    if keys:
        commands = "; ".join(f"hyperion key revoke {key}" for key in keys[:_SHOWN])
        rest = f"; and {len(keys) - _SHOWN} more (hyperion key list)" if len(keys) > _SHOWN else ""
        count = f"{len(keys)} keys that are" if len(keys) > 1 else "a key that is"
        raise Conflict(f'tenant "{name}" has {count} still valid; end them first: {commands}{rest}')
    for issuer in resources.all_of(tx, Issuer):
        if issuer.resource.spec.tenant == name:
            raise Conflict(
                f'tenant "{name}" is whom issuer "{issuer.name}" lets callers in as; first: '
                f"hyperion delete issuer {issuer.name}"
            )


def _with(tx: Connection, kind: type[K], given: Sequence[Resource]) -> list[K]:
    """Every resource of a kind as it would be with `given` applied, by name."""
    known = {row.name: row.resource for row in resources.all_of(tx, kind)}
    known |= {resource.metadata.name: resource for resource in given if isinstance(resource, kind)}
    return [known[name] for name in sorted(known)]
