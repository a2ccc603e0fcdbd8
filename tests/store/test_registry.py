"""The registry over both databases: versions never change, aliases move, references mean one version."""

import msgspec
import pytest

from hyperion.schema.errors import Conflict, ModelRefused, UnknownModel
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.registry import FileEntry, Lineage, Manifest
from hyperion.store import ledger, registry
from hyperion.store.database import Database
from tests.store.places import Place

MANIFEST = Manifest(
    "fraud",
    "1",
    "sha256:aa",
    "onnx",
    (FileEntry("m.onnx", "a" * 64, 10), FileEntry("vocab/é.txt", "b" * 64, 5)),
    signature=Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "INT64", (-1,)),)),
    metrics={"auc": 0.93},
    tags={"team": "risk"},
    lineage=Lineage(git_commit="c0ffee", data_version="md5:1", source={"run": "7"}),
    card="# Fraud\n",
    created_by="ann",
    created_at=5.0,
)


def version(model: str, number: str, **changes: object) -> Manifest:
    return msgspec.structs.replace(MANIFEST, model=model, version=number, **changes)


def push(database: Database, *manifests: Manifest) -> None:
    with database.write() as tx:
        for manifest in manifests:
            assert registry.put_version(tx, manifest, actor="ann")


def test_a_version_comes_back_as_it_was_pushed_and_is_in_the_ledger(place: Place) -> None:
    database = place.open()
    with database.write() as tx:
        assert registry.put_version(tx, MANIFEST, actor="ann", reason="first", signature="{}")
        assert registry.get_manifest(tx, "fraud", "1") == MANIFEST
        assert registry.get_signature(tx, "fraud", "1") == "{}"
        assert registry.get_manifest(tx, "fraud", "2") is None
        assert registry.get_signature(tx, "fraud", "2") == ""
    (entry,) = ledger.entries(database)
    assert (entry.kind, entry.subject, entry.actor, entry.reason) == ("model.push", "fraud@1", "ann", "first")
    assert (entry.before, entry.after) == ("", ledger.digest_of(MANIFEST))
    assert entry.detail["digest"] == "sha256:aa"
    assert entry.detail["size_bytes"] == 15
    assert entry.detail["lineage"]["git_commit"] == "c0ffee"


def test_pushing_the_same_again_changes_nothing(place: Place) -> None:
    database = place.open()
    push(database, MANIFEST)
    with database.write() as tx:
        assert not registry.put_version(tx, version("fraud", "1", created_at=9.0, created_by="bob"), actor="bob")
        assert registry.get_manifest(tx, "fraud", "1") == MANIFEST
        assert ledger.size(tx) == 1


@pytest.mark.parametrize(
    "change", [{"digest": "sha256:bb"}, {"metrics": {"auc": 0.99}}, {"card": ""}, {"files": ()}, {"owner": "bob"}]
)
def test_a_version_never_changes(place: Place, change: dict[str, object]) -> None:
    database = place.open()
    push(database, MANIFEST)
    with pytest.raises(Conflict, match=r"fraud@1 is there already with .*; versions never"), database.write() as tx:
        registry.put_version(tx, version("fraud", "1", **change), actor="bob")
    with database.read() as tx:
        assert registry.get_manifest(tx, "fraud", "1") == MANIFEST
        assert ledger.size(tx) == 1


def test_a_version_may_be_signed_later(place: Place) -> None:
    database = place.open()
    push(database, MANIFEST)
    for _ in range(2):
        with database.write() as tx:
            assert not registry.put_version(tx, MANIFEST, actor="bob", signature="{sig}")
            assert registry.get_signature(tx, "fraud", "1") == "{sig}"
    assert [entry.kind for entry in ledger.entries(database)] == ["model.push", "model.sign"]


@pytest.mark.parametrize(("model", "number"), [("../x", "1"), ("fraud", "a@b"), ("", "1"), ("fraud", "")])
def test_names_that_cannot_be_are_refused(place: Place, model: str, number: str) -> None:
    database = place.open()
    with pytest.raises(ModelRefused), database.write() as tx:
        registry.put_version(tx, version(model, number), actor="ann")


