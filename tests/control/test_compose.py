"""What is published of graphs and upstreams, look by look, without processes: the fleet and other servers are data."""

import asyncio
from typing import Any

from msgspec.structs import replace

from hyperion.control.compose import Composer, Declared, Wanted, list_held
from hyperion.control.release.view import ReleaseView
from hyperion.control.snapshot import build_snapshot, list_needed, served_by_version
from hyperion.control.upstream.upstreams import Upstreams
from hyperion.policy.graph.members import name_member
from hyperion.policy.placement import Placement
from hyperion.policy.placement_release import ReleasePlacement
from hyperion.schema.errors import UpstreamFailed
from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from hyperion.schema.protect import Access, Fallback, Graph, GraphStep, Protection, Upstream
from hyperion.schema.release import Split, Track
from hyperion.schema.resource import Endpoint, EndpointSpec, Metadata
from hyperion.schema.snapshot import ModelState, Replica, ServedModel, ServedVersion, Snapshot
from hyperion.wire.oip.model_metadata import ModelMetadata

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1,)),))


async def never(_: Upstream) -> ModelMetadata:
    await asyncio.Event().wait()
    raise AssertionError


class Looks:
    """One look after another: each goes on from what the last one published."""

    def __init__(self) -> None:
        self.published = Snapshot(1)
        self._composer = Composer(Upstreams(lambda: None, lambda _, __: None, never))

    def look(self, *endpoints: Endpoint, served: tuple[ServedModel, ...] = (), **wanted: Any) -> Snapshot:
        index = tuple(ModelState(model.name, "1", "READY") for model in served if not model.internal)
        new = Snapshot(self.published.version + 1, served, index)
        declared = tuple(map(Declared, endpoints))
        self.published = self._composer.compose(new, self.published, Wanted(declared, **wanted))
        return self.published

    def find(self, name: str) -> ServedModel | None:
        return next((model for model in self.published.models if model.name == name), None)

    def state(self, name: str) -> tuple[str, str]:
        (state,) = [state for state in self.published.index if state.name == name]
        return state.state, state.reason


def runs(name: str, digest: str = "sha256:1", internal: bool = False) -> ServedModel:
    replica = Replica(f"{name}@1.g1.0", "/run/r.sock")
    version = ServedVersion("1", digest, 1, "onnx", SIGNATURE, ModelOptions(), (replica,))
    return ServedModel(name, "1", (version,), internal=internal)


def graph(name: str, *steps: GraphStep, **spec: Any) -> Endpoint:
    return Endpoint(Metadata(name), EndpointSpec(graph=Graph("ensemble", steps), **spec))


def far(name: str, **upstream: Any) -> Endpoint:
    return Endpoint(Metadata(name), EndpointSpec(upstream=Upstream("http://127.0.0.1:9", **upstream)))


def digest_of(model: ServedModel | None) -> str:
    assert model is not None
    return model.versions[0].digest


async def test_graphs_of_graphs_are_served_whatever_their_order_and_a_circle_never_is() -> None:
    looks = Looks()
    outer = graph("a-outer", GraphStep("in", endpoint="b-inner"))
    inner = graph("b-inner", GraphStep("m", endpoint="model"))
    round_and = graph("c", GraphStep("d", endpoint="d"))
    about = graph("d", GraphStep("c", endpoint="c"))
    looks.look(outer, inner, round_and, about, served=(runs("model"),))
    assert {model.name for model in looks.published.models} == {"model", "a-outer", "b-inner"}
    assert looks.state("c") == ("UNAVAILABLE", 'step "d": endpoint "d" is not served here')


async def test_a_member_s_new_version_changes_the_digests_of_all_graphs_above_it() -> None:
    looks = Looks()
    endpoints = (graph("outer", GraphStep("in", endpoint="inner")), graph("inner", GraphStep("m", endpoint="model")))
    looks.look(*endpoints, served=(runs("model"),))
    first = digest_of(looks.find("outer"))
    looks.look(*endpoints, served=(runs("model"),))
    assert digest_of(looks.find("outer")) == first
    looks.look(*endpoints, served=(runs("model", "sha256:2"),))
    second = digest_of(looks.find("outer"))
    assert second != first
    model = runs("model", "sha256:2")
    canary = replace(model.versions[0], version="2", digest="sha256:3")
    split = Split(1, "", (Track("1", 0.9), Track("2", 0.1)))
    looks.look(*endpoints, served=(replace(model, versions=(*model.versions, canary), split=split),))
    assert digest_of(looks.find("outer")) not in (first, second)


async def test_a_soft_step_may_be_missing_and_a_hard_one_says_why_it_is() -> None:
    looks = Looks()
    hard, soft = GraphStep("hard", model="m@1"), GraphStep("soft", model="n@1", soft=True)
    both = graph("both", hard, soft)
    looks.look(both, reasons={"both~hard": "is UNAVAILABLE: no such weights"}, stuck=("both~hard",))
    assert looks.state("both") == ("UNAVAILABLE", 'step "hard": model m@1 is UNAVAILABLE: no such weights')
    looks.look(both, served=(runs("both~hard", internal=True),))
    assert looks.state("both") == ("READY", "")
    assert list_needed(looks.published) == {name_member("both", "hard"), name_member("both", "soft")}
    looks.look(both, served=(runs("both~soft", internal=True),))
    assert (looks.find("both"), looks.state("both")[0]) == (None, "LOADING")


