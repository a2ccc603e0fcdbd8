"""The verbs over batch jobs. Part of the desk."""

from collections.abc import Callable

from sqlalchemy import Connection

from hyperion.schema.config import ControlConfig
from hyperion.schema.errors import NotFound
from hyperion.schema.resource import BatchJob
from hyperion.store import batch_runs, endpoints, registry, resources
from hyperion.store.batch_places import check_places, read_databases
from hyperion.store.changes import Change, compare, delete
from hyperion.store.database import Database
from hyperion.store.reading import suggest
from hyperion.store.resources import ResourceRow
from hyperion.store.views import BatchFound


class BatchDesk:
    """`config` says where batch jobs may read and write. `wake` is called after each change, from any thread."""

    def __init__(self, database: Database, config: ControlConfig | None, wake: Callable[[], None]) -> None:
        self._database = database
        self._config = config
        self._wake = wake

    def list_(self, after: str = "", limit: int = 100) -> list[BatchFound]:
        """Batch jobs by name, those behind `after`."""
        with self._database.read() as tx:
            runs = batch_runs.all_of(tx)
            return [BatchFound(row, runs.get(row.name)) for row in resources.list_(tx, BatchJob, after, limit)]

    def get(self, name: str) -> BatchFound:
        """One batch job, and how it fares. Raises `NotFound`."""
        with self._database.read() as tx:
            return BatchFound(_require(tx, name), batch_runs.get(tx, name))

    def delete(self, name: str, *, dry_run: bool = False, actor: str, reason: str = "") -> Change:
        """Forget a batch job; one that runs is stopped. Parts that it wrote stay. Raises `NotFound`."""
        with self._database.read() if dry_run else self._database.write() as tx:
            row = _require(tx, name)
            if not dry_run:
                resources.delete(tx, BatchJob, name, actor=actor, reason=reason)
                batch_runs.forget(tx, name)
        if not dry_run:
            self._wake()
        return delete(row.resource)

    def compare(self, tx: Connection, resource: BatchJob) -> Change:
        """What applying the resource would change. Raises `GateRefused` for places that are not allowed,
        `UnknownModel` and `NotFound` for what is to score."""
        spec = resource.spec
        config = self._config or ControlConfig("", "")
        check_places(spec, config.batch_dirs, read_databases(config.batch_databases))
        if spec.model:
            registry.resolve(tx, spec.model)
        else:
            row = endpoints.get(tx, spec.endpoint)
            if row is None or row.deleting:
                known = [other.name for other in endpoints.list_(tx)]
                raise NotFound(f'spec.endpoint: there is no endpoint "{spec.endpoint}"{suggest(spec.endpoint, known)}')
        old = resources.get(tx, BatchJob, resource.metadata.name)
        return compare(None if old is None else old.resource, resource)

    def changed(self) -> None:
        """Some were applied."""
        self._wake()


def _require(tx: Connection, name: str) -> ResourceRow[BatchJob]:
    row = resources.get(tx, BatchJob, name)
    if row is None:
        known = [other.name for other in resources.all_of(tx, BatchJob)]
        raise NotFound(f'batch job "{name[:128]}" is not known here{suggest(name, known)}; see: hyperion get batchjobs')
    return row