def test_the_next_version_is_one_more_than_the_greatest_number(place: Place) -> None:
    database = place.open()
    with database.read() as tx:
        assert registry.next_version(tx, "fraud") == "1"
    push(database, *(version("fraud", number) for number in ("2", "10", "9", "2024-01", "v77")))
    with database.read() as tx:
        assert registry.next_version(tx, "fraud") == "11"
        assert registry.next_version(tx, "other") == "1"


def test_an_alias_moves_and_every_move_is_in_the_ledger(place: Place) -> None:
    database = place.open()
    push(database, MANIFEST, version("fraud", "2"))
    with database.write() as tx:
        assert registry.set_alias(tx, "fraud", "champion", "1", actor="ann")
        assert not registry.set_alias(tx, "fraud", "champion", "1", actor="ann")
        assert registry.set_alias(tx, "fraud", "champion", "2", actor="bob", reason="better")
        assert registry.aliases(tx, "fraud") == {"champion": "2"}
        assert registry.drop_alias(tx, "fraud", "champion", actor="ann")
        assert not registry.drop_alias(tx, "fraud", "champion", actor="ann")
        assert registry.aliases(tx, "fraud") == {}
    moves = ledger.entries(database, kind="model.alias", subject="fraud@champion")
    assert [(move.detail["from"], move.detail["to"]) for move in moves] == [("", "1"), ("1", "2"), ("2", "")]
    assert moves[0].before == moves[2].after == ""
    assert moves[0].after == moves[1].before != ""


def test_an_alias_that_could_be_a_version_is_refused(place: Place) -> None:
    database = place.open()
    push(database, MANIFEST, version("fraud", "2024-01"))
    for alias in ("7", "2024-01", "a b", "", "a@b"):
        with pytest.raises(ModelRefused, match="alias"), database.write() as tx:
            registry.set_alias(tx, "fraud", alias, "1", actor="ann")
    with database.write() as tx:
        registry.set_alias(tx, "fraud", "next", "1", actor="ann")
    with pytest.raises(Conflict, match="is an alias"):
        push(database, version("fraud", "next"))
    with pytest.raises(UnknownModel, match="no version or alias '3'"), database.write() as tx:
        registry.set_alias(tx, "fraud", "champion", "3", actor="ann")


def test_a_reference_means_a_version_an_alias_or_the_newest(place: Place) -> None:
    database = place.open()
    push(database, MANIFEST, version("fraud", "3"), version("fraud", "2"), version("fraud2", "1"))
    with database.write() as tx:
        registry.set_alias(tx, "fraud", "champion", "3", actor="ann")
    with database.read() as tx:
        found = [registry.resolve(tx, reference).version for reference in ("fraud@1", "fraud@champion", "fraud")]
        assert found == ["1", "3", "2"]
        for reference, message in [
            ("frad", "no model 'frad' is registered; did you mean fraud"),
            ("fraud@champoin", "did you mean champion"),
            ("fraud@zzz", "it has champion, 2, 3, 1"),
            ("fraud@", "no version or alias|is registered"),
            ("", "there are fraud, fraud2"),
        ]:
            with pytest.raises(UnknownModel, match=message):
                registry.resolve(tx, reference)


def test_an_empty_registry_says_how_to_push(place: Place) -> None:
    with place.open().read() as tx, pytest.raises(UnknownModel, match="hyperion model push"):
        registry.resolve(tx, "fraud@1")


def test_models_and_versions_are_listed_in_pages(place: Place) -> None:
    database = place.open()
    push(database, *(version(model, number) for model in ("b", "B", "a", "c") for number in ("1", "2")))
    with database.write() as tx:
        registry.set_alias(tx, "b", "champion", "1", actor="ann")
        assert [row.name for row in registry.list_models(tx)] == ["B", "a", "b", "c"]
        assert [row.name for row in registry.list_models(tx, after="a", limit=1)] == ["b"]
        assert registry.list_models(tx, after="a", limit=1)[0] == registry.ModelRow("b", 2, "2", {"champion": "1"}, 5.0)
        assert registry.list_models(tx, after="c") == []
        rows = registry.list_versions(tx, "b")
        assert [(row.version, row.number, row.aliases) for row in rows] == [("2", 2, ()), ("1", 1, ("champion",))]
        assert (rows[0].digest, rows[0].format, rows[0].signed) == ("sha256:aa", "onnx", False)
        with pytest.raises(UnknownModel, match="did you mean"):
            registry.list_versions(tx, "bb")
