"""Which steps of a graph are asked for what, and from where they get their inputs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.graph.plan import Feed, StepPlan, plan_graph
from hyperion.policy.graph.signature import Unfit
from hyperion.policy.graph.time import has_time, optional_ns
from hyperion.policy.graph.wiring import Source
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.protect import Graph, GraphStep


def signature(inputs: str, outputs: str) -> Signature:
    """One FP32 tensor per letter."""
    taken, made = (tuple(TensorSpec(name, "FP32", (-1,)) for name in names) for names in (inputs, outputs))
    return Signature(taken, made)


def step(name: str, soft: bool = False, inputs: dict[str, str] | None = None, **outputs: str) -> GraphStep:
    return GraphStep(name, f"{name}@1", soft=soft, inputs=inputs or {}, outputs=outputs)


def found(plan: StepPlan | None) -> StepPlan:
    assert plan is not None
    return plan


def test_a_pipeline_asks_only_for_outputs_that_somebody_reads() -> None:
    graph = Graph("pipeline", (step("a"), step("b"), step("c", inputs={"h": "a.h"})))
    members = {"a": signature("x", "hk"), "b": signature("x", "y"), "c": signature("h", "yz")}
    first, unread, last = plan_graph(graph, members, ["x"], ["z"])
    assert unread is None
    assert found(first).asks == ("h",)
    assert found(last) == StepPlan((Feed("h", Source("a", "h")),), ("z",), {"y": "y", "z": "z"}, (0,))


def test_all_outputs_are_asked_for_as_such() -> None:
    """So that the call can be merged with others that name none."""
    graph = Graph("pipeline", (step("a"),))
    assert found(plan_graph(graph, {"a": signature("x", "yz")}, ["x"], ["z", "y"])[0]).asks == ()


def test_a_renamed_output_is_asked_for_by_its_own_name() -> None:
    graph = Graph("switch", (step("a", y="answer"), step("b", z="answer")))
    members = {"a": signature("x", "yk"), "b": signature("x", "zk")}
    one, other = plan_graph(graph, members, ["x"], ["answer"])
    assert (found(one).asks, found(other).asks) == (("y",), ("z",))
    assert found(one).names == {"y": "answer", "k": "k"}


def test_an_ensemble_asks_each_member_for_what_is_combined() -> None:
    graph = Graph("ensemble", (step("a"), step("b")), output="y")
    plans = plan_graph(graph, {"a": signature("x", "yz"), "b": signature("x", "yz")}, ["x"], ["y"], "y")
    assert [found(plan).asks for plan in plans] == [("y",), ("y",)]


def test_a_cascade_asks_all_but_the_last_step_for_what_decides_too_and_for_what_later_ones_read() -> None:
    graph = Graph("cascade", (step("a"), step("b", inputs={"h": "a.h"})), output="p")
    plans = plan_graph(graph, {"a": signature("x", "pyhz"), "b": signature("h", "pyz")}, ["x"], ["y"], "p")
    assert [found(plan).asks for plan in plans] == [("p", "y", "h"), ("y",)]
    assert found(plans[1]).after == (0,)


def test_a_pipeline_with_a_soft_step_keeps_what_may_have_to_stand_for_it() -> None:
    graph = Graph("pipeline", (step("a"), step("b", soft=True), step("c")))
    members = {"a": signature("x", "xk"), "b": signature("x", "x"), "c": signature("x", "y")}
    plans = plan_graph(graph, members, ["x"], ["y"])
    assert [found(plan).feeds[0].source for plan in plans] == [Source("", "x"), Source("a", "x"), Source("b", "x")]
    assert found(plans[0]).asks == ()
    first, gone, last = plan_graph(graph, {name: members[name] for name in "ac"}, ["x"], ["y"])
    assert gone is None
    assert found(last).feeds[0].source == Source("a", "x")
    assert found(last).after == (0,)
    assert found(first).after == ()


LACKING = [
    (("a", "b"), {"a": "h", "b": "y"}, {"h": "a.h"}, ["b"], 'input "h" of step "b": step "a" has no output "h"'),
    (("a", "b"), {"a": "h", "b": "y"}, {}, ["b"], 'input "h" of step "b": the request has no input "h"'),
    (("a", "b"), {"a": "h", "b": "y"}, {}, ["a"], 'step "b" is not there, whose outputs are the answer'),
    (("a", "b"), {"a": "h", "b": "y"}, {}, [], 'step "b" is not there, whose outputs are the answer'),
]


@pytest.mark.parametrize(("names", "outputs", "inputs", "there", "told"), LACKING)
def test_a_step_that_lacks_an_input_is_named(
    names: tuple[str, str], outputs: dict[str, str], inputs: dict[str, str], there: list[str], told: str
) -> None:
    graph = Graph("pipeline", (step("a", soft=True), step("b", inputs=inputs)))
    members = {name: signature("x" if name == "a" else "h", outputs[name]) for name in there}
    with pytest.raises(Unfit, match=told):
        plan_graph(graph, members, ["x"], ["y"])


def test_a_cascade_without_one_of_its_steps_plans_the_others() -> None:
    graph = Graph("cascade", (step("a", soft=True), step("b")), output="p")
    assert plan_graph(graph, {"b": signature("x", "p")}, ["x"], ["p"], "p")[0] is None


@given(st.integers(-(10**12), 10**12), st.floats(0, 1e12))
def test_what_is_optional_ends_before_the_deadline_and_is_begun_only_if_it_may_end(left: int, expected: float) -> None:
    may = optional_ns(left)
    assert 0 <= may < max(left, 1)
    assert has_time(left, expected) == (may > 0 and may >= expected)
    assert left < 50 or may > left / 2
