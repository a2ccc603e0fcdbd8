"""MLflow pyfuncs beyond the contract: columns, several outputs, and signatures that cannot be served."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperion.runner.load import load_model
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import TensorSpec
from tests.runner.trained import TRUSTED, spec_of

mlflow = pytest.importorskip("mlflow.pyfunc", reason="needs mlflow-skinny")
pandas = pytest.importorskip("pandas", reason="needs pandas")


def save(path: Path, predict: Any, inputs: Any, outputs: Any) -> Path:
    """Saves a function of a model's input as a pyfunc with that signature; no signature where `inputs` is None."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    class Saved(mlflow.PythonModel):  # type: ignore[misc, name-defined]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return predict(model_input)

    signature = None if inputs is None else ModelSignature(Schema(inputs), Schema(outputs))
    mlflow.save_model(path / "m", python_model=Saved(), signature=signature, pip_requirements=[])
    return path / "m"


def test_columns_become_a_frame_and_a_frame_becomes_outputs(tmp_path: Path) -> None:
    from mlflow.types import ColSpec

    inputs = [ColSpec("double", "amount"), ColSpec("string", "country")]
    outputs = [ColSpec("double", "twice"), ColSpec("string", "lower")]

    def predict(frame: Any) -> Any:
        return pandas.DataFrame({"twice": frame["amount"] * 2, "lower": frame["country"].str.lower()})

    model = load_model(spec_of("mlflow-pyfunc", save(tmp_path, predict, inputs, outputs), TRUSTED))
    assert model.signature.inputs == (TensorSpec("amount", "FP64", (-1,)), TensorSpec("country", "BYTES", (-1,)))
    rows = {"amount": np.array([1.5, 2.0]), "country": np.array([b"DE", b"FR"], dtype=object)}
    answer = model.predict(rows, ())
    assert answer["twice"].tolist() == [3, 4]
    assert answer["lower"].tolist() == ["de", "fr"]


def test_named_tensors_go_in_and_come_out_by_name(tmp_path: Path) -> None:
    from mlflow.types import TensorSpec as Named

    inputs = [Named(np.dtype(np.float32), (-1, 2), "a"), Named(np.dtype(np.int64), (-1,), "b")]
    outputs = [Named(np.dtype(np.float32), (-1,), "sum")]
    path = save(tmp_path, lambda given: {"sum": given["a"].sum(axis=1) + given["b"]}, inputs, outputs)
    model = load_model(spec_of("mlflow-pyfunc", path, TRUSTED))
    answer = model.predict({"a": np.ones((2, 2), np.float32), "b": np.array([1, 2])}, ("sum",))
    assert answer["sum"].tolist() == [3, 4]


def test_a_pyfunc_without_a_signature_or_with_dates_is_refused(tmp_path: Path) -> None:
    from mlflow.types import ColSpec

    with pytest.raises(ModelRefused, match="without a signature"):
        load_model(spec_of("mlflow-pyfunc", save(tmp_path, len, None, None), TRUSTED))
    dated = save(tmp_path / "dated", len, [ColSpec("datetime", "when")], [ColSpec("long")])
    with pytest.raises(ModelRefused, match='input "when" has the MLflow type'):
        load_model(spec_of("mlflow-pyfunc", dated, TRUSTED))


def test_a_directory_without_a_model_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="cannot load") as caught:
        load_model(spec_of("mlflow-pyfunc", tmp_path, TRUSTED))
    assert "\n" not in caught.value.message
