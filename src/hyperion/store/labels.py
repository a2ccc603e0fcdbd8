"""What turned out to be true of predictions, and the pairs of predictions that this judges.

`control` puts the pairs that gateways report and asks who was right; `api` puts labels, which may come before the
prediction that they are for, or for none that is kept. Whatever comes twice changes nothing.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Table, and_, delete, exists, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from hyperion.policy.release.state import Labelled
from hyperion.schema.release import ValuePair
from hyperion.store.canonical import clean
from hyperion.store.tables import LABEL, PREDICTION, VALUE_PAIR
from hyperion.store.transaction import reached

_CHUNK = 500  # rows per statement: both databases bound the number of a statement's parameters


class Label(Struct, frozen=True):
    """What `source` says the prediction should have been, as `policy.values` writes it, and since when it says so."""

    prediction_id: str
    source: str
    label: str
    time: float


def put_pairs(tx: Connection, pairs: Sequence[ValuePair]) -> None:
    """Keeps the pairs. A pair of an id that is there already (callers may choose ids) replaces it if it is newer."""
    _put(tx, VALUE_PAIR, [_values_of(pair, "id", "endpoint", "given", "shadow") for pair in pairs])
    reached(tx, "labels.put-pairs")


def put_many(tx: Connection, labels: Sequence[Label]) -> int:
    """Keeps the labels, one per prediction and source: the newest. Returns how many are for predictions of which
    nothing is kept, or not yet."""
    _put(tx, LABEL, [_values_of(label, "prediction_id", "source", "label") for label in labels])
    reached(tx, "labels.put")
    ids = sorted({clean(label.prediction_id) for label in labels})
    known: set[str] = set()
    for at in range(0, len(ids), _CHUNK):
        asked = ids[at : at + _CHUNK]
        for column in (VALUE_PAIR.c.id, PREDICTION.c.id):
            known.update(tx.execute(select(column).where(column.in_(asked))).scalars())
    return len(ids) - len(known)


def count_losses(tx: Connection, endpoint: str, first_epoch: int, last_epoch: int, since: float) -> Labelled:
    """Who was right in the labelled pairs of these epochs, made at `since` (seconds since 1970) or later: epochs begin
    anew where an endpoint was deleted. Where several sources have labelled a prediction, the newest label counts."""
    other = LABEL.alias()
    newer = exists().where(
        and_(
            other.c.prediction_id == LABEL.c.prediction_id,
            or_(
                other.c.time > LABEL.c.time,
                and_(other.c.time == LABEL.c.time, other.c.source > LABEL.c.source),
            ),
        )
    )
    given, shadow = VALUE_PAIR.c.given == LABEL.c.label, VALUE_PAIR.c.shadow == LABEL.c.label
    query = (
        select(given, shadow, func.count())
        .select_from(VALUE_PAIR.join(LABEL, LABEL.c.prediction_id == VALUE_PAIR.c.id))
        .where(VALUE_PAIR.c.endpoint == endpoint)
        .where(VALUE_PAIR.c.epoch.between(first_epoch, last_epoch))
        .where(VALUE_PAIR.c.time >= since)
        .where(~newer)
        .group_by(given, shadow)
    )
    found = {(bool(row[0]), bool(row[1])): int(row[2]) for row in tx.execute(query)}
    neither = found.get((False, False), 0)
    losses = (found.get((False, True), 0), found.get((True, True), 0) + neither, found.get((True, False), 0))
    return Labelled(losses, neither)


def prune(tx: Connection, before: float) -> int:
    """Forgets pairs and labels older than `before`, in seconds since 1970. Returns how many."""
    return sum(tx.execute(delete(table).where(table.c.time < before)).rowcount for table in (VALUE_PAIR, LABEL))


def _values_of(row: Struct, *texts: str) -> dict[str, object]:
    values = {name: getattr(row, name) for name in row.__struct_fields__}
    return values | {name: clean(str(values[name])) for name in texts}


def _put(tx: Connection, table: Table, rows: list[dict[str, object]]) -> None:
    """Each row in place of an older one with its primary key."""
    key = [column.name for column in table.primary_key]
    newest = {tuple(row[name] for name in key): row for row in sorted(rows, key=lambda row: float(str(row["time"])))}
    values = list(newest.values())
    build: Any = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    for at in range(0, len(values), _CHUNK):
        statement = build(table).values(values[at : at + _CHUNK])
        fresh = statement.excluded
        replaced = {column.name: fresh[column.name] for column in table.c if column.name not in key}
        tx.execute(statement.on_conflict_do_update(index_elements=key, set_=replaced, where=fresh.time >= table.c.time))
