"""What the API needs of the store, as the desk offers it. Implemented in `control.desk`, handed over by `cli`.

Every verb is synchronous, may be called from any thread, and raises `HyperionError`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from hyperion.policy.release.state import ReleaseState
from hyperion.schema.job import JobView, StoredAnswer, StoredRequest
from hyperion.schema.registry import Manifest
from hyperion.schema.release import TrackCounts
from hyperion.schema.resource import Resource, Strategy
from hyperion.schema.usage import Amounts, DayUsage
from hyperion.store.blobs.directory import Blobs
from hyperion.store.changes import Change
from hyperion.store.endpoints import EndpointRow
from hyperion.store.job_orders import DeadOrder
from hyperion.store.ledger import Entry, Findings
from hyperion.store.registry import ModelRow, VersionRow
from hyperion.store.tokens import TokenRow
from hyperion.store.views import (
    BatchFound,
    Deployed,
    Explained,
    IssuerFound,
    LiveThen,
    Registered,
    ReleaseRow,
    TenantFound,
    Verification,
)


class Models(Protocol):
    """The registry."""

    @property
    def blobs(self) -> Blobs:
        """The files."""

    def put(self, manifest: Manifest, signature: str = "", *, alias: str = "", actor: str, reason: str = "") -> bool:
        """Register a version; False where it was there already."""

    def missing(self, sha256s: Sequence[str]) -> list[str]:
        """Those blobs that are not here."""

    def list_models(self, after: str = "", limit: int = 100) -> list[ModelRow]:
        """Models by name."""

    def versions(self, model: str) -> tuple[list[VersionRow], dict[str, str], str]:
        """Versions, aliases, and the version that a push would get."""

    def show(self, reference: str) -> Registered:
        """One version."""

    def set_alias(self, model: str, alias: str, version: str, *, actor: str, reason: str = "") -> None:
        """Move an alias."""

    def verify(self, reference: str) -> Verification:
        """Read all of a version and judge it."""


class Audit(Protocol):
    """Keys, the ledger, lineage."""

    def create_key(
        self, tenant: str, scopes: Sequence[str], expires_at: float | None, *, actor: str
    ) -> tuple[TokenRow, str]:
        """Make a key; the secret is shown this once."""

    def find_key(self, secret: str) -> TokenRow | None:
        """The valid key with this secret."""

    def rotate_key(
        self, key_id: str, overlap_s: float, *, actor: str, reason: str = ""
    ) -> tuple[TokenRow, str, TokenRow]:
        """Make a key's successor: the new one, its secret, and the old one."""

    def list_keys(self) -> list[TokenRow]:
        """All keys."""

    def revoke_key(self, key_id: str, *, actor: str, reason: str = "") -> None:
        """End a key."""

    def entries(
        self, *, after: int = -1, limit: int = 100, subject: str = "", kind: str = "", newest: bool = False
    ) -> list[Entry]:
        """Ledger entries, oldest first or newest first."""

    def checkpoint(self) -> str:
        """The newest signed checkpoint."""

    def vkey(self) -> str:
        """The verifier key of the checkpoints."""

    def prove_inclusion(self, seq: int, size: int = 0) -> tuple[list[str], str]:
        """Hashes, in hexadecimal, and the newest checkpoint."""

    def prove_consistency(self, first: int, second: int = 0) -> tuple[list[str], str]:
        """Hashes, in hexadecimal, and the newest checkpoint."""

    def verify_ledger(self, trusted: str | None = None, key: str = "") -> Findings:
        """Recompute everything."""

    def live_at(self, endpoint: str, at: float) -> LiveThen:
        """What an endpoint served at a time."""

    def explain(self, prediction_id: str) -> Explained:
        """The lineage of a prediction."""


class Labels(Protocol):
    """What turned out to be true."""

    def put(self, given: Sequence[tuple[str, str | float, str, float | None]]) -> int:
        """Keep labels (prediction, label, source, since when); return how many are for unknown predictions."""


