"""One array of each V2 datatype, with its extreme values, for models that give back what they got."""

import ml_dtypes
import numpy as np

TEXTS = [b"", "größer".encode(), b"x" * 300, b'quote " and \\ back', b"line\nbreak", "日本".encode()]


def every_datatype(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A [2, 3] array by datatype name."""
    arrays: dict[str, np.ndarray] = {"BOOL": rng.integers(0, 2, (2, 3)).astype(bool)}
    for bits in (8, 16, 32, 64):
        for name, kind in ((f"UINT{bits}", f"u{bits // 8}"), (f"INT{bits}", f"i{bits // 8}")):
            info = np.iinfo(kind)
            arrays[name] = rng.integers(info.min, info.max, (2, 3), dtype=kind, endpoint=True)
            arrays[name][0, :2] = info.min, info.max
    arrays["FP16"] = rng.standard_normal((2, 3)).astype(np.float16)
    arrays["BF16"] = rng.standard_normal((2, 3)).astype(ml_dtypes.bfloat16)
    arrays["FP32"] = rng.standard_normal((2, 3)).astype(np.float32)
    arrays["FP64"] = rng.standard_normal((2, 3)) * 1e200
    arrays["BYTES"] = np.array(TEXTS, dtype=object).reshape(2, 3)
    return arrays
