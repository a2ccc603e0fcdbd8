"""The desk: every verb of the management API that needs the store and not the loop.

Called by `api` from its threads. Synchronous and safe to share: each verb is one transaction, in which what is written
and its entry in the ledger come true together; then the loop is woken. Decides nothing about releases.
"""

from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import Connection

from hyperion.control.desk_audit import Audit
from hyperion.control.desk_models import Models
from hyperion.control.labels import Labels
from hyperion.control.release_record import Record, decode_record
from hyperion.policy.rollout_state import OPEN, ReleaseState
from hyperion.schema.errors import InvalidResource, NotFound
from hyperion.schema.registry import Manifest
from hyperion.schema.release import TrackCounts
from hyperion.schema.resource import Endpoint, Strategy
from hyperion.store import endpoints, registry, rollouts
from hyperion.store.blobs import Blobs
from hyperion.store.changes import Change, compare, delete
from hyperion.store.database import Database
from hyperion.store.endpoints import EndpointRow
from hyperion.store.reading import suggest
from hyperion.store.signing import Trust
from hyperion.store.views import Deployed, ReleaseRow

RESTART = "restart"


def _no_counts(_endpoint: str) -> tuple[TrackCounts, ...]:
    return ()


class Desk:
    """The verbs over endpoints and their rollouts; those of the registry are in `models`, those of keys, the ledger
    and lineage in `audit`, those of labels in `labels`. `wake` must be safe to call from any thread. `counts` gives
    what the gateways counted of an endpoint's rollout; it is called on the event loop's thread. `trust` says whose
    signatures count."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        wake: Callable[[], None],
        counts: Callable[[str], tuple[TrackCounts, ...]] = _no_counts,
        trust: Trust = Trust(),  # noqa: B008  it is frozen
    ) -> None:
        self.models = Models(database, blobs, wake, trust)
        self.audit = Audit(database)
        self.labels = Labels(database)
        self.counts = counts
        self._database = database
        self._wake = wake

    def apply(
        self, resources: Sequence[Endpoint], *, dry_run: bool = False, actor: str, reason: str = ""
    ) -> list[Change]:
        """Make the endpoints as these say, all or none, and return what that changes; `dry_run` changes nothing.

        Raises `UnknownModel` where a model is not in the registry, `Conflict` for an endpoint that is being deleted.
        """
        if dry_run:
            with self._database.read() as tx:
                return [self._compare(tx, resource) for resource in resources]
        with self._database.write() as tx:
            changes = [self._compare(tx, resource) for resource in resources]
            for resource, change in zip(resources, changes, strict=True):
                if change.action != "unchanged":
                    endpoints.put(tx, resource, actor=actor, reason=reason)
        self._wake_after(changes)
        return changes

    def list_endpoints(self, after: str = "", limit: int = 100) -> list[EndpointRow]:
        """Endpoints by name, those behind `after`."""
        with self._database.read() as tx:
            return list(endpoints.list_(tx, after=after, limit=limit))

    def get_endpoint(self, name: str) -> EndpointRow:
        """One endpoint. Raises `NotFound`."""
        with self._database.read() as tx:
            return _require(tx, name)

    def delete_endpoint(self, name: str, *, dry_run: bool = False, actor: str, reason: str = "") -> Change:
        """Stop serving and forget an endpoint. Raises `NotFound`."""
        if dry_run:
            return delete(self.get_endpoint(name).resource)
        with self._database.write() as tx:
            change = delete(_require(tx, name).resource)
            endpoints.delete(tx, name, actor=actor, reason=reason)
        self._wake()
        return change

    def deploy(
        self, name: str, reference: str, strategy: Strategy | None = None, *, actor: str, reason: str = ""
    ) -> Deployed:
        """Let the endpoint name `reference`, and its rollouts run by `strategy`: the control loop then starts one.

        For a version whose rollout was halted, aborted or undone this starts a new one. Raises `NotFound` for the
        endpoint, `UnknownModel` for the version.
        """
        with self._database.write() as tx:
            row = _require(tx, name)
            manifest = registry.resolve(tx, reference)
            wanted = _with_model(row.resource, reference, strategy)
            change = compare(row.resource, wanted)
            record = _record_of(tx, name)
            restart = record is not None and _came_back(record, manifest)
            if change.action != "unchanged":
                row, _ = endpoints.put(tx, wanted, actor=actor, reason=reason)
            if restart:
                rollouts.push_command(tx, name, RESTART, actor=actor, reason=reason or f"deploy {reference}")
        self._wake()
        return Deployed(
            change,
            manifest.model,
            manifest.version,
            manifest.digest,
            row.generation,
            record.state.rollout_id if record is not None else "",
            started=restart or record is None or record.kept.target != _target_of(manifest),
        )

    def get_rollout(self, name: str) -> ReleaseRow:
        """How far the endpoint's release is. Raises `NotFound`."""
        with self._database.read() as tx:
            row = _require(tx, name)
            record = _record_of(tx, name)
            return ReleaseRow(name, row.resource, row.generation, record.state if record is not None else None)

    def list_rollouts(self) -> dict[str, ReleaseState]:
        """The release of every endpoint that has one, by endpoint."""
        with self._database.read() as tx:
            return {row.endpoint: decode_record(row.body, row.revision).state for row in rollouts.list_(tx)}

    def command(self, name: str, verb: str, *, actor: str, reason: str = "") -> int:
        """Give a rollout a command (promote, pause, resume, abort, undo) and return its id. Raises `NotFound`."""
        with self._database.write() as tx:
            _require(tx, name)
            command = rollouts.push_command(tx, name, verb, actor=actor, reason=reason)
        self._wake()
        return command

    def outcome_of(self, command: int) -> str | None:
        """What became of a command; None while it waits."""
        with self._database.read() as tx:
            return rollouts.outcome_of(tx, command)

    def _compare(self, tx: Connection, resource: Endpoint) -> Change:
        registry.resolve(tx, resource.spec.model)
        row = endpoints.get(tx, resource.metadata.name)
        return compare(None if row is None or row.deleting else row.resource, resource)

    def _wake_after(self, changes: Sequence[Change]) -> None:
        if any(change.action != "unchanged" for change in changes):
            self._wake()


