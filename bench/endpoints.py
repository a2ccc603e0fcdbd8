"""`hyperion serve` with endpoints of one small model, and `wrk` that asks them in turn: for benches that compare what
endpoints ask for. Closed loop, over HTTP; every request may be another one.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np

from bench.stats import median_ratio

CONNECTIONS = 64
PROGRAM = [sys.executable, "-m", "hyperion"]
# Two numbers of as many digits each, exact as FP32: no run repeats what an earlier one has sent, and one text is cut
# and joined for each request, as wrk must not be what is measured.
SCRIPT = """
local values = {}
for i = 1, 18 do values[i] = string.format("%.4f", i * 0.1 - 1) end
local start = '{"inputs":[{"name":"input","shape":[1,20],"datatype":"FP32","data":['
local rest = "," .. table.concat(values, ",") .. "]}]}"
local size = #start + 15 + #rest
local head = "POST /v2/models/ENDPOINT/infer HTTP/1.1\\r\\nhost: 127.0.0.1\\r\\ncontent-type: application/json\\r\\n" ..
  "HEADERScontent-length: " .. size .. "\\r\\n\\r\\n" .. start .. "RUN,"
local n, distinct = 0, DISTINCT
request = function()
  n = n + 1
  if distinct > 0 and n >= distinct then n = 0 end
  return head .. (1000000 + n) .. rest
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('JSON{"requests":%d,"us":%d,"bad":%d}\\n', summary.requests, summary.duration,
    e.status + e.connect + e.read + e.write + e.timeout))
end
"""


class Platform:
    """`hyperion serve` with endpoints (name: fields of the spec, as YAML) and other resources, until the block ends.
    With `tenant` all requests carry a key of it."""

    def __init__(self, directory: Path, endpoints: dict[str, str], resources: str = "", tenant: str = "") -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.endpoints, self.resources, self.tenant = endpoints, resources, tenant
        self.headers = ""
        self.port, self.grpc, self.admin = _free_ports(3)
        self.runs = 0

    def __enter__(self) -> Platform:
        ports = ["--port", self.port, "--grpc-port", self.grpc, "--admin-port", self.admin]
        options = ["--home", self.directory / "home", "--gateway-workers", 1, *ports]
        log = (self.directory / "log").open("w")
        self.process = subprocess.Popen([*PROGRAM, "serve", *map(str, options)], stdout=log, stderr=log)
        self._until_answers("/livez", self.admin)
        model = self.directory / "small.onnx"
        build_small(model)
        self._run("model", "push", "small", str(model))
        if self.resources:
            (self.directory / "resources.yaml").write_text(self.resources)
            self._run("apply", "--yes", "-f", str(self.directory / "resources.yaml"))
        if self.tenant:
            made = json.loads(self._run("key", "create", "--tenant", self.tenant, "--json"))
            self.headers = f"authorization: Bearer {made['key']}\\r\\n"
        for name, fields in self.endpoints.items():
            path = self.directory / f"{name}.yaml"
            path.write_text(
                f"apiVersion: hyperion/v1\nkind: Endpoint\nmetadata: {{name: {name}}}\n"
                f"spec:\n  model: small@1\n  {fields}\n"
            )
            self._run("apply", "--yes", "-f", str(path))
        for name in self.endpoints:
            self._until_answers(f"/v2/models/{name}/ready", self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)

    def _run(self, *command: str) -> bytes:
        where = ["--url", f"http://127.0.0.1:{self.admin}", "--home", str(self.directory / "home")]
        return subprocess.run([*PROGRAM, *command, *where], check=True, stdout=subprocess.PIPE).stdout

    def _until_answers(self, path: str, port: int) -> None:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").close()
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"{path} did not answer; see {self.directory / 'log'}")

    def drive(
        self, endpoint: str, distinct: int, seconds: float, connections: int = CONNECTIONS
    ) -> tuple[float, float]:
        """Answered requests per second, of which none may fail, and the CPU µs of all of the platform's processes per
        request, which say something on a busy machine, too. `distinct` 0 makes every request another one."""
        self.runs += 0 if distinct else 1
        run = str(1_000_000 + self.runs)
        script = SCRIPT.replace("DISTINCT", str(distinct)).replace("RUN", run).replace("ENDPOINT", endpoint)
        script = script.replace("HEADERS", self.headers)
        path = self.directory / "load.lua"
        path.write_text(script)
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds:g}s",
            "-s",
            str(path),
            f"http://127.0.0.1:{self.port}/",
        ]
        before_s = _cpu_s(self.process.pid)
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        used_s = _cpu_s(self.process.pid) - before_s
        seen = json.loads(re.search(r"JSON(\{.*\})", out)[1])  # type: ignore[index]
        if seen["bad"]:
            raise SystemExit(f"{seen['bad']} requests to {endpoint} failed")
        return seen["requests"] / seen["us"] * 1e6, used_s / seen["requests"] * 1e6

    def metrics(self) -> list[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return [line for line in lines if line.startswith("hyperion_cache_total{")]


def build_small(path: Path) -> None:
    """20 → 64 → 32 → 2 with random weights: what it says does not matter here."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    nodes, weights, last = [], [], "input"
    for layer, (wide, narrow) in enumerate(((20, 64), (64, 32), (32, 2))):
        weights.append(numpy_helper.from_array(draw.normal(size=(wide, narrow)).astype("f4") / wide**0.5, f"w{layer}"))
        weights.append(numpy_helper.from_array(np.zeros(narrow, "f4"), f"b{layer}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [f"g{layer}"]))
        last = f"a{layer}" if layer < 2 else "output"
        nodes.append(helper.make_node("Relu" if layer < 2 else "Softmax", [f"g{layer}"], [last]))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", w]) for n, w in (("input", 20), ("output", 2))]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def _cpu_s(root: int) -> float:
    """What a process and its children have used."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        pid = int(path.parent.name)
        parents[pid], used[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    family = {root}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return sum(used.get(pid, 0.0) for pid in family)


def _free_ports(count: int) -> list[int]:
    free = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in free]
    for one in free:
        one.close()
    return ports


Side = tuple[Platform, str]


def compare(a: Side, b: Side, distinct: int, pairs: int, seconds: float, connections: int = CONNECTIONS) -> None:
    """Prints how many times the throughput of the endpoint `b`, and its requests per CPU second, those of `a` are."""
    rates: dict[str, list[float]] = {a[1]: [], b[1]: []}
    costs: dict[str, list[float]] = {a[1]: [], b[1]: []}
    for n in range(pairs):
        for platform, name in (a, b) if n % 2 == 0 else (b, a):
            rate, cost_us = platform.drive(name, distinct, seconds, connections)
            rates[name].append(rate)
            costs[name].append(cost_us)
    what = f"{distinct} distinct" if distinct else "all unique"
    what = f"{what} on {connections}"
    medians = ", ".join(f"{name} {np.median(rates[name]):,.0f}/s {np.median(costs[name]):.1f} µs" for name in rates)
    print(f"{what:18} {a[1]} / {b[1]}: rate {median_ratio(*rates.values())}", end="", flush=True)
    print(f", per CPU {median_ratio(costs[b[1]], costs[a[1]])}  ({medians})", flush=True)
