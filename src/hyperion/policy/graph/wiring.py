"""Which tensor goes where in a graph. Pure: the same rules derive a graph's signature (`policy/graph/signature`, for
control) and move the tensors of a request (in the gateway).

A step's input is fed with what `inputs` names for it: an output of an earlier step (`step.output`, by the name that
`outputs` gives it there) or an input of the request. Without a word, an input of a pipeline's step takes the output of
its name of the latest step before it, else the input of the request of its name; the steps of every other kind take
inputs of the request.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from hyperion.schema.protect import Graph, GraphStep


class Source(Struct, frozen=True):
    """Where a tensor is: the output `name` of a `step`, or with step "" the input `name` of the request."""

    step: str
    name: str


def find_source(graph: Graph, index: int, tensor: str, produced: Mapping[str, Sequence[str]]) -> Source:
    """Where the input `tensor` of step `index` comes from. `produced` has the outputs of the steps that have answered,
    or could have, as the others see them (`name_output`).

    >>> steps = (GraphStep("clean", model="a@1"), GraphStep("score", model="b@1", inputs={"raw": "text"}))
    >>> graph = Graph("pipeline", steps)
    >>> find_source(graph, 1, "tokens", {"clean": ["tokens"]}), find_source(graph, 1, "raw", {"clean": ["tokens"]})
    (Source(step='clean', name='tokens'), Source(step='', name='text'))
    """
    step = graph.steps[index]
    before = [one.name for one in graph.steps[:index]]
    said = step.inputs.get(tensor)
    if said is not None:
        owner, dot, name = said.partition(".")
        return Source(owner, name) if dot and owner in before else Source("", said)
    if graph.kind == "pipeline":
        for other in reversed(before):
            if tensor in produced.get(other, ()):
                return Source(other, tensor)
    return Source("", tensor)


def name_output(step: GraphStep, tensor: str) -> str:
    """The name by which others see an output of a step.

    >>> name_output(GraphStep("a", outputs={"label": "country"}), "label"), name_output(GraphStep("a"), "label")
    ('country', 'label')
    """
    return step.outputs.get(tensor, tensor)
