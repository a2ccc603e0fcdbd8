"""Who a caller is, from what its request and its connection show. Called by `gateway/front/guard` before a body is
decoded.

Credentials are looked at once and remembered, in memory only, until they end or the directory changes: what the usual
request costs is one look-up. Nothing of them is ever logged. What is shown first of these counts: an API key or a token
in `authorization`, the tenant that a trusted proxy names, a client certificate.
"""

import hashlib
import ipaddress
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hyperion.gateway.front.caller import ANONYMOUS, INFER, Caller, Peer
from hyperion.gateway.front.jwt import verify
from hyperion.schema.errors import MalformedRequest, NotReady, Unauthenticated
from hyperion.schema.protect import Directory, KeyRecord, TenantRecord

MAX_REMEMBERED: Final = 16_384
MAX_CREDENTIALS_BYTES: Final = 8_192
MAX_TENANT_BYTES: Final = 128
KEY_PREFIX: Final = b"hyp_"
TENANT: Final = b"x-hyperion-tenant"
AUTHORIZATION: Final = b"authorization"
HINT: Final = "send `authorization: Bearer KEY`; `hyperion key create --tenant NAME` makes one"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Identities:
    """Everybody whom the gateway knows. `proxies` are the networks (CIDR) whose word about tenants is taken; `clock`
    gives seconds since 1970. `unknown_key` is told issuers whose tokens are signed with keys that are not known yet.
    `starting` holds until the first directory is there: until then nobody can be said to be unknown."""

    def __init__(
        self,
        proxies: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
        unknown_key: Callable[[str], None] = lambda _issuer: None,
    ) -> None:
        self._proxies: list[Network] = [ipaddress.ip_network(proxy) for proxy in proxies]
        self._clock = clock
        self._unknown_key = unknown_key
        self.starting = False
        self._directory = Directory()
        self._tenants: dict[str, TenantRecord] = {}
        self._keys: dict[str, KeyRecord] = {}
        self._certificates: dict[str, TenantRecord] = {}
        self._by_credentials: dict[bytes, Caller] = {}
        self._by_proxy: dict[bytes, Caller] = {}
        self._by_names: dict[tuple[str, ...], Caller] = {}
        self._for_jobs: dict[str, Caller] = {}
        self._trusted: dict[str, bool] = {}

    def update(self, directory: Directory) -> None:
        """Follows a new snapshot: who is gone is forgotten at once."""
        self.starting = False
        if directory == self._directory:
            return
        self._directory = directory
        self._tenants = {tenant.name: tenant for tenant in directory.tenants}
        self._keys = {key.secret_hash: key for key in directory.keys}
        self._certificates = {name: tenant for tenant in directory.tenants for name in tenant.certificates}
        self._by_credentials.clear()
        self._by_proxy.clear()
        self._by_names.clear()
        self._for_jobs.clear()

    def identify(self, headers: Mapping[bytes, bytes], peer: Peer) -> Caller:
        """The caller; `ANONYMOUS` where no credentials are shown. Raises Unauthenticated for wrong ones: who shows
        credentials means to be somebody; and NotReady for any while nobody is known yet."""
        given = headers.get(AUTHORIZATION)
        if given is not None:
            known = self._by_credentials.get(given)
            if known is not None and (not known.expires_s or self._clock() < known.expires_s):
                return known
            return _remember(self._by_credentials, given, self._look_at(given))
        if self._proxies:
            tenant = headers.get(TENANT)
            if tenant is not None and self._trusts(peer.address):
                known = self._by_proxy.get(tenant)
                return known or _remember(self._by_proxy, tenant, self._take_word(tenant))
        if peer.names:
            known = self._by_names.get(peer.names)
            return known or _remember(self._by_names, peer.names, self._read_names(peer.names))
        return ANONYMOUS

    def tenant(self, name: str) -> TenantRecord:
        """What a tenant may use; the defaults for one that nobody has declared."""
        return self._tenants.get(name) or TenantRecord(name)

    def for_jobs(self, tenant: str) -> Caller:
        """Who runs a tenant's jobs, which were let in when somebody asked for them; `ANONYMOUS` for nobody's."""
        if not tenant:
            return ANONYMOUS
        known = self._for_jobs.get(tenant)
        if known is None:
            made = Caller(tenant, f"jobs:{tenant}", frozenset((INFER,)), self.tenant(tenant))
            known = _remember(self._for_jobs, tenant, made)
        return known

    def _look_at(self, given: bytes) -> Caller:
        scheme, _, secret = given.partition(b" ")
        secret = secret.strip()
        if scheme.lower() != b"bearer" or not secret or len(given) > MAX_CREDENTIALS_BYTES:
            raise Unauthenticated(f"the authorization header is not of the form `Bearer KEY`; {HINT}")
        if self.starting:
            raise _not_ready()
        if secret.startswith(KEY_PREFIX):
            return self._find_key(secret)
        if b"." in secret and self._directory.issuers:
            return self._check_token(secret)
        raise Unauthenticated(f"this is neither a key of ours nor a token of a known issuer; {HINT}")

    def _find_key(self, secret: bytes) -> Caller:
        # The comparison is of hashes of 256 random bits: how long it takes tells nothing that helps to guess one.
        record = self._keys.get(hashlib.sha256(secret).hexdigest())
        if record is None:
            raise Unauthenticated(f"this key is not known here, or was revoked; {HINT}")
        if record.expires_at and record.expires_at <= self._clock():
            raise Unauthenticated("this key has expired; `hyperion key rotate` gives its successor")
        tenant = self.tenant(record.tenant)
        scopes = frozenset(record.scopes)
        return Caller(record.tenant, f"key:{record.id}", scopes, tenant, record.id, expires_s=record.expires_at)

    def _check_token(self, token: bytes) -> Caller:
        found = verify(token, self._directory.issuers, self._clock(), self._unknown_key)
        tenant = self.tenant(found.tenant)
        return Caller(found.tenant, found.subject, found.scopes, tenant, "", found.claims, found.expires_s)

    def _trusts(self, address: str) -> bool:
        trusted = self._trusted.get(address)
        if trusted is None:
            try:
                parsed = ipaddress.ip_address(address.partition("%")[0])
            except ValueError:  # a Unix socket has no address
                return False
            mapped = getattr(parsed, "ipv4_mapped", None) or parsed
            trusted = any(mapped in proxy for proxy in self._proxies if proxy.version == mapped.version)
            if len(self._trusted) >= MAX_REMEMBERED:
                self._trusted.clear()
            self._trusted[address] = trusted
        return trusted

    def _take_word(self, given: bytes) -> Caller:
        name = given.decode("latin-1")
        if not 0 < len(name) <= MAX_TENANT_BYTES or not name.isascii() or not name.isprintable() or " " in name:
            raise MalformedRequest('header "x-hyperion-tenant": expected a tenant\'s name')
        return Caller(name, f"proxy:{name}", frozenset((INFER,)), self.tenant(name))

    def _read_names(self, names: tuple[str, ...]) -> Caller:
        """Whom a certificate stands for that one of our authorities has signed; maybe nobody's tenant."""
        if self.starting:
            raise _not_ready()
        for name in names:
            tenant = self._certificates.get(name)
            if tenant is not None:
                return Caller(tenant.name, f"cert:{name}", frozenset((INFER,)), tenant)
        return Caller("", f"cert:{names[0]}", frozenset((INFER,)), TenantRecord(""))


def _not_ready() -> NotReady:
    return NotReady("who may call is not known here yet; ask again shortly", retry_after_s=1.0)


def _remember(kept: dict[Any, Caller], key: Any, caller: Caller) -> Caller:
    if len(kept) >= MAX_REMEMBERED:
        kept.clear()
    kept[key] = caller
    return caller
