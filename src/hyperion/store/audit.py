"""The check of a whole ledger, entry by entry: finds any change, and names the first entry that is not what was signed.

Pure: `ledger.verify` feeds it from the database, anybody may feed it from an export. It trusts nothing but the public
key (and a checkpoint that somebody kept outside): every stored value is computed again, and every entry's signature is
over the root of the tree up to it, so that who rewrites all hashes after an entry is found at that very entry.
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from msgspec import Struct

from hyperion.store import merkle
from hyperion.store.canonical import canonical
from hyperion.store.checkpoint import BadCheckpoint, Verifier, note_of, read_base64


class Record(NamedTuple):
    """An entry as it is stored: `detail` is canonical JSON, `leaf` hex, `signature` base64, `nodes` the hex hashes of
    the inner nodes of the tree that the entry completed, from level 1 up."""

    seq: int
    time: float
    kind: str
    subject: str
    actor: str
    reason: str
    before: str
    after: str
    detail: str
    leaf: str
    signature: str
    nodes: tuple[str, ...] = ()


class Tail(NamedTuple):
    """What is stored beside the entries: the key, the number of entries, the frontier in hex, and the checkpoint."""

    vkey: str
    size: int
    frontier: str
    checkpoint: str


class Progress(NamedTuple):
    """How far the check is: all of the first `size` entries are good, and their tree has that frontier. `signature` is
    the last entry's, `trusted_root` the root at the size of the trusted checkpoint, when that was passed."""

    size: int = 0
    frontier: merkle.Frontier = ()
    signature: bytes = b""
    trusted_root: bytes | None = None


class Findings(Struct, frozen=True):
    """`ok`: nothing is wrong. Else `problem` says what, and `bad_entry` is the seq of the first entry that is not what
    was signed or is missing; None where entries are as signed and something beside them is not. `size` entries were
    good, `root` (hex) is the root over them."""

    ok: bool
    size: int
    root: str
    bad_entry: int | None = None
    problem: str = ""


class Tampered(Exception):
    """What is wrong, and at which entry, if at one."""

    def __init__(self, problem: str, entry: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.entry = entry


class Audit:
    """The check of one ledger with one key. `trusted` is a checkpoint that was kept outside, "" for none; BadCheckpoint
    where that is not one of this key."""

    def __init__(self, key: Verifier, trusted: str = "") -> None:
        self._key = key
        self._trusted = key.open(trusted) if trusted else (0, merkle.EMPTY_ROOT)

    def run(self, records: Iterable[Record], tail: Tail) -> Findings:
        """The findings of the whole."""
        progress = Progress()
        try:
            for record in records:
                progress = self.step(progress, record)
            self.finish(progress, tail)
        except Tampered as found:
            return self._findings(progress, found)
        return self._findings(progress, None)

    def step(self, progress: Progress, record: Record) -> Progress:
        """Checks the next entry. Tampered."""
        seq = progress.size
        if type(record.seq) is not int or record.seq != seq:
            raise Tampered(f"entry {seq} is missing, or out of order: entry {record.seq!r} is in its place", seq)
        leaf = _leaf(record, seq)
        frontier, nodes = merkle.push(progress.frontier, seq, leaf)
        if leaf.hex() != record.leaf:
            raise Tampered(f"entry {seq}: was changed: its content has not the hash that is stored with it", seq)
        if tuple(node.hex() for node in nodes) != record.nodes:
            raise Tampered(f"entry {seq}: the hashes of the tree that it completed were changed", seq)
        root = merkle.root_of(frontier)
        signature = read_base64(record.signature)
        if not self._key.signed(seq + 1, root, signature):
            raise Tampered(f"entry {seq}: was changed or put there later: the ledger's key has not signed it", seq)
        trusted = root if seq + 1 == self._trusted[0] else progress.trusted_root
        return Progress(seq + 1, frontier, signature, trusted)

    def finish(self, progress: Progress, tail: Tail) -> None:
        """Checks what is stored beside the entries, after the last one. Tampered."""
        size, root = progress.size, merkle.root_of(progress.frontier)
        trusted_size, trusted_root = self._trusted
        if trusted_size > size:
            raise Tampered(
                f"entry {size} is missing: the trusted checkpoint is over {trusted_size} entries, here are {size}", size
            )
        if trusted_size and progress.trusted_root != trusted_root:
            raise Tampered(
                f"the first {trusted_size} entries are signed, but are not those of the trusted checkpoint: somebody "
                "with the key has written another history"
            )
        if tail.vkey != self._key.vkey:
            raise Tampered(f"the ledger says that it is signed by another key: {tail.vkey}")
        if type(tail.size) is not int or tail.size > size:
            raise Tampered(f"entry {size} is missing: there were {tail.size!r} entries, here are {size}", size)
        if tail.size < size:
            raise Tampered(f"entry {tail.size} is too much: there were only {tail.size} entries", tail.size)
        if tail.frontier != "".join(node.hex() for node in progress.frontier):
            raise Tampered("the tree's frontier, on which the next entry would be built, was changed")
        self._check_checkpoint(size, root, progress.signature, tail.checkpoint)

    def _check_checkpoint(self, size: int, root: bytes, signature: bytes, note: str) -> None:
        if type(note) is not str:
            raise Tampered("the checkpoint was replaced by something else")
        if size and note == note_of(self._key, size, root, signature):
            return
        try:
            found = self._key.open(note)
        except BadCheckpoint as error:
            raise Tampered(f"the checkpoint was forged or changed: {error}") from error
        if found[0] > size:
            raise Tampered(f"entry {size} is missing: the checkpoint is over {found[0]} entries, here are {size}", size)
        if size or found != (0, merkle.EMPTY_ROOT):
            raise Tampered(f"the checkpoint is over {found[0]} entries, or not over these: it was replaced")

    def _findings(self, progress: Progress, found: Tampered | None) -> Findings:
        root = merkle.root_of(progress.frontier).hex()
        if found is None:
            return Findings(True, progress.size, root)
        return Findings(False, progress.size, root, found.entry, found.problem)


def _leaf(record: Record, seq: int) -> bytes:
    """The hash of the leaf that the stored values make. Tampered where they cannot be what was written."""
    if type(record.time) is not float or not all(type(text) is str for text in record[2:-1]):
        raise Tampered(f"entry {seq}: was changed: a column has a value of another type", seq)
    try:
        detail: Any = json.loads(record.detail)
        if canonical(detail).decode() != record.detail:
            raise ValueError("not canonical")
        return merkle.leaf_hash(leaf_of(record, detail))
    except (ValueError, RecursionError) as error:
        raise Tampered(f"entry {seq}: was changed: it cannot have been written so", seq) from error


def leaf_of(record: Record, detail: Any) -> bytes:
    """The leaf: canonical JSON of the entry. ValueError for what JSON has no form for."""
    return canonical(
        {
            "seq": record.seq,
            "time": record.time,
            "kind": record.kind,
            "subject": record.subject,
            "actor": record.actor,
            "reason": record.reason,
            "before": record.before,
            "after": record.after,
            "detail": detail,
        }
    )
