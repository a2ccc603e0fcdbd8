"""XGBoost models saved as `.ubj` or `.json`.

Called by `runner/load`. A model that was trained through XGBoost's scikit-learn interface answers as its class would:
a classifier gives labels as `predict` and probabilities as `predict_proba`. Of a plain Booster, `predict` is what its
own predict gives.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from hyperion.runner.formats.features import Table, plan_features
from hyperion.runner.formats.tabular import TabularModel, make_model
from hyperion.runner.model import Array
from hyperion.runner.threads import resolve_threads
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelSpec

_SUFFIXES = (".ubj", ".json")


def load(spec: ModelSpec) -> TabularModel:
    """The Booster in the file `spec.path`. Raises ModelRefused when it is broken or in the old binary format."""
    booster = _read_booster(spec, Path(spec.path))
    threads = resolve_threads(spec.options.threads)
    booster.set_param({"nthread": threads})
    if spec.options.device.startswith("cuda"):
        booster.set_param({"device": spec.options.device})
    table = Table(booster.num_features(), tuple(booster.feature_names or ()), np.float32)
    features = plan_features(spec.name, table, spec.signature)
    rounds = _best_rounds(booster)

    in_place = _gradient_booster(booster) != "gblinear"  # the only one that cannot read the matrix where it lies

    def run(matrix: Array) -> Array:
        result: Array
        if in_place:
            result = booster.inplace_predict(matrix, iteration_range=rounds, validate_features=False)
        else:
            data = xgboost.DMatrix(matrix, nthread=threads)
            result = booster.predict(data, iteration_range=rounds, validate_features=False)
        return result

    if not _is_classifier(booster):
        return make_model(spec, "xgboost", features, ("predict",), lambda matrix, _: {"predict": run(matrix)})

    def classify(matrix: Array, _: tuple[str, ...]) -> dict[str, Array]:
        return decide_classes(run(matrix))

    return make_model(spec, "xgboost", features, ("predict", "predict_proba"), classify)


def _read_booster(spec: ModelSpec, path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            is_json = file.read(64).lstrip()[:1] == b"{"  # UBJSON begins like JSON
        if not is_json:
            raise ModelRefused(
                f"{spec.name}: {path.name} is not in a format that XGBoost keeps stable; "
                "save it again with save_model('model.ubj')"
            )
        booster = xgboost.Booster()
        # By any other name (MLflow's `model.xgb`) XGBoost takes the content for UBJSON; as bytes it looks for itself.
        booster.load_model(path if path.suffix in _SUFFIXES else bytearray(path.read_bytes()))
    except OSError as error:
        raise ModelRefused(f"{spec.name}: cannot read {path.name}: {error.strerror}") from error
    except xgboost.core.XGBoostError as error:
        reason = (str(error).strip() or "it is broken").splitlines()[0]
        reason = re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", reason)  # the time, and a line of XGBoost's own source
        raise ModelRefused(f"{spec.name}: cannot load {path.name}: {reason}"[:500]) from error
    return booster


def decide_classes(scores: Array) -> dict[str, Array]:
    """Labels and probabilities from what the Booster of a classifier returns.

    [rows] is the probability of class 1; [rows, classes] are probabilities that add up to 1.
    """
    if scores.ndim == 1:
        return {"predict": (scores > 0.5).astype(np.int64), "predict_proba": np.column_stack((1 - scores, scores))}
    return {"predict": scores.argmax(axis=1).astype(np.int64), "predict_proba": scores}


def _is_classifier(booster: Any) -> bool:
    """True for a single-label classifier of the scikit-learn interface, by what that interface notes in the file."""
    notes = json.loads(booster.attr("scikit_learn") or "{}")
    if notes.get("_estimator_type") != "classifier":
        return False
    learner = json.loads(booster.save_config())["learner"]
    return learner["objective"]["name"] != "multi:softmax" and int(learner["learner_model_param"]["num_target"]) == 1


def _gradient_booster(booster: Any) -> str:
    return str(json.loads(booster.save_config())["learner"]["gradient_booster"]["name"])


def _best_rounds(booster: Any) -> tuple[int, int]:
    """The trees to use: up to the best iteration where the scikit-learn interface stopped early, else all."""
    best = booster.attr("best_iteration")
    return (0, int(best) + 1) if best is not None and booster.attr("scikit_learn") is not None else (0, 0)
