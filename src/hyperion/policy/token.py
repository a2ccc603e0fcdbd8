"""Which signed tokens (JWT) count, once their signature is known to be good or to be worth checking. Pure.

Called by `gateway/front/jwt`. Rules of RFC 8725 (best current practice): algorithms are pinned by us, a token cannot
bring its own key, and issuer, audience and expiry have to be there and fit.
"""

from collections.abc import Mapping
from typing import Any, Final

from hyperion.schema.protect import IssuerRecord

# What a token could use to point at a key of its own choice, to be read in another way, or to hide what it is.
FORBIDDEN: Final = ("jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc")
KEY_TYPES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
LEAST_RSA_BITS: Final = 2_048
LONGEST_LIFE_S: Final = 31 * 86_400.0
LONGEST_NAME: Final = 128
MOST_TRIED: Final = 3  # of an issuer's keys, for a token that does not say which: the next, this and the last one
LAST_TIME_S: Final = 1e12  # of the year 33658; JSON knows integers that no float can hold


def header_fault(header: Mapping[str, Any], algorithms: tuple[str, ...]) -> str:
    """Why a token with this header is refused before any key is looked at, or "".

    >>> header_fault({"alg": "none"}, ("RS256",))
    'its algorithm is not one of RS256'
    >>> header_fault({"alg": "RS256", "jku": "https://evil"}, ("RS256",))
    'its header has "jku", which is not taken here'
    """
    for name in FORBIDDEN:
        if name in header:
            return f'its header has "{name}", which is not taken here'
    if header.get("alg") not in algorithms:
        return f"its algorithm is not one of {', '.join(algorithms)}"
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in ("jwt", "at+jwt"):
        return "it is not of the type JWT"
    kid = header.get("kid", "")
    if not isinstance(kid, str) or len(kid) > LONGEST_NAME:
        return 'its "kid" is not a name'
    return ""


def choose_keys(header: Mapping[str, Any], keys: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """The keys that may have signed a token: of those that fit its algorithm the one of its `kid`, or, as it need not
    name one, all; none where they are too many to try.

    >>> one, other = ({"kid": kid, "kty": "EC", "crv": "P-256"} for kid in "ab")
    >>> choose_keys({"alg": "ES256", "kid": "b"}, (one, other)), len(choose_keys({"alg": "ES256"}, (one, other)))
    ([{'kid': 'b', 'kty': 'EC', 'crv': 'P-256'}], 2)
    """
    kid = header.get("kid")
    fitting = [key for key in keys if _fits(key, str(header.get("alg"))) and (kid is None or key.get("kid") == kid)]
    return fitting if len(fitting) <= (1 if kid is not None else MOST_TRIED) else []


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    """Whether a key is one for that algorithm; a key of one kind must never check a signature of another."""
    if key.get("use", "sig") != "sig" or key.get("alg", algorithm) != algorithm:
        return False
    if key.get("kty") != KEY_TYPES.get(algorithm[:2]):
        return False
    if key.get("kty") == "RSA":
        return len(str(key.get("n", ""))) * 6 >= LEAST_RSA_BITS
    return key.get("crv") == CURVES.get(algorithm)


def claims_fault(claims: Mapping[str, Any], issuer: IssuerRecord, now_s: float) -> str:
    """Why a token with these claims is refused, or "". `now_s` is in seconds since 1970.

    >>> acme = IssuerRecord("https://acme", "hyperion")
    >>> claims_fault({"iss": "https://acme", "aud": ["hyperion"], "exp": 100}, acme, 60.0)
    ''
    >>> claims_fault({"iss": "https://acme", "aud": "hyperion", "exp": 100}, acme, 200.0)
    'it has expired'
    """
    if claims.get("iss") != issuer.issuer:
        return "its issuer is another one"
    audience = claims.get("aud")
    if audience != issuer.audience and not (isinstance(audience, list) and issuer.audience in audience):
        return "it is meant for another audience"
    expires, begins, issued = (_time(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None:
        return 'its "exp" is missing or no time'
    if begins is None and "nbf" in claims:
        return 'its "nbf" is no time'
    if issued is None and "iat" in claims:
        return 'its "iat" is no time'
    if now_s >= expires + issuer.leeway_s:
        return "it has expired"
    if begins is not None and now_s < begins - issuer.leeway_s:
        return "it is not valid yet"
    if issued is not None and now_s < issued - issuer.leeway_s:
        return "it was issued in the future"
    if expires - (now_s if issued is None else issued) > LONGEST_LIFE_S:
        return "it lives longer than a month"
    return ""


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    given = claims.get(name)
    if isinstance(given, bool) or not isinstance(given, int | float) or not abs(given) < LAST_TIME_S:
        return None
    return float(given)


def find_claim(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of that name; else, of a name with dots, what lies within others. None where there is none.

    >>> find_claim({"realm_access": {"roles": ["risk"]}}, "realm_access.roles")
    ['risk']
    >>> find_claim({"kubernetes.io": {"namespace": "a"}}, "kubernetes.io.namespace")
    'a'
    """
    if name in claims:
        return claims[name]
    for at, letter in enumerate(name):
        within = claims.get(name[:at]) if letter == "." else None
        if isinstance(within, Mapping):
            found = find_claim(within, name[at + 1 :])
            if found is not None:
                return found
    return None


def tenant_of(claims: Mapping[str, Any], issuer: IssuerRecord) -> str:
    """The tenant that a token's holder belongs to; "" where the token names none, or one that cannot be a name.

    >>> tenant_of({"tenant": "acme"}, IssuerRecord("i", "a")), tenant_of({}, IssuerRecord("i", "a", tenant="fixed"))
    ('acme', 'fixed')
    """
    if issuer.tenant:
        return issuer.tenant
    name = find_claim(claims, issuer.tenant_claim)
    return name if isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable() else ""


def scopes_of(claims: Mapping[str, Any], issuer: IssuerRecord) -> frozenset[str]:
    """What a token's holder may do: what its claim says, of what there is; to infer where no claim is asked for.

    >>> sorted(scopes_of({"scp": "infer openid"}, IssuerRecord("i", "a", scope_claim="scp")))
    ['infer']
    """
    if not issuer.scope_claim:
        return frozenset(("infer",))
    given = find_claim(claims, issuer.scope_claim)
    words = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
    return frozenset(word for word in words if word in ("read", "infer", "deploy", "admin"))
