"""Write all-MiniLM-L6-v2 (BERT, 6 layers, 384 wide, 12 heads) as an ONNX graph from its safetensors file.

Called by ``models``. No deep-learning framework is involved: the architecture is small enough to spell out, and the
numbers come straight from the file. Each time it is built, ``models`` compares it with ``embed_plainly``, the same
network in plain numpy and double precision, written from the description of BERT and not from the graph.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

LAYERS, HEADS, WIDTH = 6, 12, 384
EPSILON = 1e-12


class _Graph:
    """Nodes and constants under construction; every method returns the name of the value it adds."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights, self.nodes, self.constants = weights, [], {}

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def dense(self, x: str, *layers: str) -> str:
        """x @ W.T + b; several layers with the same input become one multiplication."""
        weight = np.concatenate([self.weights[f"{layer}.weight"] for layer in layers]).T
        bias = np.concatenate([self.weights[f"{layer}.bias"] for layer in layers])
        product = self.add("MatMul", x, self.constant(np.ascontiguousarray(weight)))
        return self.add("Add", product, self.constant(bias))

    def norm(self, x: str, layer: str) -> str:
        scale, bias = (self.constant(self.weights[f"{layer}.{part}"]) for part in ("weight", "bias"))
        return self.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=EPSILON)


def build_graph(weights_path: Path) -> onnx.ModelProto:
    """``input_ids``, ``attention_mask`` INT64 [n, t] -> ``output`` FP32 [n, 384], mean-pooled and of length one."""
    g = _Graph(load_file(weights_path))
    emb = "embeddings."
    words = g.add("Gather", g.constant(g.weights[emb + "word_embeddings.weight"]), "input_ids")
    length = g.add("Gather", g.add("Shape", "input_ids"), g.constant(np.array(1, np.int64)))
    places = g.add("Range", g.constant(np.array(0, np.int64)), length, g.constant(np.array(1, np.int64)))
    # Every token is of type 0, so its embedding is a constant of the positions.
    table = g.weights[emb + "position_embeddings.weight"] + g.weights[emb + "token_type_embeddings.weight"][0]
    x = g.norm(g.add("Add", words, g.add("Gather", g.constant(table), places)), emb + "LayerNorm")

    mask = g.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    one = g.constant(np.array(1, np.float32))
    hidden = g.add("Mul", g.add("Sub", one, mask), g.constant(np.array(-1e4, np.float32)))
    bias = g.add("Unsqueeze", hidden, g.constant(np.array([1, 2], np.int64)))
    for i in range(LAYERS):
        x = _layer(g, x, bias, f"encoder.layer.{i}.")

    weight = g.add("Unsqueeze", mask, g.constant(np.array([2], np.int64)))
    axis = g.constant(np.array([1], np.int64))
    total = g.add("ReduceSum", g.add("Mul", x, weight), axis, keepdims=0)
    mean = g.add("Div", total, g.add("ReduceSum", mask, axis, keepdims=1))
    g.nodes.append(helper.make_node("LpNormalization", [mean], ["output"], axis=-1, p=2))
    ids = [helper.make_tensor_value_info(n, TensorProto.INT64, ["n", "t"]) for n in ("input_ids", "attention_mask")]
    graph = helper.make_graph(
        g.nodes,
        "all-MiniLM-L6-v2",
        ids,
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", WIDTH])],
        [numpy_helper.from_array(value, name) for name, value in g.constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def _layer(g: _Graph, x: str, bias: str, prefix: str) -> str:
    """One encoder layer: attention and feed-forward, each added to its input and normalised."""
    heads = g.constant(np.array([0, 0, 3 * HEADS, WIDTH // HEADS], np.int64))
    qkv = g.dense(x, *(f"{prefix}attention.self.{part}" for part in ("query", "key", "value")))
    split = [f"{prefix}{part}" for part in "qkv"]
    wide = g.add("Transpose", g.add("Reshape", qkv, heads), perm=[0, 2, 1, 3])
    g.nodes.append(helper.make_node("Split", [wide], split, axis=1, num_outputs=3))
    scores = g.add("MatMul", split[0], g.add("Transpose", split[1], perm=[0, 1, 3, 2]))
    scores = g.add("Mul", scores, g.constant(np.array((WIDTH // HEADS) ** -0.5, np.float32)))
    mixed = g.add("MatMul", g.add("Softmax", g.add("Add", scores, bias), axis=-1), split[2])
    flat = g.constant(np.array([0, 0, WIDTH], np.int64))
    merged = g.add("Reshape", g.add("Transpose", mixed, perm=[0, 2, 1, 3]), flat)
    attended = g.dense(merged, prefix + "attention.output.dense")
    x = g.norm(g.add("Add", x, attended), prefix + "attention.output.LayerNorm")
    inner = g.add("Gelu", g.dense(x, prefix + "intermediate.dense"))
    return g.norm(g.add("Add", x, g.dense(inner, prefix + "output.dense")), prefix + "output.LayerNorm")


def embed_plainly(weights_path: Path, ids: list[int]) -> np.ndarray:
    """The vector [384] of one text of tokens ``ids``: nothing is padded, masked, merged or batched."""
    w = {name: np.asarray(value, np.float64) for name, value in load_file(weights_path).items() if value.ndim}
    erf = np.vectorize(math.erf)

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        return centred / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attend(x: np.ndarray, name: str) -> np.ndarray:
        q, k, v = (dense(x, f"{name}.{part}") for part in ("query", "key", "value"))
        size = WIDTH // HEADS
        mixed = np.empty_like(x)
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            scores = np.exp(q[:, part] @ k[:, part].T / math.sqrt(size))
            mixed[:, part] = scores / scores.sum(-1, keepdims=True) @ v[:, part]
        return mixed

    e = "embeddings."
    x = w[e + "word_embeddings.weight"][ids] + w[e + "position_embeddings.weight"][: len(ids)]
    x = norm(x + w[e + "token_type_embeddings.weight"][0], e + "LayerNorm")
    for i in range(LAYERS):
        name = f"encoder.layer.{i}."
        attended = dense(attend(x, name + "attention.self"), name + "attention.output.dense")
        x = norm(x + attended, name + "attention.output.LayerNorm")
        inner = dense(x, name + "intermediate.dense")
        inner = inner * (1 + erf(inner / math.sqrt(2))) / 2
        x = norm(x + dense(inner, name + "output.dense"), name + "output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)
