"""MLServer repositories: what each field of a `model-settings.json` becomes, and how those are refused we do not do."""

import json
from pathlib import Path
from typing import Any

import pytest

from hyperion.schema.errors import InvalidConfig
from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from hyperion.store.repositories.discover import discover
from hyperion.store.versions.digest import digest_of
from tests.store.layout import lay_out, only, refusal

TRUSTING = ModelOptions(trust_pickle=True)
XGBOOST = "mlserver_xgboost.XGBoostModel"
SKLEARN = "mlserver_sklearn.SKLearnModel"
LIGHTGBM = "mlserver_lightgbm.LightGBMModel"
MLFLOW = "mlserver_mlflow.MLflowRuntime"


def folder(root: Path, settings: dict[str, Any] | str, **entries: Any) -> Path:
    text = settings if isinstance(settings, str) else json.dumps(settings)
    return lay_out(root, {"model-settings.json": text, **{name.replace("__", "."): x for name, x in entries.items()}})


def test_every_supported_field_becomes_an_option_or_part_of_the_signature(tmp_path: Path, files: Path) -> None:
    root = folder(
        tmp_path / "m",
        {
            "$schema": "https://example.org/model-settings.json",
            "name": "trees",
            "platform": "xgboost",
            "versions": ["xgboost/3.2"],
            "implementation": XGBOOST,
            "inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 4], "parameters": {"content_type": "np"}}],
            "outputs": [{"name": "predict", "datatype": "FP32", "shape": [1]}],
            "max_batch_size": 10,
            "max_batch_time": 0.5,
            "parallel_workers": 3,
            "warm_workers": True,
            "cache_enabled": False,
            "parameters": {
                "uri": "./v7/net.json",
                "version": "v7",
                "content_type": "np",
                "extra": {},
                "format": None,
                "inference_pool_gid": "a",
            },
        },
    )
    lay_out(root, {"v7/net.json": files / "m.json"})
    spec = only(root)
    assert (spec.name, spec.version, spec.format) == ("trees", "v7", "xgboost")
    assert (spec.path, spec.digest) == (str(root / "v7" / "net.json"), digest_of(root))
    assert spec.signature == Signature((TensorSpec("x", "FP64", (-1, 4)),), ())
    assert spec.options == ModelOptions(max_batch_size=10, max_delay_ms=500.0, replicas=3)


@pytest.mark.parametrize(
    ("implementation", "file", "source", "loader"),
    [
        (XGBOOST, "model.json", "m.json", "xgboost"),
        (XGBOOST, "model.ubj", "m.ubj", "xgboost"),
        (XGBOOST, "model.bst", "m.ubj", "xgboost"),
        (LIGHTGBM, "model.bst", "m.txt", "lightgbm"),
        ("mlserver_lightgbm.lightgbm.LightGBMModel", "model.txt", "m.txt", "lightgbm"),
        (SKLEARN, "model.joblib", "m.joblib", "sklearn"),
        (SKLEARN, "model.pkl", "m.pkl", "sklearn"),
        (SKLEARN, "model.skops", "m.skops", "sklearn"),
    ],
)
@pytest.mark.parametrize("uri", [None, ".", "./in"])
def test_each_runtime_finds_the_files_that_it_knows(
    tmp_path: Path, files: Path, implementation: str, file: str, source: str, loader: str, uri: str | None
) -> None:
    inside = "in/" if uri == "./in" else ""
    root = folder(tmp_path / "m", {"implementation": implementation, "parameters": {"uri": uri}})
    lay_out(root, {inside + file: files / source})
    spec = only(root, TRUSTING)
    assert (spec.name, spec.format, spec.path) == ("m", loader, str(root / inside / file))


def test_the_mlflow_runtime_serves_the_mlflow_model(tmp_path: Path, files: Path) -> None:
    root = folder(
        tmp_path / "m", {"name": "flow", "implementation": MLFLOW, "parameters": {"uri": "./model", "version": "v2"}}
    )
    lay_out(root, {"model/MLmodel": "flavors: {onnx: {data: m.onnx}}", "model/m.onnx": files / "m.onnx"})
    spec = only(root)
    assert (spec.name, spec.version, spec.format) == ("flow", "v2", "onnx")
    assert spec.path == str(root / "model" / "m.onnx")
    assert spec.digest == digest_of(root)


