"""What each step of a graph is fed with, and what is asked of it: no output travels that nobody needs. Pure; used by
`gateway/graph/pool`, once per set of outputs that callers ask for.
"""

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from hyperion.policy.graph.signature import Unfit
from hyperion.policy.graph.wiring import Source, find_source, name_output
from hyperion.schema.model import Signature
from hyperion.schema.protect import Graph, GraphStep


class Feed(Struct, frozen=True):
    """The input `tensor` of a step, and where it comes from."""

    tensor: str
    source: Source


class StepPlan(Struct, frozen=True):
    """One step: its inputs, the outputs that are asked of it by its own names (() for all), those by which others see
    them, and the indexes of the steps that have to answer first."""

    feeds: tuple[Feed, ...]
    asks: tuple[str, ...]
    names: dict[str, str]
    after: tuple[int, ...]


def plan_graph(
    graph: Graph, members: Mapping[str, Signature], given: Collection[str], wanted: Sequence[str], deciding: str = ""
) -> tuple[StepPlan | None, ...]:
    """A plan for each step, None for one that is not among the `members` or whose outputs nobody needs. `given` are the
    inputs of the request, `wanted` the outputs of the answer, `deciding` the one by which members are combined or
    trusted. Raises `Unfit` where a step lacks an input, which a missing soft one may be the reason of.

    >>> from hyperion.schema.model import TensorSpec
    >>> x, h, y = TensorSpec("x", "FP32", (-1,)), TensorSpec("h", "FP32", (-1,)), TensorSpec("y", "FP32", (-1,))
    >>> graph = Graph("pipeline", (GraphStep("a", model="a@1"), GraphStep("b", model="b@1")))
    >>> members = {"a": Signature((x,), (h, y)), "b": Signature((h,), (y,))}
    >>> first, last = plan_graph(graph, members, ["x"], ["y"])
    >>> first.asks, last.feeds, last.after
    (('h',), (Feed(tensor='h', source=Source(step='a', name='h')),), (0,))
    """
    places = {step.name: index for index, step in enumerate(graph.steps)}
    there = [index for index, step in enumerate(graph.steps) if step.name in members]
    needed = _list_needs(graph, there, wanted, deciding)
    keeps_all = graph.kind == "pipeline" and any(step.soft for step in graph.steps)
    produced: dict[str, list[str]] = {}
    for index in there:
        step = graph.steps[index]
        produced[step.name] = [name_output(step, spec.name) for spec in members[step.name].outputs]
    plans: list[StepPlan | None] = [None] * len(graph.steps)
    for index in reversed(there):
        step, needs = graph.steps[index], needed[index]
        if not needs and graph.kind == "pipeline":
            continue
        before = {graph.steps[one].name: produced[graph.steps[one].name] for one in there if one < index}
        feeds = tuple(
            Feed(spec.name, find_source(graph, index, spec.name, before)) for spec in members[step.name].inputs
        )
        after = set()
        for feed in feeds:
            _check_source(step, feed, produced, given)
            if feed.source.step:
                place = places[feed.source.step]
                needed[place].add(feed.source.name)
                after.add(place)
        plans[index] = _make_plan(step, feeds, members[step.name], None if keeps_all else needs, after)
    return tuple(plans)


def _list_needs(graph: Graph, there: Sequence[int], wanted: Sequence[str], deciding: str) -> list[set[str]]:
    """What the answer itself needs of each step, by the names that others see."""
    needed: list[set[str]] = [set() for _ in graph.steps]
    for index in there:
        if graph.kind == "ensemble":
            needed[index].add(deciding)
        elif graph.kind != "pipeline":
            needed[index].update(wanted)
            if graph.kind == "cascade" and index != there[-1]:
                needed[index].add(deciding)
    if graph.kind == "pipeline":
        if there[-1:] != [len(graph.steps) - 1]:
            raise Unfit(f'step "{graph.steps[-1].name}" is not there, whose outputs are the answer')
        needed[-1].update(wanted)
    return needed


def _check_source(step: GraphStep, feed: Feed, produced: Mapping[str, Sequence[str]], given: Collection[str]) -> None:
    owner, name = feed.source.step, feed.source.name
    if name not in (produced.get(owner, ()) if owner else given):
        where = f'step "{owner}" has no output' if owner else "the request has no input"
        raise Unfit(f'input "{feed.tensor}" of step "{step.name}": {where} "{name}"')


def _make_plan(
    step: GraphStep, feeds: tuple[Feed, ...], signature: Signature, needs: set[str] | None, after: set[int]
) -> StepPlan:
    """`needs` None is everything."""
    names = {spec.name: name_output(step, spec.name) for spec in signature.outputs}
    asks = () if needs is None else tuple(own for own, seen in names.items() if seen in needs)
    return StepPlan(feeds, asks if len(asks) < len(names) else (), names, tuple(sorted(after)))