class Tenants(Protocol):
    """Tenants and issuers."""

    def list_tenants(self, after: str = "", limit: int = 100) -> list[TenantFound]:
        """Tenants by name."""

    def get_tenant(self, name: str) -> TenantFound:
        """One tenant."""

    def delete_tenant(self, name: str, *, dry_run: bool = False, actor: str, reason: str = "") -> Change:
        """Forget a tenant that nobody can come in as."""

    def list_issuers(self, after: str = "", limit: int = 100) -> list[IssuerFound]:
        """Issuers by name."""

    def get_issuer(self, name: str) -> IssuerFound:
        """One issuer."""

    def delete_issuer(self, name: str, *, dry_run: bool = False, actor: str, reason: str = "") -> Change:
        """Forget an issuer."""


class BatchJobs(Protocol):
    """Tables to score."""

    def list_(self, after: str = "", limit: int = 100) -> list[BatchFound]:
        """Batch jobs by name."""

    def get(self, name: str) -> BatchFound:
        """One batch job, and how it fares."""

    def delete(self, name: str, *, dry_run: bool = False, actor: str, reason: str = "") -> Change:
        """Stop and forget one."""


class Usage(Protocol):
    """What tenants have used."""

    def read(self, tenant: str, first: str = "", last: str = "") -> tuple[str, str, list[DayUsage], Amounts]:
        """First and last day, what was used on each day between them, and the sum."""

    def read_all(self, first: str, last: str, after: str, limit: int) -> tuple[str, str, list[tuple[str, Amounts]]]:
        """First and last day, and the sums of tenants by name."""


class Jobs(Protocol):
    """What was to be answered later."""

    def list_(
        self, state: str = "", endpoint: str = "", tenant: str = "", after: str = "", limit: int = 100
    ) -> list[JobView]:
        """Jobs by age."""

    def get(self, job_id: str) -> JobView:
        """One job."""

    def result(self, job_id: str) -> StoredAnswer:
        """Its answer."""

    def request(self, job_id: str) -> StoredRequest:
        """What was asked."""

    def cancel(self, job_id: str, *, actor: str) -> JobView:
        """End one that has not ended."""

    def retry(self, job_id: str, *, actor: str) -> JobView:
        """Let one that has ended run again."""

    def discard(self, job_id: str, *, actor: str) -> None:
        """Forget one that has ended."""

    def retry_dead(self, endpoint: str = "", *, actor: str) -> DeadOrder:
        """Let dead letters run again."""

    def discard_dead(self, endpoint: str = "", *, actor: str) -> DeadOrder:
        """Forget dead letters."""

    def secret(self, tenant: str) -> str:
        """What callbacks to this tenant are signed with."""


class Desk(Protocol):
    """Resources, and the rollouts of endpoints."""

    @property
    def models(self) -> Models:
        """The registry."""

    @property
    def audit(self) -> Audit:
        """Keys, the ledger, lineage."""

    @property
    def jobs(self) -> Jobs:
        """What was to be answered later."""

    @property
    def batches(self) -> BatchJobs:
        """Tables to score."""

    @property
    def labels(self) -> Labels:
        """What turned out to be true of predictions."""

    @property
    def usage(self) -> Usage:
        """What tenants have used."""

    @property
    def tenants(self) -> Tenants:
        """Tenants and issuers."""

    def apply(self, given: Sequence[Resource], *, dry_run: bool = False, actor: str, reason: str = "") -> list[Change]:
        """Make things as these resources say."""

    def list_endpoints(self, after: str = "", limit: int = 100) -> list[EndpointRow]:
        """Endpoints by name."""

    def get_endpoint(self, name: str) -> EndpointRow:
        """One endpoint."""

    def delete_endpoint(self, name: str, *, dry_run: bool = False, actor: str, reason: str = "") -> Change:
        """Stop serving and forget an endpoint."""

    def deploy(
        self, name: str, reference: str, strategy: Strategy | None = None, *, actor: str, reason: str = ""
    ) -> Deployed:
        """Let an endpoint name another version."""

    def get_rollout(self, name: str) -> ReleaseRow:
        """How far an endpoint's release is."""

    def list_rollouts(self) -> dict[str, ReleaseState]:
        """The release of every endpoint that has one."""

    def command(self, name: str, verb: str, *, actor: str, reason: str = "") -> int:
        """Give a rollout a command."""

    def outcome_of(self, command: int) -> str | None:
        """What became of it."""

    @property
    def counts(self) -> Callable[[str], tuple[TrackCounts, ...]]:
        """What the gateways counted of an endpoint's rollout. Called on the event loop's thread."""
