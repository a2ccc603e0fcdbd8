"""Versions of one real model, trained on scikit-learn's digits: an equal one, and three that must not go live."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

# Forwards a row through a softmax regression, ROUNDS times over so that it takes as long as a model of some size.
_CODE: Final = """
import numpy as np


class Model:
    inputs = {{"x": ("FP32", [-1, 64])}}
    outputs = {{"probabilities": ("FP32", [-1, 10])}}

    def load(self, directory):
        weights = np.load(directory / "weights.npz")
        self.coef, self.intercept = weights["coef"], weights["intercept"]

    def predict(self, inputs):
        x = inputs["x"]
        {before}
        for _ in range({rounds}):
            scores = x @ self.coef.T + self.intercept
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = scores / scores.sum(axis=1, keepdims=True)
        {after}
        return {{"probabilities": probabilities.astype(np.float32)}}
"""
ROUNDS: Final = 40
# About 5 % of the rows, told by the row itself, whatever batch it comes in.
_RAISE: Final = 'if ((x.sum(axis=1) * 7.0) % 20.0 < 1.0).any(): raise ValueError("cannot read this one")'
# Three of the ten digits are all taken for an eight.
_SHIFT: Final = (
    "probabilities = np.where(np.isin(probabilities.argmax(axis=1), (3, 5, 9))[:, None], np.eye(10)[8], probabilities)"
)


def train() -> tuple[dict[str, np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """The weights, and rows to ask for."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16.0).astype(np.float32)
    fitted = LogisticRegression(max_iter=200).fit(x[:1000], y[:1000])
    weights = {"coef": fitted.coef_.astype(np.float32), "intercept": fitted.intercept_.astype(np.float32)}
    return weights, x[1000:]


def write_versions(directory: Path) -> np.ndarray[Any, Any]:
    """Write the versions `v1`, `equal`, `raises`, `slow` and `shifted`; return rows to ask for."""
    weights, rows = train()
    versions = {
        "v1": ("pass", ROUNDS, "pass"),
        "equal": ("pass  # retrained on the same data", ROUNDS, "pass"),
        "raises": (_RAISE, ROUNDS, "pass"),
        "slow": ("import time; time.sleep(0.004)", 3 * ROUNDS, "pass"),
        "shifted": ("pass", ROUNDS, _SHIFT),
    }
    for name, (before, rounds, after) in versions.items():
        folder = directory / name
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(_CODE.format(before=before, rounds=rounds, after=after))
        np.savez(folder / "weights.npz", **weights)
    return rows
