"""nginx answering a constant: the floor of HTTP on this machine. A limit, not a competitor: it computes nothing."""

from __future__ import annotations

import json
import shutil

import numpy as np

from bench.peer import HOST, Peer, Start, encode_plain, one_setting, plain_request
from bench.workloads import Workload

CONFIG = """
worker_processes 1;
daemon off;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_max_body_size 16m;
  client_body_temp_path {directory}/body;
  keepalive_requests 1000000000;
  server {{
    listen {host}:{port} backlog=4096;
    location / {{ default_type application/json; return 200 '{answer}'; }}
  }}
}}
"""


def command(start: Start) -> list[str]:
    """A configuration whose constant is as long as a real answer of the workload."""
    constant = json.dumps(encode_plain(np.linspace(0, 1, start.workload.width, dtype=np.float32)))
    path = start.directory / "nginx.conf"
    path.write_text(CONFIG.format(directory=start.directory, host=HOST, port=start.port, answer=constant))
    return [shutil.which("nginx") or "/usr/sbin/nginx", "-p", str(start.directory), "-c", str(path)]


def answer(workload: Workload, body: bytes) -> np.ndarray:
    """The constant is no prediction: nothing to compare."""
    return np.empty(0, np.float32)


PEER = Peer(
    name="nginx",
    environment=None,
    workloads=("small", "large"),
    settings=one_setting,
    command=command,
    request=plain_request("/"),
    answer=answer,
    limit=True,
)
