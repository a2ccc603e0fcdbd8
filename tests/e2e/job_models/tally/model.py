"""Writes down each id that it computes, and when, in the file TALLY; answers with the id and a number that no other
execution gets."""

import os
import time
import uuid

import numpy as np


class Model:
    inputs = {"id": ("BYTES", [-1, 1])}
    outputs = {"said": ("BYTES", [-1, 1])}

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        said, lines = [], []
        for name in inputs["id"].reshape(-1):
            lines.append(b"%b %d\n" % (name, time.time_ns()))
            said.append(b"%b %b" % (name, uuid.uuid4().hex.encode()))
        with open(os.environ["TALLY"], "ab", buffering=0) as file:
            file.write(b"".join(lines))  # one write: whole, or not at all, whoever dies when
        return {"said": np.array(said, dtype=object).reshape(-1, 1)}
