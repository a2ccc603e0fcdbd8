"""What the harness must know about a server: how to install it, start it, tell that it is ready, and ask it.

Each file in ``peers/`` fills in one ``Peer`` and, for Python peers, holds the program that runs in the peer's own
environment (``python -m bench.peers.NAME WORKLOAD PORT …``). Only the standard library and numpy at import time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench import v2
from bench.env import Environment
from bench.workloads import Workload

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Request:
    """One HTTP request; ``raw`` is what goes on the socket."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"

    def raw(self) -> bytes:
        standard = {"Host": HOST, "Content-Type": "application/json"}
        headers = {**standard, **self.headers, "Content-Length": str(len(self.body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{self.method} {self.path} HTTP/1.1\r\n{lines}\r\n".encode() + self.body


@dataclass(frozen=True)
class Start:
    """Everything that differs from one start of a server to the next."""

    workload: Workload
    setting: Mapping[str, object]
    port: int
    grpc_port: int
    spare_port: int
    directory: Path  # empty, and deleted afterwards


@dataclass(frozen=True)
class Peer:
    """One server under test. ``settings`` lists what is tried for a workload; the best per concurrency is kept."""

    name: str
    environment: Environment | None
    workloads: tuple[str, ...]
    settings: Callable[[Workload], list[dict[str, object]]]
    command: Callable[[Start], list[str]]
    request: Callable[[Workload, np.ndarray], Request]
    answer: Callable[[Workload, bytes], np.ndarray]
    variables: Callable[[Start], dict[str, str]] = lambda start: {}
    start_timeout_s: float = 90
    ready: str = ""  # a path that answers 200 once the model is there; always followed by one real, checked request
    limit: bool = False  # a bound of this machine rather than a competitor
    note: str = ""  # what a reader of the table must know


def program(environment: Environment, module: str) -> Callable[[Start], list[str]]:
    """The usual command: this package's own program for the peer, inside the peer's environment."""

    def command(start: Start) -> list[str]:
        options = {"grpc_port": start.grpc_port, "spare_port": start.spare_port, "directory": str(start.directory)}
        return [
            str(environment.python),
            "-m",
            f"bench.peers.{module}",
            start.workload.name,
            str(start.port),
            json.dumps({**options, **start.setting}),
        ]

    return command


def one_setting(workload: Workload) -> list[dict[str, object]]:
    """For servers that are run as they come."""
    return [{}]


def v2_request(workload: Workload, x: np.ndarray) -> Request:
    """V2 over REST: JSON, or the binary extension where the workload is binary."""
    path = f"/v2/models/{workload.model}/infer"
    if workload.body == "binary":
        headers, body = v2.binary_body(workload, x)
        return Request(path, body, headers)
    return Request(path, v2.json_body(workload, x))


def v2_answer(workload: Workload, body: bytes) -> np.ndarray:
    return v2.json_answer(body)


def plain_request(path: str) -> Callable[[Workload, np.ndarray], Request]:
    """For servers without V2: the same V2 JSON body at their own path, or the bare tensor for a binary workload."""

    def request(workload: Workload, x: np.ndarray) -> Request:
        if workload.body == "binary":
            return Request(path, x.tobytes(), {"Content-Type": "application/octet-stream"})
        return Request(path, v2.json_body(workload, x))

    return request


def decode_plain(workload: Workload, body: bytes, loads: Callable[[bytes], dict] = json.loads) -> np.ndarray:
    """What ``plain_request`` sent, as one row without its batch axis; used inside the peers' programs."""
    if workload.body == "binary":
        return np.frombuffer(body, np.float32).reshape(224, 224, 3)
    tensor = loads(body)["inputs"][0]
    if workload.body == "text":
        return np.array([text.encode() for text in tensor["data"]], object)
    return np.array(tensor["data"], np.float32)


def encode_plain(row: np.ndarray) -> dict[str, object]:
    """A V2-shaped answer for one row."""
    output = {"name": "output", "datatype": "FP32", "shape": [1, len(row)], "data": row.tolist()}
    return {"outputs": [output]}
