"""From `hyperion serve` to the first answer, beside a bare Python process that loads the same model and runs it once.

`python bench/startup.py [--pairs 10] [--model examples/digits/…onnx]` alternates the two and prints the median of the
pairs' ratios. The client asks again every few milliseconds until it has its answer, as an impatient caller would.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BARE = """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
one = session.get_inputs()[0]
session.run(None, {one.name: np.zeros([d if isinstance(d, int) else 1 for d in one.shape], np.float32)})
"""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def bare_seconds(model: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", BARE, str(model)], check=True)
    return time.perf_counter() - started


def ask(port: int, request: bytes) -> bool:
    """Whether the server answered with 200."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(request)
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def serve_seconds(model: Path, columns: int) -> float:
    """Seconds from the start of the command to the first answer."""
    port, grpc_port, admin_port = free_ports(3)
    name = model.stem if model.stem != "model" else model.parent.name
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, columns], "datatype": "FP32", "data": [0.5] * columns}]})
    request = (
        f"POST /v2/models/{name}/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()
    with tempfile.TemporaryDirectory() as home:
        started = time.perf_counter()
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "hyperion", "serve", str(model), "--home", home, "--port", str(port)),
                *("--grpc-port", str(grpc_port), "--admin-port", str(admin_port)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not ask(port, request):
                if server.poll() is not None or time.perf_counter() - started > 60:
                    raise RuntimeError("the server did not answer")
                time.sleep(0.003)
            return time.perf_counter() - started
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--columns", type=int, required=True, help="length of the model's input x")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    pairs = []
    for _ in range(arguments.pairs):
        pairs.append((serve_seconds(arguments.model, arguments.columns), bare_seconds(arguments.model)))
        print(f"serve {pairs[-1][0]:.3f} s, bare {pairs[-1][1]:.3f} s, ratio {pairs[-1][0] / pairs[-1][1]:.2f}")
    print(f"median ratio {statistics.median(a / b for a, b in pairs):.2f}")


if __name__ == "__main__":
    main()
