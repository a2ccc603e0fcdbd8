"""The ledger over both databases: what was appended is there, in order, and can be proved."""

import math

import msgspec
import pytest

from hyperion.schema.errors import InvalidConfig, NotFound
from hyperion.schema.release import Track
from hyperion.store import ledger, merkle
from hyperion.store.checkpoint import Signer, Verifier
from hyperion.store.database import Database
from tests.store.places import Place


def fill(database: Database, count: int) -> None:
    with database.write() as tx:
        for number in range(count):
            kind = ("model.push", "rollout.step", "rollout.halted")[number % 3]
            ledger.append(tx, kind, f"s{number % 2}", actor="ann", reason="why", detail={"number": number})


def hashes(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def test_an_entry_is_what_was_appended(place: Place) -> None:
    database = place.open()
    detail = {"é": [1, 2.5, None, True], "track": Track("2", 0.05), "big": 2**53 + 1, "tiny": 5e-324}
    with database.write() as tx:
        assert ledger.append(tx, "a.b", "s", actor="ann", reason="ü\n", before="x", after="y", detail=detail) == 0
    expected = {"é": [1, 2.5, None, True], "track": {"version": "2", "share": 0.05}, "big": 2**53 + 1, "tiny": 5e-324}
    found = ledger.entries(database)[0]
    assert msgspec.structs.replace(found, leaf="") == ledger.Entry(
        0, 1001.0, "a.b", "s", "ann", "ü\n", "x", "y", expected, ""
    )
    with database.read() as tx:
        assert ledger.entry(tx, 0) == found
        with pytest.raises(NotFound, match="no entry 1"):
            ledger.entry(tx, 1)


def test_a_leaf_is_the_canonical_json_of_its_entry(place: Place) -> None:
    """Spelled out, so that a verifier in another language can be held against it."""
    database = place.open()
    with database.write() as tx:
        ledger.append(tx, "a.b", "s", actor="ann", reason='"\\\n\x01', detail={"b": 1.0, "B": 1e30, "a": "é"})
    leaf = (
        r'{"actor":"ann","after":"","before":"","detail":{"B":1e+30,"a":"é","b":1.0},"kind":"a.b",'
        r'"reason":"\"\\\n\u0001","seq":0,"subject":"s","time":1001.0}'
    )
    assert ledger.entries(database)[0].leaf == merkle.leaf_hash(leaf.encode()).hex()


def test_what_neither_json_nor_a_database_can_hold_is_written_as_text(place: Place) -> None:
    database = place.open()
    with database.write() as tx:
        detail = {"e": math.inf, "n": [math.nan, -math.inf], "half": "\ud800", "zero": "\0"}
        ledger.append(tx, "a.b", "s\0", actor="\ud800", detail=detail)
    entry = ledger.entries(database)[0]
    assert entry.detail == {"e": "Infinity", "n": ["NaN", "-Infinity"], "half": "?", "zero": "\0"}
    assert (entry.subject, entry.actor) == ("s\ufffd", "?")
    with database.read() as tx:
        assert ledger.verify(tx).ok


def test_entries_come_in_pages_and_by_kind_and_subject(place: Place) -> None:
    database = place.open()
    fill(database, 12)

    def seqs(**wanted: object) -> list[int]:
        return [entry.seq for entry in ledger.entries(database, **wanted)]  # type: ignore[arg-type]

    assert seqs() == list(range(12))
    assert seqs(limit=3) == [0, 1, 2]
    assert seqs(after=2, limit=3) == [3, 4, 5]
    assert seqs(subject="s1", limit=3) == [1, 3, 5]
    assert seqs(kind="rollout.step") == [1, 4, 7, 10]
    assert seqs(kind="rollout.") == [1, 2, 4, 5, 7, 8, 10, 11]
    assert seqs(kind="rollout.", subject="s0", after=4) == [8, 10]
    assert seqs(newest=True, limit=3) == [11, 10, 9]
    assert seqs(newest=True, limit=3, after=9, kind="model.push") == [6, 3, 0]
    assert seqs(limit=0) == seqs(limit=-1) == []


def test_every_entry_is_proved_to_be_in_the_newest_and_in_older_checkpoints(place: Place) -> None:
    database = place.open()
    roots: dict[int, bytes] = {}
    for _ in range(21):
        fill(database, 1)
        with database.read() as tx:
            size, root = Verifier(ledger.public_key(tx)).open(ledger.checkpoint(tx))
        roots[size] = root
    assert sorted(roots) == list(range(1, 22))
    with database.read() as tx:
        for size in (1, 2, 7, 16, 21):
            for seq in range(size):
                leaf = bytes.fromhex(ledger.entry(tx, seq).leaf)
                proof = hashes(ledger.inclusion_proof(tx, seq, size))
                assert merkle.verify_inclusion(leaf, seq, size, proof, roots[size])
            proof = hashes(ledger.consistency_proof(tx, size))
            assert merkle.verify_consistency(size, 21, roots[size], roots[21], proof)
        assert ledger.inclusion_proof(tx, 3) == ledger.inclusion_proof(tx, 3, 21)
        for bad in ((21, 0), (3, 3), (-1, 0), (0, 22)):
            with pytest.raises(NotFound):
                ledger.inclusion_proof(tx, *bad)
        for bad in ((0, 5), (6, 5), (5, 22), (-1, 5)):
            with pytest.raises(NotFound):
                ledger.consistency_proof(tx, *bad)


def test_the_ledger_is_checked_with_any_key_and_against_checkpoints_kept_outside(place: Place) -> None:
    database = place.open()
    fill(database, 5)
    with database.read() as tx:
        old, key = ledger.checkpoint(tx), ledger.public_key(tx)
    fill(database, 5)
    with database.read() as tx:
        assert ledger.verify(tx) == ledger.verify(tx, key, old)
        assert ledger.verify(tx).ok
        assert ledger.verify(tx).size == ledger.size(tx) == 10
        other = ledger.verify(tx, Signer(key.split("+")[0], b"\1" * 32).vkey)
        assert (other.ok, other.bad_entry) == (False, 0)
        with pytest.raises(InvalidConfig, match="verifier key"):
            ledger.verify(tx, "nonsense")
        with pytest.raises(InvalidConfig, match="checkpoint"):
            ledger.verify(tx, key, "nonsense")


def test_a_ledger_longer_than_a_page_is_checked_whole(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PAGE_MAX", 7)
    database = place.open()
    for count in (6, 1, 1, 13):
        fill(database, count)
        with database.read() as tx:
            assert ledger.verify(tx).ok
            assert ledger.verify(tx).size == ledger.size(tx)


@pytest.mark.parametrize(
    ("statement", "bad_entry"),
    [
        ("UPDATE ledger_entry SET actor = 'mallory' WHERE seq = 3", 3),
        ("DELETE FROM ledger_entry WHERE seq = 3", 3),
        ("DELETE FROM ledger_node WHERE seq = 3 AND level = 2", 3),
        ("DELETE FROM ledger_entry WHERE seq > 5", 6),
        ("UPDATE ledger_state SET checkpoint = replace(checkpoint, 'hyperion', 'hyperiom')", None),
        ("DELETE FROM ledger_state", None),
    ],
)
def test_what_is_changed_behind_its_back_is_found(place: Place, statement: str, bad_entry: int | None) -> None:
    database = place.open()
    fill(database, 8)
    place.execute(statement)
    with database.read() as tx:
        findings = ledger.verify(tx)
    assert (findings.ok, findings.bad_entry) == (False, bad_entry)
    assert findings.problem


def test_without_the_key_the_ledger_is_read_and_checked_but_not_written(place: Place) -> None:
    fill(place.open(), 3)
    if not place.url:
        return  # SQLite's key is beside the file
    database = Database(place.url)
    with database.read() as tx:
        assert ledger.verify(tx, ledger.public_key(tx)).ok
        with pytest.raises(InvalidConfig, match="give the public key"):
            ledger.verify(tx)
    with pytest.raises(InvalidConfig, match=r"no ledger\.key"):
        fill(database, 1)
    database.close()


def test_a_commitment_needs_key_and_data() -> None:
    commitment = ledger.commit_to(b"key", "ann@example.org")
    assert commitment == ledger.commit_to(b"key", "ann@example.org")
    assert commitment.startswith("hmac-sha256:")
    assert commitment not in (ledger.commit_to(b"kez", "ann@example.org"), ledger.commit_to(b"key", "ann@example.com"))


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert ledger.digest_of({"a": 1, "b": 2.0}) == ledger.digest_of({"b": 2.0, "a": 1})
    assert ledger.digest_of({"a": 1}) != ledger.digest_of({"a": 1.0})
    assert ledger.digest_of(None) == ""
