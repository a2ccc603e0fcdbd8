"""Idempotency keys: which calls run, which ran already and with what answer. Decisions are `policy/idempotency`'s.

Called by `control`, with everything that gateways asked since the last transaction: hundreds of calls cost one commit.
Times are seconds since 1970. Safe without the writers' lock: a key is inserted by one transaction only, and what is
taken over is taken from the attempt that was seen to hold it.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, and_, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from hyperion.policy.idempotency import ABANDONED, KEPT_S, LEASE_S, Record, decide
from hyperion.schema.job import Abandon, Begin, Begun, Complete, HeldKey, KeyScope, StoredAnswer
from hyperion.store.canonical import clean
from hyperion.store.tables import IDEMPOTENT_CALL as CALL
from hyperion.store.transaction import reached

_CHUNK: Final = 100  # keys per statement, at three parameters each
_ANSWERS = msgspec.msgpack.Decoder(StoredAnswer)
_ENCODER = msgspec.msgpack.Encoder()


def begin_many(tx: Connection, calls: Sequence[Begin], now: float) -> list[Begun]:
    """Decide each call; those that may run hold a lease of `LEASE_S` from here on. In the order of `calls`."""
    new = _insert(tx, calls, now)
    known = _find(tx, [call.scope for call in calls if call.scope not in new])
    answers: list[Begun] = []
    for call in calls:
        if call.scope in new and new[call.scope] is call:
            answers.append(Begun("run", call.token))
        elif call.scope in new:  # the same key twice in one message
            first = new[call.scope]
            record = Record(first.fingerprint, False, first.token, now + LEASE_S, now + KEPT_S)
            answers.append(Begun(decide(record, call.fingerprint, call.token, now), first.token))
        else:
            answers.append(_begin(tx, call, known.get(call.scope), now))
    reached(tx, "idempotency.begin")
    return answers


def complete(tx: Connection, call: Complete, now: float) -> bool:
    """Keep the answer; False where another attempt has taken over, or the key was forgotten: then the caller must not
    be told this answer. The same again changes nothing."""
    values = {"done": True, "answer": _ENCODER.encode(call.answer), "expires_at": now + KEPT_S}
    mine = _is(call.scope) & (CALL.c.token == call.token)
    done: bool = tx.execute(update(CALL).where(mine).values(values)).rowcount == 1
    reached(tx, "idempotency.complete")
    return done


def abandon(tx: Connection, call: Abandon) -> None:
    """Let the next attempt run: this one came to no final outcome."""
    mine = _is(call.scope) & (CALL.c.token == call.token) & CALL.c.done.is_(False)
    tx.execute(update(CALL).where(mine).values(lease_until=ABANDONED))


def renew(tx: Connection, held: Sequence[HeldKey], now: float) -> None:
    """Prolong the leases of calls that still run."""
    for one in sorted(held, key=lambda one: one.scope):
        mine = _is(one.scope) & (CALL.c.token == one.token) & CALL.c.done.is_(False)
        tx.execute(update(CALL).where(mine).values(lease_until=now + LEASE_S))


def expired(tx: Connection, now: float) -> bool:
    """Whether there is something to forget."""
    return tx.execute(select(CALL.c.key).where(CALL.c.expires_at <= now).limit(1)).first() is not None


def prune(tx: Connection, now: float) -> int:
    """Forget keys whose time is over. Returns how many."""
    return tx.execute(delete(CALL).where(CALL.c.expires_at <= now)).rowcount


def _insert(tx: Connection, calls: Sequence[Begin], now: float) -> dict[KeyScope, Begin]:
    """Those calls whose key was not there. In the order of keys, so that two such transactions never deadlock."""
    build: Any = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    first: dict[KeyScope, Begin] = {}
    for call in calls:
        first.setdefault(call.scope, call)
    rows = [
        {
            **_values(call.scope),
            "fingerprint": call.fingerprint,
            "origin": call.token,
            "token": call.token,
            "done": False,
            "lease_until": now + LEASE_S,
            "expires_at": now + KEPT_S,
            "answer": b"",
        }
        for call in sorted(first.values(), key=lambda call: call.scope)
    ]
    new: set[KeyScope] = set()
    for at in range(0, len(rows), _CHUNK):
        statement = build(CALL).values(rows[at : at + _CHUNK])
        statement = statement.on_conflict_do_nothing(index_elements=["tenant", "endpoint", "key"])
        found = tx.execute(statement.returning(CALL.c.tenant, CALL.c.endpoint, CALL.c.key))
        new.update(KeyScope(*row) for row in found)
    return {scope: call for scope, call in first.items() if KeyScope(**_values(scope)) in new}


def _find(tx: Connection, scopes: Sequence[KeyScope]) -> dict[KeyScope, Any]:
    rows: dict[KeyScope, Any] = {}
    distinct = sorted(set(scopes))
    for at in range(0, len(distinct), _CHUNK):
        chunk = distinct[at : at + _CHUNK]
        found = {
            KeyScope(row.tenant, row.endpoint, row.key): row
            for row in tx.execute(select(CALL).where(or_(*[_is(scope) for scope in chunk])))
        }
        rows |= {scope: found[key] for scope in chunk if (key := KeyScope(**_values(scope))) in found}
    return rows


def _begin(tx: Connection, call: Begin, row: Any, now: float) -> Begun:
    if row is None:  # forgotten between two statements
        return Begun("in-progress")
    record = Record(row.fingerprint, row.done, row.token, row.lease_until, row.expires_at)
    decision = decide(record, call.fingerprint, call.token, now)
    if decision == "replay":
        return Begun("replay", row.origin, _ANSWERS.decode(row.answer))
    if decision != "run":
        return Begun(decision, row.origin)
    same = now < row.expires_at and row.fingerprint == call.fingerprint
    origin = row.origin if same else call.token
    taken = {"fingerprint": call.fingerprint, "origin": origin, "token": call.token, "done": False, "answer": b""}
    taken |= {"lease_until": now + LEASE_S, "expires_at": now + KEPT_S}
    seen = _is(call.scope) & (CALL.c.token == row.token) & (CALL.c.done == row.done)
    if not tx.execute(update(CALL).where(seen).values(taken)).rowcount:
        return Begun("in-progress", row.origin)  # somebody else was faster
    return Begun("run", origin)


def _values(scope: KeyScope) -> dict[str, str]:
    return {"tenant": clean(scope.tenant), "endpoint": clean(scope.endpoint), "key": clean(scope.key)}


def _is(scope: KeyScope) -> Any:
    values = _values(scope)
    return and_(CALL.c.tenant == values["tenant"], CALL.c.endpoint == values["endpoint"], CALL.c.key == values["key"])
