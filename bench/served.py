"""Load a workload's model the same way in every server: ONNX Runtime, one thread, CPU.

Imported by the peers' programs inside their own environments.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.workloads import Workload

Predict = Callable[[np.ndarray], np.ndarray]


def load(workload: Workload) -> Predict:
    """A function from a batch (FP32 ``[n, …]``, or object ``[n, 1]`` of bytes) to FP32 ``[n, width]``."""
    if workload.body == "text":
        from bench.embed_model import Model

        model = Model()
        model.load(workload.directory)
        return lambda batch: model.predict({"text": batch})["output"]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(workload.artifact), options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(["output"], {"input": batch})[0]
