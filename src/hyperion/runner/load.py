"""From a model version on disk to a loaded model: choose the loader, import its framework only then.

Called by `runner/process`. Importing this module imports no framework.
"""

from importlib import import_module

from hyperion.runner.model import LoadedModel
from hyperion.schema.errors import HyperionError, MissingExtra, ModelRefused
from hyperion.schema.model import ModelSpec

# format: (module of `formats/` with `load(spec)`, top-level packages it needs, extra that brings them)
_LOADERS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "onnx": ("onnx", ("onnxruntime",), ""),
    "python": ("python", (), ""),
    "sklearn": ("sklearn", ("sklearn", "skops", "joblib"), "sklearn"),
    "xgboost": ("xgboost", ("xgboost",), "xgboost"),
    "lightgbm": ("lightgbm", ("lightgbm",), "lightgbm"),
    "torch": ("torch", ("torch",), "torch"),
    "mlflow-pyfunc": ("mlflow_pyfunc", ("mlflow",), "mlflow"),
}


def load_model(spec: ModelSpec) -> LoadedModel:
    """The model that `spec` describes, ready to predict.

    Raises ModelRefused (unsafe, broken, unknown or not what was declared) or MissingExtra, each with one line that says
    what to do.
    """
    loader = _LOADERS.get(spec.format)
    if loader is None:
        raise ModelRefused(f'{spec.name}: unknown format "{spec.format}"; expected one of: {", ".join(_LOADERS)}')
    module, packages, extra = loader
    try:
        model: LoadedModel = import_module(f"hyperion.runner.formats.{module}").load(spec)
    except HyperionError:
        raise
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in packages:
            raise
        raise MissingExtra(describe_missing(spec.name, missing, extra)) from error
    return model


def describe_missing(model: str, package: str, extra: str) -> str:
    """One line: what is missing and the command that brings it."""
    target = f"hyperion-inference[{extra}]" if extra else "hyperion-inference"
    return f"{model} needs {package}, which is not installed; install it with: pip install '{target}'"
