"""MLflow models of the flavour `python_function`, whatever library is behind it.

Called by `runner/load` with the directory that holds `MLmodel`. Loading one unpickles and imports what its author put
in, so it needs trust. The signature that was logged with the model says its inputs and outputs.
"""

from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np

from hyperion.runner.formats.frame import import_pandas, read_column
from hyperion.runner.model import Array, Arrays, Unary
from hyperion.runner.signature import ANY, count_rows, fit_outputs, is_batched, select_outputs, settle_signature
from hyperion.schema.errors import ModelRefused, SchemaMismatch
from hyperion.schema.model import ModelSpec, Signature, TensorSpec
from hyperion.wire.tensor import datatype_of_numpy

_COLUMN_TYPES = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
}
DEFAULT_INPUT = "X"
DEFAULT_OUTPUT = "predict"


class PyfuncModel(Unary):
    """A pyfunc with its signature; `columns` says that it takes a DataFrame, else arrays."""

    platform = "mlflow_pyfunc"

    def __init__(self, name: str, pyfunc: Any, signature: Signature, columns: bool, named: bool) -> None:
        self.signature = signature
        self._pyfunc = pyfunc
        self._columns = columns
        self._named = named
        self._pandas = import_pandas(name)

    def predict(self, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        answer = self._pyfunc.predict(self._collect(inputs))
        specs = select_outputs(self.signature, outputs)
        rows = count_rows(self.signature, inputs)
        return fit_outputs(specs, name_outputs(answer, self.signature.outputs), rows)

    def _collect(self, inputs: Arrays) -> Any:
        if self._columns:
            return self._pandas.DataFrame({spec.name: read_column(inputs[spec.name]) for spec in self.signature.inputs})
        return dict(inputs) if self._named else next(iter(inputs.values()))


def load(spec: ModelSpec) -> PyfuncModel:
    """The pyfunc in the directory `spec.path`. Raises ModelRefused without trust, and without a usable signature."""
    path = Path(spec.path)
    if not spec.options.trust_pickle:
        raise ModelRefused(
            f"{spec.name}: an MLflow python_function runs whatever code its author put in when it is loaded; "
            "log the model as ONNX instead, or serve it with --trust-pickle if you trust its source"
        )
    try:
        pyfunc = mlflow.pyfunc.load_model(str(path))
    except Exception as error:
        text = f"{type(error).__name__}: {error}".replace(str(path), path.name)
        raise ModelRefused(f"{spec.name}: cannot load {path.name}: {' '.join(text.split())}"[:500]) from error
    logged = pyfunc.metadata.signature
    if logged is None or logged.inputs is None or logged.outputs is None:
        raise ModelRefused(
            f"{spec.name}: was logged without a signature of inputs and outputs; log it with signature=…"
        )
    columns = not logged.inputs.is_tensor_spec()
    inputs = read_schema(spec.name, "input", logged.inputs, DEFAULT_INPUT)
    outputs = read_schema(spec.name, "output", logged.outputs, DEFAULT_OUTPUT)
    own = Signature(inputs, outputs, is_batched(inputs, outputs))
    signature = settle_signature(spec.name, own, spec.signature)
    return PyfuncModel(spec.name, pyfunc, signature, columns, logged.inputs.has_input_names())


def read_schema(model: str, side: str, schema: Any, default_name: str) -> tuple[TensorSpec, ...]:
    """The specs of an MLflow schema: a tensor as it is, a column as [-1]. ModelRefused names the type without equal."""
    specs: list[TensorSpec] = []
    for index, item in enumerate(schema.inputs):
        name = str(item.name) if item.name is not None else default_name if index == 0 else f"{default_name}_{index}"
        if schema.is_tensor_spec():
            try:
                specs.append(TensorSpec(name, datatype_of_numpy(item.type), tuple(item.shape)))
            except SchemaMismatch as error:
                raise ModelRefused(f'{model}: {side} "{name}": {error}') from error
            continue
        datatype = _COLUMN_TYPES.get(getattr(item.type, "name", str(item.type)))
        if datatype is None:
            raise ModelRefused(f'{model}: {side} "{name}" has the MLflow type {item.type}, which cannot be served')
        specs.append(TensorSpec(name, datatype, (ANY,)))
    return tuple(specs)


def name_outputs(answer: Any, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    """What a pyfunc returned (array, DataFrame, Series, list or dict) by the names of the outputs."""
    if isinstance(answer, dict):
        return {str(name): np.asarray(value) for name, value in answer.items()}
    if hasattr(answer, "columns"):
        names = [str(name) for name in answer.columns]
        if len(names) == len(specs):
            found = {name: answer.iloc[:, index].to_numpy() for index, name in enumerate(names)}
            return found if found.keys() == {spec.name for spec in specs} else _by_position(found, specs)
    array = np.asarray(answer)
    if len(specs) == 1:
        return {specs[0].name: array}
    return {spec.name: array[:, index] for index, spec in enumerate(specs)}


def _by_position(found: dict[str, Array], specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    return {spec.name: array for spec, array in zip(specs, found.values(), strict=True)}