def test_versions_of_one_model_may_lie_in_folders_of_their_own(tmp_path: Path, files: Path) -> None:
    for version in ("v1", "v2"):
        settings = {"name": "trees", "implementation": XGBOOST, "parameters": {"version": version}}
        folder(tmp_path / "models" / "trees" / version, settings, model__json=files / "m.json")
    specs = discover(tmp_path / "models", ModelOptions())
    assert [(spec.name, spec.version) for spec in specs] == [("trees", "v1"), ("trees", "v2")]


def test_a_frame_is_one_input_per_column(tmp_path: Path, files: Path) -> None:
    columns = [{"name": name, "datatype": "FP64", "shape": [-1]} for name in "abcd"]
    root = folder(
        tmp_path / "m",
        {"implementation": XGBOOST, "inputs": columns, "parameters": {"content_type": "pd"}},
        model__json=files / "m.json",
    )
    signature = only(root).signature
    assert signature is not None
    assert [(spec.name, spec.shape) for spec in signature.inputs] == [(name, (-1,)) for name in "abcd"]


@pytest.mark.parametrize("place", ["models/settings.json", "models/m/settings.json"])
def test_the_server_s_workers_become_replicas(tmp_path: Path, files: Path, place: str) -> None:
    root = folder(tmp_path / "models" / "m", {"implementation": XGBOOST}, model__json=files / "m.json")
    lay_out(tmp_path, {place: '{"parallel_workers": 4, "debug": "true", "http_port": 1}'})
    assert only(root).options.replicas == 4
    assert only(tmp_path / "models").options.replicas == 4
    lay_out(tmp_path, {place: '{"parallel_workers": 0}'})
    assert only(root).options.replicas == 1


@pytest.mark.parametrize("text", ["[1]", "{", "\xff"])
def test_a_settings_json_above_that_is_somebody_else_s_is_left_alone(tmp_path: Path, files: Path, text: str) -> None:
    root = folder(tmp_path / "models" / "m", {"implementation": XGBOOST}, model__json=files / "m.json")
    lay_out(tmp_path / "models", {"settings.json": text.encode("latin-1")})
    assert only(root).options.replicas == 1


