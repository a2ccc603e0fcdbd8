"""Whether a call is admitted to a pool: if it fits the model's signature and its queue, and the key that says with
which other calls it may be merged.

Called by `gateway/pipeline` for callers, by `gateway/release/shadow` for copies. A key that was checked once is
remembered with its pool, so that the usual request costs one look-up.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from hyperion.gateway.pending import PendingCall
from hyperion.gateway.pool import MAX_STREAMS, VersionPool
from hyperion.gateway.room import overloaded, refusal_of
from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.errors import SchemaMismatch
from hyperion.schema.model import Signature, TensorSpec

MAX_KNOWN_KEYS: Final = 256


def admit(pool: VersionPool, pending: PendingCall, timeout_ns: int) -> None:
    """Checks the call and fills in what the queue sorts and counts by. `timeout_ns` is the transport's, 0 for none.
    Raises SchemaMismatch or Overloaded."""
    call = pending.call
    key = merge_key(call, pending.stream)
    rows = count_rows(call) if pool.batched else 1
    known = pool.known_keys.get(key)
    if known is not None:
        key = known
    else:
        check_call(call, pool.signature, pending.stream)
        # Parameters are any text of the caller's; remembered keys must not hold it.
        if (pool.batched or pending.stream) and not call.parameters:
            if len(pool.known_keys) >= MAX_KNOWN_KEYS:
                pool.known_keys.clear()
            pool.known_keys[key] = pool.next_key
            key = pool.next_key
            pool.next_key += 1
    pending.key = key
    pending.rows = rows
    size_bytes = 0
    for tensor in call.inputs:
        data = tensor.data
        size_bytes += len(data) if isinstance(data, bytes) else memoryview(data).nbytes
    pending.size_bytes = size_bytes
    budget_ns = pool.deadline_ns
    if timeout_ns and timeout_ns < budget_ns:
        budget_ns = timeout_ns
    if call.timeout_ns and call.timeout_ns < budget_ns:
        budget_ns = call.timeout_ns
    pending.deadline_ns = pending.received_ns + budget_ns
    if pending.stream or pool.wait_matters:
        budget_ns = pending.deadline_ns - time.monotonic_ns()
        reason = refusal_of(pool, pending.priority, pending.caller, rows, budget_ns)
        if pending.stream and pool.streams >= MAX_STREAMS * max(pool.queue_state().replicas, 1):
            reason = f"{pool.streams} streams are open"
        if reason:
            raise overloaded(pool, reason)


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
