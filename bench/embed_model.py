"""A sentence-embedding model in Python: text in, vector out. ``models`` copies this file beside its weights.

Every server in the benchmark runs this same class, whole batches at once; only Hyperion finds it by itself.
"""

import sys
from pathlib import Path

import numpy as np

ROWS_PER_CALL = 8


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
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(Path(directory) / "encoder.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``text`` of [n, 1] bytes -> ``output`` of [n, 384] FP32."""
        texts = [t.decode() if isinstance(t, bytes) else str(t) for t in np.asarray(inputs["text"], object).ravel()]
        encoded = self.tokenizer.encode_batch(texts)
        vectors = np.empty((len(texts), 384), np.float32)
        # Neighbours in length share a call: padding short texts to the longest would cost more than batching gains.
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i].ids))
        for start in range(0, len(order), ROWS_PER_CALL):
            rows = order[start : start + ROWS_PER_CALL]
            longest = len(encoded[rows[-1]].ids)
            ids, mask = np.zeros((2, len(rows), longest), np.int64)
            for place, row in enumerate(rows):
                ids[place, : len(encoded[row].ids)] = encoded[row].ids
                mask[place, : len(encoded[row].ids)] = 1
            vectors[rows] = self.session.run(["output"], {"input_ids": ids, "attention_mask": mask})[0]
        return {"output": vectors}
