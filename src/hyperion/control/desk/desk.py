"""The desk: every verb of the management API that needs the store and not the loop.

Called by `api` from its threads. Synchronous and safe to share: each verb is one transaction, in which what is written
and its entry in the ledger come true together; then the loop is woken. Decides nothing about releases.
"""

from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import Connection

from hyperion.control.callers.usage_book import UsageDesk
from hyperion.control.desk.audit import Audit
from hyperion.control.desk.batches import BatchDesk
from hyperion.control.desk.graphs import check_graphs, check_unneeded
from hyperion.control.desk.jobs import Jobs
from hyperion.control.desk.models import Models
from hyperion.control.desk.tenants import Tenants
from hyperion.control.labels import Labels
from hyperion.control.release.record import Record, decode_record
from hyperion.fleet.credentials import find_credentials
from hyperion.policy.constraints import explain_misfit
from hyperion.policy.graph.circle import find_circle
from hyperion.policy.graph.members import list_neighbours, list_references
from hyperion.policy.redact import explain_unknown_fields
from hyperion.policy.release.state import OPEN, ReleaseState
from hyperion.schema.errors import GateRefused, InvalidResource, NotFound
from hyperion.schema.model import Signature
from hyperion.schema.registry import Manifest
from hyperion.schema.release import TrackCounts
from hyperion.schema.resource import Endpoint, Issuer, Resource, Strategy, Tenant
from hyperion.store import endpoints, registry, resources, rollouts
from hyperion.store.blobs.directory import Blobs
from hyperion.store.changes import Change, compare, delete
from hyperion.store.database import Database
from hyperion.store.endpoints import EndpointRow
from hyperion.store.reading import suggest
from hyperion.store.versions.signing import Trust
from hyperion.store.views import Deployed, IssuerState, ReleaseRow

RESTART = "restart"


def _no_counts(_endpoint: str) -> tuple[TrackCounts, ...]:
    return ()


def _no_keys(_issuer: str) -> IssuerState:
    return IssuerState()


def _nobody_waits() -> None:
    return


def _nothing_runs(_digest: str) -> Signature | None:
    return None


