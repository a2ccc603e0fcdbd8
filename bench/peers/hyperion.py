"""Hyperion as a user starts it: default settings, one gateway worker, one model.

``HYPERION_BIN`` names another build than the repository's own ``.venv`` (for a comparison of two versions).
"""

from __future__ import annotations

import os

from bench.env import REPOSITORY
from bench.peer import Peer, Start, one_setting, v2_answer, v2_request

BINARY = os.environ.get("HYPERION_BIN", str(REPOSITORY / ".venv" / "bin" / "hyperion"))


def command(start: Start) -> list[str]:
    return [
        BINARY,
        "serve",
        str(start.workload.artifact),
        "--port",
        str(start.port),
        "--grpc-port",
        str(start.grpc_port),
        "--admin-port",
        str(start.spare_port),
        "--home",
        str(start.directory / "home"),
        "--gateway-workers",
        "1",
        *(["--max-batch-size", str(start.workload.max_batch)] if start.workload.small_batches else []),
    ]


PEER = Peer(
    name="hyperion",
    environment=None,
    workloads=("small", "large", "large-4", "image", "embed", "small-grpc", "image-grpc"),
    settings=one_setting,
    command=command,
    ready="/v2/models/{model}/ready",
    request=v2_request,
    answer=v2_answer,
)
