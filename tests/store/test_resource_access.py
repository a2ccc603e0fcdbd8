"""Tenants and issuers as people write them: what is read, and what each mistake is told."""

from pathlib import Path

import pytest

from hyperion.schema.errors import InvalidResource
from hyperion.schema.protect import Limits, Quotas
from hyperion.schema.resource import Issuer, Tenant
from hyperion.store.changes import compare, delete
from hyperion.store.resource_yaml import read_resource, read_resources, to_document, write_yaml

TENANT = """\
kind: Tenant
metadata: {name: acme, labels: {plan: gold}}
spec:
  limits: {requests_per_second: 100, burst: 200, concurrency: 16}
  key_limits: {requests_per_second: 20}
  quotas: {requests_per_day: 100000, tokens_per_month: 5000000, cost_per_month: 99.5}
  priority: 3
  weight: 2
  certificates: [batch.acme.example, "spiffe://acme/batch"]
"""
ISSUER = """\
kind: Issuer
metadata: {name: corp}
spec:
  issuer: https://id.example.com/realms/corp
  audience: hyperion
  algorithms: [ES256]
  tenant_claim: org
  scope_claim: scope
"""
BARE = "kind: Issuer\nmetadata: {name: corp}\nspec:\n"
HEAD = BARE + "  issuer: https://id.example.com\n  audience: h\n"


def read(tmp_path: Path, text: str) -> list[object]:
    path = tmp_path / "who.yaml"
    path.write_text(text)
    return list(read_resources([str(path)]))


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(InvalidResource) as refused:
        read(tmp_path, text)
    return refused.value.message.replace(f"{tmp_path}/", "")


def test_a_tenant_and_an_issuer_of_one_file_are_read_and_written_without_defaults(tmp_path: Path) -> None:
    tenant, issuer = read(tmp_path, f"{TENANT}---\n{ISSUER}")
    assert isinstance(tenant, Tenant)
    assert isinstance(issuer, Issuer)
    assert tenant.spec.limits == Limits(100.0, burst=200, concurrency=16)
    assert tenant.spec.quotas == Quotas(requests_per_day=100_000, tokens_per_month=5_000_000, cost_per_month=99.5)
    assert (issuer.spec.algorithms, issuer.spec.leeway_s) == (("ES256",), 30.0)
    written = write_yaml([to_document(tenant), to_document(issuer)])
    assert "leeway_s" not in written
    assert read(tmp_path, written) == [tenant, issuer]


