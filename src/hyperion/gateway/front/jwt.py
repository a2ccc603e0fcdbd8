"""Checks signed tokens (JWT) with the keys that control has fetched. Called by `gateway/front/identity`, once per
token.

Which tokens count is decided by `policy/token`; the signature is checked by `joserfc`, with keys and an algorithm that
we chose. Never here: fetching keys.
"""

from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from hyperion.policy.token import choose_keys, claims_fault, header_fault, scopes_of, tenant_of
from hyperion.schema.errors import MissingExtra, Unauthenticated
from hyperion.schema.protect import IssuerRecord

MAX_HEADER_BYTES: Final = 1_024


class Verified:
    """What a token proves. `expires_s` is when that ends (seconds since 1970)."""

    __slots__ = ("claims", "expires_s", "scopes", "subject", "tenant")

    def __init__(
        self, tenant: str, subject: str, scopes: frozenset[str], claims: Mapping[str, Any], expires_s: float
    ) -> None:
        self.tenant: Final = tenant
        self.subject: Final = subject
        self.scopes: Final = scopes
        self.claims: Final = claims
        self.expires_s: Final = expires_s


def verify(
    token: bytes, issuers: tuple[IssuerRecord, ...], now_s: float, unknown_key: Callable[[str], None]
) -> Verified:
    """What the token proves. Raises Unauthenticated, which says no more than its sender may know.

    `unknown_key` is told the issuer of a token whose key is not known yet: it may have been rotated.
    """
    header, claims = _open(token)
    known = [issuer for issuer in issuers if issuer.issuer == claims.get("iss")]
    if not known:
        raise Unauthenticated("the token is of an issuer that is not known here; see `hyperion get issuers`")
    fault = ""
    for issuer in known:
        fault = header_fault(header, issuer.algorithms) or claims_fault(claims, issuer, now_s)
        if fault:
            continue
        keys = choose_keys(header, issuer.keys)
        if not keys:
            unknown_key(issuer.issuer)
            fault = "its key is not one of its issuer's; where that was rotated just now, try again in a few seconds"
        elif not any(_is_signed(token, key, str(header["alg"])) for key in keys):
            if "kid" not in header:  # it may be of a key that is new
                unknown_key(issuer.issuer)
            fault = "its signature is wrong"
        else:
            return _read(claims, issuer)
    raise Unauthenticated(f"the token is refused: {fault}")


def _read(claims: Mapping[str, Any], issuer: IssuerRecord) -> Verified:
    tenant = tenant_of(claims, issuer)
    if not tenant:
        raise Unauthenticated(f'the token is refused: its claim "{issuer.tenant_claim}" does not name a tenant')
    subject = claims.get("sub", "")
    name = subject if isinstance(subject, str) and subject.isprintable() and len(subject) <= 128 else "?"
    return Verified(tenant, f"jwt:{name}", scopes_of(claims, issuer), claims, float(claims["exp"]) + issuer.leeway_s)


def _open(token: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, of which nothing is true yet. Raises Unauthenticated."""
    parts = token.split(b".")
    if len(parts) != 3 or len(parts[0]) > MAX_HEADER_BYTES:
        raise Unauthenticated("the token is not a signed JWT in compact form (three parts)")
    try:
        header, claims = (msgspec.json.decode(_decode(part)) for part in parts[:2])
    except (ValueError, RecursionError):  # of base64, of UTF-8 and of JSON alike
        raise Unauthenticated("the token cannot be read: it is not a JWT") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise Unauthenticated("the token cannot be read: header and claims must be objects")
    return header, claims


def _decode(part: bytes) -> bytes:
    if b"=" in part or b"+" in part or b"/" in part:
        raise ValueError("not base64url")
    return urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def _is_signed(token: bytes, key: dict[str, Any], algorithm: str) -> bool:
    try:
        from joserfc import jws
        from joserfc.errors import JoseError
        from joserfc.jwk import import_key
    except ImportError:
        raise MissingExtra("tokens need the extra `oidc`: pip install 'hyperion-inference[oidc]'") from None
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    registry.max_header_length = MAX_HEADER_BYTES
    try:
        jws.deserialize_compact(token, import_key(key), [algorithm], registry)
    except (JoseError, ValueError, TypeError):  # the last two are cryptography's about a key that is no key
        return False
    return True
