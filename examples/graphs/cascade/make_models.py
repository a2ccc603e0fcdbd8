"""Make the models of the cascade: a linear one that knows most digits, and a support vector machine that knows more.

    pip install 'hyperion-inference[examples]'
    python examples/graphs/cascade/make_models.py build

Writes `small.onnx` and `large.onnx`, trained on 497 of scikit-learn's 1,797 digits, and `calibration.npz`, the 1,300
that neither has seen: `hyperion graph fit` finds out from them when the small one is sure enough. 64 of these are in
`request.json`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

SEED = 7


def make_small() -> ClassifierMixin:
    """A linear model; pixels are 0 … 16."""
    return LogisticRegression(C=0.002, max_iter=2000)


def make_large() -> ClassifierMixin:
    """A support vector machine."""
    return SVC(C=10.0, gamma=0.001)


def write_model(model: ClassifierMixin, path: Path) -> None:
    """Export to ONNX: input `x` FP32 [-1, 64], outputs `label` INT64 [-1] and `probabilities` FP32 [-1, 10] (scores of
    a support vector machine)."""
    inputs = [("x", FloatTensorType([None, 64]))]
    exported = to_onnx(model, initial_types=inputs, options={"zipmap": False}, target_opset=17)
    path.write_bytes(exported.SerializeToString())


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the models of the cascade example.")
    parser.add_argument("out", type=Path, help="directory to write to")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    x, y = load_digits(return_X_y=True)
    seen_x, other_x, seen_y, other_y = train_test_split(
        x.astype(np.float32), y, test_size=1300, random_state=SEED, stratify=y
    )
    for name, model in (("small", make_small()), ("large", make_large())):
        model.fit(seen_x, seen_y)
        write_model(model, out / f"{name}.onnx")
        print(f"{name}: {model.score(other_x, other_y):.3f} of the other digits right")
    np.savez(out / "calibration.npz", x=other_x, digit=other_y)
    rows = {"name": "x", "datatype": "FP32", "shape": [64, 64], "data": other_x[:64].tolist()}
    (out / "request.json").write_text(json.dumps({"inputs": [rows]}))


if __name__ == "__main__":
    main()
