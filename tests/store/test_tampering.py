"""Whatever is done to a ledger behind its back is found, and the first entry that is wrong is named."""

import base64
import json
import os
import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hyperion.store import ledger, merkle
from hyperion.store.audit import Audit, Findings, Progress, Record, Tail, Tampered, leaf_of
from hyperion.store.canonical import canonical
from hyperion.store.checkpoint import Signer, Verifier, note_of
from tests.store.places import Place

SIZE = 64
TAMPERINGS = int(os.environ.get("HYPERION_TAMPERINGS", "20000"))  # a hundred thousand take ten seconds
SIGNER = Signer("hyperion/ledger/ab", b"\7" * 32)
FORGER = Signer("hyperion/ledger/ab", b"\1" * 32)
AUDIT = Audit(Verifier(SIGNER.vkey))


# The number of entries that are as they were, the records, the tail, and the entry that has to be named.
Case = tuple[int, list[Record], Tail, int | None]
Kind = Callable[[random.Random], Case]


class Ledger:
    """A ledger in memory: records, the tail at each size, and how far the check is at each size."""

    def __init__(self, size: int, word: str = "") -> None:
        self.records: list[Record] = []
        self.progress = [Progress()]
        self.tails = [self._tail(Progress())]
        for seq in range(size):
            record = sealed(self.progress[-1], entry(seq, word), SIGNER)
            self.records.append(record)
            self.progress.append(AUDIT.step(self.progress[-1], record))
            self.tails.append(self._tail(self.progress[-1]))

    @property
    def tail(self) -> Tail:
        return self.tails[-1]

    def _tail(self, progress: Progress) -> Tail:
        root = merkle.root_of(progress.frontier)
        signature = progress.signature or SIGNER.sign(0, root)
        frontier = "".join(node.hex() for node in progress.frontier)
        return Tail(SIGNER.vkey, progress.size, frontier, note_of(SIGNER, progress.size, root, signature))


def entry(seq: int, word: str = "") -> Record:
    detail = {"epoch": seq, "e_value": 1.5 * seq, "word": f"é{word}", "list": [seq, None, True]}
    text = canonical(detail).decode()
    return Record(seq, 1000.0 + seq / 7, f"rollout.{seq % 3}", "fraud", "ann", "why", "", f"sha256:{seq}", text, "", "")


def sealed(progress: Progress, record: Record, key: Signer) -> Record:
    """The record with its hashes as they belong behind `progress`, signed with `key`."""
    leaf = merkle.leaf_hash(leaf_of(record, json.loads(record.detail)))
    frontier, nodes = merkle.push(progress.frontier, progress.size, leaf)
    signature = base64.b64encode(key.sign(progress.size + 1, merkle.root_of(frontier))).decode()
    return record._replace(leaf=leaf.hex(), signature=signature, nodes=tuple(node.hex() for node in nodes))


GOOD = Ledger(SIZE)
OTHER = Ledger(SIZE, "other")


# Made once: a signature takes longer than a check.
INSERTED = [sealed(progress, entry(at, "new"), FORGER) for at, progress in enumerate(GOOD.progress)]
REWRITTEN = [sealed(progress, entry(at, "changed"), FORGER) for at, progress in enumerate(GOOD.progress[:-1])]
ROOT = merkle.root_of(GOOD.progress[-1].frontier)
FORGED = [note_of(FORGER, SIZE, ROOT, FORGER.sign(SIZE, ROOT))] + [
    note_of(SIGNER, size, ROOT, SIGNER.sign(size + 1, ROOT)) for size in range(SIZE + 1)
]


def check_from(start: int, records: Sequence[Record], tail: Tail) -> tuple[int | None, str]:
    """The check of `records`, of which the first `start` are known to be good. Returns what it found."""
    progress = GOOD.progress[start]
    try:
        for record in records[start:]:
            progress = AUDIT.step(progress, record)
        AUDIT.finish(progress, tail)
    except Tampered as found:
        return found.entry, found.problem
    return None, ""


def flip_text(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text))
    other = chance.choice([letter for letter in 'aA0{}",:é \n' if letter != text[at]])
    return text[:at] + other + text[at + 1 :]


def flip(chance: random.Random) -> Case:
    """One value of one entry is another."""
    at = chance.randrange(SIZE)
    old = GOOD.records[at]
    field = chance.choice([name for name in Record._fields if name != "nodes" or old.nodes])
    value = getattr(old, field)
    if isinstance(value, int):
        new: object = chance.choice([value + chance.randint(1, 99), -value - 1, float(value), str(value)])
    elif isinstance(value, float):
        new = chance.choice([value + 2.0 ** -chance.randint(1, 20), -value, int(value), float("nan"), float("inf")])
    elif isinstance(value, tuple):
        index = chance.randrange(len(value))
        new = (*value[:index], flip_text(value[index], chance), *value[index + 1 :])
    else:
        new = flip_text(value, chance) if value else chance.choice([" ", "x", "\0"])
    return at, [*GOOD.records[:at], old._replace(**{field: new}), *GOOD.records[at + 1 :]], GOOD.tail, at


