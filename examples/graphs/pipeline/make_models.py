"""Make the steps of the pipeline: pixels are scaled, the digit is read, how much ink there is is measured beside that,
and a sentence is made of both.

    pip install 'hyperion-inference[examples]'
    python examples/graphs/pipeline/make_models.py build

Writes `scale.onnx`, `read.onnx`, the Python models `ink` and `say`, and a `request.json` with two digits.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MinMaxScaler

INK = """
import numpy as np


class Model:
    inputs = {"scaled": ("FP32", [-1, 64])}
    outputs = {"ink": ("FP32", [-1])}

    def predict(self, inputs):
        return {"ink": inputs["scaled"].mean(axis=1)}
"""
SAY = """
import numpy as np

WORDS = "zero one two three four five six seven eight nine".split()


class Model:
    inputs = {"label": ("INT64", [-1]), "ink": ("FP32", [-1])}
    outputs = {"sentence": ("BYTES", [-1])}

    def predict(self, inputs):
        rows = zip(inputs["label"], inputs["ink"])
        sentences = [f"a {'bold' if ink > 0.3 else 'thin'} {WORDS[label]}".encode() for label, ink in rows]
        return {"sentence": np.array(sentences, dtype=object)}
"""


def write_onnx(model: BaseEstimator, name: str, path: Path) -> None:
    """Exports to ONNX with one input FP32 [-1, 64] of that name."""
    options = {"zipmap": False} if isinstance(model, LogisticRegression) else None
    exported = to_onnx(model, initial_types=[(name, FloatTensorType([None, 64]))], options=options, target_opset=17)
    path.write_bytes(exported.SerializeToString())


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the models of the pipeline example.")
    parser.add_argument("out", type=Path, help="directory to write to")
    out: Path = parser.parse_args().out
    x, y = load_digits(return_X_y=True)
    scaler = MinMaxScaler().fit(np.array([[0.0] * 64, [16.0] * 64], np.float32))
    for name, code in (("ink", INK), ("say", SAY)):
        (out / name).mkdir(parents=True, exist_ok=True)
        (out / name / "model.py").write_text(code)
    write_onnx(scaler, "x", out / "scale.onnx")
    write_onnx(LogisticRegression(max_iter=500).fit(scaler.transform(x), y), "x", out / "read.onnx")
    rows = {"name": "x", "datatype": "FP32", "shape": [2, 64], "data": x[:2].tolist()}
    (out / "request.json").write_text(json.dumps({"inputs": [rows]}))


if __name__ == "__main__":
    main()
