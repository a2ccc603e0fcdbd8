"""Whether endpoints can answer, and who answers with them or for them: from what the gateways are told to serve."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct
from pydantic import BaseModel, Field

from hyperion.api.records import Management
from hyperion.policy.graph.members import name_fallback, name_member, refer_to
from hyperion.schema.protect import Fallback, GraphStep
from hyperion.schema.resource import Endpoint


class MemberView(BaseModel):
    """A step of a graph or a link of a fallback chain that is something served."""

    role: Literal["step", "fallback"]
    name: str = Field(description="the step's name, or the link's number from 0")
    kind: Literal["model", "endpoint", "upstream"]
    reference: str = Field(description="the version of the registry, or the endpoint")
    ready: bool
    reason: str = Field(default="", description="why it is not ready")


class Sight(Struct, frozen=True):
    """What is `served` now, and what there is to say of names that are not, or not as wanted."""

    served: frozenset[str]
    reasons: Mapping[str, str]


def look(management: Management) -> Sight:
    """The sight of this moment."""
    snapshot = management.snapshot()
    silent = management.member_reasons()
    reasons = {**silent, **management.rejected()}
    for state in snapshot.index:
        if state.reason and state.name not in reasons:
            reasons[state.name] = state.reason
    return Sight(frozenset(model.name for model in snapshot.models) - silent.keys(), reasons)


def view_members(endpoint: Endpoint, sight: Sight) -> list[MemberView]:
    """The members of an endpoint: first the steps of its graph, then the links of its fallback chain."""
    owner, spec = endpoint.metadata.name, endpoint.spec
    steps = spec.graph.steps if spec.graph is not None else ()
    views = [_view("step", step.name, step, step.model, name_member(owner, step.name), sight) for step in steps]
    for index, link in enumerate(spec.fallback):
        reference = refer_to(spec, link)
        if reference or link.endpoint or link.upstream:
            views.append(_view("fallback", str(index), link, reference, name_fallback(owner, index), sight))
    return views


def _view(
    role: Literal["step", "fallback"],
    name: str,
    member: GraphStep | Fallback,
    reference: str,
    internal: str,
    sight: Sight,
) -> MemberView:
    """`reference` is "" for a member that is an endpoint of its own; otherwise it is served as `internal`."""
    other = member.endpoint or member.upstream
    served_as = internal if reference else other
    ready = served_as in sight.served
    reason = "" if ready else sight.reasons.get(served_as, "is not served")
    kind: Literal["model", "endpoint", "upstream"] = (
        "model" if reference else "endpoint" if member.endpoint else "upstream"
    )
    return MemberView(role=role, name=name, kind=kind, reference=reference or other, ready=ready, reason=reason)
