"""Tokens and sampled predictions over both databases."""

import hashlib

import pytest

from hyperion.schema.errors import Conflict, NotFound
from hyperion.schema.protect import KeyRecord
from hyperion.schema.release import PredictionRow
from hyperion.store import ledger, predictions, tokens
from tests.store.places import Clock, Place


def prediction(name: str, time: float = 1.0, **changes: object) -> PredictionRow:
    values = {"endpoint": "e", "version": "1", "digest": "d", "epoch": 2, "code": "ok", "latency_ms": 1.5, **changes}
    return PredictionRow(id=name, time=time, **values)  # type: ignore[arg-type]


def test_a_token_is_found_by_its_secret_alone(place: Place) -> None:
    database = place.open()
    with database.write() as tx:
        row, secret = tokens.create(tx, "acme", ["read", "infer", "read"], actor="ann")
        assert secret.startswith("hyp_")
        assert len(secret) > 40
        assert row.scopes == ("infer", "read")
        assert tokens.find(tx, secret) == row
        for wrong in ("", "hyp_", secret[:-1], secret + "a", secret.upper(), row.id, "hyp_\ud800", "hyp_" + "a" * 9999):
            assert tokens.find(tx, wrong) is None
        assert tokens.list_(tx) == [row]


def test_the_secret_is_nowhere_in_the_database(place: Place) -> None:
    database = place.open()
    with database.write() as tx:
        row, secret = tokens.create(tx, "acme", ["infer"], actor="ann")
        stored = [str(tx.exec_driver_sql(f"SELECT * FROM {table}").all()) for table in ("token", "ledger_entry")]
    assert all(secret not in text and secret[4:] not in text and row.id in text for text in stored)


def test_a_token_ends_when_it_expires_or_is_revoked(place: Place) -> None:
    clock = Clock()
    database = place.open(clock)
    with database.write() as tx:
        short, short_secret = tokens.create(tx, "acme", ["infer"], clock.now + 100, actor="ann")
        long, long_secret = tokens.create(tx, "acme", ["infer"], actor="ann")
        assert tokens.find(tx, short_secret) == short
        clock.now += 200
        assert tokens.find(tx, short_secret) is None
        assert tokens.find(tx, long_secret) == long
        assert tokens.revoke(tx, long.id, actor="bob", reason="leaked")
        assert not tokens.revoke(tx, long.id, actor="bob")
        assert tokens.find(tx, long_secret) is None
        with pytest.raises(NotFound, match="no key 'gone'"):
            tokens.revoke(tx, "gone", actor="bob")
        assert {row.id: row.revoked_at is not None for row in tokens.list_(tx)} == {short.id: False, long.id: True}
        rows = tokens.list_(tx)
        assert tokens.list_(tx, after=rows[0].id) == rows[1:]
    entries = ledger.entries(database)
    assert [entry.kind for entry in entries] == ["token.create", "token.create", "token.revoke"]
    assert (entries[2].subject, entries[2].before, entries[2].reason) == (long.id, entries[1].after, "leaked")


def test_gateways_are_told_of_live_tokens_by_their_hashes(place: Place) -> None:
    clock = Clock()
    database = place.open(clock)
    with database.write() as tx:
        forever, secret = tokens.create(tx, "acme", ["infer", "deploy"], actor="ann")
        short, _ = tokens.create(tx, "acme", ["infer"], clock.now + 100, actor="ann")
        gone, _ = tokens.create(tx, "other", ["infer"], actor="ann")
        digest = hashlib.sha256(secret.encode()).hexdigest()
        records = {record.id: record for record in tokens.live(tx)}
        assert records[forever.id] == KeyRecord(forever.id, digest, "acme", ("deploy", "infer"), 0.0)
        assert records[short.id].expires_at == short.expires_at
        assert list(records) == sorted((forever.id, short.id, gone.id))
        assert tokens.count_live(tx) == {"acme": 2, "other": 1}
        tokens.revoke(tx, gone.id, actor="ann")
        clock.now += 200
        assert [record.id for record in tokens.live(tx)] == [forever.id]
        assert [row.id for row in tokens.live_of(tx, "acme")] == [forever.id]
        assert tokens.live_of(tx, "other") == []
        assert tokens.count_live(tx) == {"acme": 1}


