"""Tenants, issuers and keys on the command line, against a live management API."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperion.schema.usage import Amounts, UsageRow
from hyperion.store import usage
from tests.api.platform import Platform
from tests.cli.test_management import Result, Run, run  # noqa: F401

WHO = """\
kind: Tenant
metadata: {name: acme}
spec:
  limits: {requests_per_second: 100}
  quotas: {requests_per_day: 5000}
  priority: 2
---
kind: Issuer
metadata: {name: corp}
spec: {issuer: "http://127.0.0.1:9", audience: hyperion, tenant: acme}
---
kind: Endpoint
metadata: {name: fraud}
spec: {model: fraud@1}
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("who") / "home") as platform:
        platform.push("fraud", "1")
        yield platform


def test_a_file_of_several_kinds_is_applied_shown_and_applied_again(run: Run) -> None:  # noqa: F811
    Path("who.yaml").write_text(WHO)
    before = run("diff", "-f", "who.yaml")
    assert (before.code, "+ Tenant acme: created" in before.out, "+ Issuer corp: created" in before.out) == (
        1,
        True,
        True,
    )
    assert run("get", "tenant", "acme").code == 1
    assert "    + spec.priority: 2" in run("apply", "-f", "who.yaml").out
    assert run("diff", "-f", "who.yaml") == Result(0, "", "")
    Path("who.yaml").write_text(WHO.replace("priority: 2", "priority: 3"))
    done = json.loads(run("apply", "-f", "who.yaml", "--reason", "paid", "--json").out)
    assert {change["kind"]: change["action"] for change in done["changes"]} == {
        "Tenant": "configured",
        "Issuer": "unchanged",
        "Endpoint": "unchanged",
    }
    (entry,) = json.loads(run("ledger", "show", "acme", "--kind", "tenant.apply", "-n", "1", "--json").out)
    assert entry["reason"] == "paid"
    for kind, name in (("tenants", "acme"), ("issuers", "corp")):
        shown = run("get", kind.removesuffix("s"), name, "-o", "yaml").out
        assert "status:" in shown
        Path("again.yaml").write_text(shown)
        assert run("diff", "-f", "again.yaml").code == 0
        assert name in run("get", kind).out
        assert json.loads(run("get", kind, "-o", "json").out)["items"][0]["metadata"]["name"] == name
    assert run("get", "Tenant", "acme").out.split("\n")[1].split()[:3] == ["acme", "100/s", "requests_per_day"]
    assert "claim" not in run("get", "issuer", "corp").out


def test_a_mistake_is_one_line_with_file_and_line(run: Run) -> None:  # noqa: F811
    Path("t.yaml").write_text("kind: Tenant\nmetadata: {name: a}\nspec:\n  prioritty: 1\n")
    message = 'hyperion: t.yaml:4: spec.prioritty: unknown field; did you mean "priority"?\n'
    assert run("apply", "-f", "t.yaml") == Result(1, "", message)


def test_a_tenant_with_keys_stays_until_they_are_revoked_as_the_message_says(run: Run) -> None:  # noqa: F811
    Path("t.yaml").write_text("kind: Tenant\nmetadata: {name: leaving}\n")
    assert run("apply", "-f", "t.yaml").code == 0
    made = json.loads(run("key", "create", "--tenant", "leaving", "--json").out)
    refused = run("delete", "tenant", "leaving", "--yes")
    assert (refused.code, refused.out) == (1, "")
    command = refused.err.partition("first: hyperion ")[2].split()
    assert command == ["key", "revoke", made["id"]]
    assert run(*command).code == 0
    assert "- Tenant leaving: deleted" in run("delete", "tenant", "leaving", "--yes").out
    assert "not known here" in run("delete", "tenants", "leaving").err


def test_a_key_of_a_tenant_that_nobody_declared_is_made_and_said_to_have_no_limits(run: Run) -> None:  # noqa: F811
    Path("t.yaml").write_text("kind: Tenant\nmetadata: {name: declared}\n")
    run("apply", "-f", "t.yaml")
    for tenant, told in (("declared", False), ("declread", True)):
        made = run("key", "create", "--tenant", tenant)
        assert (made.code, made.out.startswith("hyp_"), f'tenant "{tenant}" may use' in made.err) == (0, True, told)


def test_a_key_is_rotated_with_an_overlap(run: Run, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    old = json.loads(run("key", "create", "--tenant", "acme", "--scope", "read", "--expires", "90d", "--json").out)
    new = json.loads(run("key", "rotate", old["id"], "--overlap", "1h", "--reason", "yearly", "--json").out)
    assert (new["tenant"], new["scopes"], new["replaces"]) == ("acme", ["read"], old["id"])
    assert new["expires_at"] > old["expires_at"] > new["replaced_expires_at"]
    shown = run("key", "rotate", new["id"], "--overlap", "0m")
    assert (shown.out.startswith("hyp_"), f"Key {new['id']} ends" in shown.err) == (True, True)
    listed = run("key", "list").out
    assert shown.out.strip() not in listed
    assert "expired" in listed
    for secret, code in ((old["key"], 0), (new["key"], 1), (shown.out.strip(), 0)):
        monkeypatch.setenv("HYPERION_TOKEN", secret)
        assert run("get", "endpoints").code == code
    monkeypatch.setenv("HYPERION_TOKEN", platform.token)
    assert run("key", "rotate", new["id"]).err.endswith("make another: hyperion key create --tenant acme\n")
    assert (run("key", "rotate", "none").code, run("key", "rotate", "x", "--overlap", "soon").code) == (1, 2)


def test_what_tenants_used_is_shown_by_name_and_by_day(run: Run, platform: Platform) -> None:  # noqa: F811
    with platform.database.write() as tx:
        rows = [
            UsageRow("shop", "2026-03-01", Amounts(1_200, 2_400, 0, 0.25)),
            UsageRow("shop", "2026-03-02", Amounts(1, 2, 3, 1.0)),
            UsageRow("web", "2026-03-02", Amounts(7, 7)),
        ]
        usage.put_many(tx, {"life": rows})
    march = ("--first", "2026-03-01", "--last", "2026-03-31")
    assert [line.split() for line in run("usage", *march).out.splitlines()] == [
        ["tenant", "requests", "rows", "tokens", "cost"],
        ["shop", "1,201", "2,402", "3", "1.25"],
        ["web", "7", "7", "0", "0"],
    ]
    assert [line.split()[-5:] for line in run("usage", "shop", *march).out.splitlines()[1:]] == [
        ["2026-03-01", "1,200", "2,400", "0", "0.25"],
        ["2026-03-02", "1", "2", "3", "1"],
        ["total", "1,201", "2,402", "3", "1.25"],
    ]
    assert [item["tenant"] for item in json.loads(run("usage", "--json", *march).out)["items"]] == ["shop", "web"]
    assert json.loads(run("usage", "shop", "--json", *march).out)["total"]["rows"] == 2_402
    refused = run("usage", "--first", "yesterday")
    assert (refused.code, "expected YYYY-MM-DD" in refused.err) == (1, True)
