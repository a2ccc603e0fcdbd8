"""The signature of a graph, from those of its steps. Pure.

It takes what its steps need of the request, and answers what the kind of the graph says: a pipeline what its last step
answers, a switch and a cascade what all of their steps do, an ensemble its members' combined output.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from hyperion.policy.graph.condition import parse_condition
from hyperion.policy.graph.wiring import find_source, name_output
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.protect import Graph, GraphStep

ANY: Final = -1
_FLOATS: Final = ("FP16", "BF16", "FP32", "FP64")


class Unfit(Exception):
    """The steps of a graph do not fit each other; the text says which and why."""


def derive_signature(graph: Graph, members: Mapping[str, Signature]) -> Signature:
    """The signature of a graph whose steps have the signatures `members`, by their names. Soft steps may be missing;
    raises `Unfit` where a hard one is, or where those that are there do not fit.

    >>> x, h, y = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("h", "FP32", (-1, 2)), TensorSpec("y", "FP32", (-1,))
    >>> graph = Graph("pipeline", (GraphStep("a", model="a@1"), GraphStep("b", model="b@1")))
    >>> derived = derive_signature(graph, {"a": Signature((x,), (h,)), "b": Signature((h,), (y,))})
    >>> [one.name for one in derived.inputs], [one.name for one in derived.outputs]
    (['x'], ['y'])
    """
    for step in graph.steps:
        if step.name not in members and not step.soft:
            raise Unfit(f'step "{step.name}" is not there')
    there = [step for step in graph.steps if step.name in members]
    if not there:
        raise Unfit("none of its steps is there")
    if graph.kind == "pipeline" and there[-1] is not graph.steps[-1]:
        raise Unfit(f'step "{graph.steps[-1].name}" is not there, whose outputs are the answer')
    inputs = _derive_inputs(graph, members)
    if graph.kind == "pipeline" and len(there) == len(graph.steps):
        _check_all_read(graph, members)
    for step in graph.steps:
        if step.when:
            _check_condition(step, inputs)
    outputs = _see_outputs(there[-1], members)
    if graph.kind == "ensemble":
        outputs = _combine(graph, there, members)
    elif graph.kind != "pipeline":
        outputs = _intersect(there, members)
        if graph.kind == "cascade" and len(there) > 1:
            chosen = _choose(graph.output, outputs, "the steps have in common")
            if chosen.datatype not in _FLOATS:
                expected = f"scores or probabilities ({', '.join(_FLOATS)})"
                raise Unfit(f'output "{chosen.name}" is {chosen.datatype}; what decides has to be {expected}')
    return Signature(tuple(inputs), tuple(outputs), all(members[step.name].batched for step in there))


def _derive_inputs(graph: Graph, members: Mapping[str, Signature]) -> list[TensorSpec]:
    """What the steps need of the request, in the order in which they name it."""
    inputs: dict[str, TensorSpec] = {}
    seen: dict[str, dict[str, TensorSpec]] = {}
    for index, step in enumerate(graph.steps):
        if step.name not in members:
            continue
        names = {spec.name for spec in members[step.name].inputs}
        if unknown := sorted(set(step.inputs) - names):
            raise Unfit(f'step "{step.name}" has no input "{unknown[0]}"; it has {", ".join(sorted(names))}')
        for spec in members[step.name].inputs:
            source = find_source(graph, index, spec.name, {name: tuple(outputs) for name, outputs in seen.items()})
            where = f'input "{spec.name}" of step "{step.name}"'
            if not source.step:
                old = inputs.get(source.name)
                wanted = TensorSpec(source.name, spec.datatype, spec.shape)
                inputs[source.name] = wanted if old is None else _meet(old, wanted, where)
                continue
            found = seen.get(source.step, {}).get(source.name)
            if found is None:
                raise Unfit(f'{where}: step "{source.step}" has no output "{source.name}"')
            _meet(found, spec, where)
        seen[step.name] = {spec.name: spec for spec in _see_outputs(step, members)}
    return list(inputs.values())


def _check_all_read(graph: Graph, members: Mapping[str, Signature]) -> None:
    """What a step answers that no later one reads is lost: most likely an input has another name than the output that
    it was meant to take, and would be asked of callers."""
    produced = {step.name: [spec.name for spec in _see_outputs(step, members)] for step in graph.steps}
    read = set()
    for index, step in enumerate(graph.steps):
        before = {one.name: produced[one.name] for one in graph.steps[:index]}
        read |= {find_source(graph, index, spec.name, before).step for spec in members[step.name].inputs}
    for step in graph.steps[:-1]:
        if step.name not in read:
            has = ", ".join(produced[step.name])
            raise Unfit(f'no later step reads what step "{step.name}" answers ({has}); name it in one\'s `inputs`')


def _check_condition(step: GraphStep, inputs: Sequence[TensorSpec]) -> None:
    condition = parse_condition(step.when)
    for spec in inputs:
        if spec.name == condition.name and isinstance(condition.value, str) != (spec.datatype == "BYTES"):
            kind = "a text" if isinstance(condition.value, str) else "a number"
            raise Unfit(f'`when` of step "{step.name}": input "{spec.name}" is {spec.datatype}, which is never {kind}')


def _see_outputs(step: GraphStep, members: Mapping[str, Signature]) -> list[TensorSpec]:
    """The outputs of a step, by the names that others see."""
    outputs = members[step.name].outputs
    if unknown := sorted(set(step.outputs) - {spec.name for spec in outputs}):
        raise Unfit(f'step "{step.name}" has no output "{unknown[0]}"')
    seen = [TensorSpec(name_output(step, spec.name), spec.datatype, spec.shape) for spec in outputs]
    if len({spec.name for spec in seen}) < len(seen):
        raise Unfit(f'step "{step.name}" gives two outputs one name')
    return seen


def _intersect(steps: Sequence[GraphStep], members: Mapping[str, Signature]) -> list[TensorSpec]:
    """The outputs that all of these steps have."""
    first, *others = ({spec.name: spec for spec in _see_outputs(step, members)} for step in steps)
    common = []
    for name, spec in first.items():
        if all(name in other for other in others):
            for step, other in zip(steps[1:], others, strict=True):
                spec = _join(spec, other[name], f'output "{name}" of step "{step.name}"')
            common.append(spec)
    if not common:
        raise Unfit("its steps have no output in common; give them the same names with `outputs`")
    return common


def _combine(graph: Graph, steps: Sequence[GraphStep], members: Mapping[str, Signature]) -> list[TensorSpec]:
    """The one output of an ensemble: as its members have it, or with `stack` one more axis that counts the members,
    behind that of the rows."""
    chosen = _choose(graph.output, _intersect(steps, members), "the steps have in common")
    if graph.combine == "average" and chosen.datatype not in _FLOATS:
        raise Unfit(f'output "{chosen.name}" is {chosen.datatype}; only {", ".join(_FLOATS)} can be averaged')
    if graph.combine != "stack":
        return [chosen]
    batched = all(members[step.name].batched for step in steps)
    count = len(graph.steps) if not any(step.soft for step in graph.steps) else ANY
    at = 1 if batched else 0
    return [TensorSpec(chosen.name, chosen.datatype, (*chosen.shape[:at], count, *chosen.shape[at:]))]


def _choose(name: str, specs: Sequence[TensorSpec], which: str) -> TensorSpec:
    """The output that a graph names, or the only one."""
    names = ", ".join(spec.name for spec in specs)
    if not name and len(specs) > 1:
        raise Unfit(f"say with `output` which of those that {which} decides: {names}")
    found = [spec for spec in specs if name in ("", spec.name)]
    if not found:
        raise Unfit(f'"{name}" is no output that {which}; expected one of {names}')
    return found[0]


def _meet(old: TensorSpec, new: TensorSpec, where: str) -> TensorSpec:
    """The spec of what fits both: a known length wins over any."""
    _check_alike(old, new, where)
    pairs = zip(old.shape, new.shape, strict=True)
    return TensorSpec(old.name, old.datatype, tuple(b if a == ANY else a for a, b in pairs))


def _join(old: TensorSpec, new: TensorSpec, where: str) -> TensorSpec:
    """The spec of what either may be: lengths that differ are any."""
    if old.datatype != new.datatype or len(old.shape) != len(new.shape):
        raise Unfit(f"{where} is {_write(new)}, another step's is {_write(old)}")
    pairs = zip(old.shape, new.shape, strict=True)
    return TensorSpec(old.name, old.datatype, tuple(a if a == b else ANY for a, b in pairs))


def _check_alike(old: TensorSpec, new: TensorSpec, where: str) -> None:
    lengths = zip(old.shape, new.shape, strict=False)
    fits = len(old.shape) == len(new.shape) and all(a == b or ANY in (a, b) for a, b in lengths)
    if old.datatype != new.datatype or not fits:
        raise Unfit(f"{where} is {_write(new)}, but gets {_write(old)}")


def _write(spec: TensorSpec) -> str:
    return f"{spec.datatype} {list(spec.shape)}"
