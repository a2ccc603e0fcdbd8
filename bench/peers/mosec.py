"""mosec: a Rust front end, batches to Python worker processes. Several settings are tried, the best is kept."""

from __future__ import annotations

import json
import os
import sys

import numpy as np

from bench import served
from bench.env import RUNTIME, Environment
from bench.peer import Peer, Start, decode_plain, encode_plain, plain_request, program, v2_answer
from bench.workloads import WORKLOADS, Workload

ENVIRONMENT = Environment("mosec", ("mosec==0.9.8", "orjson==3.13.0", "numpy==2.4.6", *RUNTIME))


def settings(workload: Workload) -> list[dict[str, object]]:
    """Batching off; windows of 1, 5 and 10 ms (1 ms is the shortest it knows); one and two workers."""
    most = workload.max_batch
    return [
        {"batch": 1, "wait": 1, "workers": 1},
        {"batch": most // 2, "wait": 1, "workers": 1},
        {"batch": most, "wait": 1, "workers": 1},
        {"batch": most, "wait": 5, "workers": 1},
        {"batch": most, "wait": 10, "workers": 1},
        {"batch": most, "wait": 1, "workers": 2},
        {"batch": 1, "wait": 1, "workers": 2},
    ]


def variables(start: Start) -> dict[str, str]:
    return {
        "MOSEC_PORT": str(start.port),
        "MOSEC_ADDRESS": "127.0.0.1",
        "MOSEC_LOG_LEVEL": "warning",
        "MOSEC_TIMEOUT": "30000",
        "MOSEC_PATH": str(start.directory / "ipc"),
    }


PEER = Peer(
    name="mosec",
    environment=ENVIRONMENT,
    workloads=("small", "large", "image", "embed"),
    settings=settings,
    command=program(ENVIRONMENT, "mosec"),
    variables=variables,
    request=plain_request("/inference"),
    answer=v2_answer,
)

if __name__ in ("__main__", "__mp_main__"):
    import orjson
    from mosec import Server, Worker

    WORKLOAD = WORKLOADS[sys.argv[1]]
    SETTING = json.loads(sys.argv[3])

    class Infer(Worker):
        """One stage: parse, one model call per batch, write."""

        def __init__(self) -> None:
            super().__init__()
            self.predict = served.load(WORKLOAD)

        def deserialize(self, data: bytes) -> np.ndarray:
            return decode_plain(WORKLOAD, data, orjson.loads)

        def forward(self, data):
            if self.max_batch_size == 1:
                return self.predict(data[None])[0]
            return list(self.predict(np.stack(data)))

        def serialize(self, data: np.ndarray) -> bytes:
            return orjson.dumps(encode_plain(data))

    if __name__ == "__main__":
        # Its own command line is read from the environment; what is ours must not confuse it.
        server = Server()
        server.append_worker(
            Infer,
            num=SETTING["workers"],
            max_batch_size=SETTING["batch"],
            max_wait_time=SETTING["wait"],
            env=[dict(os.environ)] * SETTING["workers"],
        )
        server.run()
