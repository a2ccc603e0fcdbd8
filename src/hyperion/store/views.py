"""What verbs over several tables answer: a deploy, a release with its resource, the lineage of a prediction."""

from msgspec import Struct

from hyperion.policy.rollout_state import ReleaseState
from hyperion.schema.registry import Manifest
from hyperion.schema.release import PredictionRow
from hyperion.schema.resource import Endpoint
from hyperion.store.changes import Change
from hyperion.store.ledger import Entry


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
