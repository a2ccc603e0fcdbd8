"""What a graph takes and gives, from what its steps do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.graph.signature import Unfit, derive_signature
from hyperion.policy.graph.wiring import Source, find_source, name_output
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.protect import Graph, GraphStep


def spec(name: str, *shape: int, datatype: str = "FP32") -> TensorSpec:
    return TensorSpec(name, datatype, shape)


def model(inputs: list[TensorSpec], outputs: list[TensorSpec], batched: bool = True) -> Signature:
    return Signature(tuple(inputs), tuple(outputs), batched)


X, H, Y = spec("x", -1, 4), spec("h", -1, 8), spec("y", -1, 3)
A = GraphStep("a", model="a@1")
B = GraphStep("b", model="b@1")


def soft(step: GraphStep) -> GraphStep:
    return GraphStep(step.name, step.model, soft=True)


def test_a_pipeline_takes_what_its_steps_need_of_the_request_and_gives_what_the_last_gives() -> None:
    country = spec("country", -1, 1, datatype="BYTES")
    graph = Graph("pipeline", (A, B))
    derived = derive_signature(graph, {"a": model([X], [H]), "b": model([H, country], [Y])})
    assert derived == model([X, country], [Y])


def test_a_mapped_input_takes_what_it_is_mapped_to_and_a_renamed_output_is_known_by_its_new_name() -> None:
    first = GraphStep("a", model="a@1", outputs={"h": "hidden"})
    last = GraphStep("b", model="b@1", inputs={"left": "a.hidden", "right": "raw"}, outputs={"y": "score"})
    members = {"a": model([X], [H]), "b": model([spec("left", -1, 8), spec("right", -1, 2)], [Y])}
    derived = derive_signature(Graph("pipeline", (first, last)), members)
    assert derived == model([X, spec("raw", -1, 2)], [spec("score", -1, 3)])


def test_an_input_that_two_steps_take_is_what_fits_both() -> None:
    members = {"a": model([spec("x", -1, -1)], [Y]), "b": model([spec("x", -1, 4)], [spec("y", -1, 3)])}
    derived = derive_signature(Graph("ensemble", (A, B)), members)
    assert derived == model([spec("x", -1, 4)], [Y])


def test_a_step_may_be_read_by_none_while_the_soft_one_that_reads_it_is_missing() -> None:
    graph = Graph("pipeline", (A, soft(B), GraphStep("c", model="c@1")))
    members = {"a": model([X], [H]), "b": model([H], [Y]), "c": model([Y], [Y])}
    assert derive_signature(graph, members) == model([X], [Y])
    assert derive_signature(graph, {"a": members["a"], "c": members["c"]}) == model([X, Y], [Y])


def test_a_condition_may_ask_for_a_parameter_or_for_an_input_of_its_kind() -> None:
    for when in ("x > 2.5", "flag == true", 'tier == "gold"'):
        graph = Graph("switch", (GraphStep("a", model="a@1", when=when), B))
        assert derive_signature(graph, {"a": model([X], [Y]), "b": model([X], [Y])}) == model([X], [Y])


def test_a_switch_gives_what_all_of_its_steps_give() -> None:
    members = {"a": model([X], [Y, H]), "b": model([X], [spec("y", -1, 5)], batched=False)}
    derived = derive_signature(Graph("switch", (A, B)), members)
    assert derived == model([X], [spec("y", -1, -1)], batched=False)


def test_a_stack_has_one_more_axis_that_counts_the_members() -> None:
    members = {"a": model([X], [Y]), "b": model([X], [Y])}
    stacked = Graph("ensemble", (A, B), "stack")
    assert derive_signature(stacked, members).outputs == (spec("y", -1, 2, 3),)
    some = Graph("ensemble", (A, soft(B)), "stack")
    assert derive_signature(some, members).outputs == (spec("y", -1, -1, 3),)
    alone = {name: model([X], [Y], batched=False) for name in "ab"}
    assert derive_signature(stacked, alone).outputs == (spec("y", 2, -1, 3),)


def test_a_soft_step_may_be_missing() -> None:
    for kind in ("ensemble", "cascade", "switch"):
        graph = Graph(kind, (soft(A), B))
        assert derive_signature(graph, {"b": model([X], [Y])}) == model([X], [Y])


def test_labels_can_be_voted_on() -> None:
    label = spec("y", -1, datatype="BYTES")
    members = {"a": model([X], [label]), "b": model([X], [label])}
    assert derive_signature(Graph("ensemble", (A, B), "vote"), members).outputs == (label,)


@pytest.mark.parametrize(
    ("graph", "members", "message"),
    [
        (Graph("pipeline", (A, B)), {"a": model([X], [H])}, 'step "b" is not there'),
        (Graph("ensemble", (soft(A), soft(B))), {}, "none of its steps is there"),
        (Graph("pipeline", (A, soft(B))), {"a": model([X], [H])}, "whose outputs are the answer"),
        (
            Graph("pipeline", (A, GraphStep("b", model="b@1", inputs={"z": "x"}))),
            {"a": model([X], [H]), "b": model([H], [Y])},
            'step "b" has no input "z"; it has h',
        ),
        (
            Graph("pipeline", (A, GraphStep("b", model="b@1", inputs={"h": "a.z"}))),
            {"a": model([X], [H]), "b": model([H], [Y])},
            'input "h" of step "b": step "a" has no output "z"',
        ),
        (
            Graph("pipeline", (A, GraphStep("b", model="b@1", outputs={"z": "y"}))),
            {"a": model([X], [H]), "b": model([H], [Y])},
            'step "b" has no output "z"',
        ),
        (
            Graph("pipeline", (A, GraphStep("b", model="b@1", outputs={"h": "y"}))),
            {"a": model([X], [H]), "b": model([H], [Y, H])},
            'step "b" gives two outputs one name',
        ),
        (
            Graph("pipeline", (A, B)),
            {"a": model([X], [spec("h", -1, 9)]), "b": model([H], [Y])},
            'input "h" of step "b" is FP32 [-1, 8], but gets FP32 [-1, 9]',
        ),
        (
            Graph("ensemble", (A, B)),
            {"a": model([X], [Y]), "b": model([spec("x", -1, 4, datatype="FP64")], [Y])},
            'input "x" of step "b" is FP64 [-1, 4], but gets FP32 [-1, 4]',
        ),
        (Graph("switch", (A, B)), {"a": model([X], [Y]), "b": model([X], [H])}, "no output in common"),
        (
            Graph("cascade", (A, B)),
            {"a": model([X], [Y]), "b": model([X], [spec("y", -1)])},
            'output "y" of step "b" is FP32 [-1], another step\'s is FP32 [-1, 3]',
        ),
        (
            Graph("cascade", (A, B)),
            {"a": model([X], [Y, H]), "b": model([X], [Y, H])},
            "say with `output` which of those that the steps have in common decides: y, h",
        ),
        (
            Graph("ensemble", (A, B), output="z"),
            {"a": model([X], [Y]), "b": model([X], [Y])},
            '"z" is no output that the steps have in common; expected one of y',
        ),
        (
            Graph("ensemble", (A, B)),
            {name: model([X], [spec("y", -1, datatype="INT64")]) for name in "ab"},
            'output "y" is INT64; only FP16, BF16, FP32, FP64 can be averaged',
        ),
        (
            Graph("pipeline", (A, B)),
            {"a": model([X], [H]), "b": model([spec("hidden", -1, 8)], [Y])},
            'no later step reads what step "a" answers (h); name it in one\'s `inputs`',
        ),
        (
            Graph("switch", (GraphStep("a", model="a@1", when='x == "DE"'), B)),
            {"a": model([X], [Y]), "b": model([X], [Y])},
            '`when` of step "a": input "x" is FP32, which is never a text',
        ),
        (
            Graph("switch", (GraphStep("a", model="a@1", when="country == 3"), B)),
            {name: model([spec("country", -1, datatype="BYTES")], [Y]) for name in "ab"},
            '`when` of step "a": input "country" is BYTES, which is never a number',
        ),
    ],
)
def test_steps_that_do_not_fit_are_named(graph: Graph, members: dict[str, Signature], message: str) -> None:
    with pytest.raises(Unfit) as unfit:
        derive_signature(graph, members)
    assert message in str(unfit.value)


def test_a_cascade_gives_all_that_its_steps_have_in_common() -> None:
    members = {"a": model([X], [H, Y]), "b": model([X], [Y, H])}
    assert derive_signature(Graph("cascade", (A, B), output="y"), members).outputs == (H, Y)


def test_only_a_pipeline_passes_on_what_nobody_asked_for() -> None:
    produced = {"a": ["h"]}
    assert find_source(Graph("pipeline", (A, B)), 1, "h", produced) == Source("a", "h")
    assert find_source(Graph("cascade", (A, B)), 1, "h", produced) == Source("", "h")
    asked = GraphStep("b", model="b@1", inputs={"h": "a.h", "dense": "dense.1"})
    assert find_source(Graph("cascade", (A, asked)), 1, "h", produced) == Source("a", "h")
    assert find_source(Graph("cascade", (A, asked)), 1, "dense", produced) == Source("", "dense.1")
    assert name_output(asked, "y") == "y"


NAMES = st.sampled_from(["x", "h", "y", "z"])
SPECS = st.builds(lambda name, n: spec(name, -1, n), NAMES, st.sampled_from([-1, 2]))
MODELS = st.builds(
    model,
    st.lists(SPECS, min_size=1, max_size=3, unique_by=lambda one: one.name),
    st.lists(SPECS, min_size=1, max_size=3, unique_by=lambda one: one.name),
    st.booleans(),
)
KINDS = st.sampled_from(["pipeline", "ensemble", "switch", "cascade"])


@given(KINDS, st.lists(st.tuples(MODELS, st.booleans(), st.booleans()), min_size=1, max_size=4), NAMES | st.just(""))
def test_a_graph_fits_or_says_why_and_asks_for_no_more_than_its_steps(
    kind: str, given_steps: list[tuple[Signature, bool, bool]], output: str
) -> None:
    steps = tuple(GraphStep(f"s{n}", model="m@1", soft=may) for n, (_, may, _) in enumerate(given_steps))
    members = {f"s{n}": one for n, (one, _, there) in enumerate(given_steps) if there}
    try:
        derived = derive_signature(Graph(kind, steps, output=output), members)  # type: ignore[arg-type]
    except Unfit:
        return
    wanted = {one.name for member in members.values() for one in member.inputs}
    offered = {one.name for member in members.values() for one in member.outputs}
    assert {one.name for one in derived.inputs} <= wanted
    assert derived.outputs
    assert {one.name for one in derived.outputs} <= offered
    assert derived.batched == all(member.batched for member in members.values())
    assert all(step.soft for step in steps if step.name not in members)


def test_a_cascade_decides_by_scores_and_not_by_labels() -> None:
    label = spec("label", -1, datatype="INT64")
    members = {"a": model([X], [Y, label]), "b": model([X], [Y, label])}
    assert derive_signature(Graph("cascade", (A, B), output="y"), members).outputs == (Y, label)
    with pytest.raises(Unfit, match='output "label" is INT64; what decides has to be scores or probabilities'):
        derive_signature(Graph("cascade", (A, B), output="label"), members)
