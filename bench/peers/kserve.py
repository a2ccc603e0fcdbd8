"""KServe's Python model server: a custom ``Model`` around ONNX Runtime. It has no batching of its own."""

from __future__ import annotations

import json
import sys

import numpy as np

from bench import served
from bench.env import RUNTIME, Environment
from bench.peer import Peer, program, v2_answer, v2_request
from bench.workloads import WORKLOADS, Workload

ENVIRONMENT = Environment("kserve", ("kserve==0.21.0", *RUNTIME))


def settings(workload: Workload) -> list[dict[str, object]]:
    """One process, or two for REST (its gRPC server does not multiply)."""
    return [{"workers": 1}] if workload.transport == "grpc" else [{"workers": 1}, {"workers": 2}]


PEER = Peer(
    name="kserve",
    environment=ENVIRONMENT,
    workloads=("small", "large", "image", "embed", "small-grpc", "image-grpc"),
    settings=settings,
    command=program(ENVIRONMENT, "kserve"),
    ready="/v2/models/{model}/ready",
    request=v2_request,
    answer=v2_answer,
)


if __name__ in ("__main__", "__mp_main__"):
    import kserve
    from kserve import InferOutput, InferRequest, InferResponse

    WORKLOAD = WORKLOADS[sys.argv[1]]
    SETTING = json.loads(sys.argv[3])

    class Served(kserve.Model):
        """One tensor in, one out. Sent to each worker process by pickle, so the session is opened where it is used."""

        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.session: served.Predict | None = None
            self.ready = True

        def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
            if self.session is None:
                self.session = served.load(WORKLOAD)
            batch = payload.inputs[0].as_numpy()
            if WORKLOAD.body == "text":
                batch = np.array([t.encode() if isinstance(t, str) else t for t in batch.ravel()], object)
            result = self.session(np.asarray(batch))
            output = InferOutput("output", list(result.shape), "FP32")
            output.set_data_from_numpy(result, binary_data=WORKLOAD.transport == "grpc")
            return InferResponse(payload.id or "0", self.name, [output])

    if __name__ == "__main__":
        kserve.ModelServer(
            http_port=int(sys.argv[2]),
            grpc_port=SETTING["grpc_port"],
            workers=SETTING["workers"],
            enable_grpc=WORKLOAD.transport == "grpc",
            enable_latency_logging=False,
            access_log_format=None,
        ).start([Served(WORKLOAD.model)])
