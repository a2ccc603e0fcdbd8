"""MLflow models, written by MLflow itself: which flavor is served and what of MLmodel counts."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from hyperion.store.repositories.mlflow_signature import read_signature
from hyperion.store.versions.digest import digest_of
from tests.services import needs_module
from tests.store.layout import lay_out, only, refusal

TRUSTING = ModelOptions(trust_pickle=True)
REQUIREMENTS = {"pip_requirements": ["scikit-learn"]}


@pytest.fixture(scope="session")
def saved(
    tmp_path_factory: pytest.TempPathFactory, classifier: Any, onnx_model: Any, iris: tuple[Any, Any]
) -> Callable[[str], Path]:
    """`saved(KIND)`: the directory of a model that MLflow saved; made when it is first asked for."""
    needs_module("mlflow", extra="mlflow")
    import mlflow.lightgbm
    import mlflow.onnx
    import mlflow.pyfunc
    import mlflow.sklearn
    import mlflow.xgboost
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    lightgbm = needs_module("lightgbm", extra="lightgbm")
    xgboost = needs_module("xgboost", extra="xgboost")
    root = tmp_path_factory.mktemp("mlflow")
    tensors = ModelSignature(
        Schema([TensorSpec(np.dtype("float64"), (-1, 4))]), Schema([TensorSpec(np.dtype("int64"), (-1,))])
    )
    columns = ModelSignature(Schema([ColSpec("double", name) for name in "abcd"]), Schema([ColSpec("long")]))

    class Echo(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # MLflow reads the hints
            return model_input

    def trees() -> Any:
        return xgboost.XGBClassifier(n_estimators=2, max_depth=2, n_jobs=1).fit(*iris)

    def leaves() -> Any:
        return lightgbm.LGBMClassifier(n_estimators=2, num_leaves=4, n_jobs=1, verbose=-1).fit(*iris)

    savers: dict[str, Callable[[Path], None]] = {
        "sklearn": lambda path: mlflow.sklearn.save_model(
            classifier, path, signature=tensors, serialization_format="cloudpickle", **REQUIREMENTS
        ),
        "skops": lambda path: mlflow.sklearn.save_model(
            classifier,
            path,
            signature=columns,
            serialization_format="skops",
            pyfunc_predict_fn="predict_proba",
            **REQUIREMENTS,
        ),
        "xgboost": lambda path: mlflow.xgboost.save_model(trees(), path, signature=tensors, **REQUIREMENTS),
        "booster": lambda path: mlflow.lightgbm.save_model(leaves().booster_, path, **REQUIREMENTS),
        "leaves": lambda path: mlflow.lightgbm.save_model(leaves(), path, **REQUIREMENTS),
        "onnx": lambda path: mlflow.onnx.save_model(onnx_model, path, signature=tensors, **REQUIREMENTS),
        "pyfunc": lambda path: mlflow.pyfunc.save_model(path, python_model=Echo(), signature=tensors, **REQUIREMENTS),
    }

    def save(kind: str) -> Path:
        path = root / kind
        if not path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                savers[kind](path)
        return path

    return save


ONE = (TensorSpec("X", "FP64", (-1, 4)),)
FOUR = tuple(TensorSpec(name, "FP64", (-1,)) for name in "abcd")


@pytest.mark.parametrize(
    ("kind", "loader", "file", "signature"),
    [
        ("onnx", "onnx", "model.onnx", None),
        ("xgboost", "xgboost", "model.ubj", Signature(ONE, ())),
        ("booster", "lightgbm", "model.lgb", None),
        ("leaves", "sklearn", "model.skops", None),
        ("sklearn", "sklearn", "model.pkl", Signature(ONE, ())),
        ("skops", "sklearn", "model.skops", Signature(FOUR, ())),
        ("pyfunc", "mlflow-pyfunc", "", None),
    ],
)
def test_the_native_flavor_is_served_with_the_declared_signature(
    saved: Callable[[str], Path], kind: str, loader: str, file: str, signature: Signature | None
) -> None:
    path = saved(kind)
    spec = only(path, TRUSTING)
    assert (spec.name, spec.version, spec.format, spec.signature) == (kind, "1", loader, signature)
    assert (spec.path, spec.digest) == (str(path / file), digest_of(path))
    assert spec.options.labels["mlflow.mlflow_version"]
    assert spec.options.labels["mlflow.utc_time_created"]


@pytest.mark.parametrize("kind", ["onnx", "xgboost", "booster", "leaves", "skops"])
def test_safe_flavors_need_no_trust(saved: Callable[[str], Path], kind: str) -> None:
    assert only(saved(kind)).name == kind


@pytest.mark.parametrize("kind", ["sklearn", "pyfunc"])
def test_flavors_that_run_code_are_refused_until_they_are_trusted(saved: Callable[[str], Path], kind: str) -> None:
    assert "--trust-pickle" in refusal(saved(kind))


def test_a_method_that_mlflow_would_call_is_passed_on(saved: Callable[[str], Path]) -> None:
    assert only(saved("skops")).settings == {"outputs": "predict_proba"}
    assert only(saved("sklearn"), TRUSTING).settings == {}


def test_what_the_registry_noted_names_and_numbers_the_model(tmp_path: Path, files: Path) -> None:
    root = mlmodel(tmp_path, "flavors: {onnx: {data: m.onnx}}", files)
    lay_out(root, {"registered_model_meta": "model_name: fraud\nmodel_version: '12'\n"})
    assert (only(root).name, only(root).version) == ("fraud", "12")
    lay_out(root, {"registered_model_meta": "model_name: cat.schema/fraud\nmodel_version: 3\n"})
    assert (only(root).name, only(root).version) == ("m", "3")
    lay_out(root, {"registered_model_meta": "model_version: latest\n"})
    assert "model_version: expected a number" in refusal(root)


def mlmodel(tmp_path: Path, text: str, files: Path) -> Path:
    entries: dict[str, Any] = {name: files / name for name in ("m.onnx", "m.json", "m.txt", "m.skops", "m.pkl")}
    return lay_out(tmp_path / "m", {"MLmodel": text, **entries})


@pytest.mark.parametrize(
    ("flavors", "loader"),
    [
        ("{xgboost: {data: m.json}, onnx: {data: m.onnx}, python_function: {}}", "onnx"),
        ("{sklearn: {pickled_model: m.pkl, code: code}, python_function: {}}", "mlflow-pyfunc"),
        ("{sklearn: {pickled_model: m.pkl, code: null}, python_function: {}}", "sklearn"),
        ("{sklearn: {pickled_model: m.pkl}}", "sklearn"),
        ("{pytorch: {model_data: data}, python_function: {}}", "mlflow-pyfunc"),
        ("{lightgbm: {data: m.pkl, model_class: lightgbm.sklearn.LGBMClassifier}}", "sklearn"),
    ],
)
def test_the_flavor_that_can_serve_the_model_is_chosen(tmp_path: Path, files: Path, flavors: str, loader: str) -> None:
    assert only(mlmodel(tmp_path, f"flavors: {flavors}", files), TRUSTING).format == loader


def test_an_estimator_that_reads_columns_of_text_is_left_to_mlflow(tmp_path: Path, files: Path) -> None:
    text = """
    flavors: {sklearn: {pickled_model: m.pkl}, python_function: {}}
    signature:
      inputs: '[{"type": "string", "name": "city"}, {"type": "long", "name": "age", "required": false}]'
      outputs: null
    """
    assert only(mlmodel(tmp_path, text, files), TRUSTING).format == "mlflow-pyfunc"


def test_onnx_session_options_that_we_have_are_taken(tmp_path: Path, files: Path) -> None:
    options = (
        "{intra_op_num_threads: 3, inter_op_num_threads: 1, execution_mode: sequential, graph_optimization_level: 99}"
    )
    text = f"flavors: {{onnx: {{data: m.onnx, providers: [CPUExecutionProvider], onnx_session_options: {options}}}}}"
    assert only(mlmodel(tmp_path, text, files)).options.threads == 3


def signed(inputs: str, rest: str = "") -> str:
    return f"flavors: {{python_function: {{}}}}\nsignature: {{inputs: '{inputs}'{rest}}}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "flavors: expected at least one"),
        ("flavors: [a]", "flavors: expected a mapping, got list"),
        ("flavors: {onnx: 3}", "flavors.onnx: expected a mapping"),
        ("flavors: {spark: {}}", "expected one of onnx, xgboost, lightgbm, sklearn or python_function, got spark"),
        ("flavors: {onnx: {}}", "flavors.onnx.data: expected the name"),
        ("flavors: {onnx: {data: [m.onnx]}}", "flavors.onnx.data: expected the name"),
        ("flavors: {onnx: {data: gone}}", "flavors.onnx.data: 'gone' does not exist"),
        ("flavors: {onnx: {data: ../m.onnx}}", "lies outside"),
        ("flavors: {onnx: {data: m.txt}}", "not an ONNX model"),
        ("flavors: {onnx: {data: .}}", "'model.onnx' does not exist"),
        ("flavors: {onnx: {data: m.onnx, providers: [TensorrtExecutionProvider]}}", 'field "flavors.onnx.providers"'),
        ("flavors: {onnx: {data: m.onnx, providers: CPU}}", 'field "flavors.onnx.providers"'),
        (
            "flavors: {onnx: {data: m.onnx, onnx_session_options: {execution_mode: parallel}}}",
            'field "flavors.onnx.onnx_session_options.execution_mode"',
        ),
        ("flavors: {onnx: {data: m.onnx, onnx_session_options: {intra_op_num_threads: 9999}}}", "threads"),
        ("flavors: {xgboost: {data: m.txt}}", "not an XGBoost model"),
        ("flavors: {lightgbm: {data: m.json}}", "not a LightGBM model"),
        ("flavors: {sklearn: {pickled_model: m.pkl, serialization_format: skops}}", "not a skops file"),
        (signed("["), "signature.inputs: not valid JSON"),
        (signed("[" * 50_000), "signature.inputs: not valid JSON"),
        (signed('{"a": 1}'), "signature.inputs: expected a list"),
        (signed("[3]"), "entry 0: expected an object"),
        (signed('[{"type": "datetime", "name": "when"}]'), "signature.inputs \"when\": a column of type 'datetime'"),
        (signed('[{"type": {"a": 1}}]'), 'signature.inputs "X": a column of type'),
        (signed('[{"type": "tensor"}]'), "dtype None has no equal"),
        (signed('[{"type": "tensor", "tensor-spec": {"dtype": "complex64", "shape": [-1]}}]'), "complex64"),
        (signed('[{"type": "tensor", "tensor-spec": {"dtype": "int8", "shape": [-2]}}]'), "expected a shape"),
        (signed('[{"type": "long"}]', ', params: \'[{"name": "t"}]\''), 'field "signature.params"'),
        ("flavors: {python_function: {}}\nsignature: [1]", "signature: expected a mapping"),
        (
            "flavors: {sklearn: {pickled_model: m.pkl}, python_function: {predict_fn: set_params}}",
            'field "flavors.python_function.predict_fn"',
        ),
        ("flavors: &a {python_function: *a}", "contains itself"),
    ],
)
def test_what_we_do_not_do_is_refused_by_name(tmp_path: Path, files: Path, text: str, says: str) -> None:
    assert says in refusal(mlmodel(tmp_path, text, files), TRUSTING)


def test_each_type_of_column_and_tensor_has_its_datatype() -> None:
    columns = ["boolean", "integer", "long", "float", "double", "string", "binary"]
    signature = read_signature({"inputs": json.dumps([{"type": kind} for kind in columns])})
    assert signature is not None
    assert [spec.datatype for spec in signature.inputs] == ["BOOL", "INT32", "INT64", "FP32", "FP64", "BYTES", "BYTES"]
    assert [spec.name for spec in signature.inputs[:3]] == ["X", "X_1", "X_2"]
    tensors = ["bool", "uint8", "int64", "float16", "float32", "str"]
    spec = [{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [3, -1]}} for dtype in tensors]
    signature = read_signature({"inputs": json.dumps(spec)})
    assert signature is not None
    assert [spec.datatype for spec in signature.inputs] == ["BOOL", "UINT8", "INT64", "FP16", "FP32", "BYTES"]
    assert signature.batched is False
    assert read_signature({"inputs": None}) is None
