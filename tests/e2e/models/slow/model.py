"""Takes as many seconds as it is asked to, one row after the other."""

import time

import numpy as np


class Model:
    inputs = {"seconds": ("FP32", [-1, 1])}
    outputs = {"slept": ("FP32", [-1, 1])}

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(float(inputs["seconds"].sum()))
        return {"slept": inputs["seconds"]}
