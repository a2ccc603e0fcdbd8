"""Graphs answer as one model: each kind of them, whatever becomes of their members."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hyperion.gateway.graph.pool import GraphPool
from hyperion.policy.graph.signature import derive_signature
from hyperion.schema.protect import Cache, EndpointLimits, Fallback, Graph, GraphStep, Protection, Until
from hyperion.schema.snapshot import ServedModel, Snapshot
from tests.gateway.graphs import SIGNATURE, Steps, ask, run_steps, serve_graph, step
from tests.gateway.serving import infer, on_uvloop, request, serving

SURE, UNSURE = [0.9, 0.05, 0.05], [0.3, 0.4, 0.3]


# --- pipelines ---

CHAIN = Graph(
    "pipeline",
    (step("a", outputs={"name": "who"}), step("b", inputs={"x": "a.scores", "id": "a.who"}, outputs={"name": "trail"})),
)


@on_uvloop
async def test_a_pipeline_leads_each_step_s_outputs_to_the_next_under_their_names(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, CHAIN)
        answer = await gateway.ask(ask([SURE, UNSURE]))
        assert answer.status == 200
        assert answer.output("trail") == ["b:a:0", "b:a:1"]
        assert answer.output("label") == [1, 2]
        assert answer.json()["model_version"] == "graph"
        assert [event["code"] for event in gateway.events()] == ["200"]
        assert "x-hyperion-degraded" not in answer.headers
        only = await gateway.ask(ask([SURE], outputs=("label",)))
        assert [output["name"] for output in only.json()["outputs"]] == ["label"]


@on_uvloop
async def test_steps_that_do_not_need_each_other_run_at_the_same_time(steps: Steps) -> None:
    """`a` and `b` wait for each other's end to be allowed: were they run one after the other, nobody would answer."""
    last = step("c", inputs={"x": "a.scores", "id": "b.name"})
    async with serving() as gateway:
        await serve_graph(gateway, steps, Graph("pipeline", (step("a"), step("b"), last)))
        steps.tell(a="hang", b="hang")
        asked = asyncio.create_task(gateway.ask(ask([SURE])))
        await gateway.until(lambda: steps.batches("a") and steps.batches("b"))
        steps.tell()
        assert (await asked).output("name") == ["c:b:0"]


@on_uvloop
async def test_a_pipeline_fails_as_its_step_fails_and_tells_nothing_of_the_model_s_own(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, CHAIN)
        steps.tell(b="raise")
        answer = await gateway.ask(ask([SURE]))
        assert answer.status == 500
        assert "told to" not in answer.error
        assert [event["code"] for event in gateway.events()] == ["500"]


@on_uvloop
async def test_a_soft_step_of_a_pipeline_is_gone_round_where_its_input_will_do(steps: Steps) -> None:
    graph = Graph("pipeline", (step("a", soft=True, outputs={"scores": "x", "name": "id"}), step("b")))
    async with serving() as gateway:
        await serve_graph(gateway, steps, graph)
        assert (await gateway.ask(ask([SURE]))).output("name") == ["b:a:0"]
        steps.tell(a="raise")
        answer = await gateway.ask(ask([SURE]))
        assert (answer.status, answer.output("name")) == (200, ["b:0"])
        assert answer.headers["x-hyperion-missing"] == "a"
        assert (answer.headers["x-hyperion-degraded"], answer.headers["x-hyperion-served-by"]) == ("true", "partial")


# --- ensembles ---

VOTERS = (step("a", weight=2.0), step("b"), step("c", soft=True))


@on_uvloop
async def test_an_ensemble_averages_by_weight(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, Graph("ensemble", VOTERS, output="scores"))
        answer = await gateway.ask(ask([[0.8, 0.2, 0.0]]))
        assert answer.output("scores") == pytest.approx([0.6, 0.35, 0.05])
        assert [output["name"] for output in answer.json()["outputs"]] == ["scores"]
        assert "x-hyperion-confidence" not in answer.headers


