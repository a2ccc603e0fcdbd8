"""Graphs whose members are missing from the start, and requests that end before their graph does."""

import asyncio
from struct import pack
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from hyperion.gateway.graph.book import MAX_SERIES, GraphBook
from hyperion.gateway.graph.pool import GraphPool
from hyperion.gateway.graph.switch import first_value, first_values
from hyperion.policy.brownout import SOFT
from hyperion.schema.call import Tensor
from hyperion.schema.protect import Graph, Protection, Until
from hyperion.schema.snapshot import ServedModel, Snapshot
from hyperion.wire.tensor import from_numpy
from tests.gateway.graphs import Steps, ask, serve_graph, step
from tests.gateway.serving import Serving, on_uvloop, serving

SURE, UNSURE = [0.9, 0.05, 0.05], [0.3, 0.4, 0.3]


async def drop(gateway: Serving, name: str) -> None:
    """A snapshot without one of the members."""
    models = [gateway.router.table.models["g"].served]
    models += [route.served for other, route in gateway.router.table.members.items() if other != f"g~{name}"]
    kept: tuple[ServedModel, ...] = tuple(one for one in models if one is not None)
    await gateway.router.apply(Snapshot(next(gateway._versions), kept))


PIPELINE = Graph("pipeline", (step("a", soft=True, outputs={"scores": "x", "name": "id"}), step("b")))
NEEDED = Graph("pipeline", (step("a", soft=True), step("b", inputs={"id": "a.name"})))
SWITCH = Graph("switch", (step("a", when='id == "0"', soft=True), step("b", when="size > 3", soft=True)))
CASCADE = Graph("cascade", (step("a", until=Until(0.8)), step("b", soft=True)), output="scores")
HARD = Graph("cascade", (step("a", until=Until(0.8)), step("b")), output="scores")
READS = Graph("cascade", (step("a", soft=True, until=Until(0.8)), step("b", inputs={"id": "a.name"})), output="scores")
ALL_SOFT = Graph("ensemble", (step("a", soft=True), step("b", soft=True)), output="scores")
HARD_ENSEMBLE = Graph("ensemble", (step("a"), step("b")), output="scores")
VOTERS = Graph("ensemble", (step("a"), step("b"), step("c", soft=True)), output="scores")
HARD_SWITCH = Graph("switch", (step("a", when='id == "0"'), step("b")))

DROPPED: list[tuple[Graph, str, int, str, str]] = [
    (PIPELINE, "a", 200, "a", "b:0"),
    (PIPELINE, "b", 503, "", ""),
    (NEEDED, "a", 503, "", ""),
    (SWITCH, "a", 503, "", ""),
    (HARD_SWITCH, "a", 503, "", ""),
    (CASCADE, "b", 200, "b", "a:0"),
    (HARD, "b", 503, "", ""),
    (READS, "a", 503, "", ""),
    (ALL_SOFT, "a", 200, "a", ""),
    (HARD_ENSEMBLE, "a", 503, "", ""),
]


@pytest.mark.parametrize(("graph", "gone", "status", "missing", "said"), DROPPED)
@on_uvloop
async def test_a_step_that_is_not_served_is_missing_or_told_to_be(
    steps: Steps, graph: Graph, gone: str, status: int, missing: str, said: str
) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, graph)
        await drop(gateway, gone)
        answer = await gateway.ask(ask([UNSURE]))
        assert answer.status == status, answer.body
        assert answer.headers.get("x-hyperion-missing", "") == missing
        if said:
            assert answer.output("name") == [said]


@pytest.mark.parametrize(("graph", "left_out"), [(VOTERS, ["c"]), (ALL_SOFT, [])])
@on_uvloop
async def test_an_overloaded_ensemble_gives_up_its_soft_members(
    steps: Steps, graph: Graph, left_out: list[str]
) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, graph)
        gateway.router.find_any("g~a", "").brownout = SOFT
        pool = gateway.pool("g")
        assert isinstance(pool, GraphPool)
        assert pool.list_absent() == left_out
        gateway.router.find_any("g~a", "").brownout = SOFT - 1
        assert pool.list_absent() == []


RAISING: list[tuple[Graph, dict[str, str], int]] = [
    (ALL_SOFT, {"a": "raise", "b": "raise"}, 500),
    (SWITCH, {"a": "raise"}, 500),
    (NEEDED, {"a": "raise"}, 500),
    (
        Graph("cascade", (step("a", soft=True), step("b", soft=True)), output="scores"),
        {"a": "raise", "b": "raise"},
        500,
    ),
]


