"""The ledger: an append-only Merkle log of everything that was decided, in the same transaction as the change itself.

Called by the rooms of `store` and by `control`. Entries are never changed or removed. Tree and proofs are RFC 9162's
(`merkle`), checkpoints are C2SP signed notes (`checkpoint`), the check of the whole is `audit`.

A leaf is the canonical JSON of its entry: an object of the keys seq, time, kind, subject, actor, reason, before, after
and detail, where
- keys are sorted by code point, there is no space between tokens, and the text is UTF-8;
- strings escape only `"`, `\\` and the control characters (as `\\b \\f \\n \\r \\t`, or `\\u00XX` in lower case);
- integers are written in full, floats as the shortest decimal that reads back as the same (as Python's `repr`); what
  JSON has no number for is written as the string "NaN", "Infinity" or "-Infinity";
- `seq` counts from 0, `time` is a float, in seconds since 1970.
"""

import hashlib
import hmac
import json
import math
from base64 import b64encode
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec
from sqlalchemy import Connection, Row, Select, insert, select, update

from hyperion.schema.errors import InternalError, InvalidConfig, NotFound
from hyperion.store import merkle
from hyperion.store.checkpoint import Signer, ensure_signer, note_of, read_signer
from hyperion.store.tables import LEDGER_ENTRY, LEDGER_NODE, LEDGER_STATE
from hyperion.store.transaction import now, reached, signer_of

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
    entry = {
        "seq": seq,
        "time": now(tx),
        "kind": _clean(kind),
        "subject": _clean(subject),
        "actor": _clean(actor),
        "reason": _clean(reason),
        "before": before,
        "after": after,
        "detail": plain(detail or {}),
    }
    leaf = merkle.leaf_hash(canonical(entry))
    frontier, completed = merkle.push(read_frontier(state.frontier), seq, leaf)
    root = merkle.root_of(frontier)
    signature = signer.sign(seq + 1, root)
    entry["before_digest"], entry["after_digest"] = entry.pop("before"), entry.pop("after")
    entry["detail"] = canonical(entry["detail"]).decode()
    tx.execute(insert(LEDGER_ENTRY).values(**entry, leaf=leaf.hex(), signature=b64encode(signature).decode()))
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
    """Up to `limit` (at most PAGE_MAX) entries of the database or the transaction behind seq `after`, oldest first; of one subject or kind only, where
    given. `kind` may end in `.` for all that begin so (`rollout.`). `newest` starts from the end, newest first; then
    `after` is the seq before which to go on, if not negative."""
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


def digest_of(record: object) -> str:
    """The digest of a record for `before` and `after`: SHA-256 of its canonical JSON; "" for None."""
    return "" if record is None else "sha256:" + hashlib.sha256(canonical(plain(record))).hexdigest()


def canonical(value: object) -> bytes:
    """Canonical JSON, as the module defines it, of plain data (see `plain`).

    >>> canonical({"b": 1.0, "a": "é"}).decode()
    '{"a":"é","b":1.0}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def plain(value: object) -> Any:
    """Structs and the like as dicts, lists, strings and numbers that canonical JSON has a form for."""
    return _finite(msgspec.to_builtins(value, str_keys=True))


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
            "home of the control process that began the ledger, or from a backup"
        ) from error
    if signer.vkey != vkey:
        raise InvalidConfig(
            f"{key.name}: is another key ({signer.vkey}) than the one that the ledger in this database is signed with "
            f"({vkey}); copy the file from the home of the control process that began the ledger"
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


def _clean(text: str) -> str:
    """Text without what PostgreSQL or UTF-8 has no place for."""
    return text.encode("utf-8", "replace").decode().replace("\0", "�")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if not value.isascii() else value
    if isinstance(value, dict):
        return {_finite(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