def drop(chance: random.Random) -> Case:
    """Some entries in a row are gone; in half of the cases the others are numbered anew."""
    at = chance.randrange(SIZE)
    rest = GOOD.records[at + chance.randint(1, 5) :]
    if chance.random() < 0.5:
        rest = [record._replace(seq=at + index) for index, record in enumerate(rest)]
    return at, [*GOOD.records[:at], *rest], GOOD.tail, at


def reorder(chance: random.Random) -> Case:
    """Two entries have changed places; in half of the cases their numbers have not."""
    first, second = sorted(chance.sample(range(SIZE), 2))
    records = list(GOOD.records)
    records[first], records[second] = records[second], records[first]
    if chance.random() < 0.5:
        records[first] = records[first]._replace(seq=first)
        records[second] = records[second]._replace(seq=second)
    return first, records, GOOD.tail, first


def insert(chance: random.Random) -> Case:
    """An entry was put in, well made but for the signature, and the others were numbered anew, and signed as well."""
    at = chance.randrange(SIZE + 1)
    made = INSERTED[at]
    rest = [record._replace(seq=record.seq + 1) for record in GOOD.records[at:]]
    return at, [*GOOD.records[:at], made, *rest], GOOD.tail, at


def rewrite(chance: random.Random) -> Case:
    """An entry was changed, and every hash of it made to fit: by another key, or with a signature from elsewhere."""
    at = chance.randrange(SIZE)
    made = REWRITTEN[at]
    stolen = chance.choice([GOOD.records[at], OTHER.records[at], GOOD.records[at - 1]]).signature
    if chance.random() < 0.5:
        made = made._replace(signature=stolen)
    return at, [*GOOD.records[:at], made, *GOOD.records[at + 1 :]], GOOD.tail, at


def truncate(chance: random.Random) -> Case:
    """The last entries are gone, and a part of what tells of them was set back, too."""
    size = chance.randrange(SIZE)
    old, now = GOOD.tails[size], GOOD.tail
    tail = now
    if chance.random() < 0.5:  # all but the checkpoint: to forge one of that size is `forge`
        tail = Tail(old.vkey, old.size, old.frontier, now.checkpoint)
    return size, GOOD.records[:size], tail, size


def forge(chance: random.Random) -> Case:
    """The entries are as they were; the checkpoint, the key, the size or the frontier is not."""
    tail = GOOD.tail
    notes = (
        FORGED[0],
        chance.choice(FORGED),
        GOOD.tails[chance.randrange(SIZE)].checkpoint,
        OTHER.tails[chance.randint(0, SIZE)].checkpoint,
        flip_text(tail.checkpoint, chance),
    )
    match chance.randrange(4):
        case 0:
            tail = tail._replace(vkey=chance.choice([FORGER.vkey, flip_text(tail.vkey, chance)]))
        case 1:
            tail = tail._replace(frontier=chance.choice([flip_text(tail.frontier, chance), tail.frontier * 2, ""]))
        case _:
            tail = tail._replace(checkpoint=chance.choice(notes))
    return SIZE, GOOD.records, tail, None


KINDS = (flip, drop, reorder, insert, rewrite, truncate, forge)
# Those that have to be told from a signature alone are seldom here: that is what takes the time.
MANY = [*KINDS, *(flip, drop, reorder, truncate, forge) * 2, flip]


def test_a_ledger_that_nobody_touched_is_good() -> None:
    assert AUDIT.run(GOOD.records, GOOD.tail) == Findings(True, SIZE, merkle.root_of(GOOD.progress[-1].frontier).hex())
    assert AUDIT.run([], GOOD.tails[0]) == Findings(True, 0, merkle.EMPTY_ROOT.hex())


def test_random_tamperings_are_all_found_at_their_first_entry() -> None:
    chance = random.Random(20261121)
    missed = []
    for number in range(TAMPERINGS):
        kind = MANY[number % len(MANY)]
        start, records, tail, first = kind(chance)
        found, problem = check_from(start, records, tail)
        if not problem or found != first:
            missed.append((kind.__name__, first, found, problem))
    assert not missed, missed[:5]


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_from_the_start_says_the_same(
    kind: Callable[[random.Random], tuple[int, list[Record], Tail, int]],
) -> None:
    chance = random.Random(7)
    for _ in range(15):
        start, records, tail, first = kind(chance)
        findings = AUDIT.run(records, tail)
        assert (findings.ok, findings.bad_entry) == (False, first)
        assert (findings.bad_entry, findings.problem) == check_from(start, records, tail)