@pytest.mark.parametrize(("graph", "modes", "status"), RAISING)
@on_uvloop
async def test_when_nobody_is_left_the_caller_hears_of_the_last_failure(
    steps: Steps, graph: Graph, modes: dict[str, str], status: int
) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, graph)
        steps.tell(**modes)
        assert (await gateway.ask(ask([SURE]))).status == status
        assert gateway.pool("g").queue_state().running_rows == 0


@on_uvloop
async def test_a_gateway_that_closes_ends_the_requests_of_its_graphs(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, HARD_ENSEMBLE)
        steps.tell(a="hang", b="hang")
        asked = asyncio.create_task(gateway.ask(ask([SURE])))
        await gateway.until(lambda: steps.batches("a") and steps.batches("b"))
        gateway.pool("g").close()
        assert (await asked).status == 503
        assert gateway.pool("g").closed.is_set()
        steps.tell()


@on_uvloop
async def test_who_waits_for_the_same_answer_longer_lets_the_members_go_on(steps: Steps) -> None:
    """The first caller's time is over while `a` computes; the one who came second has more, and the members too."""
    async with serving() as gateway:
        await serve_graph(gateway, steps, HARD_ENSEMBLE, Protection(coalesce=True))
        steps.tell(a="hang")
        first = asyncio.create_task(gateway.ask(ask([SURE], x_request_timeout_ms=1500)))
        await gateway.until(lambda: steps.batches("a"))
        second = asyncio.create_task(gateway.ask(ask([SURE], x_request_timeout_ms=20_000)))
        assert (await first).status == 504
        steps.tell()
        assert (await second).status == 200
        assert steps.batches("b") == []  # nothing was computed again


@on_uvloop
async def test_steps_whose_tensors_do_not_fit_are_the_model_s_fault(steps: Steps) -> None:
    """`b` takes rows of three scores; `a` is told to make six of them."""
    graph = Graph("pipeline", (step("a"), step("b", inputs={"x": "a.scores"})))
    async with serving() as gateway:
        await serve_graph(gateway, steps, graph)
        steps.tell(a="wide")
        answer = await gateway.ask(ask([SURE]))
        assert answer.status == 500
        assert 'step "b" cannot take what the steps before it answered' in answer.error


@on_uvloop
async def test_rows_of_a_cascade_that_are_not_alike_are_the_model_s_fault(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, HARD)
        steps.tell(b="wide")
        assert (await gateway.ask(ask([SURE, UNSURE], outputs=("label",)))).status == 200
        answer = await gateway.ask(ask([SURE, UNSURE]))
        assert answer.status == 500
        assert "do not answer alike" in answer.error


@on_uvloop
async def test_another_version_of_a_member_is_planned_for(steps: Steps) -> None:
    """It has no `scores` any more, whatever its runner says."""
    async with serving() as gateway:
        await serve_graph(gateway, steps, PIPELINE)
        assert (await gateway.ask(ask([SURE]))).status == 200
        pool = gateway.router.find_any("g~b", "")
        pool.signature = replace(pool.signature, outputs=pool.signature.outputs[1:])
        answer = await gateway.ask(ask([SURE], outputs=("name",)))
        assert answer.output("name") == ["b:a:0"]


FIRST: list[tuple[Tensor, Any]] = [
    (Tensor("t", "BYTES", (1,), pack("<I", 2) + b"DE"), b"DE"),
    (Tensor("t", "BOOL", (2,), b"\x01\x00"), True),
    (from_numpy("t", np.array([[1.5, 2.0]]), "FP16"), 1.5),
    (from_numpy("t", np.array([[1.5, 2.0]]), "BF16"), 1.5),
    (from_numpy("t", np.array([-7]), "INT64"), -7),
    (Tensor("t", "FP32", (0, 3), b""), None),
]


@pytest.mark.parametrize(("tensor", "value"), FIRST)
def test_a_condition_looks_at_the_first_value(tensor: Tensor, value: Any) -> None:
    assert first_value(tensor) == value
    assert first_values(tensor)[:1] == ([value] if tensor.shape[0] else [])


def test_names_beyond_the_bound_are_counted_as_others() -> None:
    book = GraphBook()
    for number in range(MAX_SERIES + 7):
        book.count_rows(f"g{number}", "a", 2)
    book.count_rows("g0", "a", 2)
    rows = book.counters()["hyperion_graph_rows_total"]
    assert (rows["other", "other"], rows["g0", "a"], len(rows)) == (14.0, 4.0, MAX_SERIES + 1)
