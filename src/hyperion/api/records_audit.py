"""What the API takes and answers about keys, the ledger and lineage, as pydantic models."""

from typing import Any, Final

import msgspec
from pydantic import BaseModel, Field

from hyperion.api.callers import Scope
from hyperion.api.records_registry import ManifestView, view_registered
from hyperion.store.ledger import Entry, Findings
from hyperion.store.tokens import TokenRow
from hyperion.store.views import Explained, LiveThen

# Kinds of entries, up to the dot, that tell who calls, or with what data.
_ABOUT_CALLERS: Final = frozenset(("tenant", "issuer", "token", "batchjob", "job"))
_WITHHELD: Final = {"withheld": 'needs the scope "deploy"'}
YEAR_9999_S: Final = 253_402_300_799  # the last second that a calendar can show


class KeyRequest(BaseModel):
    """A key to make."""

    tenant: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    scopes: list[Scope] = Field(default=["infer"], min_length=1)
    expires_at: float | None = Field(
        default=None, description="seconds since 1970; null is never", gt=0, le=YEAR_9999_S, allow_inf_nan=False
    )

    model_config = {"extra": "forbid"}


class RotateRequest(BaseModel):
    """How a key is to be followed by another."""

    overlap_s: float = Field(default=86_400.0, ge=0, le=31_536_000, description="how long both count, in seconds")
    reason: str = Field(default="", max_length=300)

    model_config = {"extra": "forbid"}


class KeyView(BaseModel):
    """A key, without its secret."""

    id: str
    tenant: str
    scopes: list[str]
    created_by: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class NewKey(BaseModel):
    """A key that was just made. `key` is shown this once: only its hash is kept."""

    id: str
    key: str
    tenant: str
    scopes: list[str]
    expires_at: float | None


class RotatedKey(NewKey):
    """The successor of a key, which is shown this once, and the key that it is for."""

    replaces: str
    replaced_expires_at: float = Field(description="when the old one ends, in seconds since 1970")


class EntryView(BaseModel):
    """One entry of the ledger."""

    seq: int
    time: float = Field(description="seconds since 1970")
    kind: str
    subject: str
    actor: str
    reason: str
    before: str = Field(description="digest of the record before")
    after: str
    detail: dict[str, Any]
    leaf: str = Field(description="RFC 9162 leaf hash, in hexadecimal")


class EntryList(BaseModel):
    """Entries, oldest first."""

    items: list[EntryView]
    next: int | None = Field(default=None, description="give it as `after` for those behind; null where there are none")


class CheckpointView(BaseModel):
    """The newest signed checkpoint, a C2SP signed note, and the key that it is to be verified with."""

    checkpoint: str
    key: str


class ProofView(BaseModel):
    """A Merkle proof: hashes in hexadecimal, and the checkpoint that they belong to."""

    hashes: list[str]
    checkpoint: str


class VerifyRequest(BaseModel):
    """A checkpoint and a key that somebody kept outside, if any."""

    checkpoint: str | None = Field(default=None, max_length=10_000)
    key: str = Field(default="", max_length=1_000)

    model_config = {"extra": "forbid"}


class FindingsView(BaseModel):
    """What a full check of the ledger found."""

    ok: bool
    size: int = Field(description="so many entries are good")
    root: str = Field(description="the root over them, in hexadecimal")
    bad_entry: int | None = Field(description="the first entry that is not what was signed, or is missing")
    problem: str


class PredictionView(BaseModel):
    """One sampled prediction: no inputs, no outputs."""

    id: str
    endpoint: str
    version: str
    digest: str
    epoch: int
    code: str
    time: float
    latency_ms: float
    shadow: bool


class ExplainView(BaseModel):
    """Everything that led to one prediction."""

    prediction: PredictionView
    release: str = Field(description="id of the rollout that it belongs to")
    model: ManifestView | None = Field(description="null where the version is no longer in the registry")
    git_commit: str
    data_version: str
    step: EntryView | None = Field(description="the rollout's newest entry before the prediction")
    approvals: list[EntryView]
    entries: list[EntryView]


class LiveView(BaseModel):
    """What an endpoint served at a time, on what evidence, and who let it."""

    endpoint: str
    at: float
    versions: dict[str, float] = Field(description="the share of the requests by version, 0 to 1")
    digests: dict[str, str] = Field(description="by version")
    step: EntryView = Field(description="the entry that made it so, with the evidence")
    approvals: list[EntryView] = Field(description="the newest resources and commands of people by then, newest first")


def view_live(found: LiveThen) -> LiveView:
    """Return the view."""
    detail = found.step.detail
    new, old, weight = detail.get("to", ""), detail.get("from", ""), float(detail.get("weight", 0.0))
    shares = {old: 1.0 - weight, new: weight}
    digests = {old: detail.get("from_digest", ""), new: detail.get("to_digest", "")}
    return LiveView(
        endpoint=found.endpoint,
        at=found.at,
        versions={version: share for version, share in shares.items() if version and share > 0},
        digests={version: digest for version, digest in digests.items() if version},
        step=view_entry(found.step),
        approvals=[view_entry(entry) for entry in found.approvals],
    )


def view_key(row: TokenRow) -> KeyView:
    """Return the view."""
    return KeyView.model_validate(msgspec.to_builtins(row))


def view_findings(found: Findings) -> FindingsView:
    """Return the view."""
    return FindingsView.model_validate(msgspec.to_builtins(found))


def view_entry(entry: Entry, *, whole: bool = True) -> EntryView:
    """Return the view. One that is not `whole` tells that something was decided of who calls, and not what."""
    view = EntryView.model_validate(msgspec.to_builtins(entry))
    if not whole and entry.kind.partition(".")[0] in _ABOUT_CALLERS:
        view.detail = _WITHHELD
    return view


def view_explained(found: Explained) -> ExplainView:
    """Return the view."""
    manifest = found.registered.manifest if found.registered is not None else None
    return ExplainView(
        prediction=PredictionView.model_validate(msgspec.to_builtins(found.prediction)),
        release=found.rollout_id,
        model=view_registered(found.registered) if found.registered is not None else None,
        git_commit=manifest.lineage.git_commit if manifest is not None else "",
        data_version=manifest.lineage.data_version if manifest is not None else "",
        step=view_entry(found.step) if found.step is not None else None,
        approvals=[view_entry(entry) for entry in found.approvals],
        entries=[view_entry(entry) for entry in found.entries],
    )
