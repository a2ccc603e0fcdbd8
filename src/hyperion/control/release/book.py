"""The store as the release loop sees it: what endpoints are to be, how far their releases are, and what was commanded.

Synchronous and slow (disk, network): the loop calls it in a thread. Every save is one transaction with its ledger
entries, under the leader's fence, and names the revision that it replaces, so that nothing is decided twice.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection

from hyperion.control.compose import Declared
from hyperion.control.release.record import Record, decode_record, encode_record
from hyperion.policy.graph.members import find_owner, list_members
from hyperion.schema.errors import HyperionError
from hyperion.schema.model import ModelOptions
from hyperion.schema.registry import Manifest, VerifiedSpec
from hyperion.schema.release import PredictionRow, ValuePair
from hyperion.schema.resource import Endpoint, EndpointSpec, Metadata
from hyperion.store import endpoints, labels, ledger, predictions, registry, rollouts
from hyperion.store.blobs.directory import Blobs
from hyperion.store.database import Database
from hyperion.store.versions.materialise import materialise
from hyperion.store.versions.signing import Trust, decide_trust, verify_signature


class Event(Struct, frozen=True):
    """An entry for the ledger."""

    kind: str
    subject: str
    actor: str
    reason: str = ""
    before: str = ""
    after: str = ""
    detail: dict[str, Any] = {}


class Desired(Struct, frozen=True):
    """One endpoint as it is to be. `manifest` is what its `model` names now; `error` says why it names nothing.
    `internal` ones are members of others (`policy/graph/members`)."""

    endpoint: Endpoint
    generation: int
    manifest: Manifest | None = None
    error: str = ""
    deleting: bool = False
    internal: bool = False

    @property
    def is_left_over(self) -> bool:
        """Whether it is a member that no resource asks for any more."""
        return self.internal and not self.endpoint.spec.model


class Page(Struct, frozen=True):
    """One reading of the store. `declared` are the endpoints with an upstream or a graph; `commands` are those that
    nobody has answered, by endpoint."""

    desired: tuple[Desired, ...] = ()
    declared: tuple[Declared, ...] = ()
    records: dict[str, Record] = {}
    commands: dict[str, tuple[rollouts.CommandRow, ...]] = {}


class Change(Struct, frozen=True):
    """What one look decided for one endpoint: its new record (None: as it was), the entries, the commands done with
    their outcomes, and whether the endpoint is gone for good."""

    endpoint: str
    record: Record | None = None
    events: tuple[Event, ...] = ()
    done: tuple[tuple[int, str], ...] = ()
    purge: bool = False


class Book:
    """All of it, over one database and one place for blobs. `trust` says whose signatures count,
    `trust_pickle` is the operator's word for versions that nobody signed."""

    def __init__(
        self, database: Database, blobs: Blobs, artifacts: Path, trust: Trust, trust_pickle: bool = False
    ) -> None:
        self.database = database
        self._trust = trust
        self._trust_pickle = trust_pickle
        self._blobs = blobs
        self._artifacts = artifacts
        self._exact: dict[str, Manifest] = {}  # a version never changes, so what was named exactly is read once

    def read(self) -> Page:
        """One consistent reading."""
        with self.database.read() as tx:
            commands: dict[str, tuple[rollouts.CommandRow, ...]] = {}
            for command in rollouts.commands(tx):
                commands[command.endpoint] = (*commands.get(command.endpoint, ()), command)
            records = {row.endpoint: decode_record(row.body, row.revision) for row in rollouts.list_(tx)}
            rows = tuple(_all_endpoints(tx))
            desired = self._read_desired(tx, rows)
            declared = tuple(Declared(row.resource, row.deleting) for row in rows if not row.resource.spec.model)
            known = {one.endpoint.metadata.name for one in desired}
            # A member whose owner is gone, or wants it no more, is on its way out.
            gone = [name for name in records if find_owner(name) and name not in known]
            desired += [Desired(Endpoint(Metadata(n), EndpointSpec()), 0, deleting=True, internal=True) for n in gone]
            return Page(tuple(desired), declared, records, commands)

    def _read_desired(self, tx: Connection, rows: Iterable[endpoints.EndpointRow]) -> list[Desired]:
        """Every endpoint that registered models answer for, each followed by its members."""
        found: dict[str, Manifest | HyperionError] = {}
        exact: dict[str, Manifest] = {}
        desired = []
        for row in rows:
            own = (row.resource,) if row.resource.spec.model else ()
            for endpoint in (*own, *list_members(row.resource)):
                reference = endpoint.spec.model
                if reference not in found:
                    found[reference] = named = self._exact.get(reference) or _resolve(tx, reference)
                    if isinstance(named, Manifest) and reference == f"{named.model}@{named.version}":
                        exact[reference] = named
                named = found[reference]
                desired.append(
                    Desired(
                        endpoint,
                        row.generation,
                        None if isinstance(named, HyperionError) else named,
                        named.message if isinstance(named, HyperionError) else "",
                        row.deleting,
                        endpoint is not row.resource,
                    )
                )
        self._exact = exact
        return desired

    def save(self, changes: Iterable[Change], fence: int | None) -> dict[str, int]:
        """Make these changes true, all or none, and return the new revisions by endpoint. Entries say the leader's
        fence, where there is one. Raises `Conflict` where a row is not the one that was read, `Fenced` where another
        control process leads."""
        revisions = {}
        with self.database.write(fence) as tx:
            for change in changes:
                record = change.record
                if record is not None:
                    state = record.state
                    revisions[change.endpoint] = rollouts.put(
                        tx,
                        change.endpoint,
                        state.rollout_id,
                        state.state,
                        encode_record(record),
                        expected_revision=record.revision,
                    )
                for event in change.events:
                    ledger.append(
                        tx,
                        event.kind,
                        event.subject,
                        actor=event.actor,
                        reason=event.reason,
                        before=event.before,
                        after=event.after,
                        detail=event.detail if fence is None else {**event.detail, "leader": fence},
                    )
                for command_id, outcome in change.done:
                    rollouts.done(tx, command_id, outcome)
                if change.purge and find_owner(change.endpoint):
                    rollouts.forget(tx, change.endpoint)
                elif change.purge:
                    endpoints.purge(tx, change.endpoint)
        return revisions

    def manifest(self, model: str, version: str) -> Manifest | None:
        """A version of the registry."""
        with self.database.read() as tx:
            return registry.get_manifest(tx, model, version)

    def lay_out(self, manifest: Manifest, name: str, options: ModelOptions, anew: bool = False) -> VerifiedSpec:
        """Lay a version's files out for a runner of the endpoint `name`, if its signature is one that counts; with
        `anew` again, should it have been done before.

        Raises `HyperionError`.
        """
        with self.database.read() as tx:
            signature = registry.get_signature(tx, manifest.model, manifest.version)
        signed_by = verify_signature(manifest, signature, self._trust)
        trusted = decide_trust(manifest, signed_by, self._trust_pickle)
        return materialise(
            manifest, self._blobs, self._artifacts, name=name, trust_pickle=trusted, options=options, anew=anew
        )

    def keep_predictions(self, rows: list[PredictionRow], pairs: list[ValuePair], fence: int | None) -> None:
        """Keep the sampled predictions, for lineage, and the pairs that labels will judge."""
        with self.database.write(fence) as tx:
            predictions.put_many(tx, rows)
            labels.put_pairs(tx, pairs)


def _resolve(tx: Connection, reference: str) -> Manifest | HyperionError:
    try:
        return registry.resolve(tx, reference)
    except HyperionError as error:
        return error


def _all_endpoints(tx: Connection) -> Iterator[endpoints.EndpointRow]:
    after = ""
    while rows := endpoints.list_(tx, after=after):
        yield from rows
        after = rows[-1].name
