"""One inference, whatever protocol brought it: the call that goes in and the answer that comes out.

Made and read by `wire`; moved, never opened, by everything between the edges and the runner.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

Buffer = bytes | bytearray | memoryview
NO_PARAMETERS: Mapping[str, Any] = {}


class Tensor(Struct, frozen=True, gc=False):
    """A tensor as bytes: little-endian, row-major; BYTES elements carry a 4-byte little-endian length each.

    Rows (slices along the first axis) are therefore contiguous, so that batches are made by joining buffers.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer


class InferenceCall(Struct, frozen=True, gc=False):
    """One request to one model, decoded and within the limits, but not yet checked against a signature.

    `version` "" means the default version; `outputs` () means all of them; `timeout_ns` 0 means the endpoint's
    deadline. `parameters` are those that the model is to see (priority and timeout are taken out of them).
    """

    model: str
    version: str
    id: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = NO_PARAMETERS
    priority: int = 0
    timeout_ns: int = 0


class InferenceAnswer(Struct, frozen=True, gc=False):
    """What the caller gets: output tensors and who made them. Times are nanoseconds spent in each stage.

    A stream is several of these; `final` is true on the last one, and a unary answer is a stream of one.
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
