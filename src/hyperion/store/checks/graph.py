"""What the values of `spec.graph` may be: its steps, what they are fed with, and where they stop. Called by
`backend`; pure. What depends on the models' signatures is judged by `policy/graph/signature` when they
are known."""

import re

from hyperion.policy.graph.condition import parse_condition
from hyperion.schema.protect import Graph, GraphStep, Until
from hyperion.store.checks.protection import check_other, check_reference
from hyperion.store.checks.ranges import Path, Refuse, check_above, check_within
from hyperion.store.reading import suggest

MAX_STEPS = 32
MAX_MAPPED = 64
MAX_NAME = 256
MAX_WHEN = 1_024
MAX_WEIGHT = 1e6
MAX_CLASSES = 10_000
STEP_KINDS = ("model", "endpoint", "upstream")
# No dot, which ends a step's name in `step.output`.
_STEP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_RESERVED = re.compile(r"fallback-\d+")
# Those whose steps may read what an earlier step answered; the steps of the others never run one after another.
_IN_ORDER = ("pipeline", "cascade")


def check_graph(name: str, graph: Graph, refuse: Refuse) -> None:
    """Refuse a graph of the endpoint `name` that cannot run, whatever its models are."""
    at: Path = ("spec", "graph")
    if not 1 <= len(graph.steps) <= MAX_STEPS:
        raise refuse((*at, "steps"), f"expected 1 to {MAX_STEPS} steps, got {len(graph.steps)}")
    if graph.combine != "average" and graph.kind != "ensemble":
        raise refuse((*at, "combine"), f"means nothing to {_one(graph)} (only to an ensemble)")
    if graph.output and graph.kind not in ("ensemble", "cascade"):
        raise refuse((*at, "output"), f"means nothing to {_one(graph)} (only to an ensemble or a cascade)")
    names = [step.name for step in graph.steps]
    for index, step in enumerate(graph.steps):
        here: Path = (*at, "steps", index)
        _check_name(step.name, names[:index], here, refuse)
        _check_member(name, step, here, refuse)
        _check_place(graph, index, here, refuse)
        _check_maps(graph, index, names, here, refuse)


def _one(graph: Graph) -> str:
    return f"an {graph.kind}" if graph.kind == "ensemble" else f"a {graph.kind}"


def _check_name(name: str, before: list[str], here: Path, refuse: Refuse) -> None:
    if not _STEP.fullmatch(name):
        expected = "1 to 64 letters, digits, '_' or '-', starting with a letter or digit"
        raise refuse((*here, "name"), f"expected {expected}, got {name[:80]!r}")
    if _RESERVED.fullmatch(name):
        raise refuse((*here, "name"), "fallback-N is how links of the fallback chain are called; choose another")
    if name in before:
        raise refuse((*here, "name"), f"{name!r} is given twice")


def _check_member(name: str, step: GraphStep, here: Path, refuse: Refuse) -> None:
    kinds = [kind for kind in STEP_KINDS if getattr(step, kind)]
    if len(kinds) != 1:
        got = " and ".join(kinds) or "none"
        raise refuse(here, f"expected exactly one of {', '.join(STEP_KINDS)}, got {got}")
    if step.model:
        check_reference(step.model, (*here, "model"), refuse)
    else:
        check_other(name, step.endpoint or step.upstream, (*here, kinds[0]), refuse)


def _check_place(graph: Graph, index: int, here: Path, refuse: Refuse) -> None:
    """What a step may have by the kind of the graph and by its place in it."""
    step, is_last = graph.steps[index], index + 1 == len(graph.steps)
    if step.when:
        if len(step.when) > MAX_WHEN:
            raise refuse((*here, "when"), f"at most {MAX_WHEN} characters")
        if graph.kind != "switch":
            raise refuse((*here, "when"), f"means nothing to {_one(graph)} (only to a switch)")
        try:
            parse_condition(step.when)
        except ValueError as error:
            raise refuse((*here, "when"), str(error)) from error
    elif graph.kind == "switch" and not is_last:
        raise refuse(here, "without `when` it always answers: no later step is ever reached; let it be the last")
    if step.until is not None:
        if graph.kind != "cascade":
            raise refuse((*here, "until"), f"means nothing to {_one(graph)} (only to a cascade)")
        if is_last:
            raise refuse((*here, "until"), "means nothing to the last step: it always answers")
        _check_until(step.until, (*here, "until"), refuse)
    if step.weight != 1.0 and graph.kind != "ensemble":
        raise refuse((*here, "weight"), f"means nothing to {_one(graph)} (only to an ensemble)")
    check_above(step.weight, 0, MAX_WEIGHT, (*here, "weight"), refuse)


def _check_until(until: Until, here: Path, refuse: Refuse) -> None:
    check_above(until.confidence, 0, 1, (*here, "confidence"), refuse)
    check_above(until.temperature, 0, 1_000, (*here, "temperature"), refuse)
    if len(until.thresholds) > MAX_CLASSES:
        raise refuse((*here, "thresholds"), f"at most {MAX_CLASSES}, got {len(until.thresholds)}")
    for index, threshold in enumerate(until.thresholds):
        check_within(threshold, 0, 1, (*here, "thresholds", index), refuse)


def _check_maps(graph: Graph, index: int, names: list[str], here: Path, refuse: Refuse) -> None:
    step = graph.steps[index]
    for field, mapped in (("inputs", step.inputs), ("outputs", step.outputs)):
        if len(mapped) > MAX_MAPPED:
            raise refuse((*here, field), f"at most {MAX_MAPPED}, got {len(mapped)}")
        for tensor, other in mapped.items():
            if not (1 <= len(tensor) <= MAX_NAME and 1 <= len(other) <= MAX_NAME):
                raise refuse((*here, field, tensor[:80]), f"expected names of 1 to {MAX_NAME} characters")
    if len(set(step.outputs.values())) < len(step.outputs):
        raise refuse((*here, "outputs"), "two outputs get the same name")
    for tensor, source in step.inputs.items():
        owner, dot, _ = source.partition(".")
        if not dot or owner not in names:  # an input of the request, whose name may have dots
            if dot and graph.kind in _IN_ORDER and (meant := suggest(owner, names[:index])):
                raise refuse((*here, "inputs", tensor), f"{source[:80]!r}: no step is called {owner[:80]!r}{meant}")
            continue
        if graph.kind not in _IN_ORDER:
            why = f"the steps of {_one(graph)} see inputs of the request, not each other's outputs"
            raise refuse((*here, "inputs", tensor), f"{source[:80]!r}: {why}")
        if owner not in names[:index]:
            raise refuse((*here, "inputs", tensor), f"{source[:80]!r} is not there yet: {owner!r} comes later")
