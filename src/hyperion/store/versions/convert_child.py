"""The process that opens a pickle to convert it: `python -I -m hyperion.store.versions.convert_child`, with SOURCE,
TARGET and FORMAT.

Started by `convert` with an empty environment, limits on memory, time and files, and no network where the kernel allows
that. Whatever the pickle does, it does here. The result is checked here, too: it must predict as the original does.
Answers with one JSON object on standard output.
"""

import ctypes
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
ROWS = 256
SEED = 20240229
_METHODS = ("predict", "predict_proba", "decision_function", "transform")


def main(source: str, target: str, form: str, memory_bytes: int, cpu_s: int) -> dict[str, Any]:
    """What was converted: class, library versions, what was compared and by how much it differs. Or `error`."""
    network = close_network()
    limit(memory_bytes, cpu_s)
    import joblib

    try:
        estimator = joblib.load(source)
    except ImportError as error:
        return {"error": f"was saved with a module that is not installed here: {error.name}"}
    except Exception as error:
        return {"error": f"cannot be opened: {describe(error)}"}
    kind = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
    width = getattr(estimator, "n_features_in_", 0)
    if not width or not any(hasattr(estimator, method) for method in _METHODS):
        return {"error": f"holds a {kind}; expected a fitted estimator of numbers"}
    try:
        difference, compared, unsafe = (to_skops if form == "skops" else to_onnx)(estimator, int(width), target)
    except ImportError as error:
        return {"error": f"needs {error.name}", "missing": (error.name or "").partition(".")[0]}
    except Exception as error:
        return {"error": f"a {kind} cannot be converted to {form}: {describe(error)}"}
    return {
        "kind": kind,
        "difference": difference,
        "compared": compared,
        "rows": ROWS,
        "unsafe": unsafe,
        "network": network,
        "libraries": libraries(form),
    }


def to_skops(estimator: Any, width: int, target: str) -> tuple[float, list[str], list[str]]:
    """Writes a skops file and reads it back; returns as `compare`, and the types that skops does not call safe."""
    from skops import io

    io.dump(estimator, target)
    unsafe = sorted(io.get_untrusted_types(file=Path(target)))
    back = io.load(target, trusted=unsafe)
    rows = make_rows(estimator, width)
    return (*compare(expect(estimator, rows), expect(back, rows)), unsafe)


def to_onnx(estimator: Any, width: int, target: str) -> tuple[float, list[str], list[str]]:
    """Writes an ONNX model of one input X FP32 [-1, width], and runs it on the same rows."""
    import numpy as np
    import onnxruntime
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.base import is_classifier

    options = {id(estimator): {"zipmap": False}} if is_classifier(estimator) else None
    model = skl2onnx.to_onnx(estimator, initial_types=[("X", FloatTensorType([None, width]))], options=options)
    Path(target).write_bytes(model.SerializeToString())
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    rows = make_rows(estimator, width)
    answers = session.run(None, {"X": rows.astype(np.float32)})
    wanted = expect(estimator, rows)
    methods: list[str] = [method for method in ("predict", "predict_proba", "transform") if method in wanted]
    found: dict[str, Any] = {method: np.asarray(answer) for method, answer in zip(methods, answers, strict=False)}
    return (*compare({method: wanted[method] for method in found}, found), [])


def make_rows(estimator: Any, width: int) -> Any:
    """Random rows of the size that the model has seen, as far as it tells: around the thresholds of a scaler, or
    standard normal. They fit into float32, so that both sides get the same numbers."""
    import numpy as np

    random = np.random.default_rng(SEED)
    rows = random.standard_normal((ROWS, width)) * random.choice([0.1, 1.0, 10.0], size=(ROWS, 1))
    for _, step in getattr(estimator, "steps", ()):
        mean, scale = getattr(step, "mean_", None), getattr(step, "scale_", None)
        if mean is not None and scale is not None and np.shape(mean) == np.shape(scale) == (width,):
            rows = rows * scale + mean
            break
    return rows.astype(np.float32).astype(np.float64)


def expect(estimator: Any, rows: Any) -> dict[str, Any]:
    """What the estimator answers, method by method."""
    import numpy as np

    return {method: np.asarray(getattr(estimator, method)(rows)) for method in _METHODS if hasattr(estimator, method)}


def compare(wanted: dict[str, Any], found: dict[str, Any]) -> tuple[float, list[str]]:
    """The largest difference, relative to the size of what was wanted; for labels the share that differs."""
    import numpy as np

    worst = 0.0
    for method, expected in wanted.items():
        answer = found[method]
        if answer.size != expected.size:
            raise ValueError(f"{method} answers with shape {answer.shape}, the original with {expected.shape}")
        answer = answer.reshape(expected.shape)
        if expected.dtype.kind == "f":
            near = np.abs(answer - expected) / np.maximum(1.0, np.abs(expected))
            worst = max(worst, float(np.nan_to_num(near, nan=np.inf).max(initial=0.0)))
        else:
            worst = max(worst, float(np.mean(answer.astype(str) != expected.astype(str))))
    return worst, sorted(wanted)


def close_network() -> bool:
    """True where this process was moved into a network without devices; not every kernel and container allows it."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.unshare(CLONE_NEWNET) == 0 or libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0)


def limit(memory_bytes: int, cpu_s: int) -> None:
    """No large files, bounded memory and computing time, no core dump."""
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, memory_bytes),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (value, value))


def libraries(form: str) -> dict[str, str]:
    """The versions of what took part."""
    from importlib import metadata

    names = ("scikit-learn", "numpy", *(("skops",) if form == "skops" else ("skl2onnx", "onnx", "onnxruntime")))
    return {name: metadata.version(name) for name in names}


def describe(error: Exception) -> str:
    """One line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


if __name__ == "__main__":
    # What the pickle prints must not look like the answer: that goes to the real standard output, kept apart.
    answer_fd = os.dup(1)
    os.dup2(2, 1)
    answer = main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    os.write(answer_fd, json.dumps(answer).encode())
