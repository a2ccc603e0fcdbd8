"""What answers for an endpoint: a model, another server or a graph, and what each mistake is told."""

from typing import Any

import msgspec
import pytest

from hyperion.schema.errors import InvalidResource
from hyperion.schema.protect import DeclaredTensor, Graph, GraphStep, Until, Upstream
from hyperion.schema.resource import Endpoint
from hyperion.store.checks.rollout import idle_fields
from hyperion.store.resource_yaml import read_resource, to_document

HERE = "http://127.0.0.1:8000"
X = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}


def read(**spec: Any) -> Endpoint:
    resource = read_resource({"kind": "Endpoint", "metadata": {"name": "fraud"}, "spec": spec})
    assert isinstance(resource, Endpoint)
    return resource


def refusal(**spec: Any) -> str:
    with pytest.raises(InvalidResource) as refused:
        read(**spec)
    return refused.value.message


def graph(kind: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"graph": {"kind": kind, "steps": list(steps), **more}}


A, B = {"name": "a", "model": "a@1"}, {"name": "b", "model": "b@1"}


def test_both_are_read_and_written_again() -> None:
    upstream = read(upstream={"url": HERE, "batch": True}, batching={"max_size": 8}, fallback=[{"model": "small@1"}])
    assert upstream.spec.upstream == Upstream(HERE, batch=True)
    declared = read(upstream={"url": HERE, "inputs": [X]})
    assert declared.spec.upstream == Upstream(HERE, inputs=(DeclaredTensor("x", "FP32", (-1, 4)),))
    assert read_resource(to_document(declared)) == declared
    assert read_resource(to_document(upstream)) == upstream
    cascade = read(**graph("cascade", {**A, "until": {"confidence": 0.8}}, B, output="p"), replicas={"min": 2})
    steps = (GraphStep("a", "a@1", until=Until(0.8)), GraphStep("b", "b@1"))
    assert cascade.spec.graph == Graph("cascade", steps, output="p")
    assert read_resource(to_document(cascade)) == cascade


@pytest.mark.parametrize(
    "url",
    ["https://dr.example.com", "http://10.0.0.5:8000/serving", "http://[::1]:8000", "http://triton_1:8000/"],
)
def test_places_of_upstreams_are_taken(url: str) -> None:
    assert read(upstream={"url": url}).spec.upstream == Upstream(url)


@pytest.mark.parametrize("url", ["grpc://127.0.0.1:8001", "https://dr.example.com", "http://dr:81"])
def test_places_of_grpc_are_taken(url: str) -> None:
    assert read(upstream={"url": url, "protocol": "oip-grpc"}).spec.upstream == Upstream(url, "oip-grpc")


