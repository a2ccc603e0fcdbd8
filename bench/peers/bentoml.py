"""BentoML: a service with a batchable method, started by its own command. JSON in its own form; no raw tensors."""

from __future__ import annotations

import base64
import json
import os

import numpy as np

from bench import served
from bench.env import RUNTIME, Environment
from bench.peer import HOST, Peer, Request, Start
from bench.workloads import WORKLOADS, Workload

# 1.4.40 asks for a certifi newer than some package indexes carry, so it is installed without its dependencies.
ENVIRONMENT = Environment(
    "bentoml",
    (
        "a2wsgi",
        "aiohttp",
        "aiohttp-asgi-connector",
        "aiosqlite",
        "attrs",
        "cattrs<23.2.0,>=22.1.0",
        "certifi",
        "click-option-group",
        "click",
        "cloudpickle",
        "fsspec>=2025.7.0",
        "httpx",
        "httpx-ws",
        "jinja2",
        "kantoku>=0.18.3",
        "numpy",
        "nvidia-ml-py",
        "opentelemetry-api~=1.20",
        "opentelemetry-instrumentation-aiohttp-client~=0.41b0",
        "opentelemetry-instrumentation-asgi~=0.41b0",
        "opentelemetry-instrumentation~=0.41b0",
        "opentelemetry-sdk~=1.20",
        "opentelemetry-semantic-conventions~=0.41b0",
        "opentelemetry-util-http~=0.41b0",
        "packaging",
        "pathspec",
        "pip-requirements-parser",
        "prometheus-client",
        "psutil",
        "pydantic<3",
        "python-dateutil",
        "python-json-logger",
        "python-multipart",
        "pyyaml",
        "rich-toolkit",
        "rich",
        "schema",
        "simple-di",
        "starlette",
        "tomli-w",
        "uvicorn",
        "watchfiles",
        *RUNTIME,
    ),
    bare=("bentoml==1.4.40",),
)


def settings(workload: Workload) -> list[dict[str, object]]:
    """No batching; batching within a latency of 100 ms or 1 s (it refuses what it expects to miss); two workers."""
    most = workload.max_batch
    return [
        {"batch": 0, "latency_ms": 0, "workers": 1},
        {"batch": most, "latency_ms": 100, "workers": 1},
        {"batch": most, "latency_ms": 1000, "workers": 1},
        {"batch": 0, "latency_ms": 0, "workers": 2},
    ]


def command(start: Start) -> list[str]:
    return [
        str(ENVIRONMENT.path / "bin" / "bentoml"),
        "serve",
        "bench.peers.bentoml:Served",
        "--host",
        HOST,
        "--port",
        str(start.port),
        "--working-dir",
        str(start.directory),
    ]


def variables(start: Start) -> dict[str, str]:
    return {
        "BENCH_WORKLOAD": start.workload.name,
        "BENCH_SETTING": json.dumps(start.setting),
        "BENTOML_HOME": str(start.directory / "home"),
        "BENTOML_DO_NOT_TRACK": "true",
    }


def request(workload: Workload, x: np.ndarray) -> Request:
    if workload.body == "binary":
        rows: list = [base64.b64encode(x.tobytes()).decode()]
    elif workload.body == "text":
        rows = [value.decode() for value in x.ravel()]
    else:
        rows = [[float(str(value)) for value in row] for row in x]
    return Request("/predict", json.dumps({"rows": rows}, separators=(",", ":")).encode())


def answer(workload: Workload, body: bytes) -> np.ndarray:
    return np.array(json.loads(body), np.float32).reshape(-1, workload.width)


PEER = Peer(
    name="bentoml",
    environment=ENVIRONMENT,
    workloads=("small", "large", "image", "embed"),
    settings=settings,
    command=command,
    variables=variables,
    request=request,
    answer=answer,
    note="own JSON form; image as base64",
)

if "BENCH_WORKLOAD" in os.environ:
    import bentoml

    WORKLOAD = WORKLOADS[os.environ["BENCH_WORKLOAD"]]
    SETTING = json.loads(os.environ["BENCH_SETTING"])
    BATCHING = (
        {"batchable": True, "max_batch_size": SETTING["batch"], "max_latency_ms": SETTING["latency_ms"]}
        if SETTING["batch"]
        else {}
    )
    Rows = np.ndarray if WORKLOAD.body == "json" else list[str]

    @bentoml.service(workers=SETTING["workers"], traffic={"timeout": 60}, logging={"access": {"enabled": False}})
    class Served:
        """One batchable method; a row is a list of floats, a text, or a base64 tensor."""

        def __init__(self) -> None:
            self.run = served.load(WORKLOAD)

        @bentoml.api(**BATCHING)
        def predict(self, rows: Rows) -> np.ndarray:  # type: ignore[valid-type]
            if WORKLOAD.body == "json":
                return self.run(np.asarray(rows, np.float32))
            if WORKLOAD.body == "text":
                return self.run(np.array([row.encode() for row in rows], object))
            raw = b"".join(base64.b64decode(row) for row in rows)
            return self.run(np.frombuffer(raw, np.float32).reshape(-1, 224, 224, 3))