async def test_a_graph_is_loading_while_its_steps_are_and_unavailable_where_waiting_does_not_help() -> None:
    """A gateway is not ready while something is loading: what somebody has to mend first must not count."""
    looks = Looks()
    outer = graph("a-outer", GraphStep("in", endpoint="b-inner"))
    inner = graph("b-inner", GraphStep("m", model="m@1"), GraphStep("other", endpoint="other"))
    looks.look(outer, inner, served=(runs("other"),))
    assert (looks.state("a-outer")[0], looks.state("b-inner")[0]) == ("LOADING", "LOADING")
    looks.look(outer, inner, served=(runs("other"),), stuck=("b-inner~m",))
    assert (looks.state("a-outer")[0], looks.state("b-inner")[0]) == ("UNAVAILABLE", "UNAVAILABLE")
    looks.look(outer, inner)
    assert (looks.state("a-outer")[0], looks.state("b-inner")[0]) == ("UNAVAILABLE", "UNAVAILABLE")
    unfit = graph("unfit", GraphStep("m", endpoint="other", inputs={"z": "x"}))
    looks.look(unfit, served=(runs("other"),))
    assert looks.state("unfit") == ("UNAVAILABLE", 'step "m" has no input "z"; it has x')


async def test_an_upstream_is_loading_until_it_was_asked_once() -> None:
    async def refuse(_: Upstream) -> ModelMetadata:
        raise UpstreamFailed("cannot be reached")

    asked = asyncio.Event()
    composer = Composer(Upstreams(asked.set, lambda _, __: None, refuse))
    waits = graph("waits", GraphStep("far", upstream="far"))
    wanted = Wanted(tuple(map(Declared, (far("far"), waits))))
    for expected in ("LOADING", "UNAVAILABLE"):
        index = composer.compose(Snapshot(2), Snapshot(1), wanted).index
        assert {row.name: row.state for row in index} == {"far": expected, "waits": expected}
        await asyncio.wait_for(asked.wait(), 10)


async def test_a_row_of_the_index_says_who_may_see_it_though_nothing_is_served() -> None:
    looks = Looks()
    acme = Access(tenants=("acme",))
    upstream = Endpoint(Metadata("far"), EndpointSpec(upstream=Upstream("http://127.0.0.1:9"), access=acme))
    missing = graph("missing", GraphStep("a", endpoint="nobody"), access=acme)
    looks.look(upstream, missing, far("open"))
    assert {state.name: state.access for state in looks.published.index} == {
        "far": acme,
        "missing": acme,
        "open": None,
    }
    view = ReleaseView(
        "halted",
        ReleasePlacement((), (), (), {}, (ModelState("halted", "1", "UNAVAILABLE"),)),
        {},
        protection=Protection(access=acme),
    )
    built = build_snapshot(2, Placement(), {}, {}, (view,))
    assert [state.access for state in built.index] == [acme]


async def test_an_upstream_step_must_be_one() -> None:
    looks = Looks()
    looks.look(graph("g", GraphStep("far", upstream="model")), served=(runs("model"),))
    assert "is no upstream; name it with `endpoint`" in looks.state("g")[1]


async def test_an_upstream_of_the_last_life_is_served_on_before_it_answers_again() -> None:
    upstream = Upstream("http://127.0.0.1:9", model="dr")
    version = ServedVersion(
        "upstream", "sha256:7", 1, "onnx", SIGNATURE, ModelOptions(max_batch_size=1, replicas=16), (), upstream=upstream
    )
    looks = Looks()
    looks.published = Snapshot(5, (ServedModel("dr", "upstream", (version,)),))
    looks.look(far("dr"))
    assert digest_of(looks.find("dr")) == "sha256:7"
    assert looks.state("dr") == ("READY", "it has not answered yet")
    # Elsewhere it is another one: what is published stays until that answers.
    looks.look(Endpoint(Metadata("dr"), EndpointSpec(upstream=Upstream("http://127.0.0.1:8"), access=Access(("a",)))))
    model = looks.find("dr")
    assert model is not None
    assert (model.versions[0].upstream, model.protection.access) == (upstream, Access(("a",)))
    looks.look()
    assert looks.find("dr") is None


async def test_what_ran_here_is_held_until_the_graph_in_its_place_can_answer() -> None:
    looks = Looks()
    looks.look(served=(runs("m"),))
    becoming = graph("m", GraphStep("a", model="a@1"))
    looks.look(becoming)
    assert list_held((Declared(becoming),), looks.published) == {"m"}
    assert served_by_version(looks.published) == {"m": {"1": 1}}
    looks.look(becoming, served=(runs("m~a", internal=True),))
    assert list_held((Declared(becoming),), looks.published) == frozenset()
    assert served_by_version(looks.published) == {"m": {}, "m~a": {"1": 1}}
    # And back: its first version loads, and the graph goes on.
    looks.look(served=(runs("m~a", internal=True),), released=("m",))
    found = looks.find("m")
    assert found is not None
    assert found.default_version == "graph"
    assert list_held((Declared(becoming, deleting=True),), Snapshot(1, (runs("m"),))) == frozenset()


async def test_a_path_of_the_same_name_hides_a_graph() -> None:
    looks = Looks()
    looks.look(graph("model", GraphStep("a", endpoint="other")), served=(runs("model"), runs("other")))
    found = looks.find("model")
    assert found is not None
    assert found.default_version == "1"
    assert looks.state("model") == ("READY", "")


def test_links_that_run_something_are_needed() -> None:
    links = (Fallback(endpoint="b"), Fallback(model="a@1"), Fallback(version="2"))
    model = replace(runs("m"), protection=Protection(fallback=links))
    assert list_needed(Snapshot(1, (model,))) == {"m~fallback-1", "m~fallback-2"}