@pytest.mark.parametrize("mode", ["raise", "hang"])
@on_uvloop
async def test_a_missing_soft_member_lowers_the_confidence_and_not_the_service(steps: Steps, mode: str) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, Graph("ensemble", VOTERS, output="scores"))
        steps.tell(c=mode)
        answer = await gateway.ask(ask([[0.8, 0.2, 0.0]], x_request_timeout_ms=1500))
        assert answer.status == 200
        assert answer.output("scores") == pytest.approx([1.6 / 3, 1.2 / 3, 0.2 / 3])
        told = {name: answer.headers[f"x-hyperion-{name}"] for name in ("confidence", "missing", "degraded")}
        assert told == {"confidence": "0.75", "missing": "c", "degraded": "true"}


@on_uvloop
async def test_a_hard_member_has_to_answer_and_the_others_are_let_go(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, Graph("ensemble", VOTERS, output="scores"))
        steps.tell(b="raise", a="hang")
        answer = await gateway.ask(ask([SURE]))
        assert answer.status == 500
        assert gateway.pool("g").queue_state().running_rows == 0


@on_uvloop
async def test_an_ensemble_votes_on_labels_and_stacks_texts(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, Graph("ensemble", VOTERS, "vote", "label"))
        assert (await gateway.ask(ask([SURE, UNSURE]))).output("label") == [0, 1]
        await serve_graph(gateway, steps, Graph("ensemble", VOTERS, "stack", "name"))
        await gateway.until(lambda: gateway.pool("g").signature.outputs[0].name == "name")
        answer = await gateway.ask(ask([SURE, UNSURE]))
        assert answer.json()["outputs"][0]["shape"] == [2, 3, 1]
        assert answer.output("name") == ["a:0", "b:0", "c:0", "a:1", "b:1", "c:1"]


# --- switches ---


@on_uvloop
async def test_a_switch_asks_the_step_that_the_request_is_for(steps: Steps) -> None:
    graph = Graph("switch", (step("a", when='id == "0"'), step("b", when="size >= 10"), step("c")))
    async with serving() as gateway:
        await serve_graph(gateway, steps, graph)
        assert (await gateway.ask(ask([SURE]))).output("name") == ["a:0"]
        body = json.loads(ask([SURE]).partition(b"\r\n\r\n")[2])
        body["inputs"][1]["data"] = ["7"]
        for parameters, name in (({"size": 12}, "b:7"), ({"size": 3}, "c:7"), ({}, "c:7")):
            content = json.dumps({**body, "parameters": parameters}).encode()
            assert (await gateway.ask(request(content, "/v2/models/g/infer"))).output("name") == [name]


def numbered(numbers: list[int], parameters: Any = None) -> bytes:
    """A request of one row for each of these numbers, by which a switch may tell them apart."""
    body = json.loads(ask([SURE] * len(numbers)).partition(b"\r\n\r\n")[2])
    body["inputs"][1]["data"] = [str(number) for number in numbers]
    return request(json.dumps({**body, "parameters": parameters or {}}).encode(), "/v2/models/g/infer")


@on_uvloop
async def test_each_row_of_a_switch_goes_to_the_step_that_it_is_for(steps: Steps) -> None:
    graph = Graph("switch", (step("a", when='id == "0"'), step("b", when='id == "1"'), step("c")))
    draw = random.Random(7)
    async with serving() as gateway:
        await serve_graph(gateway, steps, graph)
        for count in (2, 3, 40, 300):
            steps.tell()
            numbers = [draw.choice((0, 1, 2)) for _ in range(count)]
            answer = await gateway.ask(numbered(numbers))
            assert answer.output("name") == [f"{'abc'[number]}:{number}" for number in numbers]
            rows = [sum(steps.batches(name)) for name in "abc"]
            assert rows == [numbers.count(number) for number in (0, 1, 2)]
        assert sum(gateway.metrics.collect().counters["hyperion_graph_rows_total"].values()) == 2 + 3 + 40 + 300


