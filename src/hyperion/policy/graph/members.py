"""Internal endpoints: the models that other endpoints name for a step of their graph or a link of their fallback chain.
Pure.

Nobody writes a resource for them: it follows from the owner's, and so do their names, which no user can give (`~`).
Control releases them as it does any endpoint; gateways find the pools of a graph or a chain by these names.
"""

from typing import Final

from hyperion.schema.protect import Fallback
from hyperion.schema.resource import Endpoint, EndpointSpec, Log, Metadata, Rollout

SEPARATOR: Final = "~"
# At once: the owner's answers change anyway when one of its models does, and nobody undoes a member alone.
AT_ONCE: Final = Rollout("all-at-once", standby_s=0.0)
_UNLOGGED: Final = Log(sample=0.0)  # the owner's prediction is the one that callers know by its id


def name_member(owner: str, step: str) -> str:
    """The member that serves a step of the owner's graph.

    >>> name_member("fraud", "small")
    'fraud~small'
    """
    return f"{owner}{SEPARATOR}{step}"


def name_fallback(owner: str, index: int) -> str:
    """The member that serves link `index`, counted from 0, of the owner's fallback chain.

    >>> name_fallback("fraud", 0)
    'fraud~fallback-0'
    """
    return name_member(owner, f"fallback-{index}")


def find_owner(name: str) -> str:
    """The endpoint whose member this is, "" where it is none.

    >>> find_owner("fraud~small"), find_owner("fraud")
    ('fraud', '')
    """
    owner, separator, _ = name.partition(SEPARATOR)
    return owner if separator else ""


def list_members(owner: Endpoint) -> tuple[Endpoint, ...]:
    """The members that an endpoint's resource asks for: those of its graph run as the owner says, those of its fallback
    chain as each version itself says.

    >>> spec = EndpointSpec("fraud@2", fallback=(Fallback(cached=True), Fallback(version="1")))
    >>> [(one.metadata.name, one.spec.model) for one in list_members(Endpoint(Metadata("fraud"), spec))]
    [('fraud~fallback-1', 'fraud@1')]
    """
    name, spec = owner.metadata.name, owner.spec
    members = []
    for step in spec.graph.steps if spec.graph is not None else ():
        if step.model:
            inner = EndpointSpec(
                step.model,
                replicas=spec.replicas,
                resources=spec.resources,
                batching=spec.batching,
                deadline_ms=spec.deadline_ms,
                breaker=spec.breaker,
                rollout=AT_ONCE,
                log=_UNLOGGED,
            )
            members.append(Endpoint(Metadata(name_member(name, step.name)), inner))
    for index, link in enumerate(spec.fallback):
        reference = refer_to(spec, link)
        if reference:
            inner = EndpointSpec(
                reference, deadline_ms=spec.deadline_ms, breaker=spec.breaker, rollout=AT_ONCE, log=_UNLOGGED
            )
            members.append(Endpoint(Metadata(name_fallback(name, index)), inner))
    return tuple(members)


def refer_to(spec: EndpointSpec, link: Fallback) -> str:
    """The version of the registry that a link of the chain names, "" where it names none.

    >>> refer_to(EndpointSpec("fraud@champion"), Fallback(version="1")), refer_to(EndpointSpec("a@1"), Fallback())
    ('fraud@1', '')
    """
    return link.model or (f"{spec.model.partition('@')[0]}@{link.version}" if link.version else "")


def list_references(owner: Endpoint) -> tuple[str, ...]:
    """Every version of the registry that an endpoint's resource names, its members' included.

    >>> list_references(Endpoint(Metadata("fraud"), EndpointSpec("fraud@2")))
    ('fraud@2',)
    """
    own = (owner.spec.model,) if owner.spec.model else ()
    return own + tuple(member.spec.model for member in list_members(owner))


def list_neighbours(owner: Endpoint) -> tuple[str, ...]:
    """The other endpoints that an endpoint's resource names.

    >>> list_neighbours(Endpoint(Metadata("fraud"), EndpointSpec("fraud@2", fallback=(Fallback(upstream="dr"),))))
    ('dr',)
    """
    steps = owner.spec.graph.steps if owner.spec.graph is not None else ()
    named = [step.endpoint or step.upstream for step in steps]
    named += [link.endpoint or link.upstream for link in owner.spec.fallback]
    return tuple(name for name in named if name)
