"""Ray Serve: one HTTP proxy, one or two replicas, ``@serve.batch`` inside the replica."""

from __future__ import annotations

import json
import signal
import sys

import numpy as np

from bench import served
from bench.env import RUNTIME, Environment
from bench.peer import Peer, Start, decode_plain, encode_plain, plain_request, program, v2_answer
from bench.workloads import WORKLOADS, Workload

ENVIRONMENT = Environment("ray", ("ray[serve]==2.60.0", "orjson==3.13.0", "numpy==2.4.6", *RUNTIME))


def settings(workload: Workload) -> list[dict[str, object]]:
    return [
        {"batch": 1, "window_s": 0, "replicas": 1},
        {"batch": workload.max_batch, "window_s": 0.001, "replicas": 1},
        {"batch": workload.max_batch, "window_s": 0.01, "replicas": 1},
        {"batch": workload.max_batch, "window_s": 0.01, "replicas": 2},
    ]


def variables(start: Start) -> dict[str, str]:
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_SERVE_ENABLE_ACCESS_LOG": "0",
        "RAY_DISABLE_MEMORY_MONITOR": "1",
    }


PEER = Peer(
    name="ray",
    environment=ENVIRONMENT,
    workloads=("small", "large", "image", "embed"),
    settings=settings,
    command=program(ENVIRONMENT, "ray"),
    variables=variables,
    request=plain_request("/"),
    answer=v2_answer,
    start_timeout_s=180,
)


def main() -> None:
    import orjson
    import ray
    from ray import serve
    from ray.serve.schema import LoggingConfig
    from starlette.requests import Request
    from starlette.responses import Response

    workload, port, setting = WORKLOADS[sys.argv[1]], int(sys.argv[2]), json.loads(sys.argv[3])

    class Served:
        def __init__(self) -> None:
            self.run = served.load(workload)

        @serve.batch(max_batch_size=setting["batch"], batch_wait_timeout_s=setting["window_s"])
        async def infer(self, rows: list[np.ndarray]) -> list[np.ndarray]:
            return list(self.run(np.stack(rows)))

        async def __call__(self, request: Request) -> Response:
            row = decode_plain(workload, await request.body(), orjson.loads)
            result = await self.infer(row) if setting["batch"] > 1 else self.run(row[None])[0]
            return Response(orjson.dumps(encode_plain(result)), media_type="application/json")

    ray.init(
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=setting["directory"],
        object_store_memory=200 << 20,
        configure_logging=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deployment = serve.deployment(
        Served,
        num_replicas=setting["replicas"],
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 1},
        logging_config=LoggingConfig(enable_access_log=False),
    )
    serve.run(deployment.bind())
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