@pytest.mark.parametrize(
    ("upstream", "message"),
    [
        ({"url": HERE, "protocol": "openai"}, "spec.upstream.protocol: openai is not done by this version"),
        ({"url": "ftp://a"}, "expected http://HOST:PORT or https://HOST:PORT with protocol oip-http"),
        ({"url": "grpc://a:1"}, "with protocol oip-http"),
        ({"url": "a:8000"}, "spec.upstream.url: expected http://HOST:PORT"),
        ({"url": "http://"}, "spec.upstream.url: expected http://HOST:PORT"),
        ({"url": "http://a:0"}, "spec.upstream.url: expected http://HOST:PORT"),
        ({"url": "http://a:99999"}, "spec.upstream.url: is no URL"),
        ({"url": "http://a b/"}, "spec.upstream.url: expected http://HOST:PORT"),
        ({"url": "http://a/b c"}, "expected no path"),
        ({"url": "http://a/../b?"}, "no query, no fragment"),
        ({"url": "http://a/?x=1"}, "no query, no fragment"),
        ({"url": "http://a/#x"}, "no query, no fragment"),
        ({"url": "http://a/" + "b" * 3_000}, "longer than 2048 characters"),
        ({"url": "grpc://a", "protocol": "oip-grpc"}, "expected a port"),
        ({"url": "grpc://a:1/b", "protocol": "oip-grpc"}, "expected no path"),
        ({"url": HERE, "model": "a/b"}, "spec.upstream.model: expected 1 to 256 letters"),
        ({"url": HERE, "version": "?"}, "spec.upstream.version: expected 1 to 256 letters"),
        ({"url": HERE, "headers_from": "key"}, "spec.upstream.headers_from: expected the absolute path"),
        ({"url": HERE, "ca_file": "/etc/ca"}, "spec.upstream.ca_file: means nothing without TLS"),
        ({"url": HERE, "concurrency": 0}, "spec.upstream.concurrency: expected 1 to 1024, got 0"),
        ({}, 'spec.upstream: the field "url" is missing'),
        ({"url": HERE, "inputs": [{**X, "datatype": "FLOAT"}]}, "spec.upstream.inputs[0].datatype: "),
        ({"url": HERE, "inputs": [X, X]}, 'spec.upstream.inputs[1].name: "x" is there twice'),
        ({"url": HERE, "outputs": [{**X, "name": ""}]}, "spec.upstream.outputs[0].name: expected 1 to 1024 bytes"),
        ({"url": HERE, "outputs": [{**X, "shape": [-2]}]}, "spec.upstream.outputs[0].shape[0]: expected -1 to"),
        ({"url": HERE, "inputs": [{**X, "shape": [1] * 9}]}, "spec.upstream.inputs[0].shape: expected up to 8 axes"),
        ({"url": HERE, "inputs": [{**X, "name": f"x{n}"} for n in range(65)]}, "spec.upstream.inputs: expected up to"),
        ({"url": HERE, "inputs": [{**X, "dtype": "FP32"}]}, "dtype"),
    ],
)
def test_an_upstream_that_cannot_be_is_refused(upstream: dict[str, Any], message: str) -> None:
    assert message in refusal(upstream=upstream)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    message = refusal(upstream={"url": "http://ada:hunter2@example.com:8000"})
    assert "must not hold credentials" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "spec: expected exactly one of model (NAME@VERSION), upstream and graph, got none"),
        ({"model": "a@1", "upstream": {"url": HERE}}, "got model and upstream"),
        ({"upstream": {"url": HERE}, "replicas": {"min": 2}}, "spec.replicas: means nothing here: another server"),
        ({"upstream": {"url": HERE}, "resources": {"gpu": 1}}, "spec.resources: means nothing here"),
        ({"upstream": {"url": HERE}, "batching": {"max_size": 2}}, "spec.batching: means nothing here: another server"),
        ({"upstream": {"url": HERE}, "rollout": {"hold_s": 5}}, "spec.rollout: means nothing to an endpoint with up"),
        ({**graph("pipeline", A), "rollout": {"hold_s": 5}}, "spec.rollout: means nothing to an endpoint with graph"),
        (
            {**graph("pipeline", {"name": "a", "endpoint": "x"}), "replicas": {"min": 2}},
            "spec.replicas: means nothing here: none of its steps names a model",
        ),
        ({"upstream": {"url": HERE}, "fallback": [{"version": "1"}]}, "another version means nothing"),
    ],
)
def test_what_means_nothing_to_it_is_refused(spec: dict[str, Any], message: str) -> None:
    assert message in refusal(**spec)


