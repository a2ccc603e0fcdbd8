"""LitServe: FastAPI in front, batches to a worker process over a queue (multiprocessing's, or ZeroMQ as "fast")."""

from __future__ import annotations

import base64
import json
import sys

import numpy as np

from bench import served
from bench.env import RUNTIME, Environment
from bench.peer import Peer, Request, encode_plain, plain_request, program, v2_answer
from bench.workloads import WORKLOADS, Workload

ENVIRONMENT = Environment("litserve", ("litserve==0.2.19", "pyzmq", "numpy==2.4.6", *RUNTIME))


def settings(workload: Workload) -> list[dict[str, object]]:
    most = workload.max_batch
    return [
        {"batch": 1, "window_s": 0, "fast": False, "servers": 1},
        {"batch": most, "window_s": 0.001, "fast": False, "servers": 1},
        {"batch": most, "window_s": 0.005, "fast": False, "servers": 1},
        {"batch": most, "window_s": 0.001, "fast": True, "servers": 1},
        {"batch": most, "window_s": 0.001, "fast": False, "servers": 2},
    ]


def request(workload: Workload, x: np.ndarray) -> Request:
    if workload.body == "binary":
        return Request("/predict", json.dumps({"input": base64.b64encode(x.tobytes()).decode()}).encode())
    return plain_request("/predict")(workload, x)


PEER = Peer(
    name="litserve",
    environment=ENVIRONMENT,
    workloads=("small", "large", "image", "embed"),
    settings=settings,
    command=program(ENVIRONMENT, "litserve"),
    request=request,
    answer=v2_answer,
    note="requests are JSON: image as base64",
)

if __name__ in ("__main__", "__mp_main__"):
    import litserve

    WORKLOAD = WORKLOADS[sys.argv[1]]
    SETTING = json.loads(sys.argv[3])

    class Api(litserve.LitAPI):
        """Rows in, rows out; ``batch`` and ``unbatch`` keep them in one array."""

        def setup(self, device: str) -> None:
            self.run = served.load(WORKLOAD)

        def decode_request(self, request: dict) -> np.ndarray:
            if WORKLOAD.body == "binary":
                return np.frombuffer(base64.b64decode(request["input"]), np.float32).reshape(224, 224, 3)
            data = request["inputs"][0]["data"]
            if WORKLOAD.body == "text":
                return np.array([t.encode() for t in data], object)
            return np.array(data, np.float32)

        def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
            return np.stack(inputs)

        def predict(self, x: np.ndarray) -> np.ndarray:
            return self.run(x) if SETTING["batch"] > 1 else self.run(x[None])[0]

        def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
            return list(output)

        def encode_response(self, output: np.ndarray) -> dict:
            return encode_plain(output)

    if __name__ == "__main__":
        api = Api(max_batch_size=SETTING["batch"], batch_timeout=SETTING["window_s"])
        server = litserve.LitServer(api, accelerator="cpu", fast_queue=SETTING["fast"])
        server.run(
            host="127.0.0.1",
            port=int(sys.argv[2]),
            num_api_servers=SETTING["servers"],
            log_level="warning",
            generate_client_file=False,
            access_log=False,
        )