def test_a_rotated_token_has_a_successor_and_ends_after_the_overlap(place: Place) -> None:
    clock = Clock()
    database = place.open(clock)
    with database.write() as tx:
        old, old_secret = tokens.create(tx, "acme", ["infer", "read"], clock.now + 1000, actor="ann")
        lifetime_s = old.expires_at - old.created_at  # type: ignore[operator]
        clock.now += 300
        new, secret, ending = tokens.rotate(tx, old.id, 60.0, actor="bob", reason="yearly")
        assert (new.tenant, new.scopes, new.created_by) == ("acme", ("infer", "read"), "bob")
        assert new.expires_at - new.created_at == pytest.approx(lifetime_s, abs=5)  # type: ignore[operator]
        assert ending.expires_at == pytest.approx(clock.now + 60, abs=5)
        assert tokens.find(tx, old_secret) == ending
        assert tokens.find(tx, secret) == new
        clock.now += 60
        assert tokens.find(tx, old_secret) is None
        assert tokens.find(tx, secret) == new
        with pytest.raises(Conflict, match="has expired and cannot be rotated"):
            tokens.rotate(tx, old.id, 60.0, actor="bob")
    created, made, rotated = ledger.entries(database)
    assert (made.kind, rotated.kind, rotated.subject) == ("token.create", "token.rotate", old.id)
    assert (rotated.before, rotated.detail["successor"], rotated.reason) == (created.after, new.id, "yearly")


def test_a_rotation_never_prolongs_a_token_and_refuses_one_that_was_revoked(place: Place) -> None:
    clock = Clock()
    database = place.open(clock)
    with database.write() as tx:
        short, _ = tokens.create(tx, "acme", ["infer"], clock.now + 50, actor="ann")
        assert tokens.rotate(tx, short.id, 900.0, actor="ann")[2].expires_at == short.expires_at
        forever, secret = tokens.create(tx, "acme", ["infer"], actor="ann")
        new, _, _ = tokens.rotate(tx, forever.id, 0.0, actor="ann")
        assert new.expires_at is None
        assert tokens.find(tx, secret) is None
        tokens.revoke(tx, new.id, actor="ann")
        with pytest.raises(Conflict, match=r"was revoked .* hyperion key create --tenant acme"):
            tokens.rotate(tx, new.id, 60.0, actor="ann")
        with pytest.raises(NotFound, match="no key 'gone'"):
            tokens.rotate(tx, "gone", 60.0, actor="ann")


def test_a_token_that_is_rotated_again_has_as_good_a_successor(place: Place) -> None:
    """Somebody has lost the secret of the first one."""
    clock = Clock()
    database = place.open(clock)
    with database.write() as tx:
        forever, _ = tokens.create(tx, "acme", ["infer"], actor="ann")
        year, _ = tokens.create(tx, "acme", ["infer"], clock.now + 1000, actor="ann")
        for old, lifetime_s in ((forever, None), (year, 1000)):
            for _ in range(2):
                clock.now += 10
                new, _, _ = tokens.rotate(tx, old.id, 60.0, actor="ann")
                lived = None if new.expires_at is None else new.expires_at - new.created_at
                assert lived == (lifetime_s if lifetime_s is None else pytest.approx(lifetime_s, abs=5))


def test_predictions_are_kept_found_and_forgotten(place: Place) -> None:
    database = place.open()
    rows = [prediction(f"p{number}", float(number)) for number in range(1200)]
    with database.write() as tx:
        predictions.put_many(tx, rows)
        predictions.put_many(tx, rows[:5])
        predictions.put_many(tx, [])
        assert predictions.get(tx, "p7") == rows[7]
        assert predictions.get(tx, "gone") is None
        assert predictions.prune(tx, 1000.0) == 1000
        assert predictions.get(tx, "p999") is None
        assert predictions.get(tx, "p1000") == rows[1000]


def test_the_answer_comes_before_the_shadow_and_the_newer_before_the_older(place: Place) -> None:
    """Callers choose the ids, so that one may come again."""
    database = place.open()
    shadow, old, new = prediction("p", 9.0, shadow=True), prediction("p", 1.0), prediction("p", 2.0, version="2")
    with database.write() as tx:
        predictions.put_many(tx, [shadow])
        assert predictions.get(tx, "p") == shadow
        predictions.put_many(tx, [new, old, shadow])
        assert predictions.get(tx, "p") == new
        predictions.put_many(tx, [old])
        assert predictions.get(tx, "p") == new
        predictions.put_many(tx, [prediction("a\0b")])
        assert predictions.get(tx, "a\ufffdb") is not None
