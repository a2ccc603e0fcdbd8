"""Whether somebody may call an endpoint. Called by `gateway/front/guard`, once for each caller and endpoint, and by
`gateway/front/door` for lists of endpoints; pure.

Deny by default: where credentials are required nobody comes in without them, but to endpoints that let anybody in.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from hyperion.policy.token import find_claim
from hyperion.schema.protect import Access

GRANTED_BY: Final = {
    "read": frozenset(("read", "deploy", "admin")),
    "infer": frozenset(("infer", "admin")),
    "deploy": frozenset(("deploy", "admin")),
}


def grants(scopes: Collection[str], wanted: str) -> bool:
    """Whether somebody with these scopes may do what asks for `wanted`; "" is for whoever has credentials.

    >>> grants({"deploy"}, "read"), grants({"infer"}, "read"), grants({"infer"}, "")
    (True, False, True)
    """
    return not wanted or not GRANTED_BY[wanted].isdisjoint(scopes)


def needs_credentials(access: Access | None, required: bool) -> bool:
    """Whether an endpoint refuses callers that show none. `required` is the gateway's rule for endpoints without one.

    >>> needs_credentials(None, True), needs_credentials(Access(anonymous=True), True)
    (True, False)
    >>> needs_credentials(None, False), needs_credentials(Access(), False)
    (False, True)
    """
    return required if access is None else not access.anonymous


def forbids(access: Access | None, tenant: str, scopes: Collection[str], claims: Mapping[str, Any]) -> str:
    """Why a caller with valid credentials may not infer here, or "" if it may.

    >>> forbids(Access(tenants=("acme",)), "other", {"infer"}, {})
    'tenant "other" is not among those that may call it'
    >>> forbids(Access(claims={"groups": "risk"}), "acme", {"infer"}, {"groups": ["risk", "ops"]})
    ''
    """
    if not grants(scopes, "infer"):
        return 'the credentials lack the scope "infer"'
    if access is None:
        return ""
    if access.tenants and tenant not in access.tenants:
        return f'tenant "{tenant}" is not among those that may call it'
    for name, wanted in access.claims.items():
        given = find_claim(claims, name)
        if given != wanted and not (isinstance(given, list | tuple) and wanted in given):
            return f'the token does not carry the claim "{name}" that it asks for'
    return ""


def shows(
    access: Access | None,
    required: bool,
    anonymous: bool,
    tenant: str,
    scopes: Collection[str],
    claims: Mapping[str, Any],
) -> bool:
    """Whether lists name an endpoint to a caller: where it may ask it, and where the endpoint has no rules and the
    caller has credentials, whatever their scopes are. `required` is the gateway's rule for endpoints without one.

    >>> rules = Access(tenants=("acme",))
    >>> [shows(rules, True, False, tenant, ("infer",), {}) for tenant in ("acme", "other")]
    [True, False]
    >>> shows(None, True, False, "other", ("read",), {}), shows(None, True, True, "", ("infer",), {})
    (True, False)
    """
    if anonymous:
        return not needs_credentials(access, required)
    return access is None or not forbids(access, tenant, scopes, claims)
