"""Tenants, issuers and keys over the management API: what is stored, who may, what is refused, and why."""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.platform import Platform, endpoint

LIMITS = {"requests_per_second": 10.0, "burst": 20}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("tenants") / "home") as platform:
        platform.push("fraud", "1")
        yield platform


def tenant(name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "Tenant", "metadata": {"name": name}, "spec": spec}


def issuer(name: str, url: str = "", **spec: Any) -> dict[str, Any]:
    # Nobody listens there: what is known of an issuer's keys is control's part, not the API's.
    given = {"issuer": url or f"http://127.0.0.1:9/{name}", "audience": "h", **spec}
    return {"kind": "Issuer", "metadata": {"name": name}, "spec": given}


def make_key(platform: Platform, name: str, *scopes: str) -> dict[str, Any]:
    made: dict[str, Any] = platform.ask("keys", {"tenant": name, "scopes": list(scopes) or ["infer"]}).json()
    return made


def actions(answer: Any) -> list[tuple[str, str, str]]:
    assert answer.status == 200, answer
    return [(change["kind"], change["name"], change["action"]) for change in answer.json()["changes"]]


def test_the_ledger_tells_a_reader_nothing_of_who_calls(platform: Platform) -> None:
    platform.ask("tenants", tenant("secretive", certificates=["theirs.example.com"]))
    platform.ask("issuers", issuer("secretive"))
    made = make_key(platform, "secretive", "deploy")
    platform.ask("endpoints", endpoint("open", "fraud@1"))
    kinds = {"secretive": {"tenant.apply", "issuer.apply"}, made["id"]: {"token.create"}, "open": {"endpoint.apply"}}
    for subject, expected in kinds.items():
        for key in (made["key"], make_key(platform, "other", "read")["key"]):
            page = platform.ask(f"ledger/entries?subject={subject}", token=key).json()["items"]
            found = {entry["kind"]: entry for entry in page if entry["kind"] in expected}
            assert found.keys() == expected, "that something was decided is for all"
            for entry in found.values():
                is_told = key == made["key"] or subject == "open"
                assert (entry["detail"] == {"withheld": 'needs the scope "deploy"'}) is not is_told
                assert entry["leaf"]