class Desk:
    """The verbs over endpoints and their rollouts; those of the registry are in `models`, those of keys, the ledger
    and lineage in `audit`, those of labels in `labels`, those of batch jobs in `batches`,
    those of tenants and issuers in `tenants`, what tenants use in
    `usage`. `wake` must be safe to call from any thread, and so must `welcome`, which is for changes of who may call.
    `counts` gives what the gateways counted of an endpoint's rollout; it is called on the event loop's thread. `trust`
    says whose signatures count, `issuers` what is known of the keys of an issuer of tokens, `credential_dirs` where the
    files lie that endpoints may name as credentials, `signature_of` the signature of a version that runs, by digest."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        wake: Callable[[], None],
        counts: Callable[[str], tuple[TrackCounts, ...]] = _no_counts,
        trust: Trust = Trust(),  # noqa: B008  it is frozen
        welcome: Callable[[], None] = _nobody_waits,
        issuers: Callable[[str], IssuerState] = _no_keys,
        jobs: Jobs | None = None,
        batches: BatchDesk | None = None,
        credential_dirs: Sequence[str] = (),
        signature_of: Callable[[str], Signature | None] = _nothing_runs,
    ) -> None:
        self.models = Models(database, blobs, wake, trust)
        self.audit = Audit(database, welcome)
        self.labels = Labels(database)
        self.usage = UsageDesk(database)
        self.jobs = jobs or Jobs(database)
        self.batches = batches or BatchDesk(database, None, _nobody_waits)
        self.tenants = Tenants(database, welcome, issuers)
        self.counts = counts
        self._credential_dirs = credential_dirs
        self._signature_of = signature_of
        self._database = database
        self._wake = wake
        self._welcome = welcome

    def apply(self, given: Sequence[Resource], *, dry_run: bool = False, actor: str, reason: str = "") -> list[Change]:
        """Make things as these resources say, all or none, and return what that changes; `dry_run` changes nothing.

        Raises `UnknownModel` where a model is not in the registry, `Conflict` for an endpoint that is being deleted and
        for tenants or issuers that could not be told from others, `GateRefused` for files that may not be named.
        """
        with self._database.read() if dry_run else self._database.write() as tx:
            self.tenants.check(tx, given)
            _check_circles(tx, given)
            check_graphs(tx, given, self._signature_of)
            changes = [self._compare(tx, resource) for resource in given]
            for resource, change in zip(given, changes, strict=True):
                if change.action == "unchanged" or dry_run:
                    continue
                if isinstance(resource, Endpoint):
                    endpoints.put(tx, resource, actor=actor, reason=reason)
                else:
                    resources.put(tx, resource, actor=actor, reason=reason)
        if not dry_run:
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
        """Stop serving and forget an endpoint. Raises `NotFound`, and `Conflict` where a graph cannot do without it."""
        with self._database.read() if dry_run else self._database.write() as tx:
            change = delete(_require(tx, name).resource)
            check_unneeded(tx, name)
            if not dry_run:
                endpoints.delete(tx, name, actor=actor, reason=reason)
        if not dry_run:
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
            row = _require_released(tx, name)
            manifest = registry.resolve(tx, reference)
            wanted = _with_model(row.resource, reference, strategy)
            self._check_rules(wanted, manifest)
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
            record = _record_of(tx, name) if row.resource.spec.model else None
            return ReleaseRow(name, row.resource, row.generation, record.state if record is not None else None)

    def list_rollouts(self) -> dict[str, ReleaseState]:
        """The release of every endpoint that has one, by endpoint."""
        with self._database.read() as tx:
            return {row.endpoint: decode_record(row.body, row.revision).state for row in rollouts.list_(tx)}

    def command(self, name: str, verb: str, *, actor: str, reason: str = "") -> int:
        """Give a rollout a command (promote, pause, resume, abort, undo) and return its id. Raises `NotFound`."""
        with self._database.write() as tx:
            _require_released(tx, name)
            command = rollouts.push_command(tx, name, verb, actor=actor, reason=reason)
        self._wake()
        return command

    def outcome_of(self, command: int) -> str | None:
        """What became of a command; None while it waits."""
        with self._database.read() as tx:
            return rollouts.outcome_of(tx, command)

    def _compare(self, tx: Connection, resource: Resource) -> Change:
        if isinstance(resource, Tenant | Issuer):
            return self.tenants.compare(tx, resource)
        if not isinstance(resource, Endpoint):
            return self.batches.compare(tx, resource)
        upstream = resource.spec.upstream
        if upstream is not None and upstream.headers_from:
            find_credentials(upstream.headers_from, self._credential_dirs, "spec.upstream.headers_from")
        for reference in list_references(resource):
            manifest = registry.resolve(tx, reference)
            if reference == resource.spec.model:
                self._check_rules(resource, manifest)
        row = endpoints.get(tx, resource.metadata.name)
        return compare(None if row is None or row.deleting else row.resource, resource)

    def _check_rules(self, resource: Endpoint, manifest: Manifest) -> None:
        """Raise `InvalidResource` where rules or redacted fields do not fit what the version says that it takes. Most
        versions say so only once they run."""
        signature = manifest.signature or self._signature_of(manifest.digest)
        if signature is None:
            return
        rules = resource.spec.schema
        why = "" if rules is None else explain_misfit(rules, signature)
        why = why or explain_unknown_fields(resource.spec.log.redact, signature)
        if why:
            raise InvalidResource(f"endpoint {resource.metadata.name!r}: spec.{why}")

    def _wake_after(self, changes: Sequence[Change]) -> None:
        changed = {change.kind for change in changes if change.action != "unchanged"}
        if "Endpoint" in changed:
            self._wake()
        if "BatchJob" in changed:
            self.batches.changed()
        if changed - {"Endpoint", "BatchJob"}:
            self._welcome()


def _require(tx: Connection, name: str) -> EndpointRow:
    row: EndpointRow | None = endpoints.get(tx, name)
    if row is None or row.deleting:
        known = [other.name for other in endpoints.list_(tx) if not other.deleting]
        raise NotFound(f'endpoint "{name}" is not known here{suggest(name, known)}; see: hyperion get endpoints')
    return row


def _check_circles(tx: Connection, given: Sequence[Resource]) -> None:
    """Raise `InvalidResource` where endpoints would name each other in a circle: a request would never come to an end.
    Endpoints that are not there yet name nobody."""
    changed = {one.metadata.name: one for one in given if isinstance(one, Endpoint)}

    def name_others(name: str) -> Sequence[str]:
        row = None if name in changed else endpoints.get(tx, name)
        resource = changed.get(name) or (row.resource if row is not None else None)
        return list_neighbours(resource) if resource is not None else ()

    for name in changed:
        if way := find_circle(name, name_others):
            raise InvalidResource(f"endpoint {name!r} comes back to itself: {' -> '.join(way)}; leave one of them out")


def _require_released(tx: Connection, name: str) -> EndpointRow:
    row = _require(tx, name)
    if not row.resource.spec.model:
        kind = "an upstream" if row.resource.spec.upstream is not None else "a graph"
        raise GateRefused(f'endpoint "{name}" is {kind}: it has no versions to roll out; change it with hyperion apply')
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
    """As `release/aim` writes down what a release is for."""
    return f"{manifest.model}@{manifest.version} {manifest.digest}"
