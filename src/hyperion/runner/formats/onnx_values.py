"""ONNX values that numpy arrays cannot carry as they are: strings, BF16 and the maps that ZipMap makes.

Called by `onnx`, for models that have any of them.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from msgspec import Struct

from hyperion.runner.model import Array, Arrays
from hyperion.schema.model import TensorSpec

_ONNX_BFLOAT16 = 16


class Conversion(Struct, frozen=True):
    """What to convert on the way in and out, by the tensors' names. `classes` has the labels of each ZipMap output."""

    text: frozenset[str]
    bfloat16: frozenset[str]
    classes: dict[str, tuple[int | str, ...]]

    def run(self, session: Any, inputs: Arrays, names: Sequence[str]) -> Arrays:
        """One run of the session; raises ValueError for text that is not UTF-8."""
        feed = {name: decode_text(name, array) if name in self.text else array for name, array in inputs.items()}
        if self.bfloat16:
            answer = _run_values(session, feed, names, self.bfloat16)
        else:
            answer = dict(zip(names, session.run(names, feed), strict=True))
        return {name: self._finish(name, value) for name, value in answer.items()}

    def _finish(self, name: str, value: Any) -> Array:
        if name in self.classes:
            return unzip_maps(value, self.classes[name])
        return encode_text(value) if name in self.text else value


def plan_conversion(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], classes: dict[str, tuple[int | str, ...]]
) -> Conversion | None:
    """None where every tensor can go as it is."""
    specs = (*inputs, *outputs)
    text = frozenset(spec.name for spec in specs if spec.datatype == "BYTES")
    bfloat16 = frozenset(spec.name for spec in specs if spec.datatype == "BF16")
    maps = {spec.name: classes[spec.name] for spec in outputs if spec.name in classes}
    return Conversion(text, bfloat16, maps) if text or bfloat16 or maps else None


def decode_text(name: str, array: Array) -> Array:
    """Strings of an object array of bytes. Raises ValueError naming the input when an element is not UTF-8."""
    text = np.empty(array.shape, dtype=object)
    try:
        text.reshape(-1)[:] = [element.decode() for element in array.ravel()]
    except UnicodeDecodeError as error:
        raise ValueError(f'input "{name}": expected UTF-8 text: {error}') from error
    return text


def encode_text(array: Array) -> Array:
    """Bytes of an array of strings."""
    encoded = np.empty(array.shape, dtype=object)
    encoded.reshape(-1)[:] = [str(element).encode() for element in array.ravel()]
    return encoded


def unzip_maps(maps: Sequence[dict[int | str, float]], labels: Sequence[int | str]) -> Array:
    """FP32 [rows, classes] of one map per row, in the order in which the model lists its classes."""
    return np.array([[row[label] for label in labels] for row in maps], dtype=np.float32).reshape(-1, len(labels))


def _run_values(session: Any, feed: Arrays, names: Sequence[str], bfloat16: frozenset[str]) -> Arrays:
    values = {
        name: _bfloat16_value(array) if name in bfloat16 else onnxruntime.OrtValue.ortvalue_from_numpy(array)
        for name, array in feed.items()
    }
    answers = session.run_with_ort_values(list(names), values)
    return {
        name: _bfloat16_array(value) if name in bfloat16 else value.numpy()
        for name, value in zip(names, answers, strict=True)
    }


def _bfloat16_value(array: Array) -> Any:
    """float32 came from BF16 on the wire, so that cutting its lower half off loses nothing."""
    bits = (np.ascontiguousarray(array, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)


def _bfloat16_array(value: Any) -> Array:
    """float32 of a BF16 value, which the runtime has no numpy type for: its memory is read as it lies."""
    shape = tuple(value.shape())
    size = int(np.prod(shape))
    raw = ctypes.string_at(value.data_ptr(), size * 2) if size else b""
    return (np.frombuffer(raw, dtype=np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
