"""Who may call an endpoint."""

import pytest

from hyperion.policy.access import forbids, needs_credentials
from hyperion.schema.protect import Access


@pytest.mark.parametrize(
    ("access", "required", "needs"),
    [
        (None, False, False),
        (None, True, True),
        (Access(), False, True),
        (Access(anonymous=True), True, False),
        (Access(tenants=("acme",)), False, True),
    ],
)
def test_credentials_are_needed_where_the_endpoint_or_the_gateway_says_so(
    access: Access | None, required: bool, needs: bool
) -> None:
    assert needs_credentials(access, required) is needs


@pytest.mark.parametrize(
    ("access", "tenant", "scopes", "claims", "expected"),
    [
        (None, "acme", {"infer"}, {}, ""),
        (None, "acme", {"admin"}, {}, ""),
        (None, "acme", {"deploy", "read"}, {}, "scope"),
        (Access(), "", {"infer"}, {}, ""),
        (Access(("acme",)), "acme", {"infer"}, {}, ""),
        (Access(("acme",)), "", {"infer"}, {}, "tenant"),
        (Access(claims={"g": "a"}), "t", {"infer"}, {"g": "a"}, ""),
        (Access(claims={"g": "a"}), "t", {"infer"}, {"g": ("b", "a")}, ""),
        (Access(claims={"g": "a"}), "t", {"infer"}, {"g": "ab"}, "claim"),
        (Access(claims={"g": "a"}), "t", {"infer"}, {"g": ["b"]}, "claim"),
        (Access(claims={"g": "a", "h": "b"}), "t", {"infer"}, {"g": "a"}, "claim"),
        (Access(claims={"realm.roles": "a"}), "t", {"infer"}, {"realm": {"roles": ["b", "a"]}}, ""),
        (Access(claims={"realm.roles": "a"}), "t", {"infer"}, {"realm": {"roles": ["b"]}}, "claim"),
    ],
)
def test_a_caller_needs_the_scope_the_tenant_and_the_claims(
    access: Access | None, tenant: str, scopes: set[str], claims: dict[str, object], expected: str
) -> None:
    reason = forbids(access, tenant, scopes, claims)
    assert bool(reason) is bool(expected)
    assert expected in reason