GOOD = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("{", "model-settings.json: not valid JSON"),
        ("[]", "expected an object"),
        ("[" * 100_000, "not valid JSON"),
        ({}, "implementation: expected one of mlserver_sklearn.SKLearnModel"),
        ({"implementation": 3}, "implementation: expected one of"),
        ({"implementation": "fraud.FraudModel"}, "model.py that has a class Model"),
        ({"implementation": "mlserver_huggingface.HuggingFaceRuntime"}, "mlserver_huggingface"),
        ({"implementaton": XGBOOST}, 'unknown field "implementaton"; did you mean "implementation"?'),
        ({"implementation": XGBOOST, "cache_enabled": True}, 'field "cache_enabled" asks for a response cache'),
        ({"implementation": XGBOOST, "name": 3}, "name: expected a text"),
        ({"implementation": XGBOOST, "name": "a b"}, "--name"),
        ({"implementation": XGBOOST, "max_batch_size": "8"}, "max_batch_size: expected a number"),
        ({"implementation": XGBOOST, "max_batch_size": -1}, "max_batch_size: expected a number of at least 0"),
        ({"implementation": XGBOOST, "max_batch_size": True}, "max_batch_size: expected a number"),
        ({"implementation": XGBOOST, "max_batch_time": 60}, "max_delay_ms: expected 0 to 1000"),
        ({"implementation": XGBOOST, "parallel_workers": 5000}, "replicas: expected 0 to 1024"),
        ({"implementation": XGBOOST, "parameters": "x"}, "parameters: expected an object"),
        ({"implementation": XGBOOST, "parameters": {"extra": {"a": 1}}}, 'field "parameters.extra"'),
        ({"implementation": XGBOOST, "parameters": {"environment_tarball": "e.tgz"}}, "environment_tarball"),
        ({"implementation": XGBOOST, "parameters": {"format": "x"}}, 'field "parameters.format"'),
        ({"implementation": XGBOOST, "parameters": {"content_type": "pd"}}, "declare each of them in inputs"),
        ({"implementation": XGBOOST, "parameters": {"content_type": "base64"}}, "parameters.content_type"),
        ({"implementation": XGBOOST, "parameters": {"version": 3}}, "parameters.version"),
        ({"implementation": XGBOOST, "parameters": {"version": "a/b"}}, "parameters.version"),
        ({"implementation": XGBOOST, "parameters": {"urri": "x"}}, '"parameters.urri"; did you mean "uri"?'),
        ({"implementation": XGBOOST, "parameters": {"uri": 3}}, "parameters.uri: expected a text"),
        ({"implementation": XGBOOST, "parameters": {"uri": "s3://bucket/m"}}, "download the model"),
        ({"implementation": XGBOOST, "parameters": {"uri": "../m.json"}}, "lies outside"),
        ({"implementation": XGBOOST, "parameters": {"uri": "/etc/passwd"}}, "lies outside"),
        ({"implementation": XGBOOST, "parameters": {"uri": "gone.json"}}, "'gone.json' does not exist"),
        ({"implementation": XGBOOST, "parameters": {"uri": "a\0b"}}, "NUL"),
        ({"implementation": XGBOOST, "parameters": {"uri": "model-settings.json"}}, "not an XGBoost model"),
        ({"implementation": LIGHTGBM, "parameters": {"uri": "m.json"}}, "not a LightGBM model"),
        ({"implementation": LIGHTGBM}, "a folder with model.bst or model.txt in it"),
        ({"implementation": SKLEARN, "parameters": {"uri": "m.joblib"}}, "--trust-pickle"),
        ({"implementation": MLFLOW}, "expected a directory with an MLmodel"),
        ({"implementation": XGBOOST, "inputs": {"x": 1}}, "inputs: expected a list"),
        ({"implementation": XGBOOST, "inputs": [3]}, "inputs[0]: expected an object with a name"),
        ({"implementation": XGBOOST, "inputs": [GOOD, {**GOOD, "datatype": "FLOAT"}]}, "inputs[1].datatype"),
        ({"implementation": XGBOOST, "inputs": [{**GOOD, "shape": 4}]}, "inputs[0].shape: expected a list"),
        ({"implementation": XGBOOST, "inputs": [{**GOOD, "shape": [4, 1.5]}]}, "inputs[0].shape: expected whole"),
        (
            {"implementation": XGBOOST, "inputs": [{**GOOD, "parameters": {"content_type": "datetime"}}]},
            "inputs[0].parameters.content_type",
        ),
    ],
)
def test_what_we_do_not_do_is_refused_by_name(
    tmp_path: Path, files: Path, settings: dict[str, Any] | str, says: str
) -> None:
    root = folder(
        tmp_path / "m", settings, m__json=files / "m.json", m__bst=files / "m.ubj", m__joblib=files / "m.joblib"
    )
    assert says in refusal(root)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ('{"cache_enabled": true}', 'settings.json: field "cache_enabled"'),
        ('{"kafka_enabled": true}', 'settings.json: field "kafka_enabled"'),
        ('{"parallel_workers": "4"}', "settings.json: parallel_workers"),
        ("{", "settings.json: not valid JSON"),
    ],
)
def test_server_settings_that_would_change_answers_are_refused(
    tmp_path: Path, files: Path, settings: str, says: str
) -> None:
    root = folder(tmp_path / "m", {"implementation": XGBOOST}, model__json=files / "m.json", settings__json=settings)
    assert says in refusal(root)


def test_the_command_line_wins(tmp_path: Path, files: Path) -> None:
    root = folder(tmp_path / "m", {"implementation": XGBOOST, "parallel_workers": 4}, model__json=files / "m.json")
    (spec,) = discover(root, ModelOptions(replicas=2), pinned=frozenset({"replicas"}))
    assert spec.options.replicas == 2
    lay_out(root, {"hyperion.yaml": "replica: 1"})
    assert "replicas" in refusal(root, error=InvalidConfig)
