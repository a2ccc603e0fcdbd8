"""The sampled log of predictions, for lineage: who answered which request. No inputs, no outputs.

`control` puts what gateways report, and prunes; `api` gets. A report that comes twice changes nothing.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from hyperion.schema.release import PredictionRow
from hyperion.store.canonical import clean
from hyperion.store.tables import PREDICTION
from hyperion.store.transaction import reached

_CHUNK = 500  # rows per statement: both databases bound the number of a statement's parameters
_KEY = ("id", "shadow")


def put_many(tx: Connection, rows: Sequence[PredictionRow]) -> None:
    """Keeps the rows. A row of an id that is there already (callers may choose ids) replaces it if it is newer."""
    newest: dict[tuple[str, bool], dict[str, object]] = {}
    for row in sorted(rows, key=lambda row: row.time):
        values = {name: getattr(row, name) for name in row.__struct_fields__}
        key = clean(row.id), row.shadow
        newest[key] = values | {"id": key[0]}
    values_of_all = list(newest.values())
    build: Any = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    for at in range(0, len(values_of_all), _CHUNK):
        statement = build(PREDICTION).values(values_of_all[at : at + _CHUNK])
        fresh = statement.excluded
        replaced = {column.name: fresh[column.name] for column in PREDICTION.c if column.name not in _KEY}
        tx.execute(
            statement.on_conflict_do_update(
                index_elements=list(_KEY), set_=replaced, where=fresh.time > PREDICTION.c.time
            )
        )
        reached(tx, "predictions.put")


def get(tx: Connection, prediction_id: str) -> PredictionRow | None:
    """The prediction of that id: the one that was answered with, else the shadow's."""
    query = select(PREDICTION).where(PREDICTION.c.id == prediction_id).order_by(PREDICTION.c.shadow).limit(1)
    row = tx.execute(query).first()
    if row is None:
        return None
    return PredictionRow(**{name: row._mapping[name] for name in PredictionRow.__struct_fields__})


def prune(tx: Connection, before: float) -> int:
    """Forgets predictions older than `before`, in seconds since 1970. Returns how many."""
    return tx.execute(delete(PREDICTION).where(PREDICTION.c.time < before)).rowcount