def test_a_tenant_needs_no_spec_and_kinds_may_share_a_name(tmp_path: Path) -> None:
    resources = read(tmp_path, "kind: Tenant\nmetadata: {name: corp}\n---\n" + HEAD)
    assert [type(resource) for resource in resources] == [Tenant, Issuer]
    assert "'corp' is given twice, first in" in refusal(tmp_path, HEAD + "---\n" + HEAD)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("  limts: {}", 'who.yaml:4: spec.limts: unknown field; did you mean "limits"?'),
        ("  limits: {concurency: 1}", 'spec.limits.concurency: unknown field; did you mean "concurrency"?'),
        ("  limits: {per_tenant: {}}", "spec.limits.per_tenant: unknown field"),
        ("  limits: {requests_per_second: -1}", "who.yaml:4: spec.limits.requests_per_second: expected 0 to"),
        ("  key_limits: {burst: 3}", "spec.key_limits.burst: means nothing without requests_per_second"),
        ("  quotas: {rows_per_day: -1}", "spec.quotas.rows_per_day: expected 0 to"),
        ("  quotas: {cost_per_day: .inf}", "spec.quotas.cost_per_day: expected a finite number"),
        ("  priority: 10", "spec.priority: expected 0 to 9, got 10"),
        ("  weight: 0", "spec.weight: expected above 0, up to 1000, got 0"),
        ("  certificates: ['*.acme.example']", "a name has to match as a whole"),
        ("  certificates: [a, a]", "spec.certificates[1]: 'a' is given twice"),
        ("  certificates: ['']", "spec.certificates[0]: expected a name of 1 to 256"),
        ("  certificates: [" + ", ".join(f"a{n}" for n in range(65)) + "]", "at most 64, got 65"),
        ("  access: {}", "spec.access: unknown field"),
    ],
)
def test_a_mistake_in_a_tenant_is_told_with_its_field(tmp_path: Path, body: str, message: str) -> None:
    assert message in refusal(tmp_path, f"kind: Tenant\nmetadata: {{name: acme}}\nspec:\n{body}\n")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (BARE + "  audience: h\n", 'spec: the field "issuer" is missing'),
        (BARE + "  issuer: https://a\n", 'spec: the field "audience" is missing'),
        (BARE + "  issuer: https://a\n  audience: ''\n", "who.yaml:5: spec.audience: expected 1 to"),
        (
            BARE + "  issuer: http://id.example.com\n  audience: h\n",
            "who.yaml:4: spec.issuer: expected an https:// URL",
        ),
        (
            BARE + "  issuer: accounts\n  audience: h\n",
            "spec.issuer: expected an https:// URL (or http:// of the loopb",
        ),
        (BARE + "  issuer: 'https://a?b'\n  audience: h\n", "or give jwks_url"),
        (BARE + "  issuer: https://a:99999\n  audience: h\n", "spec.issuer: expected an https:// URL"),
        (HEAD + "  jwks_url: http://10.0.0.1/keys\n", "spec.jwks_url: expected an https:// URL"),
        (HEAD + "  jwks_url: file:///etc/passwd\n", "spec.jwks_url: expected an https:// URL"),
        (HEAD + "  jwks_url: https://ada:pw@a/keys\n", "spec.jwks_url: expected an https:// URL"),
        (HEAD + "  algorithms: [none]\n", "spec.algorithms[0]: 'none' is not among the signatures that count"),
        (HEAD + "  algorithms: [RS256, HS256]\n", "spec.algorithms[1]: 'HS256' is not among the signatures that count"),
        (HEAD + "  algorithms: []\n", "spec.algorithms: expected at least one"),
        (HEAD + "  tenant: a/b\n", "spec.tenant: 'a/b' cannot be a tenant's name"),
        (HEAD + "  tenant_claim: ''\n", "spec.tenant_claim: give it, or tenant"),
        (HEAD + '  scope_claim: "a\\nb"\n', "spec.scope_claim: expected a claim's name"),
        (HEAD + "  leeway_s: 3600\n", "spec.leeway_s: expected 0 to 300, got 3600"),
        (HEAD + "  refresh_s: 1\n", "spec.refresh_s: expected 10 to 86400, got 1"),
        (HEAD + "  ca_file: ca.pem\n", "spec.ca_file: expected an absolute path"),
        (HEAD + "  jwks_uri: https://a\n", 'spec.jwks_uri: unknown field; did you mean "jwks_url"?'),
    ],
)
def test_a_mistake_in_an_issuer_is_told_with_its_field(tmp_path: Path, body: str, message: str) -> None:
    assert message in refusal(tmp_path, body)


def test_an_issuer_on_the_loopback_may_do_without_tls_and_one_with_keys_elsewhere_may_have_any_name() -> None:
    document = {"kind": "Issuer", "metadata": {"name": "a"}}
    for spec in (
        {"issuer": "http://127.0.0.1:9000"},
        {"issuer": "http://[::1]:9000"},
        {"issuer": "http://localhost"},
        {"issuer": "kubernetes/serviceaccount", "jwks_url": "https://10.0.0.1/openid/v1/jwks"},
    ):
        assert read_resource({**document, "spec": {"audience": "h", **spec}}).kind == "Issuer"


def test_a_change_names_its_kind_and_its_fields(tmp_path: Path) -> None:
    (old,) = read(tmp_path, TENANT)
    (new,) = read(tmp_path, TENANT.replace("burst: 200", "burst: 300"))
    assert isinstance(old, Tenant)
    assert isinstance(new, Tenant)
    change = compare(old, new)
    assert (change.kind, change.name, change.action) == ("Tenant", "acme", "configured")
    assert [(field.path, field.before, field.after) for field in change.fields] == [("spec.limits.burst", 200, 300)]
    assert (delete(old).kind, delete(old).action) == ("Tenant", "deleted")
