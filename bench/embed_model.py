"""A sentence-embedding model in Python: text in, vector out. ``models`` copies this file beside the weights as ``model.py``.

Every server in the benchmark runs this same class, whole batches at once; only Hyperion finds it by itself.
"""

import sys
from pathlib import Path

import numpy as np


class Model:
    """all-MiniLM-L6-v2: tokenizer, encoder, mean pooling, vectors of length one."""

    inputs = {"text": ("BYTES", [-1, 1])}
    outputs = {"output": ("FP32", [-1, 384])}

    def load(self, directory: Path) -> None:
        """Read ``tokenizer.json`` and ``encoder.onnx`` from ``directory``; one thread, like every other model here."""
        import onnxruntime

        sys.path.append(str(Path(directory) / "vendor"))
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(Path(directory) / "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(Path(directory) / "encoder.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``text`` of [n, 1] bytes -> ``output`` of [n, 384] FP32."""
        texts = [t.decode() if isinstance(t, bytes) else str(t) for t in np.asarray(inputs["text"], object).ravel()]
        encoded = self.tokenizer.encode_batch(texts)
        feed = {
            "input_ids": np.array([e.ids for e in encoded], np.int64),
            "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
        }
        return {"output": self.session.run(["output"], feed)[0]}
