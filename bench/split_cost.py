"""Where a request's time goes inside Hyperion: parsing, copying, computing, the rest.

Two views. One request at a time: the ``server-timing`` header against the wall clock of the client. Under load: each
process's CPU per request from /proc, divided by what py-spy sees it doing.
"""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from bench import trial
from bench.closedloop import drive
from bench.peer import HOST, Peer
from bench.process import Server
from bench.results import Results
from bench.workloads import Workload

CONCURRENCY = 16
# The innermost frame that matches names the bucket, by the first pattern that matches it. py-spy gives C code to the
# Python frame that called it: the event loops' own frames are their system calls, the end of a message is the join of
# the pieces of its body.
BUCKETS = (
    ("compute", re.compile(r"onnxruntime|runner/(onnx|python)")),
    ("sockets", re.compile(r"asyncio/|RunnerLoop\.run|\b_?(write|recv|send|receive|send_bytes) (?!.*ring)")),
    (
        "copy",
        re.compile(r"on_message_complete|on_body|ring\.py|wire/frame|runner/formats/frame|concatenate|stack|merge"),
    ),
    ("parse", re.compile(r"wire/|gateway/http|json|decode|parse|encode|validate")),
)
NAMES = (*(name for name, _ in BUCKETS), "other")


def run_split(results: Results, peer: Peer, workload: Workload, seconds: float) -> None:
    """Both views, stored under ``split``."""
    with Server(peer, workload, {}) as server:
        trial.warm_up(server, CONCURRENCY, 2)
        alone = _one_at_a_time(server, 200)
        loaded, hot = _under_load(server, seconds)
    figures = {"one_at_a_time_ms": alone, "under_load": loaded, "hottest": hot}
    results.put("split", {"peer": peer.name}, figures)
    print(f"  split {workload.name}: {alone}\n  {loaded}\n  {hot}", file=sys.stderr, flush=True)


def _one_at_a_time(server: Server, count: int) -> dict[str, float]:
    """Medians in ms: what the server says of itself, and the whole as the client sees it."""
    connection = http.client.HTTPConnection(HOST, server.port)
    seen: dict[str, list[float]] = {"wall": []}
    requests = [server.peer.request(server.workload, x) for x in server.workload.samples]
    for i in range(count):
        request = requests[i % len(requests)]
        begun = time.perf_counter()
        connection.request("POST", request.path, request.body, {"Content-Type": "application/json", **request.headers})
        answer = connection.getresponse()
        answer.read()
        seen["wall"].append((time.perf_counter() - begun) * 1e3)
        for name, value in re.findall(r"([\w-]+)\s*;\s*dur=([\d.]+)", answer.getheader("server-timing") or ""):
            seen.setdefault(name, []).append(float(value))
    connection.close()
    return {name: round(float(np.median(values)), 4) for name, values in seen.items()}


def _under_load(server: Server, seconds: float) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """µs of CPU per request by process role and bucket; and by role the functions where most samples were."""
    roles = {pid: role for pid in server.pids() if (role := _role(pid)) in ("gateway", "runner")}
    with tempfile.TemporaryDirectory() as directory:
        files = {pid: Path(directory) / str(pid) for pid in roles}
        before = {pid: _cpu_s(pid) for pid in roles}
        spies = [_spy(pid, path, seconds) for pid, path in files.items()]
        loads: list = []
        thread = threading.Thread(target=lambda: loads.append(drive(server, CONCURRENCY, seconds + 1)))
        thread.start()
        thread.join()
        used = {pid: _cpu_s(pid) - before[pid] for pid in roles}
        for spy in spies:
            spy.wait(timeout=30)
        stacks = {pid: path.read_text() if path.exists() else "" for pid, path in files.items()}
    requests = loads[0].requests
    out: dict[str, dict[str, float]] = {}
    hot: dict[str, dict[str, float]] = {}
    for pid, role in roles.items():
        per_request = used[pid] / requests * 1e6
        shares = bucket_shares(stacks[pid])
        hot[role] = hottest(stacks[pid])
        out[role] = {"cpu_us": per_request, **{name: share * per_request for name, share in shares.items()}}
    return {role: {name: round(value, 1) for name, value in parts.items()} for role, parts in out.items()}, hot


def bucket_shares(raw: str) -> dict[str, float]:
    """Shares of the samples in py-spy's raw format (``outer;…;inner count`` per line) by bucket."""
    counts: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        counts[_bucket(stack.split(";"))] += int(count)
    total = sum(counts.values()) or 1
    return {name: counts[name] / total for name in NAMES}


def hottest(raw: str, most: int = 8) -> dict[str, float]:
    """The functions where the samples were, by share; ``name (file)`` without line numbers."""
    counts: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        counts[re.sub(r":\d+\)$", ")", stack.rpartition(";")[2])] += int(count)
    total = sum(counts.values()) or 1
    return {name: round(count / total, 3) for name, count in counts.most_common(most)}


def _bucket(frames: list[str]) -> str:
    for frame in reversed(frames):
        for name, pattern in BUCKETS:
            if pattern.search(frame):
                return name
    return "other"


def _spy(pid: int, path: Path, seconds: float) -> subprocess.Popen[bytes]:
    command = ["-o", str(path), "-f", "raw", "-r", "250", "-d", str(int(seconds)), "-p", str(pid), "--nonblocking"]
    spy = Path(sys.executable).with_name("py-spy")
    return subprocess.Popen([str(spy), "record", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _role(pid: int) -> str:
    line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return next((role for role in ("supervisor", "control", "gateway", "runner") if role in line.split()), "")


def _cpu_s(pid: int) -> float:

    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
