"""One inference, whatever protocol brought it: the call that goes in and the answer that comes out.

Made and read by `wire`; moved, never opened, by everything between the edges and the runner. A call and its tensors are
plain classes, as every request makes and reads them and this file is compiled (`setup.py`); they are as frozen as the
records, by type.
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

Buffer = bytes | bytearray | memoryview
NO_PARAMETERS: Mapping[str, Any] = {}


class Tensor:
    """A tensor as bytes: little-endian, row-major; BYTES elements carry a 4-byte little-endian length each.

    Rows (slices along the first axis) are therefore contiguous, so that batches are made by joining buffers.
    """

    __slots__ = ("data", "datatype", "name", "shape")

    def __init__(self, name: str, datatype: str, shape: tuple[int, ...], data: Buffer) -> None:
        self.name: Final = name
        self.datatype: Final = datatype
        self.shape: Final = shape
        self.data: Final = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tensor) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash((self.name, self.datatype, self.shape))

    def __repr__(self) -> str:
        return f"Tensor{self._fields()}"

    def _fields(self) -> tuple[object, ...]:
        return self.name, self.datatype, self.shape, self.data


class InferenceCall:
    """One request to one model, decoded and within the limits, but not yet checked against a signature.

    `version` "" means the default version; `outputs` () means all of them; `timeout_ns` 0 means the endpoint's
    deadline. `parameters` are those that the model is to see (priority and timeout are taken out of them).
    """

    __slots__ = ("id", "inputs", "model", "outputs", "parameters", "priority", "timeout_ns", "version")

    def __init__(
        self,
        model: str,
        version: str,
        id: str,
        inputs: tuple[Tensor, ...],
        outputs: tuple[str, ...] = (),
        parameters: Mapping[str, Any] = NO_PARAMETERS,
        priority: int = 0,
        timeout_ns: int = 0,
    ) -> None:
        self.model: Final = model
        self.version: Final = version
        self.id: Final = id
        self.inputs: Final = inputs
        self.outputs: Final = outputs
        self.parameters: Final = parameters
        self.priority: Final = priority
        self.timeout_ns: Final = timeout_ns

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InferenceCall) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash((self.model, self.version, self.id, self.inputs))

    def __repr__(self) -> str:
        return f"InferenceCall{self._fields()}"

    def _fields(self) -> tuple[object, ...]:
        return (
            self.model,
            self.version,
            self.id,
            self.inputs,
            self.outputs,
            self.parameters,
            self.priority,
            self.timeout_ns,
        )


class InferenceAnswer(Struct, frozen=True, gc=False):
    """What the caller gets: output tensors and who made them. Times are nanoseconds spent in each stage.

    A stream is several of these; `final` is true on the last one, and a unary answer is a stream of one. `degraded`
    marks a lesser answer than the one that was asked for.
    """

    model: str
    version: str
    digest: str
    outputs: tuple[Tensor, ...]
    served_by: str = "model"
    final: bool = True
    queue_ns: int = 0
    batch_ns: int = 0
    compute_ns: int = 0
    degraded: bool = False


class BatchAnswer(Struct, frozen=True, gc=False):
    """What a batch of calls gets that all have `rows` rows: `outputs` hold their rows joined in the calls' order, and
    `queue_ns` how long each of them waited. The other fields are those of InferenceAnswer."""

    model: str
    version: str
    digest: str
    outputs: tuple[Tensor, ...]
    rows: int
    queue_ns: list[int]
    served_by: str = "model"
    batch_ns: int = 0
    compute_ns: int = 0
