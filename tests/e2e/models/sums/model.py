"""Two inputs, two outputs: a + b and a - b."""

import numpy as np


class Model:
    inputs = {"a": ("FP32", [-1, 2]), "b": ("FP32", [-1, 2])}
    outputs = {"sum": ("FP32", [-1, 2]), "difference": ("FP32", [-1, 2])}

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        a, b = inputs["a"], inputs["b"]
        return {"sum": a + b, "difference": a - b}
