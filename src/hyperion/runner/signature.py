"""Signatures: when rows may be merged, whether a declared one fits the model, and whether an answer fits the signature.

Used by every loader of this room. Pure: records and arrays in, records and arrays out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from hyperion.runner.model import Array, Arrays
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.tensor import DATATYPES

ANY = -1
_EXAMPLE = '{"x": ("FP32", [-1, 4])}'


def dtype_of(datatype: str) -> np.dtype[Any]:
    """The numpy type that a tensor of this V2 datatype has inside the runner (BF16 is float32, BYTES object)."""
    return np.dtype(np.float32) if datatype == "BF16" else np.dtype(DATATYPES[datatype].dtype)


def is_batched(inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> bool:
    """True when the first axis of every tensor may have any length, so that it can count rows."""
    return all(spec.shape[:1] == (ANY,) for spec in (*inputs, *outputs))


def read_tensors(where: str, side: str, declared: Any) -> tuple[TensorSpec, ...]:
    """The specs of `{name: (datatype, shape)}`; ModelRefused, which begins with `where`, says what is wrong with it."""
    if not isinstance(declared, dict) or not declared:
        raise ModelRefused(f"{where} needs {side}, such as {_EXAMPLE}")
    return tuple(_read_tensor(f"{where}: {side}[{name!r:.80}]", name, value) for name, value in declared.items())


def _read_tensor(where: str, name: Any, value: Any) -> TensorSpec:
    if not isinstance(name, str) or not name:
        raise ModelRefused(f"{where}: the name must be a text")
    try:
        datatype, shape = value
        sizes = tuple(shape)
    except (TypeError, ValueError):
        raise ModelRefused(f"{where}: expected (datatype, shape), such as {_EXAMPLE}, got {value!r:.80}") from None
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise ModelRefused(f"{where}: unknown datatype {datatype!r:.40}; expected one of {', '.join(DATATYPES)}")
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= ANY for size in sizes):
        raise ModelRefused(f"{where}: expected a shape of sizes, -1 for any, got {list(sizes)!r:.80}")
    return TensorSpec(name, datatype, sizes)


def describe_tensor(spec: TensorSpec) -> str:
    """`FP32 [-1, 4]`, as messages show it."""
    return f"{spec.datatype} {list(spec.shape)}"


def settle_signature(model: str, own: Signature, declared: Signature | None) -> Signature:
    """The signature to serve: the model's own, or the declared one (of a Triton, MLServer or MLflow repository).

    A declared signature names all inputs and some of the outputs; a dimension may be narrower than the model's, never
    wider. Raises ModelRefused naming the tensor, what was declared and what the model has.
    """
    if declared is None:
        return own
    _check_side(model, "input", own.inputs, declared.inputs)
    _check_side(model, "output", own.outputs, declared.outputs)
    declared_names = {spec.name for spec in declared.inputs}
    for spec in own.inputs:
        if spec.name not in declared_names:
            raise ModelRefused(
                f'{model}: input "{spec.name}" ({describe_tensor(spec)}) is not declared; the model needs it'
            )
    if declared.batched and not own.batched:
        raise ModelRefused(
            f"{model}: declared as batched, but the first axis of its tensors is not free in the model; "
            "declare max_batch_size 0, or export the model with a dynamic first axis"
        )
    return msgspec.structs.replace(declared, streams=own.streams)


def _check_side(model: str, side: str, own: Iterable[TensorSpec], declared: Iterable[TensorSpec]) -> None:
    known = {spec.name: spec for spec in own}
    for spec in declared:
        actual = known.get(spec.name)
        if actual is None:
            raise ModelRefused(f'{model}: {side} "{spec.name}" is declared, but the model has only: {", ".join(known)}')
        if spec.datatype != actual.datatype or not _is_within(spec.shape, actual.shape):
            raise ModelRefused(
                f'{model}: {side} "{spec.name}": declared {describe_tensor(spec)}, '
                f"the model has {describe_tensor(actual)}"
            )


def _is_within(declared: tuple[int, ...], actual: tuple[int, ...]) -> bool:
    return len(declared) == len(actual) and all(
        there in (ANY, here) for here, there in zip(declared, actual, strict=True)
    )


def count_rows(signature: Signature, inputs: Arrays) -> int:
    """Rows of a batch; ANY where the model is not batched, because then nothing counts rows."""
    return next(iter(inputs.values())).shape[0] if signature.batched and inputs else ANY


def select_outputs(signature: Signature, wanted: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    """The specs of the outputs that were asked for, () for all."""
    if not wanted:
        return signature.outputs
    return tuple(spec for spec in signature.outputs if spec.name in wanted)


def fit_outputs(specs: Iterable[TensorSpec], answer: Mapping[str, Any], rows: int) -> Arrays:
    """The answer's outputs as arrays of the declared type and shape; `rows` is ANY where nothing counts rows.

    For models that may return anything. Raises ValueError naming the output, what was declared and what came back.
    """
    fitted: Arrays = {}
    for spec in specs:
        value = answer.get(spec.name)
        if value is None:
            names = ", ".join(map(str, answer)) or "nothing"
            raise ValueError(f'the model returned no output "{spec.name}"; it returned {names}')
        fitted[spec.name] = fit_array(spec, np.asarray(value), rows)
    return fitted


def fit_array(spec: TensorSpec, array: Array, rows: int) -> Array:
    """The array as the declared type; ValueError when its rows, its shape or its kind of values do not fit."""
    shape = spec.shape if rows == ANY else (rows, *spec.shape[1:])
    if not _is_within(array.shape, shape):
        raise ValueError(f'output "{spec.name}": expected shape {list(shape)}, the model returned {list(array.shape)}')
    wanted = dtype_of(spec.datatype)
    if array.dtype == wanted or (spec.datatype == "BYTES" and array.dtype.kind in "SU"):
        return array
    if array.dtype.name == "bfloat16" and spec.datatype == "BF16":
        return array
    if spec.datatype == "BYTES" or not np.can_cast(array.dtype, wanted, "same_kind"):
        raise ValueError(f'output "{spec.name}": expected {spec.datatype}, the model returned {array.dtype}')
    return array.astype(wanted)
