"""Texts in upper case."""

import numpy as np


class Model:
    inputs = {"text": ("BYTES", [-1, 1])}
    outputs = {"shout": ("BYTES", [-1, 1])}

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        shout = [[text.decode().upper().encode()] for (text,) in inputs["text"]]
        return {"shout": np.array(shout, dtype=object)}