@on_uvloop
async def test_rows_of_a_soft_step_that_fails_go_on_to_the_next_that_fits_and_no_others(steps: Steps) -> None:
    soft = (step("a", when='id == "0"', soft=True), step("b", when='id != "2"', soft=True), step("c"))
    async with serving() as gateway:
        await serve_graph(gateway, steps, Graph("switch", soft))
        steps.tell(a="raise")
        answer = await gateway.ask(numbered([0, 2, 1, 0]))
        assert (answer.output("name"), answer.headers["x-hyperion-missing"]) == (["b:0", "c:2", "b:1", "b:0"], "a")
        steps.tell(a="raise", b="raise")
        answer = await gateway.ask(numbered([2, 0, 1]))
        assert answer.output("name") == ["c:2", "c:0", "c:1"]
        assert set(answer.headers["x-hyperion-missing"].split(",")) == {"a", "b"}
        steps.tell(c="raise")
        assert (await gateway.ask(numbered([2, 0, 1]))).status == 500


@on_uvloop
async def test_a_row_that_no_step_is_for_is_named(steps: Steps) -> None:
    graph = Graph("switch", (step("a", when='id == "0"'), step("b", when="size > 3")))
    async with serving() as gateway:
        await serve_graph(gateway, steps, graph)
        answer = await gateway.ask(numbered([0, 0, 5]))
        assert (answer.status, 'no step of "g" is for row 2 of this request' in answer.error) == (422, True)
        assert (await gateway.ask(numbered([0, 5], {"size": 4}))).output("name") == ["a:0", "b:5"]


@on_uvloop
async def test_a_request_that_no_step_is_for_is_told_which_there_are(steps: Steps) -> None:
    graph = Graph("switch", (step("a", when='id == "x"'), step("b", when="size >= 10")))
    async with serving() as gateway:
        await serve_graph(gateway, steps, graph)
        answer = await gateway.ask(ask([SURE]))
        assert answer.status == 422
        assert 'id == "x"; size >= 10' in answer.error


@on_uvloop
async def test_a_soft_step_of_a_switch_that_fails_is_stood_in_for_by_the_next_that_fits(steps: Steps) -> None:
    graph = Graph("switch", (step("a", when='id == "0"', soft=True), step("b", when='id == "1"'), step("c")))
    async with serving() as gateway:
        await serve_graph(gateway, steps, graph)
        steps.tell(a="raise")
        answer = await gateway.ask(ask([SURE]))
        assert (answer.output("name"), answer.headers["x-hyperion-missing"]) == (["c:0"], "a")


# --- cascades ---

CASCADE = Graph("cascade", (step("a", until=Until(0.8)), step("b")), output="scores")


@on_uvloop
async def test_each_row_of_a_cascade_is_answered_by_the_first_step_that_is_sure(steps: Steps) -> None:
    draw = random.Random(5)
    async with serving() as gateway:
        await serve_graph(gateway, steps, CASCADE)
        for count in (1, 2, 7, 64, 300):
            rows = [draw.choice((SURE, UNSURE)) for _ in range(count)]
            answer = await gateway.ask(ask(rows, outputs=("name", "label")))
            assert answer.status == 200
            assert answer.output("name") == [f"{'ab'[row is UNSURE]}:{n}" for n, row in enumerate(rows)]
            assert answer.output("label") == [2 if row is UNSURE else 0 for row in rows]
            large = sum(row is UNSURE for row in rows)
            assert answer.headers["x-hyperion-cascade"] == f"a={count - large},b={large}"
            assert [output["name"] for output in answer.json()["outputs"]] == ["name", "label"]


@on_uvloop
async def test_it_is_counted_which_step_answers_and_which_is_missed(steps: Steps) -> None:
    cascade = Graph("cascade", (step("a", until=Until(0.8)), step("b", soft=True)), output="scores")
    async with serving() as gateway:
        await serve_graph(gateway, steps, cascade)
        await gateway.ask(ask([SURE, UNSURE, SURE]))
        steps.tell(b="raise")
        await gateway.ask(ask([UNSURE]))
        counted = gateway.metrics.collect().counters
        assert counted["hyperion_graph_rows_total"] == {("g", "a"): 3.0, ("g", "b"): 1.0}
        assert counted["hyperion_graph_degraded_total"] == {("g", "b"): 1.0}


