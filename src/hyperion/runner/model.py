"""What the loop knows of a model: its signature, `predict` on a whole batch, and perhaps `stream` for one request.

Every format of `formats/` (`onnx`, `sklearn`, `xgboost`, `lightgbm`, `torch`, `python`, `mlflow_pyfunc`) returns one of
these. Arrays are as `wire.tensor.to_numpy` makes them: read-only, BYTES as `object` arrays of `bytes`, BF16 as float32.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from hyperion.schema.errors import Unsupported
from hyperion.schema.model import Signature

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]


class LoadedModel(Protocol):
    """A model version that is ready to compute. One thread calls it; it is never entered twice at once."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs, taken from the model itself, or from the repository and checked against the model."""

    @property
    def platform(self) -> str:
        """What V2 metadata calls it: onnxruntime_onnx, sklearn, xgboost, lightgbm, pytorch, python, mlflow_pyfunc."""

    def predict(self, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        """The named outputs of a whole batch, () for all. The inputs fit the signature: the gateway has checked.

        Whatever the model raises is raised here; ValueError says that what it returned does not fit its signature.
        """

    def stream(self, inputs: Arrays) -> Iterator[Arrays]:
        """Partial answers to one request, in order. Only where `signature.streams`."""


class Unary:
    """The `stream` of models that answer a request once."""

    def stream(self, inputs: Arrays) -> Iterator[Arrays]:  # noqa: ARG002
        raise Unsupported("this model does not stream; ask it for one answer")
