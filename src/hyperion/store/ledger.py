"""The ledger: an append-only Merkle log of everything that was decided, in the same transaction as the change itself.

Called by the rooms of `store` and by `control`. Entries are never changed or removed. Tree and proofs are RFC 9162's
(`merkle`), checkpoints are C2SP signed notes (`checkpoint`), the check of the whole is `audit`.

A leaf is the canonical JSON (`canonical`) of its entry: an object of the keys seq, time, kind, subject, actor, reason,
before, after and detail. `seq` counts from 0; `time` is a float, in seconds since 1970.
"""

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec
from sqlalchemy import Connection, Row, Select, func, insert, or_, select, update

from hyperion.schema.errors import InternalError, InvalidConfig, NotFound
from hyperion.store import merkle
from hyperion.store.audit import Audit, Findings, Record, Tail, leaf_of
from hyperion.store.canonical import canonical, clean, digest_of, plain
from hyperion.store.checkpoint import BadCheckpoint, Signer, Verifier, ensure_signer, note_of, read_signer
from hyperion.store.tables import LEDGER_ENTRY, LEDGER_NODE, LEDGER_STATE
from hyperion.store.transaction import now, reached, signer_of

__all__ = ["Entry", "Findings", "append", "canonical", "digest_of", "plain"]

PAGE_MAX = 1000


class Entry(msgspec.Struct, frozen=True):
    """One entry. `kind` says what happened (`model.push`), `subject` to what, `actor` by whom. `before` and `after` are
    digests of the record (`digest_of`), "" where there was or is none. `leaf` is the hash of its leaf, in hex."""

    seq: int
    time: float
    kind: str
    subject: str
    actor: str
    reason: str
    before: str
    after: str
    detail: dict[str, Any]
    leaf: str


def append(
    tx: Connection,
    kind: str,
    subject: str,
    *,
    actor: str,
    reason: str = "",
    before: str = "",
    after: str = "",
    detail: Mapping[str, Any] | None = None,
) -> int:
    """Adds an entry and signs the checkpoint over it. Returns its seq. Personal data goes in as `commit_to` only.

    InvalidConfig where this process has not got the ledger's key.
    """
    signer = signer_of(tx)
    if signer is None:
        raise InvalidConfig("the ledger cannot be written: this process has no ledger.key; give it the one of the home")
    state = tx.execute(select(LEDGER_STATE)).one()
    seq = int(state.size)
    facts = plain(detail or {})
    text = canonical(facts).decode()
    record = Record(seq, now(tx), clean(kind), clean(subject), clean(actor), clean(reason), before, after, text, "", "")
    leaf = merkle.leaf_hash(leaf_of(record, facts))
    frontier, completed = merkle.push(read_frontier(state.frontier), seq, leaf)
    root = merkle.root_of(frontier)
    signature = signer.sign(seq + 1, root)
    values = (*record[:-3], leaf.hex(), b64encode(signature).decode())
    tx.execute(insert(LEDGER_ENTRY).values(dict(zip(LEDGER_ENTRY.c.keys(), values, strict=True))))
    reached(tx, "ledger.entry")
    if completed:
        nodes = [{"seq": seq, "level": level, "hash": node.hex()} for level, node in enumerate(completed, 1)]
        tx.execute(insert(LEDGER_NODE), nodes)
        reached(tx, "ledger.node")
    tx.execute(
        update(LEDGER_STATE).values(
            size=seq + 1,
            frontier="".join(node.hex() for node in frontier),
            checkpoint=note_of(signer, seq + 1, root, signature),
        )
    )
    reached(tx, "ledger.state")
    return seq


class Readable(Protocol):
    """What `Database` is to this module: it opens a snapshot."""

    def read(self) -> AbstractContextManager[Connection]: ...