@on_uvloop
async def test_sure_rows_cost_the_large_model_nothing(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, CASCADE)
        await gateway.ask(ask([SURE] * 5))
        assert steps.batches("b") == []
        await gateway.ask(ask([SURE, UNSURE, SURE, UNSURE]))
        assert (steps.batches("a"), steps.batches("b")) == ([5, 4], [2])


@on_uvloop
async def test_three_steps_pass_on_ever_fewer_rows_and_what_they_found(steps: Steps) -> None:
    """The last step reads the names that the first one gave to its rows."""
    last = step("c", inputs={"id": "a.name"})
    graph = Graph("cascade", (step("a", until=Until(0.8)), step("b", until=Until(0.5)), last), output="scores")
    async with serving() as gateway:
        await serve_graph(gateway, steps, graph)
        answer = await gateway.ask(ask([UNSURE, SURE, [0.0, 0.6, 0.4], UNSURE]))
        assert answer.output("name") == ["c:a:0", "a:1", "b:2", "c:a:3"]
        assert answer.headers["x-hyperion-cascade"] == "a=1,b=1,c=2"


@on_uvloop
async def test_a_cascade_without_time_answers_with_what_it_has(steps: Steps) -> None:
    """The large model hangs: a caller has the small one's answer before the deadline."""
    async with serving() as gateway:
        await serve_graph(gateway, steps, CASCADE)
        steps.tell(b="hang")
        answer = await gateway.ask(ask([SURE, UNSURE], x_request_timeout_ms=1500))
        assert (answer.status, answer.output("name")) == (200, ["a:0", "a:1"])
        assert answer.headers["x-hyperion-cascade"] == "a=2,b=0"
        assert answer.headers["x-hyperion-degraded"] == "true"
        steps.tell()
        # It is known now to take longer than such a caller has: it is not even asked.
        await gateway.until(lambda: gateway.router.find_any("g~b", "").curve.mean_ns[0] > 5e8)
        steps.tell()
        answer = await gateway.ask(ask([UNSURE], x_request_timeout_ms=500))
        assert (answer.output("name"), steps.batches("b")) == (["a:0"], [])


@on_uvloop
async def test_a_cascade_fails_with_its_large_model_unless_that_is_soft(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, CASCADE)
        steps.tell(b="raise")
        assert (await gateway.ask(ask([SURE]))).status == 200
        assert (await gateway.ask(ask([SURE, UNSURE]))).status == 500
    soft = Graph("cascade", (step("a", until=Until(0.8)), step("b", soft=True)), output="scores")
    async with serving() as gateway:
        await serve_graph(gateway, steps, soft)
        answer = await gateway.ask(ask([SURE, UNSURE]))
        assert (answer.output("name"), answer.headers["x-hyperion-missing"]) == (["a:0", "a:1"], "b")


@on_uvloop
async def test_a_soft_first_step_that_fails_leaves_all_rows_to_the_next(steps: Steps) -> None:
    graph = Graph("cascade", (step("a", until=Until(0.8), soft=True), step("b")), output="scores")
    async with serving() as gateway:
        await serve_graph(gateway, steps, graph)
        steps.tell(a="raise")
        answer = await gateway.ask(ask([SURE, UNSURE]))
        assert (answer.output("name"), answer.headers["x-hyperion-cascade"]) == (["b:0", "b:1"], "a=0,b=2")


# --- what every pool does ---


