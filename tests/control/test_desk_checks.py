"""What the desk refuses because of what else is there: versions that are not, rules that fit none, circles."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from hyperion.control.desk.desk import Desk
from hyperion.schema.errors import Conflict, GateRefused, InvalidResource, UnknownModel
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.protect import Fallback, Graph, GraphStep, InputRule, SchemaRules, Upstream
from hyperion.schema.registry import FileEntry, Manifest
from hyperion.schema.resource import Endpoint, EndpointSpec, Log, Metadata
from hyperion.store import registry
from hyperion.store.blobs.directory import LocalBlobs
from hyperion.store.database import open_home

SIGNATURE = Signature((TensorSpec("age", "UINT8", (-1,)),), (TensorSpec("y", "FP32", (-1,)),))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    database = open_home(tmp_path)
    files = (FileEntry("m.onnx", "a" * 64, 1),)
    with database.write() as tx:
        for version, signature in (("1", SIGNATURE), ("2", None)):
            manifest = Manifest("fraud", version, f"sha256:{version * 64}", "onnx", files, "m.onnx", signature)
            registry.put_version(tx, manifest, actor="ann")
    return Desk(database, LocalBlobs(tmp_path / "blobs"), lambda: None)


def endpoint(name: str, spec: EndpointSpec) -> Endpoint:
    return Endpoint(Metadata(name), spec)


def apply(desk: Desk, *endpoints: Endpoint, dry_run: bool = False) -> list[str]:
    return [change.action for change in desk.apply(endpoints, dry_run=dry_run, actor="ann")]


def test_rules_are_judged_by_what_the_version_says_that_it_takes(desk: Desk) -> None:
    fits = SchemaRules(inputs={"age": InputRule(0, 120)})
    misfit = SchemaRules(inputs={"agge": InputRule(0, 120)})
    assert apply(desk, endpoint("fraud", EndpointSpec("fraud@1", schema=fits))) == ["created"]
    with pytest.raises(InvalidResource, match=r"spec\.schema\.inputs\.agge: the model has no such input"):
        apply(desk, endpoint("fraud", EndpointSpec("fraud@1", schema=misfit)))
    # A version that says nothing of itself can only be asked when it runs.
    assert apply(desk, endpoint("fraud", EndpointSpec("fraud@2", schema=misfit))) == ["configured"]


def test_a_version_that_runs_is_known_by_what_it_said_then(tmp_path: Path, desk: Desk) -> None:
    running = Desk(
        open_home(tmp_path),
        LocalBlobs(tmp_path / "blobs"),
        lambda: None,
        signature_of={f"sha256:{'2' * 64}": SIGNATURE}.get,
    )
    misfit = SchemaRules(inputs={"agge": InputRule(0, 120)})
    with pytest.raises(InvalidResource, match=r"'fraud': spec\.schema\.inputs\.agge: the model has no such input"):
        apply(running, endpoint("fraud", EndpointSpec("fraud@2", schema=misfit)))
    with pytest.raises(InvalidResource, match=r"'fraud': spec\.log\.redact: the model has no input \"agge\""):
        apply(running, endpoint("fraud", EndpointSpec("fraud@2", log=Log(redact=("input:agge",)))))
    assert apply(desk, endpoint("fraud", EndpointSpec("fraud@2", schema=misfit))) == ["created"]
    with pytest.raises(InvalidResource, match=r"spec\.schema\.inputs\.agge"):
        desk.deploy("fraud", "fraud@1", actor="ann")


def test_every_version_that_a_resource_names_must_be_there(desk: Desk) -> None:
    steps = (GraphStep("a", model="fraud@1"), GraphStep("b", model="fraud@9"))
    for spec in (
        EndpointSpec("fraud@1", fallback=(Fallback(version="9"),)),
        EndpointSpec("fraud@1", fallback=(Fallback(model="other@1"),)),
        EndpointSpec(graph=Graph("pipeline", steps)),
    ):
        with pytest.raises(UnknownModel):
            apply(desk, endpoint("x", spec), dry_run=True)
    assert desk.list_endpoints() == []


def graph(*steps: GraphStep) -> EndpointSpec:
    return EndpointSpec(graph=Graph("pipeline", steps))


def test_steps_that_do_not_fit_each_other_are_refused_where_all_signatures_are_known(desk: Desk) -> None:
    """`fraud@2` says nothing of itself before it runs."""
    pair = (GraphStep("a", model="fraud@1"), GraphStep("b", model="fraud@1", inputs={"age": "a.y"}))
    with pytest.raises(InvalidResource, match=r"'g': spec\.graph: input \"age\" of step \"b\" is UINT8"):
        apply(desk, endpoint("g", graph(*pair)), dry_run=True)
    later = (pair[0], GraphStep("b", model="fraud@2", inputs={"age": "a.y"}))
    assert apply(desk, endpoint("g", graph(*later))) == ["created"]


def test_an_upstream_step_has_to_name_one_unless_it_is_still_to_come(desk: Desk) -> None:
    far = endpoint("far", EndpointSpec(upstream=Upstream("http://127.0.0.1:9")))
    near = endpoint("near", EndpointSpec("fraud@1"))
    for name in ("far", "coming"):
        assert apply(desk, far, endpoint("g", graph(GraphStep("a", upstream=name))), dry_run=True)
    for others in ((near,), ()):
        with pytest.raises(InvalidResource, match=r"steps\[0\]\.upstream: endpoint 'near' is no upstream"):
            apply(desk, *others, endpoint("g", graph(GraphStep("a", upstream="near"))))
        apply(desk, near)


def test_a_request_never_runs_more_steps_than_a_queue_can_take(desk: Desk) -> None:
    """Also where what makes it too much is a graph further down."""
    apply(desk, endpoint("base", EndpointSpec("fraud@1")))
    steps = tuple(GraphStep(f"s{n}", endpoint="base", soft=True) for n in range(15))
    apply(
        desk, endpoint("low", graph(*steps)), endpoint("high", graph(*(replace(one, endpoint="low") for one in steps)))
    )
    wider = graph(*steps, GraphStep("one", endpoint="base"), GraphStep("more", endpoint="base"))
    with pytest.raises(
        InvalidResource, match=r"'high': .* a request would run 270 steps or more, 2 graphs deep; at most"
    ):
        apply(desk, endpoint("low", wider))
    apply(desk, endpoint("alone", wider))


def test_an_endpoint_that_a_graph_cannot_do_without_stays(desk: Desk) -> None:
    base = endpoint("base", EndpointSpec("fraud@1"))
    apply(desk, base, endpoint("needs", graph(GraphStep("a", endpoint="base"))))
    apply(
        desk, base, endpoint("does-not", graph(GraphStep("a", endpoint="base", soft=True), GraphStep("b", "fraud@1")))
    )
    for dry_run in (True, False):
        with pytest.raises(Conflict, match='"base" is a step that cannot be missing, of the graphs: needs;'):
            desk.delete_endpoint("base", dry_run=dry_run, actor="ann")
    apply(desk, endpoint("also", graph(GraphStep("a", endpoint="base"))))
    with pytest.raises(Conflict, match="the graphs: also, needs;"):
        desk.delete_endpoint("base", actor="ann")
    for name in ("needs", "also", "base"):
        assert desk.delete_endpoint(name, actor="ann").action == "deleted"


def test_a_circle_is_refused_wherever_it_is_closed(desk: Desk) -> None:
    def next_to(other: str) -> EndpointSpec:
        return EndpointSpec(graph=Graph("pipeline", (GraphStep("a", endpoint=other),)))

    apply(desk, endpoint("a", next_to("b")), endpoint("b", next_to("c")))
    with pytest.raises(InvalidResource, match="c -> a -> b -> c"):
        apply(desk, endpoint("c", next_to("a")))
    with pytest.raises(InvalidResource, match="comes back to itself"):
        apply(desk, endpoint("d", next_to("e")), endpoint("e", next_to("d")), dry_run=True)
    # What is applied together is judged as it will be: b leads elsewhere from now on.
    apply(desk, endpoint("c", next_to("a")), endpoint("b", EndpointSpec("fraud@1")))


def test_what_has_no_versions_takes_no_deploy_and_no_commands(desk: Desk) -> None:
    apply(desk, endpoint("far", EndpointSpec(upstream=Upstream("http://127.0.0.1:9"))))
    with pytest.raises(GateRefused, match='"far" is an upstream'):
        desk.deploy("far", "fraud@1", actor="ann")
    with pytest.raises(GateRefused, match='"far" is an upstream'):
        desk.command("far", "undo", actor="ann")
    assert desk.get_rollout("far").state is None


@pytest.mark.parametrize("name", ["admin-token", "credentials/../admin-token", "credentials/link", "credentials"])
def test_an_upstream_names_no_file_outside_of_the_directories_for_credentials(tmp_path: Path, name: str) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "link").symlink_to(tmp_path / "admin-token")
    database, blobs = open_home(tmp_path), LocalBlobs(tmp_path / "blobs")
    desk = Desk(database, blobs, lambda: None, credential_dirs=[str(tmp_path / "credentials")])
    spec = EndpointSpec(upstream=Upstream("http://127.0.0.1:9", headers_from=str(tmp_path / name)))
    for dry_run in (True, False):
        with pytest.raises(GateRefused, match=r"^spec\.upstream\.headers_from: .* --credential-dirs$"):
            apply(desk, endpoint("far", spec), dry_run=dry_run)
    # A file that is not there yet may be named: it is refused again, or not, when it is opened.
    spec = EndpointSpec(upstream=Upstream("http://127.0.0.1:9", headers_from=str(tmp_path / "credentials" / "dr")))
    assert apply(desk, endpoint("far", spec)) == ["created"]