@pytest.mark.parametrize(
    ("path", "resource", "change", "field"),
    [
        ("tenants", tenant("idem", limits=LIMITS), {"limits": LIMITS | {"burst": 30}}, "spec.limits.burst"),
        ("issuers", issuer("idem"), {"leeway_s": 5.0}, "spec.leeway_s"),
    ],
)
def test_an_apply_shows_its_changes_and_is_idempotent(
    platform: Platform, path: str, resource: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    kind = resource["kind"]
    assert actions(platform.ask(f"{path}?dry_run=true", resource)) == [(kind, "idem", "created")]
    assert platform.ask(f"{path}/idem").status == 404
    assert actions(platform.ask(path, resource)) == [(kind, "idem", "created")]
    assert actions(platform.ask(f"{path}/idem", resource, "PUT")) == [(kind, "idem", "unchanged")]
    other = {**resource, "spec": {**resource["spec"], **change}}
    (done,) = platform.ask(f"{path}?reason=more", other).json()["changes"]
    assert (done["action"], [one["path"] for one in done["fields"]]) == ("configured", [field])
    shown = platform.ask(f"{path}/idem").json()
    assert shown["status"]["generation"] == 2
    assert actions(platform.ask(path, shown)) == [(kind, "idem", "unchanged")]
    (entry,) = platform.ask(f"ledger/entries?subject=idem&kind={kind.lower()}.apply&newest=true&limit=1").json()[
        "items"
    ]
    assert (entry["actor"], entry["reason"]) == ("admin", "more")
    assert actions(platform.ask(f"{path}/idem?dry_run=true", method="DELETE")) == [(kind, "idem", "deleted")]
    assert actions(platform.ask(f"{path}/idem", method="DELETE")) == [(kind, "idem", "deleted")]
    answer = platform.ask(f"{path}/idem", method="DELETE")
    assert (answer.status, answer.json()["code"]) == (404, "not_found")


def test_resources_of_any_kind_are_applied_together_or_not_at_all(platform: Platform) -> None:
    given = [tenant("mixed"), issuer("mixed", tenant="mixed"), endpoint("mixed", "fraud@1")]
    assert platform.ask("resources", [*given, endpoint("bad", "fraud@9")]).status == 404
    assert platform.ask("tenants/mixed").status == 404
    assert actions(platform.ask("resources", given)) == [
        ("Tenant", "mixed", "created"),
        ("Issuer", "mixed", "created"),
        ("Endpoint", "mixed", "created"),
    ]
    assert [action for _, _, action in actions(platform.ask("resources", given))] == ["unchanged"] * 3


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("tenants", tenant("a/b"), 422, "metadata.name: expected 1 to 128"),
        ("tenants", tenant("a", limts={}), 422, 'spec.limts: unknown field; did you mean "limits"?'),
        ("tenants", tenant("a", priority=11), 422, "spec.priority: expected 0 to 9, got 11"),
        ("tenants", issuer("a"), 422, "kind: expected Tenant, got Issuer; /api/v1/resources takes any"),
        ("issuers", issuer("a", "http://10.0.0.1"), 422, "spec.issuer: expected an https:// URL"),
        ("issuers", issuer("a", algorithms=["none"]), 422, "'none' is not among the signatures"),
        ("endpoints", tenant("a"), 422, "kind: expected Endpoint, got Tenant"),
        ("resources", {"kind": "Policy"}, 422, "Policy is not done by this version"),
        ("resources", [tenant("a"), tenant("a")], 422, "'a' is given twice"),
        ("resources", [], 422, "no resource"),
        ("tenants", [tenant("t1", certificates=["x"]), tenant("t2", certificates=["x"])], 409, 'tenant "t1" already'),
        ("issuers", [issuer("i1", "http://127.0.0.1:9"), issuer("i2", "http://127.0.0.1:9")], 409, '"i1" has the same'),
    ],
)
def test_what_cannot_be_is_a_problem_and_changes_nothing(
    platform: Platform, path: str, body: Any, status: int, words: str
) -> None:
    answer = platform.ask(path, body)
    assert (answer.status, words in answer.json()["detail"]) == (status, True), answer
    dry = platform.ask(f"{path}?dry_run=true", body)
    assert dry.status == status
    assert platform.ask("tenants/t1").status == platform.ask("issuers/i1").status == 404


def test_the_name_of_a_certificate_is_free_again_when_its_tenant_gives_it_up(platform: Platform) -> None:
    platform.ask("tenants", tenant("first", certificates=["c.example"]))
    assert platform.ask("tenants", tenant("second", certificates=["c.example"])).status == 409
    both = [tenant("first"), tenant("second", certificates=["c.example"])]
    assert [action for _, _, action in actions(platform.ask("tenants", both))] == ["configured", "created"]


def test_a_tenant_stays_while_somebody_can_come_in_as_it(platform: Platform) -> None:
    platform.ask("tenants", tenant("full"))
    first, second = make_key(platform, "full"), make_key(platform, "full")
    platform.ask("issuers", issuer("ours", tenant="full"))
    for dry in ("", "?dry_run=true"):
        answer = platform.ask(f"tenants/full{dry}", method="DELETE")
        assert (answer.status, answer.json()["code"]) == (409, "conflict")
        assert all(f"hyperion key revoke {key['id']}" in answer.json()["detail"] for key in (first, second))
    assert platform.ask("tenants/full").json()["status"]["live_keys"] == 2
    platform.ask(f"keys/{first['id']}", method="DELETE")
    assert "a key that is still valid" in platform.ask("tenants/full", method="DELETE").json()["detail"]
    platform.ask(f"keys/{second['id']}", method="DELETE")
    assert "hyperion delete issuer ours" in platform.ask("tenants/full", method="DELETE").json()["detail"]
    platform.ask("issuers/ours", method="DELETE")
    assert platform.ask("tenants/full", method="DELETE").status == 200


