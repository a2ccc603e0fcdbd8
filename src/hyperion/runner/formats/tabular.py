"""A model of rows of features: every library that was trained on a table is served through this one class.

Used by `sklearn`, `xgboost` and `lightgbm`, each of which brings a function that computes the outputs by name.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hyperion.runner.formats.features import Features, make_probe
from hyperion.runner.model import Arrays, Unary
from hyperion.runner.signature import ANY, fit_array, select_outputs, settle_signature
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelSpec, Signature, TensorSpec
from hyperion.wire.tensor import datatype_of_numpy

# (matrix, names of the outputs that are wanted) -> at least those outputs
Compute = Callable[[Any, tuple[str, ...]], Mapping[str, Any]]
_PROBE_ROWS = 2


class TabularModel(Unary):
    """Collects the matrix, computes the outputs that are wanted, checks that they have a row for each row."""

    def __init__(self, platform: str, signature: Signature, features: Features, compute: Compute) -> None:
        self.platform = platform
        self.signature = signature
        self._collect = features.collect
        self._compute = compute

    def predict(self, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        specs = select_outputs(self.signature, outputs)
        rows = next(iter(inputs.values())).shape[0]
        values = self._compute(self._collect(inputs), tuple(spec.name for spec in specs))
        return {spec.name: fit_array(spec, np.asarray(values[spec.name]), rows) for spec in specs}


def make_model(
    spec: ModelSpec, platform: str, features: Features, names: tuple[str, ...], compute: Compute
) -> TabularModel:
    """The model with a signature whose outputs are those that it gives for two rows of zeros.

    Raises ModelRefused when it cannot compute these, or does not answer row by row.
    """
    try:
        values = compute(make_probe(features, _PROBE_ROWS), names)
    except Exception as error:
        raise ModelRefused(
            f"{spec.name}: cannot compute on rows of zeros of its own width: {type(error).__name__}: {error}"[:500]
        ) from error
    outputs = tuple(_describe_output(spec.name, name, values[name]) for name in names)
    own = Signature(features.inputs, outputs, batched=True)
    declared = _with_defaults(spec.signature, own)
    return TabularModel(platform, settle_signature(spec.name, own, declared), features, compute)


def _describe_output(model: str, name: str, value: Any) -> TensorSpec:
    array = np.asarray(value)
    if array.shape[:1] != (_PROBE_ROWS,):
        raise ModelRefused(f'{model}: output "{name}" has shape {list(array.shape)} for {_PROBE_ROWS} rows')
    return TensorSpec(name, datatype_of_numpy(array.dtype), (ANY, *array.shape[1:]))


def _with_defaults(declared: Signature | None, own: Signature) -> Signature | None:
    """A declaration without outputs takes the model's own: clients of these repositories ask for them by name."""
    if declared is None:
        return None
    return Signature(own.inputs, declared.outputs or own.outputs, batched=True)
