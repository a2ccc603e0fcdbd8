"""One request at a time, to see that a server is ready and answers with the model's own numbers.

Called by ``process`` before every trial. A server that answers fast and wrong is not measured.
"""

from __future__ import annotations

import functools
import http.client

import numpy as np

from bench import served, v2
from bench.peer import HOST, Peer, Request
from bench.workloads import WORKLOADS, Workload

TOLERANCE = 2e-3  # batches and thread counts reorder sums; the text model pads, which moves the last digits
TIMEOUT_S = 20


def send(port: int, request: Request) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body of one HTTP request on its own connection."""
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
    try:
        headers = {"Content-Type": "application/json", **request.headers}
        connection.request(request.method, request.path, request.body or None, headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def call_grpc(port: int, message: bytes) -> bytes:
    """One unary ModelInfer with bytes in and bytes out."""
    import grpc

    limits = [("grpc.max_send_message_length", 64 << 20)]
    with grpc.insecure_channel(f"{HOST}:{port}", options=limits) as channel:
        return channel.unary_unary(v2.GRPC_PATH)(message, timeout=TIMEOUT_S)


def first_problem(peer: Peer, workload: Workload, port: int, grpc_port: int) -> str:
    """Why the server cannot be measured yet; empty when its answers to the first inputs are right."""
    try:
        if peer.ready:
            status, _, _ = send(port, Request(peer.ready.format(model=workload.model), b"", method="GET"))
            if status != 200:
                return f"{peer.ready} answers {status}"
        for i, x in enumerate(workload.samples[:3]):
            if workload.transport == "grpc":
                y = v2.grpc_answer(call_grpc(grpc_port, v2.grpc_request(workload, x, workload.model)))
            else:
                status, _, body = send(port, peer.request(workload, x))
                if status != 200:
                    return f"status {status}: {body[:300]!r}"
                y = peer.answer(workload, body)
            if peer.limit:
                continue
            want = expected(workload.name, i)
            if y.size != want.size:
                return f"expected {want.size} numbers, got {y.size}"
            if not np.allclose(y.ravel(), want.ravel(), atol=TOLERANCE):
                return f"wrong answer to input {i}: {y.ravel()[:4]} instead of {want.ravel()[:4]}"
    except Exception as problem:  # anything that goes wrong here means: not ready yet
        return f"{type(problem).__name__}: {problem}"
    return ""


@functools.cache
def _model(name: str) -> served.Predict:
    return served.load(WORKLOADS[name])


@functools.cache
def expected(name: str, index: int) -> np.ndarray:
    """The bare model's answer to one input of the workload."""
    return _model(name)(WORKLOADS[name].samples[index])