def _require(tx: Connection, name: str) -> EndpointRow:
    row: EndpointRow | None = endpoints.get(tx, name)
    if row is None or row.deleting:
        known = [other.name for other in endpoints.list_(tx) if not other.deleting]
        raise NotFound(f'endpoint "{name}" is not known here{suggest(name, known)}; see: hyperion get endpoints')
    return row


def _with_model(resource: Endpoint, reference: str, strategy: Strategy | None) -> Endpoint:
    if "@" not in reference:
        raise InvalidResource(f"{reference}: say which version: {reference}@VERSION or {reference}@ALIAS")
    spec = resource.spec
    rollout = msgspec.structs.replace(spec.rollout, strategy=strategy or spec.rollout.strategy)
    return msgspec.structs.replace(resource, spec=msgspec.structs.replace(spec, model=reference, rollout=rollout))


def _record_of(tx: Connection, name: str) -> Record | None:
    row = rollouts.get(tx, name)
    return None if row is None else decode_record(row.body, row.revision)


def _came_back(record: Record, manifest: Manifest) -> bool:
    """Whether the last rollout was for this very version, which neither serves nor is on its way: it was halted,
    aborted or undone. Nothing would begin by itself, as the resource names it already."""
    state = record.state
    if record.kept.target != _target_of(manifest) or state.state in OPEN:
        return False
    serving = state.to_digest if state.state == "promoted" else state.from_digest
    return serving != manifest.digest and state.state != "idle"


def _target_of(manifest: Manifest) -> str:
    """As `release_aim` writes down what a release is for."""
    return f"{manifest.model}@{manifest.version} {manifest.digest}"
