"""Make the models of the ensemble: three ways to read a digit, which are wrong about different ones.

    pip install 'hyperion-inference[examples]'
    python examples/graphs/ensemble/make_models.py build

Writes `linear.onnx`, `trees.onnx`, `network.onnx` and a `request.json` with two digits, and prints how often each model
is right, and their average.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

SEED = 7


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the models of the ensemble example.")
    parser.add_argument("out", type=Path, help="directory to write to")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    x, y = load_digits(return_X_y=True)
    split = train_test_split(x.astype(np.float32), y, test_size=0.4, random_state=SEED, stratify=y)
    seen_x, other_x, seen_y, other_y = split
    models = {
        "linear": LogisticRegression(C=0.002, max_iter=2000),
        "trees": ExtraTreesClassifier(100, random_state=SEED),
        "network": MLPClassifier((64,), alpha=1.0, max_iter=400, random_state=SEED),
    }
    total = np.zeros((len(other_y), 10))
    for name, model in models.items():
        model.fit(seen_x, seen_y)
        total += model.predict_proba(other_x)
        # Input `x` FP32 [-1, 64], outputs `label` INT64 [-1] and `probabilities` FP32 [-1, 10].
        inputs = [("x", FloatTensorType([None, 64]))]
        exported = to_onnx(model, initial_types=inputs, options={"zipmap": False}, target_opset=17)
        (out / f"{name}.onnx").write_bytes(exported.SerializeToString())
        print(f"{name}: {model.score(other_x, other_y):.3f} right")
    rows = {"name": "x", "datatype": "FP32", "shape": [2, 64], "data": other_x[:2].tolist()}
    (out / "request.json").write_text(json.dumps({"inputs": [rows]}))
    print(f"their average: {(total.argmax(axis=1) == other_y).mean():.3f} right")


if __name__ == "__main__":
    main()
