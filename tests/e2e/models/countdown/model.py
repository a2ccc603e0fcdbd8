"""Counts down from `start` to 1, one number a part; asked for one answer, it gives 1."""

from collections.abc import Iterator

import numpy as np


class Model:
    inputs = {"start": ("INT32", [-1, 1])}
    outputs = {"number": ("INT32", [-1, 1])}

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"number": np.ones_like(inputs["start"])}

    def stream(self, inputs: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        for number in range(int(inputs["start"][0, 0]), 0, -1):
            yield {"number": np.array([[number]], np.int32)}
