"""The outputs that an endpoint declares for the time when nobody can compute them. Made by `gateway/recovery/plan` from
a `static` fallback; checked against the signature once, not when it is needed.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from hyperion.schema.call import Tensor
from hyperion.schema.errors import HyperionError, InvalidConfig
from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.json.data import parse_any
from hyperion.wire.limits import DEFAULT_LIMITS
from hyperion.wire.tensor import datatype_of


class StaticAnswer:
    """Fixed outputs. One row of them stands for any number of rows where the model is batched."""

    def __init__(self, signature: Signature, outputs: Mapping[str, Any]) -> None:
        """`outputs` are nested lists, by the name of the output. Raises InvalidConfig, naming the output that is
        missing, unknown or does not fit."""
        specs = {spec.name: spec for spec in signature.outputs}
        for name in outputs:
            if name not in specs:
                raise InvalidConfig(f'static output "{name}" is unknown; the model gives {", ".join(specs)}')
        missing = [name for name in specs if name not in outputs]
        if missing:
            raise InvalidConfig(f'static output "{missing[0]}" is missing; a fixed answer needs all outputs')
        self._batched = signature.batched
        self._tensors = tuple([_read(spec, outputs[name], signature.batched) for name, spec in specs.items()])

    def outputs(self, wanted: tuple[str, ...], rows: int) -> tuple[Tensor, ...] | None:
        """The outputs of these names (() for all), of so many rows; None where they have another number of rows."""
        found = {tensor.name: tensor for tensor in self._tensors}
        chosen = []
        for name in wanted or found:
            tensor = found[name]
            if self._batched and tensor.shape[0] != rows:
                if tensor.shape[0] != 1:
                    return None
                tensor = Tensor(tensor.name, tensor.datatype, (rows, *tensor.shape[1:]), bytes(tensor.data) * rows)
            chosen.append(tensor)
        return tuple(chosen)


def _read(spec: TensorSpec, values: Any, batched: bool) -> Tensor:
    try:
        shape, data = parse_any(msgspec.json.encode(values), datatype_of(spec.datatype), DEFAULT_LIMITS)
    except HyperionError as error:
        raise InvalidConfig(f'static output "{spec.name}": {error.message}') from None
    fits = len(shape) == len(spec.shape) and all(want in (-1, got) for want, got in zip(spec.shape, shape, strict=True))
    if not fits or (batched and not shape[0]):
        raise InvalidConfig(
            f'static output "{spec.name}": expected {spec.datatype} {list(spec.shape)}, got shape {list(shape)}'
        )
    return Tensor(spec.name, spec.datatype, shape, data)