def entries(
    source: Connection | Readable,
    *,
    after: int = -1,
    limit: int = 100,
    subject: str = "",
    kind: str = "",
    newest: bool = False,
) -> list[Entry]:
    """Up to `limit` (at most PAGE_MAX) entries, oldest first: those behind seq `after`, and of one subject or kind
    only, where given. A `kind` that ends in `.` means all that begin so (`rollout.`). With `newest` the newest come
    first, and `after`, where not negative, is the seq to go on before."""
    if not isinstance(source, Connection):
        with source.read() as tx:
            return entries(tx, after=after, limit=limit, subject=subject, kind=kind, newest=newest)
    query: Select[Any] = select(LEDGER_ENTRY).limit(max(0, min(limit, PAGE_MAX)))
    if newest:
        query = query.order_by(LEDGER_ENTRY.c.seq.desc())
        query = query if after < 0 else query.where(LEDGER_ENTRY.c.seq < after)
    else:
        query = query.order_by(LEDGER_ENTRY.c.seq).where(LEDGER_ENTRY.c.seq > after)
    if subject:
        query = query.where(LEDGER_ENTRY.c.subject == subject)
    if kind.endswith("."):
        query = query.where(LEDGER_ENTRY.c.kind >= kind, LEDGER_ENTRY.c.kind < kind[:-1] + "/")  # "/" follows "."
    elif kind:
        query = query.where(LEDGER_ENTRY.c.kind == kind)
    return [_entry(row) for row in source.execute(query)]


def entry(tx: Connection, seq: int) -> Entry:
    """The entry of that number. NotFound."""
    row = tx.execute(select(LEDGER_ENTRY).where(LEDGER_ENTRY.c.seq == seq)).first()
    if row is None:
        raise NotFound(f"the ledger has no entry {seq}")
    return _entry(row)


def size(tx: Connection) -> int:
    """How many entries there are."""
    return int(tx.execute(select(LEDGER_STATE.c.size)).scalar_one())


def checkpoint(tx: Connection) -> str:
    """The newest checkpoint: a C2SP signed note over all entries."""
    return str(tx.execute(select(LEDGER_STATE.c.checkpoint)).scalar_one())


def public_key(tx: Connection) -> str:
    """The verifier key (C2SP vkey) that the ledger says it is signed with. Compare it with one from elsewhere."""
    return str(tx.execute(select(LEDGER_STATE.c.vkey)).scalar_one())


def inclusion_proof(tx: Connection, seq: int, size: int = 0) -> list[str]:
    """The hashes (hex) that prove entry `seq` to be in the tree of `size` entries; 0 means all. NotFound."""
    size = _check_size(tx, size)
    if not 0 <= seq < size:
        raise NotFound(f"the ledger has no entry {seq} among its first {size}")
    return [node.hex() for node in merkle.inclusion_path(seq, size, lambda level, index: _node(tx, level, index))]


def consistency_proof(tx: Connection, first: int, second: int = 0) -> list[str]:
    """The hashes (hex) that prove the tree of `first` entries to be the beginning of that of `second`; 0 means all.
    NotFound."""
    second = _check_size(tx, second)
    if not 0 < first <= second:
        raise NotFound(f"a ledger of {second} entries has no state of {first} entries; expected 1 to {second}")
    return [node.hex() for node in merkle.consistency_path(first, second, lambda level, index: _node(tx, level, index))]


def commit_to(key: bytes, personal: str) -> str:
    """What the ledger holds in place of personal data: whoever has the key (`checkpoint.commitment_key`) and the data
    can show that they belong together; without the key the data cannot be guessed, and when it is destroyed, never."""
    return "hmac-sha256:" + hmac.new(key, personal.encode(), hashlib.sha256).hexdigest()


def verify(tx: Connection, public_key: str = "", trusted: str | None = None) -> Findings:
    """Checks the whole ledger and names the first entry that is not what was signed (`audit`). `public_key` is a C2SP
    vkey; without one the key is that of this process's home. `trusted` is a checkpoint that somebody kept outside: only
    that finds entries that were cut off at the end together with everything that tells of them.

    InvalidConfig where the key or `trusted` is none. Takes about 0.3 ms for each entry.
    """
    signer = signer_of(tx)
    if not public_key and signer is None:
        raise InvalidConfig("to verify the ledger give the public key that it is to be checked with")
    try:
        audit = Audit(Verifier(public_key) if public_key or signer is None else signer, trusted or "")
    except BadCheckpoint as error:
        raise InvalidConfig(str(error)) from error
    state = tx.execute(select(LEDGER_STATE)).one_or_none()
    if state is None:
        return Findings(False, 0, merkle.EMPTY_ROOT.hex(), None, "the row that tells where the ledger ends is missing")
    findings = audit.run(_records(tx), Tail(state.vkey, state.size, state.frontier, state.checkpoint))
    beyond = or_(LEDGER_NODE.c.seq >= findings.size, LEDGER_NODE.c.seq < 0)
    astray = tx.execute(select(func.count()).select_from(LEDGER_NODE).where(beyond)).scalar_one()
    if findings.ok and astray:
        return msgspec.structs.replace(findings, ok=False, problem="there are hashes of entries that are not there")
    return findings


