"""How alike are two texts, from 0 to 1? For finding near-duplicates: names, addresses, product titles.

A text becomes a vector that counts its runs of three characters, hashed into `BUCKETS` places; the similarity of two
texts is the cosine of their vectors. It needs no training, knows no language, and forgives typing errors.
"""

from zlib import crc32

import numpy as np

BUCKETS = 4096
RUN = 3


def count_runs(text: str) -> np.ndarray:
    """FP32 [BUCKETS], of length 1 (or all zeros for an empty text), of the runs of characters in a text."""
    padded = f"  {' '.join(text.casefold().split())} "
    counts = np.zeros(BUCKETS, dtype=np.float32)
    if padded.strip():
        for start in range(len(padded) - RUN + 1):
            counts[crc32(padded[start : start + RUN].encode()) % BUCKETS] += 1
        counts /= np.linalg.norm(counts)
    return counts


class Model:
    """Compares `a` and `b` row by row."""

    inputs = {"a": ("BYTES", [-1]), "b": ("BYTES", [-1])}
    outputs = {"similarity": ("FP32", [-1])}

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        left, right = (
            np.array([count_runs(text.decode("utf-8", "replace")) for text in inputs[name]]).reshape(-1, BUCKETS)
            for name in ("a", "b")
        )
        return {"similarity": np.clip((left * right).sum(axis=1), 0, 1)}
