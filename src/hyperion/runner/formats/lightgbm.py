"""LightGBM models saved as text (`.txt`). The output `predict` is what `Booster.predict` gives.

Called by `runner/load`.
"""

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from hyperion.runner.formats.features import Table, plan_features
from hyperion.runner.formats.tabular import TabularModel, make_model
from hyperion.runner.threads import resolve_threads
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelSpec


def load(spec: ModelSpec) -> TabularModel:
    """The Booster in the file `spec.path`. Raises ModelRefused when it is broken."""
    path = Path(spec.path)
    try:
        booster = lightgbm.Booster(model_file=path)
    except lightgbm.basic.LightGBMError as error:
        raise ModelRefused(
            f"{spec.name}: cannot load {path.name}: {error}".replace(str(path), path.name)[:500]
        ) from error
    names = tuple(booster.feature_name())
    # `Column_0`, `Column_1`, … are LightGBM's own names for columns that had none.
    named = any(name != f"Column_{index}" for index, name in enumerate(names))
    table = Table(booster.num_feature(), names if named else (), np.float64)
    threads = resolve_threads(spec.options.threads)

    def compute(matrix: Any, _: tuple[str, ...]) -> dict[str, Any]:
        return {"predict": booster.predict(matrix, num_threads=threads)}

    return make_model(spec, "lightgbm", plan_features(spec.name, table, spec.signature), ("predict",), compute)
