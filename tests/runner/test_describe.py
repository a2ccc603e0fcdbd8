"""A model that is described once is served with the same signature by its own loader ever after."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hyperion.runner.describe import describe
from hyperion.runner.load import load_model
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelSpec, TensorSpec
from tests.runner import trained
from tests.runner.trained import Case, spec_of

MODEL = """
print("hello")
class Model:
    inputs = {"x": ("FP32", [-1, 1])}
    outputs = {"y": ("INT64", [-1])}
    def load(self, directory): %s
    def predict(self, inputs): return {}
"""


def a_python_model(folder: Path, load: str = "pass") -> ModelSpec:
    (folder / "model.py").write_text(MODEL % load)
    return spec_of("python", folder)


@pytest.mark.parametrize(
    "make", [trained.onnx_zipmap, trained.sklearn_ridge, trained.xgboost_classifier, trained.lightgbm_multiclass]
)
def test_a_described_signature_is_the_model_s_own(tmp_path: Path, make: Callable[[Path], Case]) -> None:
    case = make(tmp_path)
    signature = describe(case.spec)
    assert signature == case.signature
    noted = msgspec.structs.replace(case.spec, signature=signature)
    assert load_model(noted).signature == signature


def test_what_a_model_prints_is_not_its_signature_and_its_directory_stays_clean(tmp_path: Path) -> None:
    spec = a_python_model(tmp_path)
    assert describe(spec).outputs == (TensorSpec("y", "INT64", (-1,)),)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.py"]


@pytest.mark.parametrize(
    ("load", "said", "timeout_s"),
    [
        ("raise ValueError('broken')", "broken", 50),
        ("__import__('os')._exit(9)", "ended with 9", 50),
        ("__import__('time').sleep(60)", "took longer than 1 s", 1),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused_with_the_reason(
    tmp_path: Path, load: str, said: str, timeout_s: int
) -> None:
    with pytest.raises(ModelRefused) as caught:
        describe(a_python_model(tmp_path, load), timeout_s=timeout_s)
    assert said in caught.value.message
