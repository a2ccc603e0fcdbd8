"""How the tensors of a request become one matrix with a row per example, for models that were trained on a table.

Used by `sklearn`, `xgboost` and `lightgbm`. Without a declared signature there is one input, `X` FP32 [-1, features],
as most clients send it; a repository may declare another name or number type, or one input per column.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec import Struct

from hyperion.runner.model import Array, Arrays
from hyperion.runner.signature import ANY, describe_tensor, dtype_of
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import Signature, TensorSpec

DEFAULT_NAME = "X"
DEFAULT_DATATYPE = "FP32"


class Table(Struct, frozen=True):
    """What a model was trained on: number of columns and, where known, their names. `dtype` is what it computes in."""

    width: int
    names: tuple[str, ...] = ()
    dtype: Any = np.float32


class Features(Struct, frozen=True):
    """The inputs of the signature, and the function that makes the model's matrix of them."""

    inputs: tuple[TensorSpec, ...]
    collect: Callable[[Arrays], Any]


def plan_features(model: str, table: Table, declared: Signature | None) -> Features:
    """How to feed the model. Raises ModelRefused naming the input that cannot fit the columns of the table."""
    if declared is None:
        return _plan_matrix(default_input(table), table)
    for spec in declared.inputs:
        if spec.datatype == "BYTES":
            raise ModelRefused(
                f'{model}: input "{spec.name}": declared {describe_tensor(spec)}, the model takes numbers'
            )
    if len(declared.inputs) == 1 and len(declared.inputs[0].shape) == 2:
        spec = declared.inputs[0]
        if spec.shape[0] != ANY or spec.shape[1] not in (ANY, table.width):
            raise ModelRefused(
                f'{model}: input "{spec.name}": declared {describe_tensor(spec)}, the model has {[ANY, table.width]}'
            )
        return _plan_matrix(TensorSpec(spec.name, spec.datatype, (ANY, table.width)), table)
    return _plan_columns(model, table, declared.inputs)


def default_input(table: Table) -> TensorSpec:
    """The one input of a model of this table, where nothing else is declared."""
    return TensorSpec(DEFAULT_NAME, DEFAULT_DATATYPE, (ANY, table.width))


def _plan_matrix(spec: TensorSpec, table: Table) -> Features:
    name, dtype = spec.name, np.dtype(table.dtype)

    def collect(inputs: Arrays) -> Array:
        return inputs[name].astype(dtype, copy=False)

    return Features((spec,), collect)


def order_columns(model: str, table: Table, inputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The declared columns in the order of the table. Raises ModelRefused where they are not one to one."""
    for spec in inputs:
        if spec.shape not in ((ANY,), (ANY, 1)):
            raise ModelRefused(
                f'{model}: input "{spec.name}": declared {describe_tensor(spec)}, expected one column, [-1] or [-1, 1]'
            )
    by_name = {spec.name: spec for spec in inputs}
    if table.names and set(table.names) == by_name.keys():
        return tuple(by_name[name] for name in table.names)
    if table.names:
        wrong = sorted(by_name.keys() ^ set(table.names))[0]
        raise ModelRefused(f'{model}: the declared inputs are not the columns of the model: see "{wrong}"')
    if len(inputs) != table.width:
        raise ModelRefused(f"{model}: {len(inputs)} inputs are declared, the model has {table.width} columns")
    return inputs


def _plan_columns(model: str, table: Table, inputs: tuple[TensorSpec, ...]) -> Features:
    names = tuple(spec.name for spec in order_columns(model, table, inputs))
    dtype = np.dtype(table.dtype)

    def collect(values: Arrays) -> Array:
        return np.column_stack([values[name].reshape(-1) for name in names]).astype(dtype, copy=False)

    return Features(inputs, collect)


def make_probe(features: Features, rows: int) -> Any:
    """What the model is fed for `rows` rows of zeros."""
    inputs: Arrays = {}
    for spec in features.inputs:
        shape = (rows, *spec.shape[1:])
        inputs[spec.name] = np.full(shape, b"" if spec.datatype == "BYTES" else 0, dtype=dtype_of(spec.datatype))
    return features.collect(inputs)
