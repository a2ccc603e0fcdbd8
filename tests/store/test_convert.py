"""A pickle becomes a safe format that predicts alike, in a process of its own, or nothing is written."""

import os
import pickle
import posix  # its `_exit`, as coverage puts a function of its own in the place of `os._exit`
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperion.runner.load import load_model
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelOptions, ModelSpec
from hyperion.store.versions.convert import Form, convert
from tests.services import needs_module


class Payload:
    """Does something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def refuse(source: Path, target: Path, form: Form = "skops", **given: Any) -> str:
    with pytest.raises(ModelRefused) as caught:
        convert(source, target, form, **{"trust_pickle": True, **given})
    assert not target.exists()
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(("file", "form"), [("m.pkl", "skops"), ("m.joblib", "onnx")])
def test_the_result_is_served_without_trust_and_answers_as_the_original(
    files: Path, tmp_path: Path, classifier: Any, iris: tuple[Any, Any], file: str, form: Form
) -> None:
    if form == "onnx":
        needs_module("skl2onnx", extra="examples")
    target = tmp_path / f"model.{form}"
    converted = convert(files / file, target, form, trust_pickle=True)
    assert converted.kind == "sklearn.linear_model._logistic.LogisticRegression"
    assert "predict" in converted.compared
    assert "predict_proba" in converted.compared
    assert converted.libraries["scikit-learn"]
    assert os.listdir(tmp_path) == [target.name]
    spec = ModelSpec("m", "1", "sklearn" if form == "skops" else "onnx", str(target), options=ModelOptions(threads=1))
    answer = load_model(spec).predict({"X": iris[0]}, ())
    labels = answer.get("predict", answer.get("label"))
    assert labels.tolist() == classifier.predict(iris[0]).tolist()


def test_nothing_is_opened_without_the_operator_s_word(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Payload(Path.write_text, mark, "executed")))
    assert "--trust-pickle" in refuse(tmp_path / "m.pkl", tmp_path / "m.skops", trust_pickle=False)
    assert not mark.exists()


def test_what_a_pickle_does_it_does_elsewhere(tmp_path: Path) -> None:
    """It neither reaches this process nor can it pose as the answer, nor see the environment."""
    source, target = tmp_path / "m.pkl", tmp_path / "m.skops"
    os.environ["A_SECRET"] = "x"
    try:
        source.write_bytes(pickle.dumps(Payload(os.getenv, "A_SECRET", [])))
        assert "holds a builtins.list; expected a fitted estimator" in refuse(source, target)
    finally:
        del os.environ["A_SECRET"]
    source.write_bytes(pickle.dumps(Payload(os.write, 1, b'{"kind": "forged"}')))
    assert "holds a builtins.int" in refuse(source, target)
    source.write_bytes(pickle.dumps(Payload(posix._exit, 7)))
    assert "ended with 7" in refuse(source, target)


def test_memory_and_time_are_limited(tmp_path: Path) -> None:
    import time

    source, target = tmp_path / "m.pkl", tmp_path / "m.skops"
    source.write_bytes(pickle.dumps(Payload(bytearray, 4 << 30)))
    assert "MemoryError" in refuse(source, target, memory_bytes=2 << 30)
    source.write_bytes(pickle.dumps(Payload(time.sleep, 60)))
    assert "took longer than 1 s" in refuse(source, target, timeout_s=1)


def test_a_model_that_cannot_be_converted_says_why(tmp_path: Path) -> None:
    source = tmp_path / "m.pkl"
    source.write_bytes(pickle.dumps({"a": 1}))
    assert "holds a builtins.dict; expected a fitted estimator" in refuse(source, tmp_path / "m.skops")
    source.write_bytes(b"cabsent_here\nThing\n.")
    assert "a module that is not installed here: absent_here" in refuse(source, tmp_path / "m.skops")


def test_names_are_checked_before_anything_is_opened(files: Path, tmp_path: Path) -> None:
    assert "expected a pickle or joblib" in refuse(files / "m.skops", tmp_path / "m.onnx", "onnx")
    assert "ends with .onnx" in refuse(files / "m.pkl", tmp_path / "m.skops", "onnx")
    (tmp_path / "there.skops").write_text("x")
    with pytest.raises(ModelRefused, match="is there already"):
        convert(files / "m.pkl", tmp_path / "there.skops", "skops", trust_pickle=True)


def test_other_predictions_are_noticed() -> None:
    from hyperion.store.versions.convert_child import compare

    labels = np.array(["a", "b"])
    assert compare({"predict": labels}, {"predict": labels}) == (0.0, ["predict"])
    assert compare({"predict": labels}, {"predict": labels[::-1]})[0] == 1.0
    assert compare({"p": np.array([[10.0]])}, {"p": np.array([11.0])})[0] == pytest.approx(0.1)
    assert compare({"p": np.array([1.0])}, {"p": np.array([np.nan])})[0] == np.inf
    with pytest.raises(ValueError, match="answers with shape"):
        compare({"p": np.zeros(2)}, {"p": np.zeros(3)})
