"""PyTriton: Triton's front end, the model as a Python function in the launching process."""

from __future__ import annotations

import json
import os
import sys

import numpy as np

from bench import served
from bench.peer import Peer, Start, program, v2_answer, v2_request
from bench.peers.triton import ENVIRONMENT, libpython
from bench.workloads import WORKLOADS, Workload


def settings(workload: Workload) -> list[dict[str, object]]:
    return [{"delay": 0}, {"delay": 1000}]


def variables(start: Start) -> dict[str, str]:
    """The stub that Triton starts embeds an interpreter: it must be this one and no other of the same version."""
    return {"LD_LIBRARY_PATH": libpython(), "PATH": f"{ENVIRONMENT.path / 'bin'}:{os.environ['PATH']}"}


PEER = Peer(
    name="pytriton",
    environment=ENVIRONMENT,
    workloads=("small", "large", "image", "embed", "small-grpc", "image-grpc"),
    settings=settings,
    command=program(ENVIRONMENT, "pytriton"),
    variables=variables,
    ready="/v2/models/{model}/ready",
    request=v2_request,
    answer=v2_answer,
)


def main() -> None:
    from pytriton.decorators import batch
    from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig

    workload, port, setting = WORKLOADS[sys.argv[1]], int(sys.argv[2]), json.loads(sys.argv[3])
    predict = served.load(workload)

    @batch
    def infer(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        return {"output": predict(inputs[workload.input_name])}

    config = TritonConfig(
        http_port=port, grpc_port=setting["grpc_port"], metrics_port=setting["spare_port"], http_address="127.0.0.1"
    )
    kind = bytes if workload.datatype == "BYTES" else np.float32
    with Triton(config=config) as triton:
        triton.bind(
            model_name=workload.model,
            infer_func=infer,
            inputs=[Tensor(name=workload.input_name, dtype=kind, shape=workload.samples[0].shape[1:])],
            outputs=[Tensor(name="output", dtype=np.float32, shape=(workload.width,))],
            config=ModelConfig(
                max_batch_size=workload.max_batch,
                batcher=DynamicBatcher(max_queue_delay_microseconds=setting["delay"]),
            ),
        )
        triton.serve()


if __name__ == "__main__":
    main()
