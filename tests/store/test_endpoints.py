"""Endpoints and rollouts over both databases: applied, changed, commanded, deleted, each with its ledger entry."""

import msgspec
import pytest

from hyperion.schema.errors import Conflict, ModelRefused, NotFound
from hyperion.schema.resource import Endpoint, EndpointSpec, Metadata, Replicas, Rollout, Step
from hyperion.store import endpoints, ledger, rollouts
from hyperion.store.database import Database
from tests.store.places import Place

ENDPOINT = Endpoint(
    Metadata("fraud", {"team": "risk"}),
    EndpointSpec("fraud@champion", replicas=Replicas(2), rollout=Rollout(steps=(1.0, Step(pause=True), 50.0))),
)


def apply(database: Database, endpoint: Endpoint = ENDPOINT) -> endpoints.EndpointRow:
    with database.write() as tx:
        return endpoints.put(tx, endpoint, actor="ann")[0]


def named(name: str) -> Endpoint:
    return Endpoint(Metadata(name), EndpointSpec("fraud@1"))


def kinds(database: Database) -> list[str]:
    return [entry.kind for entry in ledger.entries(database)]


def test_what_was_applied_is_there_and_applying_it_again_changes_nothing(place: Place) -> None:
    database = place.open()
    with database.write() as tx:
        row, changed = endpoints.put(tx, ENDPOINT, actor="ann", reason="new")
        assert (row.generation, changed, row.deleting) == (1, True, False)
        assert endpoints.get(tx, "fraud") == row
        assert endpoints.get(tx, "fraud").resource == ENDPOINT  # type: ignore[union-attr]
        assert endpoints.put(tx, ENDPOINT, actor="bob") == (row, False)
        assert endpoints.get(tx, "other") is None
    (entry,) = ledger.entries(database)
    assert (entry.kind, entry.subject, entry.actor, entry.reason) == ("endpoint.apply", "fraud", "ann", "new")
    assert (entry.before, entry.after) == ("", ledger.digest_of(ENDPOINT))


def test_the_generation_grows_with_the_spec_and_not_with_labels(place: Place) -> None:
    database = place.open()
    first = apply(database)
    labelled = apply(database, msgspec.structs.replace(ENDPOINT, metadata=Metadata("fraud")))
    other = apply(database, named("fraud"))
    assert [row.generation for row in (first, labelled, other)] == [1, 1, 2]
    assert first.created_at == other.created_at < other.updated_at
    entries = ledger.entries(database)
    assert [entry.before for entry in entries[1:]] == [entry.after for entry in entries[:-1]]


def test_endpoints_are_listed_by_name_in_pages(place: Place) -> None:
    database = place.open()
    for name in ("b", "A", "c", "a"):
        apply(database, named(name))
    with database.read() as tx:
        assert [row.name for row in endpoints.list_(tx)] == ["A", "a", "b", "c"]
        assert [row.name for row in endpoints.list_(tx, after="a", limit=1)] == ["b"]


def test_a_name_that_cannot_be_is_refused(place: Place) -> None:
    with pytest.raises(ModelRefused, match=r"metadata\.name"):
        apply(place.open(), named("a/b"))


def test_an_endpoint_is_marked_then_purged_with_its_rollout_and_its_commands(place: Place) -> None:
    database = place.open()
    apply(database)
    with database.write() as tx:
        rollouts.put(tx, "fraud", "r1", "canary", b"{}", expected_revision=0)
        command = rollouts.push_command(tx, "fraud", "abort", actor="ann")
        with pytest.raises(Conflict, match="not being deleted"):
            endpoints.purge(tx, "fraud")
        assert endpoints.delete(tx, "fraud", actor="ann", reason="old")
        assert not endpoints.delete(tx, "fraud", actor="ann")
        assert [row.deleting for row in endpoints.list_(tx)] == [True]
    with pytest.raises(Conflict, match="is being deleted"):
        apply(database)
    with database.write() as tx:
        assert endpoints.purge(tx, "fraud")
        assert not endpoints.purge(tx, "fraud")
        assert (endpoints.list_(tx), rollouts.list_(tx), rollouts.commands(tx)) == ([], [], [])
        assert rollouts.outcome_of(tx, command) == "the endpoint was deleted"
        assert len(rollouts.history(tx, "fraud")) == 1
    with pytest.raises(NotFound, match="no endpoint 'fraud'"), database.write() as tx:
        endpoints.delete(tx, "fraud", actor="ann")
    assert kinds(database) == ["endpoint.apply", "rollout.command", "endpoint.delete", "endpoint.purge"]
    assert apply(database).generation == 1