def test_an_issuer_whose_tokens_nobody_here_can_check_is_refused(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "joserfc", None)  # as if it were not installed
    for path in ("issuers", "issuers?dry_run=true", "resources"):
        answer = platform.ask(path, issuer("unchecked"))
        assert (answer.status, answer.json()["code"]) == (501, "missing_extra")
        assert "hyperion-inference[oidc]" in answer.json()["detail"]
    assert platform.ask("tenants", tenant("checked")).status == 200


def test_lists_come_in_pages_with_their_status(platform: Platform) -> None:
    names = [f"page-{letter}" for letter in "abc"]
    platform.ask("resources", [*map(tenant, names), *map(issuer, names)])
    make_key(platform, "page-b")
    for path in ("tenants", "issuers"):
        found: list[dict[str, Any]] = []
        after: str | None = "page"
        while after is not None:
            page = platform.ask(f"{path}?limit=2&after={after}").json()
            found += page["items"]
            after = page["next"]
        assert [item["metadata"]["name"] for item in found if item["metadata"]["name"] in names] == names
    assert platform.ask("tenants/page-b").json()["status"]["live_keys"] == 1
    status = platform.ask("issuers/page-a").json()["status"]
    assert (status["keys"], status["read_at"], status["problem"]) == ([], None, "")


def test_only_an_admin_says_who_may_call_and_callers_do_not_see_each_other(platform: Platform) -> None:
    platform.ask("tenants", tenant("seen"))
    infer, deploy = (make_key(platform, "seen", scope)["key"] for scope in ("infer", "deploy"))
    assert platform.ask("tenants", token=infer).status == platform.ask("issuers/x", token=infer).status == 403
    assert platform.ask("tenants/seen", token=deploy).status == 200
    for path, body, method in (
        ("tenants", tenant("mine"), "POST"),
        ("tenants/seen", tenant("seen", priority=0), "PUT"),
        ("tenants/seen", None, "DELETE"),
        ("issuers", issuer("mine"), "POST"),
        ("issuers/mine", issuer("mine"), "PUT"),
        ("issuers/mine", None, "DELETE"),
        ("resources", [endpoint("mine", "fraud@1"), tenant("mine")], "POST"),
        ("keys/x/rotate", {}, "POST"),
    ):
        answer = platform.ask(path, body, method, token=deploy)
        assert (answer.status, 'needs the scope "admin"' in answer.json()["detail"]) == (403, True), path
    assert platform.ask("resources", endpoint("mine", "fraud@1"), token=deploy).status == 200


def test_a_rotated_key_counts_on_until_its_overlap_ends(platform: Platform) -> None:
    old = make_key(platform, "turn", "read")
    before = time.time()
    new = platform.ask(f"keys/{old['id']}/rotate", {"overlap_s": 3600, "reason": "yearly"}).json()
    assert set(new) == {"id", "key", "tenant", "scopes", "expires_at", "replaces", "replaced_expires_at"}
    assert (new["tenant"], new["scopes"], new["expires_at"], new["replaces"]) == ("turn", ["read"], None, old["id"])
    assert before + 3600 <= new["replaced_expires_at"] <= time.time() + 3600
    assert (
        platform.ask("endpoints", token=old["key"]).status == platform.ask("endpoints", token=new["key"]).status == 200
    )
    newest = platform.ask(f"keys/{new['id']}/rotate", {"overlap_s": 0}).json()
    assert platform.ask("endpoints", token=new["key"]).status == 401
    assert platform.ask("endpoints", token=newest["key"]).status == 200
    again = platform.ask(f"keys/{new['id']}/rotate", method="POST")
    assert (again.status, again.json()["code"]) == (409, "conflict")
    assert platform.ask("keys/none/rotate", method="POST").status == 404
    assert platform.ask(f"keys/{old['id']}/rotate", {"overlap_s": -1}).status == 422
    kinds = [entry["kind"] for entry in platform.ask(f"ledger/entries?subject={old['id']}").json()["items"]]
    assert kinds == ["token.create", "token.rotate"]


def test_every_kind_is_in_the_openapi_document(platform: Platform) -> None:
    document = json.loads(platform.ask("openapi.json").body)
    assert {"Endpoint", "Tenant", "Issuer", "Quotas", "Problem"} <= set(document["components"]["schemas"])
    body = document["paths"]["/api/v1/tenants/{name}"]["put"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/Tenant"}