@on_uvloop
async def test_a_caller_who_leaves_takes_the_members_along(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, Graph("ensemble", VOTERS, output="scores"))
        steps.tell(a="hang", b="hang", c="hang")
        client = await gateway.connect()
        client.send(ask([SURE]))
        await gateway.until(lambda: all(steps.batches(name) for name in "abc"))
        client.leave()
        await gateway.until(lambda: gateway.pool("g").queue_state().running_rows == 0)
        steps.tell()
        assert (await gateway.ask(ask([SURE]))).status == 200
        assert [event["code"] for event in gateway.events()] == ["499", "200"]


@on_uvloop
async def test_the_deadline_is_the_graph_s_and_ends_its_members(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, CHAIN, deadline_ms=200)
        steps.tell(b="hang")
        answer = await gateway.ask(ask([SURE]))
        assert answer.status == 504
        assert 'while the graph waited for step "b"' in answer.error
        assert gateway.pool("g").queue_state().running_rows == 0


@on_uvloop
async def test_a_stream_of_a_graph_has_one_part_and_its_members_cannot_be_called(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, CHAIN)
        body = json.dumps({"x": SURE, "id": ["0"]}).encode()
        answer = await gateway.ask(request(body, "/v2/models/g/generate_stream"))
        assert (answer.status, answer.body.count(b"data: {")) == (200, 1)
        assert (await gateway.ask(infer("x", path="/v2/models/g~a/infer"))).status == 404


@on_uvloop
async def test_what_guards_an_endpoint_guards_a_graph(steps: Steps) -> None:
    """Cached, limited, and stood in for; an answer that lacks a member is given, but not kept."""
    protection = Protection(
        cache=Cache(ttl_s=60),
        coalesce=True,
        limits=EndpointLimits(requests_per_second=0.001, burst=5),
        fallback=(Fallback(static={"scores": [[0.0, 0.0, 1.0]]}),),
    )
    async with serving() as gateway:
        await serve_graph(gateway, steps, Graph("ensemble", VOTERS, output="scores"), protection)
        steps.tell(c="raise")
        served = [(await gateway.ask(ask([SURE]))).headers["x-hyperion-served-by"] for _ in range(2)]
        assert served == ["partial", "partial"]
        steps.tell()
        served = [(await gateway.ask(ask([SURE]))).headers["x-hyperion-served-by"] for _ in range(2)]
        assert served == ["model", "cache"]
        steps.tell(a="raise")
        answer = await gateway.ask(ask([UNSURE]))
        assert (answer.headers["x-hyperion-served-by"], answer.output("scores")) == ("fallback:static", [0, 0, 1])
        assert (await gateway.ask(ask([SURE]))).status == 429


@on_uvloop
async def test_a_graph_that_is_replaced_finishes_what_it_holds(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, CHAIN)
        old = gateway.pool("g")
        steps.tell(b="hang")
        asked = asyncio.create_task(gateway.ask(ask([SURE])))
        await gateway.until(lambda: steps.batches("b"))
        await serve_graph(gateway, steps, Graph("pipeline", (step("a"), step("b", inputs={"id": "a.name"}))))
        await gateway.until(lambda: gateway.pool("g") is not old)
        assert old.retired
        assert not old.closed.is_set()
        steps.tell()
        assert (await asked).status == 200
        await gateway.until(old.closed.is_set)


@on_uvloop
async def test_a_graph_is_ready_when_every_hard_member_is(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, Graph("ensemble", VOTERS, output="scores"))
        served = gateway.router.table.models["g"].served
        members = [(name, gateway.router.find_any(f"g~{name}", "").served) for name in "abc"]
        assert served is not None
        pool = gateway.pool("g")
        assert isinstance(pool, GraphPool)
        assert pool.ready
        assert pool.reachable
        for left, ready in (("ab", True), ("bc", False)):
            there = [ServedModel(f"g~{name}", "1", (one,), internal=True) for name, one in members if name in left]
            await gateway.router.apply(Snapshot(next(gateway._versions), (served, *there)))
            for name in left:
                assert await gateway.router.find_any(f"g~{name}", "").wait_connected(20)
            assert (gateway.pool("g").ready, gateway.pool("g").reachable) == (ready, ready)
            status = (await gateway.ask(request(b"", "/v2/models/g/ready", "GET"))).status
            assert status == (200 if ready else 503)
        assert (await gateway.ask(ask([SURE]))).status == 503