def open_ledger(tx: Connection, key: Path | None) -> Signer | None:
    """Starts the ledger of a new database, and returns the key that signs it: the file `key`, made where the ledger is
    new. None without `key`. InvalidConfig where it is not the key that the ledger was signed with so far."""
    vkey = tx.execute(select(LEDGER_STATE.c.vkey)).scalar()
    if key is None:
        return None
    if vkey is None:
        signer = ensure_signer(key)
        empty = note_of(signer, 0, merkle.EMPTY_ROOT, signer.sign(0, merkle.EMPTY_ROOT))
        tx.execute(insert(LEDGER_STATE).values(id=1, vkey=signer.vkey, size=0, frontier="", checkpoint=empty))
        return signer
    try:
        signer = read_signer(key)
    except FileNotFoundError as error:
        raise InvalidConfig(
            f"{key.name}: missing, but the ledger in this database is signed with it ({vkey}); copy the file from the "
            "home of the control process that began the ledger, or from a backup, or name it with --ledger-key"
        ) from error
    if signer.vkey != vkey:
        raise InvalidConfig(
            f"{key.name}: is another key ({signer.vkey}) than the one that the ledger in this database is signed with "
            f"({vkey}); copy the file from the home of the control process that began the ledger, or name it with "
            "--ledger-key"
        )
    return signer


def read_frontier(text: str) -> merkle.Frontier:
    """The frontier from its column: 32 bytes in hex for each hash, one after the other. ValueError."""
    raw = bytes.fromhex(text)
    if len(raw) % 32:
        raise ValueError("the frontier has a part of a hash")
    return tuple(raw[at : at + 32] for at in range(0, len(raw), 32))


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        row.seq,
        row.time,
        row.kind,
        row.subject,
        row.actor,
        row.reason,
        row.before_digest,
        row.after_digest,
        msgspec.json.decode(row.detail, type=dict[str, Any]),
        row.leaf,
    )


def _records(tx: Connection) -> Iterator[Record]:
    """Every entry as it is stored, in order, with the nodes that it completed; read in chunks."""
    last, more = None, True
    while more:
        where = () if last is None else (LEDGER_ENTRY.c.seq > last,)
        rows = tx.execute(select(LEDGER_ENTRY).where(*where).order_by(LEDGER_ENTRY.c.seq).limit(PAGE_MAX)).all()
        more = len(rows) == PAGE_MAX
        if rows:
            last = rows[-1].seq
            nodes: dict[int, list[str]] = {}
            within = LEDGER_NODE.c.seq.between(rows[0].seq, last)
            for node in tx.execute(select(LEDGER_NODE).where(within).order_by(LEDGER_NODE.c.seq, LEDGER_NODE.c.level)):
                nodes.setdefault(node.seq, []).append(node.hash)
            yield from (Record._make((*row, tuple(nodes.get(row.seq, ())))) for row in rows)


def _check_size(tx: Connection, wanted: int) -> int:
    there = size(tx)
    if not 0 <= wanted <= there:
        raise NotFound(f"the ledger has {there} entries, not {wanted}")
    return wanted or there


def _node(tx: Connection, level: int, index: int) -> bytes:
    last = ((index + 1) << level) - 1
    if level == 0:
        query = select(LEDGER_ENTRY.c.leaf).where(LEDGER_ENTRY.c.seq == last)
    else:
        query = select(LEDGER_NODE.c.hash).where(LEDGER_NODE.c.seq == last, LEDGER_NODE.c.level == level)
    found = tx.execute(query).scalar()
    if found is None:
        raise InternalError(f"the ledger has lost a hash (level {level}, entry {last}); run hyperion ledger verify")
    return bytes.fromhex(found)
