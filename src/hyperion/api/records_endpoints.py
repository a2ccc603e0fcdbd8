"""What the API takes and answers about endpoints and their rollouts, as pydantic models."""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, Field

from hyperion.api.endpoint_status import MemberView, Sight, view_members
from hyperion.policy.release.state import ReleaseState
from hyperion.schema.release import TrackCounts
from hyperion.schema.resource import API_VERSION, Strategy
from hyperion.store.changes import Change
from hyperion.store.checks.rollout import idle_fields
from hyperion.store.endpoints import EndpointRow
from hyperion.store.views import ReleaseRow

Verb = Literal["promote", "pause", "resume", "abort", "undo"]
ENDED = frozenset(("idle", "promoted", "halted", "aborted"))


class EvidenceView(BaseModel):
    """One metric of a rollout: bad events of the canary and of the control, and how strong the evidence is."""

    metric: str
    bad_canary: int
    bad_control: int
    e_value: float | None = Field(description="at the threshold the rollout halts; null where it has no bound")
    threshold: float | None
    verdict: str
    detail: str = ""


class TrackView(BaseModel):
    """What the gateways counted of one version during this rollout."""

    version: str
    role: Literal["control", "canary", "shadow"]
    weight: float = Field(description="its share of the requests now (of the copies, for a shadow), 0 to 1")
    requests: int = 0
    errors: int = 0
    slow: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None


class RolloutView(BaseModel):
    """How far an endpoint's release is."""

    endpoint: str
    state: str = Field(description="idle, shadow, canary, blue-green, paused, promoted, halted or aborted")
    from_: str = Field(default="", alias="from", description="the version that served before")
    to: str = ""
    step: int = Field(default=0, description="which step of the plan, from 1; 0 while the version loads")
    steps: int = 0
    weight: float = Field(default=0.0, description="the share of the requests that the new version gets, 0 to 1")
    verdict: str = Field(default="running", description="pass, running, inconclusive, fail or error")
    reason: str = ""
    evidence: list[EvidenceView] = []
    started_at: float | None = Field(default=None, description="seconds since 1970")
    next_look_at: float | None = None
    ended_at: float | None = None
    rollout_id: str = ""
    strategy: str = ""
    stage: str = Field(default="", description="what the step is: loading, shadow, canary, pause, …")
    to_digest: str = ""
    from_digest: str = ""
    model: str = Field(default="", description="what the endpoint's resource names")
    standby_until: float | None = None
    tracks: list[TrackView] = []

    model_config = {"populate_by_name": True, "serialize_by_alias": True}


class EndpointStatus(BaseModel):
    """What is, beside what is to be."""

    generation: int = Field(description="grows with every change of the resource")
    created_at: float
    updated_at: float
    ready: bool = Field(description="whether gateways are told to serve it")
    reason: str = Field(default="", description="why it is not ready, or not as the resource says")
    members: list[MemberView] = Field(default=[], description="of its graph and of its fallback chain")
    rollout: RolloutView


class EndpointView(BaseModel):
    """An endpoint: the resource, which can be applied again, and its status."""

    apiVersion: str = API_VERSION  # noqa: N815
    kind: Literal["Endpoint"] = "Endpoint"
    metadata: dict[str, Any]
    spec: dict[str, Any]
    status: EndpointStatus


class EndpointList(BaseModel):
    """Endpoints by name."""

    items: list[EndpointView]
    next: str | None = Field(default=None, description="give it as `after` for those behind; null where there are none")


class FieldView(BaseModel):
    """One field that changes; null is not there."""

    path: str
    before: Any = None
    after: Any = None


class ChangeView(BaseModel):
    """What happened, or would happen, to one resource."""

    kind: str
    name: str
    action: Literal["created", "configured", "unchanged", "deleted"]
    fields: list[FieldView] = []


class Changes(BaseModel):
    """The answer to an apply or a delete."""

    dry_run: bool
    changes: list[ChangeView]


class DeployRequest(BaseModel):
    """Which version is to go live."""

    model: str = Field(description="NAME@VERSION or NAME@ALIAS", max_length=300)
    strategy: Strategy | None = Field(default=None, description="the resource's own, where it is not given")
    reason: str = Field(default="", max_length=1_000)

    model_config = {"extra": "forbid"}


class DeployView(BaseModel):
    """What a deploy did. The control loop starts the rollout: watch it with `after` set to `previous_rollout`."""

    endpoint: str
    model: str
    version: str
    digest: str
    generation: int
    started: bool = Field(description="false where that version is live, or on its way, already")
    previous_rollout: str
    change: ChangeView


class CommandRequest(BaseModel):
    """Why."""

    reason: str = Field(default="", max_length=1_000)

    model_config = {"extra": "forbid"}


class CommandView(BaseModel):
    """What became of a command."""

    endpoint: str
    verb: Verb
    outcome: str | None = Field(description="null where the control loop has not answered in time; it still will")
    rollout: RolloutView


