"""MLServer: a custom runtime around ONNX Runtime, with and without adaptive batching and parallel workers.

Its REST edge has no binary tensors; the shortest way in it has for the image is base64 in a BYTES tensor.
"""

from __future__ import annotations

import base64
import json

import numpy as np

from bench import served
from bench.env import RUNTIME, Environment
from bench.peer import HOST, Peer, Request, Start, v2_answer, v2_request
from bench.workloads import WORKLOADS, Workload

# Its worker processes ask uvloop for a loop that newer uvloops no longer make by themselves.
ENVIRONMENT = Environment("mlserver", ("mlserver==1.7.1", "uvloop==0.21.0", *RUNTIME))


def settings(workload: Workload) -> list[dict[str, object]]:
    """Batching off or a window of 1 or 5 ms; inference in the server's process or in one worker process."""
    most = workload.max_batch
    return [
        {"batch": 0, "window_s": 0, "workers": 0},
        {"batch": most, "window_s": 0.001, "workers": 0},
        {"batch": most, "window_s": 0.005, "workers": 0},
        {"batch": most, "window_s": 0.001, "workers": 1},
    ]


def command(start: Start) -> list[str]:
    server = {
        "host": HOST,
        "http_port": start.port,
        "grpc_port": start.grpc_port,
        "metrics_port": start.spare_port,
        "debug": False,
        "parallel_workers": start.setting["workers"],
        "grpc_max_message_length": 64 << 20,
    }
    model = {
        "name": start.workload.model,
        "implementation": "bench.peers.mlserver.Runtime",
        "max_batch_size": start.setting["batch"],
        "max_batch_time": start.setting["window_s"],
        "parameters": {"version": "1", "extra": {"workload": start.workload.name}},
    }
    (start.directory / "settings.json").write_text(json.dumps(server))
    (start.directory / "model-settings.json").write_text(json.dumps(model))
    return [str(ENVIRONMENT.path / "bin" / "mlserver"), "start", str(start.directory)]


def request(workload: Workload, x: np.ndarray) -> Request:
    if workload.body != "binary":
        return v2_request(workload, x)
    data = base64.b64encode(x.tobytes()).decode()
    tensor = {
        "name": "input",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": [data],
    }
    return Request(f"/v2/models/{workload.model}/infer", json.dumps({"inputs": [tensor]}).encode())


PEER = Peer(
    name="mlserver",
    environment=ENVIRONMENT,
    workloads=("small", "large", "image", "embed", "small-grpc", "image-grpc"),
    settings=settings,
    command=command,
    ready="/v2/models/{model}/ready",
    request=request,
    answer=v2_answer,
    note="REST has no binary tensors: image as base64",
)

try:
    from mlserver import MLModel
    from mlserver.codecs import Base64Codec, NumpyCodec, StringCodec
    from mlserver.types import InferenceRequest, InferenceResponse
except ImportError:  # in the harness's own environment
    pass
else:

    class Runtime(MLModel):
        """One tensor in, one out."""

        async def load(self) -> bool:
            self.workload = WORKLOADS[self.settings.parameters.extra["workload"]]
            self.run = served.load(self.workload)
            return True

        async def predict(self, payload: InferenceRequest) -> InferenceResponse:
            tensor = payload.inputs[0]
            if self.workload.body == "text":
                texts = StringCodec.decode_input(tensor)
                batch = np.array([text.encode() for text in texts], object).reshape(-1, 1)
            elif tensor.datatype == "BYTES":
                batch = np.frombuffer(b"".join(Base64Codec.decode_input(tensor)), np.float32).reshape(-1, 224, 224, 3)
            else:
                batch = NumpyCodec.decode_input(tensor)
            output = NumpyCodec.encode_output("output", self.run(batch))
            return InferenceResponse(model_name=self.name, outputs=[output])
