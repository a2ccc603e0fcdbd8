"""Choosing the loader: nothing is imported before it is needed, and what is missing is named with the way to get it."""

import subprocess
import sys
from pathlib import Path

import pytest

from hyperion.runner.load import load_model
from hyperion.schema.errors import ModelRefused
from tests.runner.trained import spec_of

FRAMEWORKS = ("onnxruntime", "sklearn", "skops", "xgboost", "lightgbm", "torch", "mlflow", "pandas")
LOAD_WITHOUT = """
import sys
for package in sys.argv[3].split(","):
    sys.modules[package] = None
from hyperion.runner.load import load_model
from hyperion.schema.errors import MissingExtra
from hyperion.schema.model import ModelOptions, ModelSpec
spec = ModelSpec("fraud", "1", sys.argv[1], sys.argv[2], options=ModelOptions(trust_pickle=True))
try:
    load_model(spec)
except MissingExtra as error:
    print(error.message)
"""


def run_python(source: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", source, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.mark.parametrize(
    ("format_name", "package", "extra"),
    [
        ("onnx", "onnxruntime", ""),
        ("sklearn", "skops", "[sklearn]"),
        ("sklearn", "joblib", "[sklearn]"),
        ("xgboost", "xgboost", "[xgboost]"),
        ("lightgbm", "lightgbm", "[lightgbm]"),
        ("torch", "torch", "[torch]"),
        ("mlflow-pyfunc", "mlflow", "[mlflow]"),
    ],
)
def test_a_missing_framework_is_named_with_the_command_that_brings_it(
    tmp_path: Path, format_name: str, package: str, extra: str
) -> None:
    path = tmp_path / ("model.skops" if package == "skops" else "model.pkl")
    path.write_bytes(b"\x08\x08")
    message = run_python(LOAD_WITHOUT, format_name, str(path), package)
    assert message == (
        f"fraud needs {package}, which is not installed; install it with: pip install 'hyperion-inference{extra}'"
    )


def test_importing_the_loader_imports_no_framework() -> None:
    source = "import sys, hyperion.runner.load, hyperion.runner.warmup; print(*sys.modules)"
    assert set(FRAMEWORKS).isdisjoint(run_python(source).split())


def test_a_python_model_needs_no_framework_at_all(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "class Model:\n    inputs = outputs = {'x': ('FP32', [-1])}\n    def predict(self, x):\n        return x\n"
    )
    source = LOAD_WITHOUT + "print(load_model(spec).signature.batched)"
    assert run_python(source, "python", str(tmp_path), ",".join(FRAMEWORKS)) == "True"


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match='unknown format "keras"; expected one of: onnx, python, sklearn'):
        load_model(spec_of("keras", tmp_path))


def test_an_import_that_fails_inside_a_framework_is_not_called_a_missing_extra(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("from numpy import no_such_name\n")
    with pytest.raises(ModelRefused, match="cannot import name 'no_such_name'"):
        load_model(spec_of("python", tmp_path))
