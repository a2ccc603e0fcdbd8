"""What the API needs of the store, as the desk offers it. Implemented in `control.desk`, handed over by `cli`.

Every verb is synchronous, may be called from any thread, and raises `HyperionError`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from hyperion.policy.rollout_state import ReleaseState
from hyperion.schema.registry import Manifest
from hyperion.schema.release import TrackCounts
from hyperion.schema.resource import Endpoint, Strategy
from hyperion.store.blobs import Blobs
from hyperion.store.changes import Change
from hyperion.store.endpoints import EndpointRow
from hyperion.store.ledger import Entry, Findings
from hyperion.store.registry import ModelRow, VersionRow
from hyperion.store.tokens import TokenRow
from hyperion.store.views import Deployed, Explained, LiveThen, Registered, ReleaseRow, Verification


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


class Desk(Protocol):
    """Endpoints and their rollouts."""

    @property
    def models(self) -> Models:
        """The registry."""

    @property
    def audit(self) -> Audit:
        """Keys, the ledger, lineage."""

    @property
    def labels(self) -> Labels:
        """What turned out to be true of predictions."""

    def apply(
        self, resources: Sequence[Endpoint], *, dry_run: bool = False, actor: str, reason: str = ""
    ) -> list[Change]:
        """Make the endpoints as these say."""

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
