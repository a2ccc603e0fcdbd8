"""The workloads: which model, which inputs, over which protocol.

Imported by the harness and by the peers' programs, so it needs numpy and nothing else. Inputs come from the files that
``models`` wrote; several different ones per workload, so that no server can answer from a cache or merge equal ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bench.env import MODELS


@dataclass(frozen=True)
class Workload:
    """``body`` is how an input travels: ``json``, ``binary`` (raw little-endian tensor) or ``text``. Where
    ``small_batches`` is set, Hyperion is told the largest batch, which otherwise is its own affair."""

    name: str
    model: str
    title: str
    body: str
    width: int
    transport: str = "http"
    max_batch: int = 64
    small_batches: bool = False

    @property
    def directory(self) -> Path:
        return MODELS / self.model

    @property
    def artifact(self) -> Path:
        """What ``hyperion serve`` is pointed at."""
        return self.directory if self.body == "text" else self.directory / f"{self.model}.onnx"

    @property
    def input_name(self) -> str:
        return "text" if self.body == "text" else "input"

    @property
    def datatype(self) -> str:
        return "BYTES" if self.body == "text" else "FP32"

    @cached_property
    def samples(self) -> list[np.ndarray]:
        """Inputs of one row each: FP32 ``[1, …]``, or for text object ``[1, 1]`` of bytes."""
        if self.body == "text":
            texts = json.loads((self.directory / "texts.json").read_text())
            return [np.array([[text.encode()]], object) for text in texts]
        return list(np.load(self.directory / "samples.npz")["x"])


WORKLOADS = {
    w.name: w
    for w in (
        Workload("small", "small", "20 floats as JSON, MLP 20-64-32-2", "json", 2),
        Workload("large", "large", "784 floats as JSON, MLP 784-2048-2048-1024-10", "json", 10),
        Workload(
            "large-4",
            "large",
            "the large MLP in batches of at most 4: dear for each row",
            "json",
            10,
            max_batch=4,
            small_batches=True,
        ),
        Workload(
            "image", "image", "224x224x3 FP32 as a binary tensor (602 KB), a cheap model", "binary", 2, max_batch=16
        ),
        Workload(
            "embed", "embed", "text to all-MiniLM-L6-v2 sentence vector, tokenizer included", "text", 384, max_batch=32
        ),
        Workload("small-grpc", "small", "20 floats over gRPC, MLP 20-64-32-2", "binary", 2, transport="grpc"),
        Workload("image-grpc", "image", "224x224x3 FP32 over gRPC (602 KB), a cheap model", "binary", 2, "grpc", 16),
    )
}
