"""What the values of tenants and issuers may be. Called by `resource_yaml`; pure: raises or returns nothing.

Each check names the field by its path, so that the reader can say in which line it is.
"""

import ipaddress
from urllib.parse import urlsplit

from hyperion.schema.resource import Issuer, IssuerSpec, Tenant
from hyperion.store.checks.endpoint import check_metadata
from hyperion.store.checks.protection import check_limits
from hyperion.store.checks.ranges import DAY_S, Path, Refuse, check_above, check_finite, check_within
from hyperion.store.names import is_valid_name
from hyperion.store.reading import suggest

MAX_CERTIFICATES = 64
MAX_CERTIFICATE_TEXT = 256
MAX_URL = 2_000
MAX_CLAIM = 128
MAX_QUOTA = 1e15
# Signatures of a public key, so that who can check a token cannot make one; never `none`, never an HMAC.
ALGORITHMS = (
    *(f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)),
    "EdDSA",
    "Ed25519",
)


def check_tenant(resource: Tenant, refuse: Refuse) -> None:
    """Refuse values that are out of range. Raises what `refuse` makes."""
    check_finite(resource, refuse)
    check_metadata(resource.metadata, refuse)
    spec = resource.spec
    for field, limits in (("limits", spec.limits), ("key_limits", spec.key_limits)):
        if limits is not None:
            check_limits(limits, ("spec", field), refuse)
    if spec.quotas is not None:
        for name in spec.quotas.__struct_fields__:
            check_within(getattr(spec.quotas, name), 0, MAX_QUOTA, ("spec", "quotas", name), refuse)
    check_within(spec.priority, 0, 9, ("spec", "priority"), refuse)
    check_above(spec.weight, 0, 1_000, ("spec", "weight"), refuse)
    at: Path = ("spec", "certificates")
    if len(spec.certificates) > MAX_CERTIFICATES:
        raise refuse(at, f"at most {MAX_CERTIFICATES}, got {len(spec.certificates)}")
    for index, name in enumerate(spec.certificates):
        if not name.strip() or len(name) > MAX_CERTIFICATE_TEXT or not name.isprintable():
            raise refuse((*at, index), f"expected a name of 1 to {MAX_CERTIFICATE_TEXT} printable characters")
        if "*" in name:
            raise refuse((*at, index), f"{name[:80]!r}: a name has to match as a whole; give each one")
        if name in spec.certificates[:index]:
            raise refuse((*at, index), f"{name[:80]!r} is given twice")


def check_issuer(resource: Issuer, refuse: Refuse) -> None:
    """Refuse values that are out of range, contradict each other or are not safe. Raises what `refuse` makes."""
    check_finite(resource, refuse)
    check_metadata(resource.metadata, refuse)
    spec = resource.spec
    _check_urls(spec, refuse)
    if not 1 <= len(spec.audience) <= MAX_URL:
        raise refuse(("spec", "audience"), f"expected 1 to {MAX_URL} characters: tokens for others do not count here")
    at: Path = ("spec", "algorithms")
    if not spec.algorithms:
        raise refuse(at, "expected at least one; leave it out for RS256 and ES256")
    for index, name in enumerate(spec.algorithms):
        if name not in ALGORITHMS:
            near = suggest(name, ALGORITHMS) or f" (known: {', '.join(ALGORITHMS)})"
            raise refuse((*at, index), f"{name[:80]!r} is not among the signatures that count{near}")
    if spec.tenant and not is_valid_name(spec.tenant):
        raise refuse(("spec", "tenant"), f"{spec.tenant[:80]!r} cannot be a tenant's name")
    if not spec.tenant and not spec.tenant_claim:
        raise refuse(("spec", "tenant_claim"), "give it, or tenant: callers have to belong to somebody")
    for field, claim in (("tenant_claim", spec.tenant_claim), ("scope_claim", spec.scope_claim)):
        if len(claim) > MAX_CLAIM or not claim.isprintable():
            raise refuse(("spec", field), f"expected a claim's name of up to {MAX_CLAIM} printable characters")
    check_within(spec.leeway_s, 0, 300, ("spec", "leeway_s"), refuse)
    check_within(spec.refresh_s, 10, DAY_S, ("spec", "refresh_s"), refuse)
    if spec.ca_file and not spec.ca_file.startswith("/"):
        raise refuse(("spec", "ca_file"), "expected an absolute path: control reads it, wherever it runs")


def is_safe_url(url: str) -> bool:
    """True for https, and for http on the loopback, where nobody listens in; without a user, a query or a fragment.

    >>> is_safe_url("https://id.example.com/realms/a"), is_safe_url("http://127.0.0.1:8080")
    (True, True)
    >>> is_safe_url("http://id.example.com"), is_safe_url("https://ada@id.example.com"), is_safe_url("file:///etc")
    (False, False, False)
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_urls(spec: IssuerSpec, refuse: Refuse) -> None:
    expected = "expected an https:// URL (or http:// of the loopback)"
    if spec.jwks_url and (len(spec.jwks_url) > MAX_URL or not is_safe_url(spec.jwks_url)):
        raise refuse(("spec", "jwks_url"), f"{expected}, got {spec.jwks_url[:80]!r}")
    if not 1 <= len(spec.issuer) <= MAX_URL or not spec.issuer.isprintable():
        raise refuse(("spec", "issuer"), f"expected what tokens say in `iss`: 1 to {MAX_URL} printable characters")
    if not spec.jwks_url and (not is_safe_url(spec.issuer) or "?" in spec.issuer):
        raise refuse(("spec", "issuer"), f"{expected} for discovery, got {spec.issuer[:80]!r}; or give jwks_url")
