"""Which tokens count: headers, keys, claims, tenants and scopes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.token import FORBIDDEN, choose_keys, claims_fault, header_fault, scopes_of, tenant_of
from hyperion.schema.protect import IssuerRecord

ISSUER = IssuerRecord("https://acme", "hyperion", scope_claim="scp")
NOW = 1_000_000.0
RSA = {"kty": "RSA", "kid": "r", "n": "x" * 342, "e": "AQAB"}
NEXT = {**RSA, "kid": "s"}
EC = {"kty": "EC", "kid": "e", "crv": "P-256"}
GOOD = {"iss": "https://acme", "aud": "hyperion", "exp": NOW + 60}


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ({"alg": "RS256"}, ""),
        ({"alg": "RS256", "typ": "at+jwt", "kid": "r"}, ""),
        ({"alg": "RS256", "typ": "application/JWT"}, ""),
        ({}, "algorithm"),
        ({"alg": "none"}, "algorithm"),
        ({"alg": ["RS256"]}, "algorithm"),
        ({"alg": "RS256", "typ": "dpop+jwt"}, "type"),
        ({"alg": "RS256", "typ": 7}, "type"),
        ({"alg": "RS256", "kid": 7}, "kid"),
        ({"alg": "RS256", "kid": "k" * 200}, "kid"),
        *(({"alg": "RS256", name: "x"}, name) for name in FORBIDDEN),
    ],
)
def test_a_header_may_not_choose_how_it_is_checked(header: dict[str, Any], fault: str) -> None:
    found = header_fault(header, ("RS256", "ES256"))
    assert bool(found) is bool(fault)
    assert fault in found


@pytest.mark.parametrize(
    ("header", "keys", "chosen"),
    [
        ({"alg": "RS256", "kid": "r"}, (RSA, EC), [RSA]),
        ({"alg": "RS256"}, (RSA, EC), [RSA]),
        ({"alg": "ES256", "kid": "r"}, (RSA, EC), []),
        ({"alg": "RS256", "kid": "?"}, (RSA,), []),
        ({"alg": "RS256"}, (RSA, EC, NEXT), [RSA, NEXT]),  # while keys rotate
        ({"alg": "RS256"}, (RSA, NEXT, RSA, NEXT), []),
        ({"alg": "RS256", "kid": "r"}, (RSA, RSA), []),
        ({"alg": "RS256", "kid": "r"}, ({**RSA, "use": "enc"},), []),
        ({"alg": "RS256", "kid": "r"}, ({**RSA, "alg": "PS256"},), []),
        ({"alg": "RS256", "kid": "r"}, ({**RSA, "n": "x" * 170},), []),
        ({"alg": "ES256", "kid": "e"}, ({**EC, "crv": "P-384"},), []),
        ({"alg": "HS256", "kid": "o"}, ({"kty": "oct", "kid": "o", "k": "x"},), []),
    ],
)
def test_a_key_checks_only_signatures_of_its_own_kind(
    header: dict[str, Any], keys: tuple[dict[str, Any], ...], chosen: list[dict[str, Any]]
) -> None:
    assert choose_keys(header, keys) == chosen


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, ""),
        ({"aud": ["other", "hyperion"]}, ""),
        ({"exp": NOW - 10}, ""),  # within the leeway
        ({"nbf": NOW + 10, "iat": NOW + 10}, ""),
        ({"iss": "https://acme/"}, "issuer"),
        ({"aud": "other"}, "audience"),
        ({"aud": None}, "audience"),
        ({"exp": None}, "exp"),
        ({"exp": "soon"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": float("inf")}, "exp"),
        ({"exp": float("nan")}, "exp"),
        ({"exp": 10**400}, "exp"),
        ({"iat": -(10**400)}, "iat"),
        ({"nbf": 10**400}, "nbf"),
        ({"nbf": "now"}, "nbf"),
        ({"iat": []}, "iat"),
        ({"exp": NOW - 30}, "expired"),
        ({"nbf": NOW + 31}, "not valid yet"),
        ({"iat": NOW + 31}, "future"),
        ({"exp": NOW + 32 * 86_400}, "month"),
        ({"iat": NOW - 20 * 86_400, "exp": NOW + 20 * 86_400}, "month"),
    ],
)
def test_issuer_audience_and_times_must_be_there_and_fit(change: dict[str, Any], fault: str) -> None:
    found = claims_fault({**GOOD, **change}, ISSUER, NOW)
    assert bool(found) is bool(fault), found
    assert fault in found


@pytest.mark.parametrize(
    ("claims", "issuer", "tenant"),
    [
        ({"tenant": "acme"}, ISSUER, "acme"),
        ({"org": "acme"}, IssuerRecord("i", "a", tenant_claim="org"), "acme"),
        ({"tenant": "other"}, IssuerRecord("i", "a", tenant="acme"), "acme"),
        ({}, ISSUER, ""),
        ({"tenant": ["acme"]}, ISSUER, ""),
        ({"org": {"name": "acme"}}, IssuerRecord("i", "a", tenant_claim="org.name"), "acme"),
        ({"org.name": "acme", "org": {"name": "b"}}, IssuerRecord("i", "a", tenant_claim="org.name"), "acme"),
        ({"org": "acme"}, IssuerRecord("i", "a", tenant_claim="org.name"), ""),
        ({"https://a.b/org": "acme"}, IssuerRecord("i", "a", tenant_claim="https://a.b/org"), "acme"),
        ({"k.io": {"ns": "acme"}, "k": {"x": "b"}}, IssuerRecord("i", "a", tenant_claim="k.io.ns"), "acme"),
        ({"org": {}}, IssuerRecord("i", "a", tenant_claim="org.name"), ""),
        ({"tenant": "a" * 129}, ISSUER, ""),
        ({"tenant": "a\nb"}, ISSUER, ""),
    ],
)
def test_the_tenant_is_fixed_or_named_by_a_claim(claims: dict[str, Any], issuer: IssuerRecord, tenant: str) -> None:
    assert tenant_of(claims, issuer) == tenant


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scp": "infer deploy x"}, {"infer", "deploy"}),
        ({"scp": ["admin"]}, {"admin"}),
        ({"scp": 7}, set()),
        ({}, set()),
    ],
)
def test_scopes_are_those_of_the_claim_that_there_are(claims: dict[str, Any], scopes: set[str]) -> None:
    assert scopes_of(claims, ISSUER) == scopes
    assert scopes_of(claims, IssuerRecord("i", "a")) == {"infer"}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(min_value=10**400) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "iss", "aud", "exp", "nbf", "iat", "tenant", "scp"]), anything
    )
)
def test_nothing_that_a_token_may_hold_raises(fields: dict[str, Any]) -> None:
    header_fault(fields, ("RS256",))
    choose_keys(fields, (RSA, EC))
    claims_fault(fields, ISSUER, NOW)
    assert all(name.isprintable() for name in tenant_of(fields, ISSUER))
    assert scopes_of(fields, ISSUER) <= {"read", "infer", "deploy", "admin"}
