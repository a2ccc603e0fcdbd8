"""What computes a batch: a runner of our own (`runner_link`) or a served endpoint (`endpoint_link`)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from hyperion.batch.columns import InputPlan
from hyperion.schema.model import Signature

Array = np.ndarray[Any, Any]


class Batch:
    """Rows `first` to `last` (not included) of a chunk. `fill(plan, target)` writes the rows of a numeric input to
    `target`, an array of its shape; `take(plan)` gives those of a BYTES input. With `single` each row is a request of
    its own, so that one that fails takes no other with it."""

    __slots__ = ("fill", "first", "last", "single", "take")

    def __init__(
        self,
        first: int,
        last: int,
        fill: Callable[[InputPlan, Array], None],
        take: Callable[[InputPlan], Array],
        single: bool = False,
    ) -> None:
        self.first = first
        self.last = last
        self.fill = fill
        self.take = take
        self.single = single


class Answer:
    """The outputs of those rows of a batch that did not fail, by name, each its own memory; and why others did, by
    their index in the batch. Where a batch is not `single`, all of its rows fail together, under index 0."""

    __slots__ = ("batch", "failures", "outputs")

    def __init__(self, batch: Batch, outputs: dict[str, Array], failures: dict[int, str]) -> None:
        self.batch = batch
        self.outputs = outputs
        self.failures = failures


class Link(Protocol):
    """One computing place. Used by one thread."""

    @property
    def signature(self) -> Signature:
        """Of the model."""

    def score(self, batches: Iterable[Batch], plans: Sequence[InputPlan]) -> Iterator[Answer]:
        """Answers in the order of the batches. Raises RunnerLost where the place is gone, UpstreamFailed or the like
        where it cannot be reached."""

    def revive(self) -> None:
        """After RunnerLost: be ready again. Raises HyperionError."""

    def close(self) -> None:
        """Leave nothing behind."""
