"""scikit-learn estimators and pipelines, from skops files, or from joblib and pickle files where that is trusted.

Called by `runner/load`. Outputs are named as in MLServer: `predict`, and `predict_proba` where the estimator has it, or
`transform` for one that only transforms.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hyperion.runner.formats.features import DEFAULT_NAME, Features, Table, plan_features
from hyperion.runner.formats.frame import plan_frame
from hyperion.runner.formats.sklearn_trees import CHECKED_TYPES, check_trees
from hyperion.runner.formats.tabular import TabularModel, make_model
from hyperion.runner.model import Array, Arrays
from hyperion.runner.signature import ANY, describe_tensor
from hyperion.runner.threads import resolve_threads
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelSpec, Signature, TensorSpec

_SAFE_SUFFIX = ".skops"
# Plain Python classes of scikit-learn that hold numbers, which skops does not list yet.
_HARMLESS_TYPES = frozenset(
    {
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    }
)


def load(spec: ModelSpec) -> TabularModel:
    """The estimator in the file `spec.path`. Raises ModelRefused for what is not trusted or cannot predict."""
    path = Path(spec.path)
    estimator = _read_skops(spec, path) if path.suffix == _SAFE_SUFFIX else _read_pickle(spec, path)
    methods = tuple(name for name in ("predict", "predict_proba") if hasattr(estimator, name))
    if not methods and hasattr(estimator, "transform"):
        methods = ("transform",)
    # A repository may say which method answers (MLflow's `predict_fn`); otherwise clients choose among all.
    method = spec.settings.get("outputs")
    if method:
        methods = (method,) if hasattr(estimator, method) else ()
    if not methods:
        raise ModelRefused(
            f"{spec.name}: {path.name} holds a {type(estimator).__name__}; "
            f"expected an estimator with {method or 'predict or transform'}"
        )
    if getattr(estimator, "n_outputs_", 1) != 1:
        methods = methods[:1]  # predict_proba of several targets is a list of arrays, one per target
    _limit_jobs(estimator, resolve_threads(spec.options.threads))
    # Names of columns matter at training; here the signature has checked the columns.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")

    def compute(matrix: Any, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(estimator, name)(matrix) for name in names}

    return make_model(spec, "sklearn", _plan(spec, estimator), methods, compute)


def _read_skops(spec: ModelSpec, path: Path) -> Any:
    from skops import io

    try:
        found = sorted(io.get_untrusted_types(file=path))
        unknown = [name for name in found if name not in CHECKED_TYPES and name not in _HARMLESS_TYPES]
        if unknown and not spec.options.trust_pickle:
            raise ModelRefused(
                f"{spec.name}: {path.name} contains types that are not known to be safe: {', '.join(unknown)[:300]}; "
                "if you trust its source, serve it with --trust-pickle"
            )
        estimator = io.load(path, trusted=found)
        check_trees(estimator)
        return estimator
    except ModelRefused:
        raise
    except Exception as error:
        raise _broken(spec, path, error) from error


def _read_pickle(spec: ModelSpec, path: Path) -> Any:
    if not spec.options.trust_pickle:
        raise ModelRefused(
            f"{spec.name}: {path.name} is a pickle: loading it runs whatever code its author put in. Save the model "
            "with skops.io.dump(model, 'model.skops') instead, or serve it with --trust-pickle if you trust its source"
        )
    import joblib

    try:
        return joblib.load(path)
    except ImportError as error:
        raise ModelRefused(
            f"{spec.name}: {path.name} was saved with a module that is not installed here: {error.name}"
        ) from error
    except Exception as error:
        raise _broken(spec, path, error) from error


def _broken(spec: ModelSpec, path: Path, error: Exception) -> ModelRefused:
    text = f"{type(error).__name__}: {error}".replace(str(path), path.name)
    return ModelRefused(f"{spec.name}: cannot load {path.name}: {text}"[:500])


def _plan(spec: ModelSpec, estimator: Any) -> Features:
    """How to feed the estimator: a matrix, columns, or, where its first step reads documents, texts."""
    if _reads_documents(estimator):
        return _plan_documents(spec.name, spec.signature)
    width = getattr(estimator, "n_features_in_", 0)
    if not width:
        raise ModelRefused(
            f"{spec.name}: a {type(estimator).__name__} does not say how many features it takes; is it fitted?"
        )
    # Trained on float64 unless the user took care: some estimators refuse any other type than that of their training.
    names = tuple(map(str, getattr(estimator, "feature_names_in_", ())))
    table = Table(int(width), names, np.float64)
    if names and (hasattr(_first_step(estimator), "transformers") or _declares_columns(spec.signature)):
        return plan_frame(spec.name, table, spec.signature)
    return plan_features(spec.name, table, spec.signature)


def _declares_columns(declared: Signature | None) -> bool:
    return declared is not None and (len(declared.inputs) > 1 or len(declared.inputs[0].shape) == 1)


def _first_step(estimator: Any) -> Any:
    """The first step of a pipeline, or the estimator itself."""
    steps = getattr(estimator, "steps", None)
    return steps[0][1] if steps else estimator


def _reads_documents(estimator: Any) -> bool:
    """True when the estimator, or the first step of the pipeline, is one of scikit-learn's text vectorizers."""
    return hasattr(_first_step(estimator), "build_analyzer")


def _plan_documents(model: str, declared: Signature | None) -> Features:
    spec = declared.inputs[0] if declared else TensorSpec(DEFAULT_NAME, "BYTES", (ANY,))
    if (declared and len(declared.inputs) != 1) or spec.datatype != "BYTES" or spec.shape not in ((ANY,), (ANY, 1)):
        raise ModelRefused(
            f'{model}: input "{spec.name}": declared {describe_tensor(spec)}, the model has one of BYTES [-1]'
        )

    def collect(inputs: Arrays) -> list[str]:
        return decode_documents(inputs[spec.name])

    return Features((spec,), collect)


def decode_documents(array: Array) -> list[str]:
    """Texts of an array of bytes; what is not UTF-8 becomes replacement characters, as vectorizers ignore them."""
    return [element.decode("utf-8", "replace") for element in array.ravel()]


def _limit_jobs(estimator: Any, threads: int) -> None:
    """Estimators that were trained with many jobs predict with as many: hold them to this runner's threads."""
    parameters = estimator.get_params() if hasattr(estimator, "get_params") else {}
    jobs = {
        key: threads for key, value in parameters.items() if key.split("__")[-1] == "n_jobs" and value not in (None, 1)
    }
    if jobs:
        estimator.set_params(**jobs)