@on_uvloop
async def test_a_graph_may_be_a_step_of_another(steps: Steps) -> None:
    """The inner cascade has no time for its large model; the outer ensemble's caller is told that the answer is
    degraded."""
    async with serving() as gateway:
        await serve_graph(gateway, steps, CASCADE)
        inner = gateway.router.table.models["g"].served
        assert inner is not None
        members = [gateway.router.table.members[f"g~{name}"].served for name in "ab"]
        outer = Graph("ensemble", (GraphStep("one", endpoint="g"), GraphStep("two", endpoint="g~a")), output="scores")
        version = replace(
            inner.versions[0],
            digest="sha256:o",
            graph=outer,
            signature=derive_signature(outer, {"one": SIGNATURE, "two": SIGNATURE}),
        )
        served = ServedModel("outer", "graph", (version,))
        models = tuple(one for one in (inner, served, *members) if one is not None)
        await gateway.router.apply(Snapshot(next(gateway._versions), models))
        await gateway.until(lambda: gateway.pool("outer").ready)
        asked = ask([SURE, UNSURE]).replace(b"/g/infer", b"/outer/infer")
        answer = await gateway.ask(asked)
        assert answer.output("scores") == pytest.approx([0.9, 0.05, 0.05, 0.3, 0.35, 0.35])
        assert "x-hyperion-degraded" not in answer.headers
        steps.tell(b="hang")
        late = asked.replace(b"content-length", b"x-request-timeout-ms: 300\r\ncontent-length", 1)
        answer = await gateway.ask(late)
        assert answer.output("scores") == pytest.approx([0.9, 0.05, 0.05, 0.3, 0.4, 0.3])
        assert answer.headers["x-hyperion-degraded"] == "true"
        assert [event["endpoint"] for event in gateway.events()] == ["outer", "outer"]


@on_uvloop
async def test_a_member_that_dies_is_waited_for_and_the_request_is_computed_again(tmp_path: Path) -> None:
    """As with any model: the replica is killed while it computes, and the one that follows answers."""
    with run_steps(tmp_path) as own:
        async with serving() as gateway:
            await serve_graph(gateway, own, CHAIN)
            own.tell(b="hang")
            asked = asyncio.create_task(gateway.ask(ask([SURE])))
            await gateway.until(lambda: own.batches("b"))
            own.kill("b")
            own.tell()
            own.start("b")
            answer = await asked
            assert (answer.status, answer.output("trail")) == (200, ["b:a:0"])


@on_uvloop
async def test_answers_that_do_not_go_together_are_the_model_s_fault(steps: Steps) -> None:
    """A member answers with rows of another length than the others'."""
    async with serving() as gateway:
        await serve_graph(gateway, steps, Graph("ensemble", VOTERS, output="scores"))
        steps.tell(b="wide")
        answer = await gateway.ask(ask([SURE]))
        assert answer.status == 500
        assert gateway.pool("g").queue_state().running_rows == 0
        steps.tell()
        assert (await gateway.ask(ask([SURE]))).status == 200


@on_uvloop
async def test_many_requests_at_once_are_merged_at_every_step(steps: Steps) -> None:
    async with serving() as gateway:
        await serve_graph(gateway, steps, CASCADE)
        clients = [await gateway.connect() for _ in range(40)]
        rows = [[SURE, UNSURE], [UNSURE]]
        answers = await asyncio.gather(*[client.ask(ask(rows[n % 2])) for n, client in enumerate(clients)])
        for number, answer in enumerate(answers):
            assert answer.output("name") == (["a:0", "b:1"] if number % 2 == 0 else ["b:0"])
        assert sum(steps.batches("b")) == 40
        assert len(steps.batches("b")) < 40
        for client in clients:
            client.leave()
