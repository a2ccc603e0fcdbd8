"""What verbs over several tables answer: a deploy, a release with its resource, the lineage of a prediction."""

from msgspec import Struct

from hyperion.policy.release.state import ReleaseState
from hyperion.schema.batch import BatchRun
from hyperion.schema.registry import Manifest
from hyperion.schema.release import PredictionRow
from hyperion.schema.resource import BatchJob, Endpoint, Issuer, Tenant
from hyperion.store.changes import Change
from hyperion.store.ledger import Entry
from hyperion.store.resources import ResourceRow


class Deployed(Struct, frozen=True):
    """What a deploy did: the change of the resource, the version that its reference names now, and `before`, the id of
    the rollout that was there before, so that a new one can be told from it. `started` is false where that version
    serves, or is on its way, already."""

    change: Change
    model: str
    version: str
    digest: str
    generation: int
    before: str
    started: bool


class ReleaseRow(Struct, frozen=True):
    """An endpoint and how far its release is; None where none has begun."""

    name: str
    resource: Endpoint
    generation: int
    state: ReleaseState | None


class Registered(Struct, frozen=True):
    """A version of the registry, its signature ("" for none), and the aliases that name it now."""

    manifest: Manifest
    signature: str
    aliases: tuple[str, ...] = ()


class Verification(Struct, frozen=True):
    """What was found wrong with a version (nothing: ()), and the name of the trusted key that signed it, where there is
    one that was asked."""

    model: str
    version: str
    digest: str
    files: int
    size_bytes: int
    signed: bool
    signed_by: str
    problems: tuple[str, ...] = ()


class Explained(Struct, frozen=True):
    """Everything that led to one prediction. `registered` is None where the version is no longer in the registry.
    `entries` are those of the ledger about the endpoint's rollout and the version up to the prediction; `step` is the
    newest of the rollout, `approvals` those by which people let it happen."""

    prediction: PredictionRow
    registered: Registered | None
    rollout_id: str
    step: Entry | None
    approvals: tuple[Entry, ...]
    entries: tuple[Entry, ...]


class LiveThen(Struct, frozen=True):
    """What an endpoint served at a time: `step` is the newest entry of its rollouts by then, with versions, weight and
    evidence, `approvals` the newest resources and commands of people by then, newest first."""

    endpoint: str
    at: float
    step: Entry
    approvals: tuple[Entry, ...]


class IssuerState(Struct, frozen=True):
    """What control knows of an issuer's keys: their ids, when they were last read (seconds since 1970, 0 for never),
    and why the last attempt failed ("" where it did not)."""

    kids: tuple[str, ...] = ()
    read_at: float = 0.0
    problem: str = ""


class TenantFound(Struct, frozen=True):
    """A tenant, and how many of its keys are neither expired nor revoked."""

    row: ResourceRow[Tenant]
    live_keys: int


class IssuerFound(Struct, frozen=True):
    """An issuer, and what is known of its keys."""

    row: ResourceRow[Issuer]
    state: IssuerState


class BatchFound(Struct, frozen=True):
    """A batch job, and how it fares; `run` is None before control has seen it."""

    row: ResourceRow[BatchJob]
    run: BatchRun | None
