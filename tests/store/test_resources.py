"""Tenants and issuers over both databases: applied, changed, listed, deleted, each with its ledger entry; and the keys
of issuers, which have none."""

import msgspec
import pytest

from hyperion.schema.errors import InvalidResource, NotFound
from hyperion.schema.protect import Limits, Quotas
from hyperion.schema.resource import Issuer, IssuerSpec, Metadata, Tenant, TenantSpec
from hyperion.store import issuer_keys, ledger, resources
from hyperion.store.database import Database
from tests.store.places import Place

TENANT = Tenant(
    Metadata("acme", {"plan": "gold"}),
    TenantSpec(Limits(100.0, burst=200), quotas=Quotas(cost_per_month=9.5), priority=2, certificates=("acme.example",)),
)
ISSUER = Issuer(Metadata("corp"), IssuerSpec("https://id.example.com", "hyperion"))


def apply(database: Database, resource: Tenant | Issuer = TENANT) -> resources.ResourceRow[Tenant | Issuer]:
    with database.write() as tx:
        return resources.put(tx, resource, actor="ann")[0]


def named(name: str) -> Tenant:
    return Tenant(Metadata(name))


@pytest.mark.parametrize("resource", [TENANT, ISSUER], ids=lambda resource: resource.kind)
def test_what_was_applied_is_there_and_applying_it_again_changes_nothing(
    place: Place, resource: Tenant | Issuer
) -> None:
    database, name, word = place.open(), resource.metadata.name, resource.kind.lower()
    with database.write() as tx:
        row, changed = resources.put(tx, resource, actor="ann", reason="new")
        assert (row.generation, changed, row.resource) == (1, True, resource)
        assert resources.get(tx, type(resource), name) == row
        assert resources.put(tx, resource, actor="bob") == (row, False)
        assert resources.get(tx, type(resource), "other") is None
    (entry,) = ledger.entries(database)
    assert (entry.kind, entry.subject, entry.actor, entry.reason) == (f"{word}.apply", name, "ann", "new")
    assert (entry.before, entry.after) == ("", ledger.digest_of(resource))


def test_kinds_may_share_a_name(place: Place) -> None:
    database = place.open()
    apply(database, named("corp"))
    apply(database, ISSUER)
    with database.write() as tx:
        resources.delete(tx, Tenant, "corp", actor="ann")
        assert resources.get(tx, Tenant, "corp") is None
        assert resources.get(tx, Issuer, "corp").resource == ISSUER  # type: ignore[union-attr]


def test_the_generation_grows_with_the_spec_and_not_with_labels(place: Place) -> None:
    database = place.open()
    first = apply(database)
    labelled = apply(database, msgspec.structs.replace(TENANT, metadata=Metadata("acme")))
    other = apply(database, named("acme"))
    assert [row.generation for row in (first, labelled, other)] == [1, 1, 2]
    assert first.created_at == other.created_at < other.updated_at
    entries = ledger.entries(database)
    assert [entry.before for entry in entries[1:]] == [entry.after for entry in entries[:-1]]


def test_they_are_listed_by_name_in_pages(place: Place) -> None:
    database = place.open()
    for name in ("b", "A", "c", "a"):
        apply(database, named(name))
    apply(database, ISSUER)
    with database.read() as tx:
        assert [row.name for row in resources.list_(tx, Tenant)] == ["A", "a", "b", "c"]
        assert [row.name for row in resources.list_(tx, Tenant, after="a", limit=1)] == ["b"]
        assert [row.name for row in resources.all_of(tx, Tenant)] == ["A", "a", "b", "c"]


def test_what_is_deleted_is_gone_and_its_entries_stay(place: Place) -> None:
    database = place.open()
    apply(database)
    with database.write() as tx:
        resources.delete(tx, Tenant, "acme", actor="bob", reason="left")
    with pytest.raises(NotFound, match="there is no tenant 'acme'; hyperion get tenants"), database.write() as tx:
        resources.delete(tx, Tenant, "acme", actor="bob")
    first, second = ledger.entries(database)
    assert (second.kind, second.before, second.after, second.reason) == ("tenant.delete", first.after, "", "left")
    assert apply(database).generation == 1


def test_a_write_that_fails_leaves_neither_the_resource_nor_its_entry(place: Place) -> None:
    def fault(point: str) -> None:
        if point == "resource.put":
            raise OSError(point)

    with pytest.raises(OSError, match=r"resource\.put"):
        apply(place.open(fault=fault))
    database = place.open()
    with database.read() as tx:
        assert resources.all_of(tx, Tenant) == []
    assert ledger.entries(database) == []


def test_a_name_that_cannot_be_is_refused(place: Place) -> None:
    with pytest.raises(InvalidResource, match="name of a tenant"):
        apply(place.open(), named("a/b"))


def test_the_keys_of_an_issuer_are_replaced_as_a_whole_and_forgotten(place: Place) -> None:
    database = place.open()
    with database.write() as tx:
        first = issuer_keys.put(tx, "corp", "https://id", ({"kty": "RSA", "kid": "ü"},))
        issuer_keys.put(tx, "other", "https://other", ())
        assert issuer_keys.all_(tx)["corp"] == first
        second = issuer_keys.put(tx, "corp", "https://id", ({"kty": "EC"}, {"kty": "OKP"}))
        assert second.read_at > first.read_at
    with database.write() as tx:
        assert issuer_keys.all_(tx)["corp"] == second
        issuer_keys.forget(tx, "corp")
        issuer_keys.forget(tx, "gone")
        assert list(issuer_keys.all_(tx)) == ["other"]
    assert ledger.entries(database) == []
