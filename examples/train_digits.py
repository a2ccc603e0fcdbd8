"""Train the model in `examples/digits/`: which digit is this 8 by 8 image?

    pip install 'hyperion-inference[examples]'
    python examples/train_digits.py

Writes `digits.onnx` and `request.json` (two images that the model has never seen) to `examples/digits/`, and prints the
accuracy on a quarter of the data that it was not trained on. The data set is scikit-learn's own: 1,797 scanned digits,
pixels from 0 to 16.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler

SEED = 7
IMAGES_IN_REQUEST = 2


def train(images: np.ndarray, digits: np.ndarray) -> Pipeline:
    """A small neural network on pixels scaled to 0 … 1; `images` are [n, 64] with pixels of 0 … 16."""
    model = make_pipeline(MinMaxScaler(), MLPClassifier((64,), max_iter=400, random_state=SEED))
    return model.fit(images, digits)


def write_model(model: Pipeline, path: Path) -> None:
    """Exports to ONNX: input `x` FP32 [-1, 64], outputs `label` INT64 [-1] and `probabilities` FP32 [-1, 10]."""
    inputs = [("x", FloatTensorType([None, 64]))]
    # Without ZipMap the probabilities are one tensor, not a list of dictionaries.
    exported = to_onnx(model, initial_types=inputs, options={"zipmap": False}, target_opset=17)
    path.write_bytes(exported.SerializeToString())


def write_request(images: np.ndarray, path: Path) -> None:
    """The body of an inference request (Open Inference Protocol V2) for some images."""
    data = [int(pixel) for pixel in images.ravel()]
    tensor = {"name": "x", "shape": list(images.shape), "datatype": "FP32", "data": data}
    path.write_text(json.dumps({"inputs": [tensor]}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the digits example.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "digits", help="directory to write to")
    out: Path = parser.parse_args().out
    images, digits = load_digits(return_X_y=True)
    split = train_test_split(images.astype(np.float32), digits, test_size=0.25, random_state=SEED, stratify=digits)
    seen_images, unseen_images, seen_digits, unseen_digits = split
    model = train(seen_images, seen_digits)
    out.mkdir(parents=True, exist_ok=True)
    write_model(model, out / "digits.onnx")
    write_request(unseen_images[:IMAGES_IN_REQUEST], out / "request.json")
    print(f"accuracy on {len(unseen_digits)} unseen images: {model.score(unseen_images, unseen_digits):.3f}")
    print(f"the images in request.json show: {', '.join(map(str, unseen_digits[:IMAGES_IN_REQUEST]))}")


if __name__ == "__main__":
    main()
