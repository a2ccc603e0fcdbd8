"""From what a person types to a V2 request; and `predict` and `bench` against a real platform."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperion.cli.commands.bench import make_http_request, read_signature
from hyperion.cli.commands.predict import build_request, measure_shape
from hyperion.schema.errors import InvalidConfig, MalformedRequest, UpstreamFailed
from tests.cli.test_commands import hyperion
from tests.e2e.served import Served

MODELS = Path(__file__).parents[1] / "e2e" / "models"
ONE = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]}
TWO = {"inputs": [*ONE["inputs"], {"name": "y", "datatype": "INT64", "shape": [-1]}]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("cli") / "home", MODELS / "sums") as running:
        yield running


def test_named_inputs_get_their_datatypes_and_shapes() -> None:
    request = build_request({"x": [[1, 2]], "y": [3]}, TWO)
    assert [(t["name"], t["datatype"], t["shape"]) for t in request["inputs"]] == [
        ("x", "FP32", [1, 2]),
        ("y", "INT64", [1]),
    ]


@pytest.mark.parametrize(
    ("values", "metadata", "message"),
    [
        ([[1, 2]], TWO, "inputs x, y"),
        ({"z": [1]}, TWO, 'no input "z"'),
        ({"x": 5}, ONE, 'input "x": expected a list, got 5'),
        ({"x": [[1], [1, 2]]}, ONE, "not of one shape"),
        ({"x": [1, [2]]}, ONE, "not of one depth"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_the_inputs_name(values: Any, metadata: Any, message: str) -> None:
    with pytest.raises(MalformedRequest, match=message):
        build_request(values, metadata)


def test_shapes_are_measured_to_any_depth() -> None:
    assert measure_shape("x", [[[1, 2, 3]], [[4, 5, 6]]]) == [2, 1, 3]
    assert measure_shape("x", []) == [0]


def test_predict_prints_the_answer_as_json(served: Served, tmp_path: Path) -> None:
    text = json.dumps({"a": [[1, 2]], "b": [[3, 4]]})
    (tmp_path / "request.json").write_text(text)
    for arguments in (("--json", text), ("--file", "request.json")):
        result = hyperion("predict", "sums", *arguments, "--url", served.url, cwd=tmp_path)
        outputs = {output["name"]: output["data"] for output in json.loads(result.stdout)["outputs"]}
        assert outputs == {"sum": [4, 6], "difference": [-2, -2]}


def test_predict_finds_the_platform_where_the_configuration_says(served: Served, tmp_path: Path) -> None:
    result = hyperion("predict", "sums", "--json", '{"a": [[1, 2]]}', cwd=tmp_path, HYPERION_PORT=str(served.port))
    assert result.returncode == 1
    assert '"b"' in result.stderr, "the server's words are passed on"


def test_predict_says_where_nobody_answers(tmp_path: Path) -> None:
    result = hyperion("predict", "m", "--json", "[1]", "--url", "http://127.0.0.1:1", cwd=tmp_path)
    assert (result.returncode, "cannot be reached" in result.stderr) == (1, True)


@pytest.mark.parametrize("spread", ["--poisson", "--steady"])
def test_bench_holds_a_rate_and_reports_it(served: Served, tmp_path: Path, spread: str) -> None:
    url = f"{served.url}/v2/models/sums/infer"
    result = hyperion("bench", url, "--rate", "40", "--seconds", "1", "--warm-up", "0", spread, "--json", cwd=tmp_path)
    report = json.loads(result.stdout)
    assert report["good"] == report["requests"] > 10
    assert report["statuses"] == {"200": report["good"]}
    assert result.returncode == (0 if report["held"] else 1)


def test_bench_fails_where_nothing_succeeds(served: Served, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    url = f"{served.url}/v2/models/sums"
    arguments = ("--rate", "20", "--seconds", "0.5", "--warm-up", "0", "--file", "bad.json")
    result = hyperion("bench", url, *arguments, cwd=tmp_path)
    assert (result.returncode, "400" in result.stdout) == (1, True)


def test_bench_refuses_what_is_no_model(served: Served, tmp_path: Path) -> None:
    result = hyperion("bench", f"{served.url}/v2", cwd=tmp_path)
    assert (result.returncode, "no model" in result.stderr) == (1, True)


def test_a_key_can_stand_in_the_environment_and_a_broken_one_is_not_repeated(served: Served, tmp_path: Path) -> None:
    arguments = ("predict", "sums", "--json", "[[1]]", "--url", served.url)
    result = hyperion(*arguments, cwd=tmp_path, HYPERION_API_KEY="hyp_secret\nx-evil: 1")
    assert (result.returncode, "HYPERION_API_KEY" in result.stderr, "secret" in result.stderr) == (2, True, False)
    assert b"authorization: Bearer hyp_secret\r\n" in make_http_request("host", "/v2", b"{}", "hyp_secret")


@pytest.mark.parametrize("answer", [None, [], {}, {"inputs": 5, "outputs": []}])
def test_what_is_no_metadata_is_an_error(answer: Any) -> None:
    with pytest.raises(UpstreamFailed):
        read_signature(answer)


def test_a_url_cannot_smuggle_a_header() -> None:
    with pytest.raises(InvalidConfig):
        make_http_request("host", "/v2\r\nx-evil: 1", b"{}")
