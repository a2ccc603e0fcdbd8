"""What the desk refuses of graphs because of what else is there: steps that do not fit each other, an endpoint that a
graph cannot do without. Called by `desk`, within its transactions.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from hyperion.policy.graph.extent import MOST_DEPTH, MOST_STEPS, measure
from hyperion.policy.graph.signature import Unfit, derive_signature
from hyperion.schema.errors import Conflict, InvalidResource
from hyperion.schema.model import Signature
from hyperion.schema.protect import Graph
from hyperion.schema.resource import Endpoint, Resource
from hyperion.store import endpoints, registry


def check_graphs(tx: Connection, given: Sequence[Resource], signature_of: Callable[[str], Signature | None]) -> None:
    """Raise `InvalidResource` where a step names no upstream as one, where steps do not fit each other as far as the
    signatures of their models are known (others are judged when they run), and where graphs of graphs would do too much
    for one request. `UnknownModel` where a model is not there."""
    changed = {one.metadata.name: one for one in given if isinstance(one, Endpoint)}
    if any(one.spec.graph is not None for one in changed.values()):
        _check_extents(tx, changed)
    for name, one in changed.items():
        graph = one.spec.graph
        if graph is None:
            continue
        for index, step in enumerate(graph.steps):
            row = endpoints.get(tx, step.upstream) if step.upstream and step.upstream not in changed else None
            other = changed.get(step.upstream) or (row.resource if row is not None else None)
            if other is not None and other.spec.upstream is None:
                raise InvalidResource(
                    f"endpoint {name!r}: spec.graph.steps[{index}].upstream: endpoint {step.upstream!r} is no "
                    "upstream; name it with `endpoint`"
                )
        members = _list_signatures(tx, graph, signature_of)
        if len(members) == len(graph.steps):
            try:
                derive_signature(graph, members)
            except Unfit as problem:
                raise InvalidResource(f"endpoint {name!r}: spec.graph: {problem}") from problem


def _check_extents(tx: Connection, changed: dict[str, Endpoint]) -> None:
    """Of those that change, and of those that call them."""
    there = {row.name: row.resource for row in _list_all(tx)} | changed

    def name_steps(name: str) -> Sequence[str]:
        graph = there[name].spec.graph if name in there else None
        return [step.endpoint or step.upstream for step in graph.steps] if graph is not None else ()

    for name in there:
        extent = measure(name, name_steps)
        if extent.is_too_much and not extent.names.isdisjoint(changed):
            raise InvalidResource(
                f"endpoint {name!r}: with the graphs in its graph, a request would run {extent.steps:,} steps or more, "
                f"{extent.depth} graphs deep; at most {MOST_STEPS} and {MOST_DEPTH}"
            )


def check_unneeded(tx: Connection, name: str) -> None:
    """Raise `Conflict` where graphs have the endpoint as a step that has to answer: without it they answer nobody."""
    others = [row for row in _list_all(tx) if not row.deleting and row.name != name]
    needing = ", ".join(row.name for row in others if _needs(row.resource.spec.graph, name))
    if needing:
        raise Conflict(
            f'endpoint "{name}" is a step that cannot be missing, of the graphs: {needing}; change or delete these '
            "first, or make the step soft"
        )


def _list_all(tx: Connection) -> list[endpoints.EndpointRow]:
    rows: list[endpoints.EndpointRow] = []
    while page := endpoints.list_(tx, after=rows[-1].name if rows else ""):
        rows += page
    return rows


def _needs(graph: Graph | None, name: str) -> bool:
    return any(name in (step.endpoint, step.upstream) and not step.soft for step in (graph.steps if graph else ()))


def _list_signatures(
    tx: Connection, graph: Graph, signature_of: Callable[[str], Signature | None]
) -> dict[str, Signature]:
    """Those that are known, by step. What another endpoint answers with is its own affair, and may change."""
    members = {}
    for step in graph.steps:
        if step.model:
            manifest = registry.resolve(tx, step.model)
            signature = manifest.signature or signature_of(manifest.digest)
            if signature is not None:
                members[step.name] = signature
    return members
