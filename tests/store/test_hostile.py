"""Whatever is written in a description, `discover` answers with specs or a HyperionError, and quickly."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperion.schema.errors import HyperionError
from hyperion.schema.model import ModelOptions, ModelSpec
from hyperion.store.names import is_valid_name
from hyperion.store.repositories.discover import discover
from hyperion.store.repositories.triton_schema import field_names
from tests.store.layout import lay_out

OPTIONS = ModelOptions(trust_pickle=True)
FUZZ = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["x", ".", ""]),
)
WORDS_TEXT = """
name implementation parameters uri version inputs outputs max_batch_size max_batch_time parallel_workers datatype shape
mlserver_xgboost.XGBoostModel mlserver_mlflow.MLflowRuntime FP32 content_type np pd flavors onnx sklearn xgboost
lightgbm python_function data pickled_model model_class signature type tensor tensor-spec dtype float32 double run_id
providers onnx_session_options predict_fn serialization_format replicas buckets env labels warmup threads device
model.onnx model.json m.txt
"""
WORDS = WORDS_TEXT.split()
TREES = st.recursive(
    SCALARS | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(WORDS), TREES, max_size=6)

TOKENS_TEXT = """
{ } [ ] : , ; # ' " < > - + 0 1 -1 1.5 1e999 inf nan true false 0x10 \\ \\377 'x' "y"
TYPE_FP32 TYPE_STRING KIND_GPU onnxruntime onnxruntime_onnx model.onnx
"""
TOKENS = [*TOKENS_TEXT.split(), "\n", *sorted(field_names())]
YAML_TEXT = "{ } [ ] : , - ? | > & * ! !! % @ ` ~ <<"


def survives(root: Path, entries: dict[str, str | bytes | Path]) -> None:
    """`discover` of these files gives specs that are sound, or refuses with a message that a person can read."""
    folder = lay_out(root / str(len(os.listdir(root))), entries)
    specs, message = discover_or_refuse(folder)
    assert bool(specs) != bool(message)
    assert len(message) < 2000
    assert str(root) not in message
    for spec in specs:
        assert is_valid_name(spec.name)
        assert spec.digest.startswith("sha256:")
        assert Path(spec.path).resolve(strict=True).is_relative_to(folder.resolve())
        assert spec.options.max_batch_size >= 1


def discover_or_refuse(folder: Path) -> tuple[tuple[ModelSpec, ...], str]:
    try:
        return discover(folder, OPTIONS), ""
    except HyperionError as error:
        return (), error.message


FILES: dict[str, str | bytes | Path] = {
    "model.onnx": b"\x08\x07",
    "1/model.onnx": b"\x08\x07",
    "model.json": '{"learner": {}}',
    "m.txt": "tree\n",
}


@FUZZ
@given(st.lists(st.sampled_from(TOKENS) | st.text(max_size=4), max_size=40).map(" ".join))
def test_any_config_pbtxt(tmp_path: Path, text: str) -> None:
    survives(tmp_path, {**FILES, "config.pbtxt": text.encode("utf-8", "replace")})


@FUZZ
@given(
    st.binary(max_size=200),
    st.sampled_from(["config.pbtxt", "MLmodel", "model-settings.json", "hyperion.yaml", "model.py"]),
)
def test_any_bytes_in_a_description(tmp_path: Path, data: bytes, name: str) -> None:
    survives(tmp_path, {"model.onnx": b"\x08\x07", name: data})


@FUZZ
@given(OBJECTS)
def test_any_model_settings(tmp_path: Path, settings: dict[str, Any]) -> None:
    survives(tmp_path, {**FILES, "model-settings.json": json.dumps(settings)})


@FUZZ
@given(OBJECTS)
def test_any_mlmodel(tmp_path: Path, description: dict[str, Any]) -> None:
    # JSON is YAML, but for what a test may not depend on; numbers and texts mean the same in both.
    survives(tmp_path, {**FILES, "MLmodel": json.dumps(description)})


@FUZZ
@given(OBJECTS)
def test_any_signature_in_an_mlmodel(tmp_path: Path, item: dict[str, Any]) -> None:
    signature = {"inputs": json.dumps([item]), "outputs": json.dumps([item])}
    description = {"flavors": {"python_function": {}}, "signature": signature}
    survives(tmp_path, {"MLmodel": json.dumps(description)})


@FUZZ
@given(
    st.lists(
        st.sampled_from(
            [
                *WORDS,
                *["{", "}", "[", "]", ":", ",", "-", "?", "|", ">", "&", "*", "!", "!!", "%", "@", "`", "~", "<<"],
                "\n",
                "\n  ",
                "\t",
            ]
        ),
        max_size=30,
    )
)
def test_any_hyperion_yaml(tmp_path: Path, tokens: list[str]) -> None:
    survives(tmp_path, {"model.onnx": b"\x08\x07", "hyperion.yaml": " ".join(tokens)})


@FUZZ
@given(st.binary(max_size=64), st.sampled_from([".onnx", ".ubj", ".json", ".txt", ".skops", ".joblib", ".pt2", ".pt"]))
def test_any_model_file(tmp_path: Path, data: bytes, suffix: str) -> None:
    survives(tmp_path, {f"m{suffix}": data})


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("config.pbtxt", b"input { " * 130_000),
        ("config.pbtxt", b"[" * (1 << 20)),
        ("model-settings.json", b"[" * (1 << 20)),
        ("model-settings.json", b'{"a":' * 100_000),
        ("MLmodel", b"[" * 1000),
        ("MLmodel", b"- " * 50_000),
        ("MLmodel", b"? " * 20_000),
        ("model.py", b"(" * 100_000),
        ("model.py", b"-" * 100_000 + b"1"),
    ],
)
def test_deep_nesting_neither_crashes_nor_hangs(tmp_path: Path, name: str, data: bytes) -> None:
    survives(tmp_path, {"model.onnx": b"\x08\x07", name: data})
