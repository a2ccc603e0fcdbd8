"""Versions of a tiny model that are told apart by what they answer, and by how they fail."""

from pathlib import Path
from typing import Any, Final

import numpy as np

_CODE: Final = """
import time


class Model:
    inputs = {{"x": ("FP32", [-1, 4])}}
    outputs = {{"y": ("FP32", [-1, 1])}}

    def load(self, directory):
        {load}

    def predict(self, inputs):
        x = inputs["x"]
        {before}
        return {{"y": (x.sum(axis=1, keepdims=True) * {gain}).astype("float32")}}
"""
_VERSIONS: Final[dict[str, dict[str, Any]]] = {
    "v1": {},
    "equal": {"load": "self.trained = 'again'"},
    # About 5 % of the rows, told by the row itself, whatever batch it comes in; a row of zeros is one.
    "raises": {"before": 'if (x[:, 0] % 20.0 < 1.0).any(): raise ValueError("cannot read this one")'},
    "shifted": {"gain": 1.5},
    "broken": {"load": "raise ValueError('no such weights')"},
    "slow-to-load": {"load": "time.sleep(2.0)"},
}


def write_tiny(directory: Path, kind: str) -> Path:
    """Write one version to a directory of its own and return that."""
    folder = directory / kind
    if not folder.exists():
        folder.mkdir(parents=True)
        said = {"load": "pass", "before": "pass", "gain": 1.0, **_VERSIONS[kind]}
        (folder / "model.py").write_text(_CODE.format(**said))
    return folder


def tiny_rows() -> np.ndarray[Any, Any]:
    """A hundred rows, of which 5 are those that `raises` cannot read."""
    return np.array([[number, 1, 2, 3] for number in range(100)], dtype=np.float32)
