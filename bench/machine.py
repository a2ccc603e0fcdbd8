"""What a reader needs to know about the machine of a result; no host name, no user, no local path."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from bench.peer import Peer
from bench.peers.hyperion import BINARY

SHOWN = ("onnxruntime", "numpy", "uvloop", "orjson", "tokenizers", "uvicorn", "fastapi", "grpcio")


def describe() -> dict[str, object]:
    """CPU model and count, memory, kernel, Python and the load generators."""
    info = Path("/proc/cpuinfo").read_text()
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])  # type: ignore[index]
    return {
        "cpu": re.search(r"model name\s*: (.*)", info)[1],  # type: ignore[index]
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**20),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "wrk": _version(["wrk", "-v"], r"wrk \S*?(\d+\.\d+\.\d+)"),
        "h2load": _version(["h2load", "--version"], r"nghttp2/(\S+)"),
        "nginx": _version(["nginx", "-v"], r"nginx/(\S+)"),
        "hyperion": _version([BINARY, "doctor"], r"hot path +\w+ +(\w+)"),
    }


def versions(peer: Peer) -> dict[str, str]:
    """The pinned packages of a peer's environment and those that matter for speed."""
    if peer.environment is None:
        return {}
    wanted = {re.split(r"[\[=<>~]", r)[0].lower() for r in (*peer.environment.requirements[:1], *peer.environment.bare)}
    frozen = peer.environment.freeze()
    return {k: v for k, v in sorted(frozen.items()) if k.lower() in wanted or k.lower() in SHOWN}


def _version(command: list[str], pattern: str) -> str | None:
    if not shutil.which(command[0], path=os.environ.get("PATH", "") + ":/usr/sbin"):
        return None
    variables = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin"}
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else None