def test_all_defaults_may_be_written_out() -> None:
    """As `get -o json` shows them."""
    endpoint = read(upstream={"url": HERE})
    spec = msgspec.to_builtins(endpoint.spec)
    for field in idle_fields("canary"):
        del spec["rollout"][field]
    assert read(**spec) == endpoint


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (graph("pipeline"), "spec.graph.steps: expected 1 to 32 steps, got 0"),
        (graph("pipeline", *({**A, "name": f"s{n}"} for n in range(33))), "got 33"),
        (graph("chain", A), "spec.graph.kind: expected"),
        (graph("pipeline", A, A), "spec.graph.steps[1].name: 'a' is given twice"),
        (graph("pipeline", {**A, "name": "a.b"}), "spec.graph.steps[0].name: expected 1 to 64 letters"),
        (graph("pipeline", {**A, "name": "fallback-0"}), "is how links of the fallback chain are called"),
        (graph("pipeline", {"name": "a"}), "expected exactly one of model, endpoint, upstream, got none"),
        (graph("pipeline", {**A, "endpoint": "x"}), "got model and endpoint"),
        (graph("pipeline", {"name": "a", "model": "a"}), "spec.graph.steps[0].model: expected NAME@VERSION"),
        (graph("pipeline", {"name": "a", "endpoint": "fraud"}), "'fraud' cannot stand in for itself"),
        (graph("pipeline", A, output="y"), "spec.graph.output: means nothing to a pipeline"),
        (graph("cascade", A, combine="vote"), "spec.graph.combine: means nothing to a cascade"),
        (graph("pipeline", {**A, "when": "x == 1"}), "spec.graph.steps[0].when: means nothing to a pipeline"),
        (graph("switch", {**A, "when": "x is 1"}, B), "spec.graph.steps[0].when: expected NAME OPERATOR VALUE"),
        (graph("switch", {**A, "when": "x == " + "1" * 2_000}, B), "at most 1024 characters"),
        (graph("switch", A, B), "spec.graph.steps[0]: without `when` it always answers"),
        (graph("ensemble", {**A, "until": {}}, B), "spec.graph.steps[0].until: means nothing to an ensemble"),
        (graph("cascade", A, {**B, "until": {}}), "spec.graph.steps[1].until: means nothing to the last step"),
        (graph("cascade", {**A, "until": {"confidence": 0}}, B), "until.confidence: expected above 0, up to 1"),
        (graph("cascade", {**A, "until": {"temperature": 0}}, B), "until.temperature: expected above 0"),
        (graph("cascade", {**A, "until": {"thresholds": [0.5, 2]}}, B), "until.thresholds[1]: expected 0 to 1"),
        (graph("cascade", {**A, "until": {"thresholds": [0.5] * 10_001}}, B), "at most 10000"),
        (graph("ensemble", {**A, "weight": 0}, B), "spec.graph.steps[0].weight: expected above 0"),
        (graph("cascade", {**A, "weight": 2}, B), "spec.graph.steps[0].weight: means nothing to a cascade"),
        (
            graph("pipeline", {**A, "name": "scale"}, {**B, "inputs": {"x": "scael.y"}}),
            """spec.graph.steps[1].inputs.x: 'scael.y': no step is called 'scael'; did you mean "scale"?""",
        ),
        (graph("pipeline", {**A, "inputs": {"x": "b.y"}}, B), "inputs.x: 'b.y' is not there yet: 'b' comes later"),
        (graph("pipeline", {**A, "inputs": {"x": "a.y"}}), "inputs.x: 'a.y' is not there yet"),
        (graph("ensemble", A, {**B, "inputs": {"x": "a.y"}}), "see inputs of the request, not each other's outputs"),
        (graph("pipeline", {**A, "inputs": {"x": ""}}), "inputs.x: expected names of 1 to 256 characters"),
        (graph("pipeline", {**A, "inputs": {f"x{n}": "x" for n in range(65)}}), "inputs: at most 64, got 65"),
        (graph("pipeline", {**A, "outputs": {"x": "z", "y": "z"}}), "outputs: two outputs get the same name"),
    ],
)
def test_a_graph_that_cannot_run_is_refused(spec: dict[str, Any], message: str) -> None:
    assert message in refusal(**spec)


def test_an_input_of_the_request_may_have_dots_and_earlier_steps_may_be_read() -> None:
    read(**graph("pipeline", A, {**B, "inputs": {"x": "a.y", "z": "dense.1"}}))
    read(**graph("cascade", A, {**B, "inputs": {"x": "a.y"}}))
    read(**graph("switch", {**A, "when": 'country == "DE"'}, {**B, "when": "x < 2"}))
