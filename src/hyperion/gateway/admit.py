"""Whether a call fits the model's signature, and the key that says with which other calls it may be merged.

Called by `gateway/pipeline`. A key that was checked once is remembered with its pool, so that the usual request costs
one look-up.
"""

from collections.abc import Mapping
from typing import Any, Final

from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.errors import SchemaMismatch
from hyperion.schema.model import Signature, TensorSpec

MAX_KNOWN_KEYS: Final = 256


def merge_key(call: InferenceCall, stream: bool) -> object:
    """Equal for calls that may share a batch: same inputs, datatypes, trailing shapes, parameters, outputs."""
    inputs = call.inputs
    parameters = _freeze(call.parameters) if call.parameters else None
    if len(inputs) == 1:
        only = inputs[0]
        return (only.name, only.datatype, only.shape[1:], call.outputs, parameters, stream)
    return (tuple([(t.name, t.datatype, t.shape[1:]) for t in inputs]), call.outputs, parameters, stream)


def _freeze(parameters: Mapping[str, Any]) -> str:
    return repr(sorted(parameters.items()))


def count_rows(call: InferenceCall) -> int:
    """Rows of a call to a model that batches: the length of the first axis, which all inputs share.

    Raises SchemaMismatch for a scalar, for no rows, and where the inputs do not agree.
    """
    rows = -1
    for tensor in call.inputs:
        if not tensor.shape:
            raise SchemaMismatch(f'input "{tensor.name}": expected a batch axis first, got the scalar shape []')
        if rows >= 0 and tensor.shape[0] != rows:
            first = call.inputs[0].name
            raise SchemaMismatch(f'input "{tensor.name}": has {tensor.shape[0]} rows, but "{first}" has {rows}')
        rows = tensor.shape[0]
    if rows == 0:
        raise SchemaMismatch("the request has no rows: the first axis of every input must be at least 1")
    return rows


def check_call(call: InferenceCall, signature: Signature, stream: bool) -> None:
    """Raises SchemaMismatch, naming input, expectation and what came, unless the call fits the signature."""
    specs = {spec.name: spec for spec in signature.inputs}
    for tensor in call.inputs:
        spec = specs.pop(tensor.name, None)
        if spec is None:
            names = ", ".join(f'"{known.name}"' for known in signature.inputs)
            raise SchemaMismatch(f'input "{tensor.name}" is unknown; this model takes {names}')
        _check_tensor(tensor, spec)
    if specs:
        missing = ", ".join(f'"{name}" ({describe(spec)})' for name, spec in specs.items())
        raise SchemaMismatch(f"missing input: {missing}")
    outputs = {spec.name for spec in signature.outputs}
    for name in call.outputs:
        if name not in outputs:
            raise SchemaMismatch(f'output "{name}" is unknown; this model gives {", ".join(sorted(outputs))}')
    if stream and not signature.streams:
        raise SchemaMismatch("this model does not stream; call infer instead")


def _check_tensor(tensor: Tensor, spec: TensorSpec) -> None:
    shape = tensor.shape
    fits = len(shape) == len(spec.shape) and all(want in (-1, got) for want, got in zip(spec.shape, shape, strict=True))
    if tensor.datatype != spec.datatype or not fits:
        raise SchemaMismatch(f'input "{tensor.name}": expected {describe(spec)}, got {tensor.datatype} {list(shape)}')


def describe(spec: TensorSpec) -> str:
    """Datatype and shape as people write them.

    >>> describe(TensorSpec("x", "FP32", (-1, 4)))
    'FP32 [-1, 4]'
    """
    return f"{spec.datatype} {list(spec.shape)}"
