"""Closed-loop load for peaks: ``wrk -t1`` over HTTP, ``h2load -t1`` over gRPC, both C programs that cost little.

Called by ``trial``. Every connection sends its next request when the last one is answered, so the figures are
throughput at a concurrency; latency belongs to ``latency``.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench import v2
from bench.peer import HOST
from bench.process import Server

# wrk asks for the next request once per send: whole requests are read once and handed out in turn.
_LUA = """
local requests = {}
for i = 0, COUNT - 1 do
  local f = io.open(string.format("DIR/%d", i), "rb")
  requests[i + 1] = f:read("*a")
  f:close()
end
local i = 0
request = function()
  i = i + 1
  return requests[i % COUNT + 1]
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'JSON{"requests":%d,"duration_us":%d,"status":%d,"socket":%d,"timeout":%d,"p50":%d,"p99":%d}\\n',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write, e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Load:
    """What a closed loop saw: answered requests, those not answered 2xx or at all, seconds, latencies in ms."""

    requests: int
    errors: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        return (self.requests - min(self.errors, self.requests)) / self.seconds


def drive(server: Server, concurrency: int, seconds: float) -> Load:
    """Keep ``concurrency`` requests in flight for ``seconds``."""
    return (_h2load if server.workload.transport == "grpc" else _wrk)(server, concurrency, seconds)


def _wrk(server: Server, concurrency: int, seconds: float) -> Load:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        requests = [server.peer.request(server.workload, x).raw() for x in server.workload.samples]
        for i, raw in enumerate(requests):
            (directory / str(i)).write_bytes(raw)
        script = directory / "load.lua"
        script.write_text(_LUA.replace("COUNT", str(len(requests))).replace("DIR", name))
        command = [
            "wrk",
            "-t1",
            f"-c{concurrency}",
            f"-d{seconds:g}s",
            "--timeout",
            "20s",
            "-s",
            str(script),
            f"http://{HOST}:{server.port}/",
        ]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seen = json.loads(re.search(r"JSON(\{.*\})", out)[1])  # type: ignore[index]
    return Load(
        seen["requests"],
        seen["status"] + seen["socket"] + seen["timeout"],
        seen["duration_us"] / 1e6,
        seen["p50"] / 1e3,
        seen["p99"] / 1e3,
    )


def _h2load(server: Server, concurrency: int, seconds: float) -> Load:
    """gRPC: up to 8 connections with streams multiplexed; a call that failed has no message, which the bytes show."""
    workload = server.workload
    message = v2.grpc_request(workload, workload.samples[0], workload.model)
    answer = len(_answer_frame(server, message))
    connections = min(8, concurrency)
    with tempfile.NamedTemporaryFile() as body:
        body.write(v2.grpc_frame(message))
        body.flush()
        command = [
            "h2load",
            "-t1",
            f"-c{connections}",
            f"-m{concurrency // connections}",
            f"-D{max(1, round(seconds))}",
            "-d",
            body.name,
            "-w24",
            "-W24",
            "-H",
            "content-type: application/grpc",
            "-H",
            "te: trailers",
            f"http://{HOST}:{server.grpc_port}{v2.GRPC_PATH}",
        ]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = float(re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", out)[1])  # type: ignore[index]
    done, failed = (
        int(re.search(rf"(\d+) {word}", out)[1])  # type: ignore[index]
        for word in ("2xx", "failed")
    )
    data = int(re.search(r"\((\d+)\) data", out)[1])  # type: ignore[index]
    mean_ms = _milliseconds(re.search(r"time for request:\s+\S+\s+\S+\s+(\S+)", out)[1])  # type: ignore[index]
    messages = min(done, round(data / answer))
    measured = done / rate if rate else seconds
    return Load(done, failed + done - messages, measured, mean_ms, float("nan"))


def _answer_frame(server: Server, message: bytes) -> bytes:
    from bench.client import call_grpc

    return v2.grpc_frame(call_grpc(server.grpc_port, message))


def _milliseconds(text: str) -> float:
    number, unit = re.match(r"([\d.]+)(\w+)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]