def test_a_rollout_is_only_written_on_the_revision_that_it_was_decided_on(place: Place) -> None:
    database = place.open()
    with database.write() as tx:
        assert rollouts.get(tx, "fraud") is None
        assert rollouts.put(tx, "fraud", "r1", "canary", b'{"w":"\xc3\xa9"}', expected_revision=0) == 1
        for stale in (0, 2):
            with pytest.raises(Conflict, match="revision 1"):
                rollouts.put(tx, "fraud", "r1", "halted", b"{}", expected_revision=stale)
        row = rollouts.get(tx, "fraud")
        assert row == rollouts.RolloutRow("fraud", "r1", 1, "canary", b'{"w":"\xc3\xa9"}', row.updated_at)  # type: ignore[union-attr]
        assert rollouts.put(tx, "fraud", "r1", "halted", b"{}", expected_revision=1) == 2
        assert rollouts.put(tx, "other", "r1", "idle", b"{}", expected_revision=0) == 1
        assert [(row.endpoint, row.revision) for row in rollouts.list_(tx)] == [("fraud", 2), ("other", 1)]


def test_past_rollouts_are_kept_as_they_ended(place: Place) -> None:
    database = place.open()
    steps = [("", "idle"), ("r1", "canary"), ("r1", "promoted"), ("r2", "canary"), ("r2", "halted"), ("r3", "shadow")]
    with database.write() as tx:
        for revision, (rollout_id, state) in enumerate(steps):
            rollouts.put(tx, "fraud", rollout_id, state, b"{}", expected_revision=revision)
        past = [(row.rollout_id, row.state, row.revision) for row in rollouts.history(tx, "fraud")]
        assert past == [("r3", "shadow", 6), ("r2", "halted", 5), ("r1", "promoted", 3)]
        assert len(rollouts.history(tx, "fraud", limit=1)) == 1
        assert rollouts.history(tx, "other") == []


def test_commands_wait_in_order_and_are_answered_once(place: Place) -> None:
    database = place.open()
    apply(database)
    apply(database, named("other"))
    with database.write() as tx:
        first = rollouts.push_command(tx, "fraud", "pause", actor="ann", reason="lunch")
        second = rollouts.push_command(tx, "other", "promote", actor="bob", argument="50")
        waiting = rollouts.commands(tx)
        assert [(row.id, row.endpoint, row.verb, row.argument) for row in waiting] == [
            (first, "fraud", "pause", ""),
            (second, "other", "promote", "50"),
        ]
        assert (waiting[0].actor, waiting[0].reason) == ("ann", "lunch")
        assert [row.id for row in rollouts.commands(tx, "other")] == [second]
        assert rollouts.outcome_of(tx, first) is None
        assert rollouts.done(tx, first, "done")
        assert not rollouts.done(tx, first, "again")
        assert rollouts.outcome_of(tx, first) == "done"
        assert [row.id for row in rollouts.commands(tx)] == [second]
        with pytest.raises(NotFound, match="no command 99"):
            rollouts.outcome_of(tx, 99)
        with pytest.raises(NotFound, match="no endpoint 'gone'"):
            rollouts.push_command(tx, "gone", "abort", actor="ann")
    assert kinds(database)[2:] == ["rollout.command"] * 2