def view_endpoint(row: EndpointRow, state: ReleaseState | None, sight: Sight) -> EndpointView:
    """Return the view; its spec has every field that means something. An upstream and a graph have no rollouts."""
    spec = msgspec.to_builtins(row.resource.spec)
    for field in idle_fields(row.resource.spec.rollout.strategy):
        spec["rollout"].pop(field, None)
    release = ReleaseRow(row.name, row.resource, row.generation, state if row.resource.spec.model else None)
    return EndpointView(
        metadata=msgspec.to_builtins(row.resource.metadata),
        spec=spec,
        status=EndpointStatus(
            generation=row.generation,
            created_at=row.created_at,
            updated_at=row.updated_at,
            ready=row.name in sight.served,
            reason=sight.reasons.get(row.name, ""),
            members=view_members(row.resource, sight),
            rollout=view_rollout(release),
        ),
    )


def view_change(change: Change) -> ChangeView:
    """Return the view."""
    return ChangeView.model_validate(msgspec.to_builtins(change))


def view_changes(changes: Iterable[Change], dry_run: bool) -> Changes:
    """Return the answer to a write."""
    return Changes(dry_run=dry_run, changes=[view_change(change) for change in changes])


def view_rollout(row: ReleaseRow, counts: Iterable[TrackCounts] = ()) -> RolloutView:
    """Return the view of a release; of `counts` those of its own epochs are shown, not those of releases before it."""
    state = row.state
    if state is None:
        return RolloutView(endpoint=row.name, state="idle", model=row.resource.spec.model)
    first = state.epochs[0].epoch if state.epochs else 0
    stage = state.plan[state.stage].kind if 0 <= state.stage < len(state.plan) else "loading"
    return RolloutView(
        endpoint=row.name,
        state=state.state,
        **{"from": state.from_version},
        to=state.to_version,
        step=state.stage + 1,
        steps=len(state.plan),
        weight=state.weight,
        verdict=state.verdict,
        reason=state.reason,
        evidence=[EvidenceView.model_validate(_finite(msgspec.to_builtins(item))) for item in state.evidence],
        started_at=state.started_at or None,
        next_look_at=state.next_look_at or None,
        ended_at=state.ended_at or None,
        rollout_id=state.rollout_id,
        strategy=state.strategy,
        stage="" if state.state in ENDED else stage,
        to_digest=state.to_digest,
        from_digest=state.from_digest,
        model=row.resource.spec.model,
        standby_until=state.standby_until or None,
        tracks=_view_tracks(state, tuple(item for item in counts if item.epoch >= first)),
    )


def _view_tracks(state: ReleaseState, counts: tuple[TrackCounts, ...]) -> list[TrackView]:
    shadow = any(item.shadow for item in counts) or (state.state == "shadow" and bool(state.to_version))
    canary = not shadow or state.weight > 0 or any(_is_canary(state, item) for item in counts)
    if not state.from_version:  # the first release: there is nothing to compare it with
        return [_sum(state.to_version, "control", state.weight, counts)] if state.to_version else []
    tracks = [_sum(state.from_version, "control", 1 - state.weight, counts)]
    if state.to_version and canary:
        tracks.append(_sum(state.to_version, "canary", state.weight, counts))
    if state.to_version and shadow:
        tracks.append(_sum(state.to_version, "shadow", state.shadow_share, counts))
    return tracks


def _is_canary(state: ReleaseState, counts: TrackCounts) -> bool:
    return counts.version == state.to_version and not counts.shadow


def _sum(
    version: str, role: Literal["control", "canary", "shadow"], weight: float, counts: tuple[TrackCounts, ...]
) -> TrackView:
    mine = [item for item in counts if item.version == version and item.shadow == (role == "shadow")]
    latency = [sum(bucket) for bucket in zip(*(item.latency for item in mine if item.latency), strict=False)]
    return TrackView(
        version=version,
        role=role,
        weight=weight,
        requests=sum(item.requests for item in mine),
        errors=sum(item.errors for item in mine),
        slow=sum(item.slow for item in mine),
        p50_ms=find_quantile(latency, 0.5),
        p99_ms=find_quantile(latency, 0.99),
    )


def find_quantile(buckets: list[int], quantile: float) -> float | None:
    """Return the upper bound in ms of the bucket that holds a quantile; None without events.

    Bucket i holds those of (2^((i-1)/4), 2^(i/4)] microseconds.

    >>> find_quantile([0] * 40 + [9, 1], 0.5)
    1.024
    """
    total = sum(buckets)
    passed = 0
    for index, count in enumerate(buckets):
        passed += count
        if total and passed >= quantile * total:
            return float(2 ** (index / 4) / 1_000)
    return None


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Infinities and NaN are no JSON: null."""
    return {key: None if isinstance(value, float) and value - value != 0 else value for key, value in values.items()}