def test_only_a_checkpoint_kept_outside_finds_a_tail_that_was_cut_off_without_a_trace() -> None:
    cut = GOOD.records[:40], GOOD.tails[40]
    assert AUDIT.run(*cut).ok
    findings = Audit(SIGNER, GOOD.tails[41].checkpoint).run(*cut)
    assert (findings.ok, findings.bad_entry) == (False, 40)
    assert Audit(SIGNER, GOOD.tails[40].checkpoint).run(*cut).ok
    assert Audit(SIGNER, GOOD.tails[13].checkpoint).run(*cut).ok


def test_a_history_rewritten_with_the_key_is_found_with_a_checkpoint_kept_outside() -> None:
    findings = Audit(SIGNER, GOOD.tails[40].checkpoint).run(OTHER.records, OTHER.tail)
    assert not findings.ok
    assert "another history" in findings.problem


SQL = (
    "UPDATE ledger_entry SET reason = reason || 'x' WHERE seq = {seq}",
    "UPDATE ledger_entry SET reason = CAST(reason AS BLOB) WHERE seq = {seq}",
    "UPDATE ledger_entry SET time = time + 0.001 WHERE seq = {seq}",
    "UPDATE ledger_entry SET time = 'now' WHERE seq = {seq}",
    "UPDATE ledger_entry SET detail = replace(detail, ':', ': ') WHERE seq = {seq}",
    "UPDATE ledger_entry SET detail = '{{\"number\":' || ({seq} + 1) || '}}' WHERE seq = {seq}",
    "UPDATE ledger_entry SET detail = '{{' WHERE seq = {seq}",
    "UPDATE ledger_entry SET leaf = upper(leaf) WHERE seq = {seq}",
    "UPDATE ledger_entry SET leaf = '' WHERE seq = {seq}",
    "UPDATE ledger_entry SET signature = '' WHERE seq = {seq}",
    "UPDATE ledger_entry SET signature = (SELECT signature FROM ledger_entry WHERE seq = 0) WHERE seq = {seq}",
    "UPDATE ledger_entry SET seq = 'x' WHERE seq = {seq}",
    "UPDATE ledger_entry SET seq = -1 WHERE seq = {seq}",
    "UPDATE ledger_entry SET actor = 'mallory' WHERE seq = {seq}",
    "DELETE FROM ledger_entry WHERE seq = {seq}",
    "DELETE FROM ledger_entry WHERE seq >= {seq}",
    "INSERT INTO ledger_node VALUES ({seq}, 9, 'aa')",
    "UPDATE ledger_node SET hash = 'aa' WHERE seq = {seq}",
    "DELETE FROM ledger_node WHERE seq = {seq}",
)
BESIDE = (
    "UPDATE ledger_state SET size = size - 1",
    "UPDATE ledger_state SET size = size + 1",
    "UPDATE ledger_state SET frontier = ''",
    "UPDATE ledger_state SET checkpoint = ''",
    "UPDATE ledger_state SET checkpoint = x'00'",
    "UPDATE ledger_state SET vkey = 'a'",
    "INSERT INTO ledger_node VALUES (99, 1, 'aa')",
    "INSERT INTO ledger_node VALUES (-1, 1, 'aa')",
    "DELETE FROM ledger_state",
)


def test_hundreds_of_tamperings_of_a_real_file_are_all_found(tmp_path: Path) -> None:
    place = Place(tmp_path, "")
    database = place.open()
    with database.write() as tx:
        for seq in range(16):
            ledger.append(tx, "test.entry", "file", actor="ann", reason=f"{seq}", detail={"number": seq})
    file = sqlite3.connect(tmp_path / "hyperion.db", isolation_level=None)
    statements = [(at, sql.format(seq=at)) for sql in SQL for at in range(1, 16)]
    done = 0
    for first, statement in [*statements, *((None, statement) for statement in BESIDE)]:
        backup = sqlite3.connect(":memory:")
        file.backup(backup)
        changed = file.execute(statement).rowcount
        if changed:
            done += 1
            with database.read() as tx:
                findings = ledger.verify(tx)
            assert not findings.ok, statement
            if first is not None:
                # An entry that got the number -1 is met first, in the place of entry 0.
                assert findings.bad_entry == (0 if "= -1" in statement else first), (statement, findings)
        backup.backup(file)
        backup.close()
    assert done > 250
    with database.read() as tx:
        assert ledger.verify(tx).ok
    file.close()
    place.close()
