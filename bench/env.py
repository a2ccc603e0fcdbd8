"""Where the benchmark keeps what it builds, and the virtual environment of each server under test.

Called by the command line. Everything lives under one directory that git ignores (``bench/.cache``, or
``BENCH_CACHE``); nothing is ever installed into the interpreter that runs this.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
CACHE = Path(os.environ.get("BENCH_CACHE", HERE / ".cache"))
RESULTS = HERE / "results"
MODELS = CACHE / "models"

# What the harness itself needs; `python -m bench` moves into this environment by itself.
HARNESS = (
    "numpy==2.4.6",
    "onnxruntime==1.31.1",
    "tokenizers==0.23.3",
    "scikit-learn",
    "onnx",
    "safetensors",
    "matplotlib",
    "uvloop==0.23.0",
    "httptools",
    "orjson==3.13.0",
    "grpcio",
    "py-spy",
)
# What every Python peer runs the models with: the same version for all of them.
RUNTIME = ("onnxruntime==1.31.1", "tokenizers==0.23.3")


@dataclass(frozen=True)
class Environment:
    """One virtual environment: ``requirements`` are pinned; ``bare`` ones are installed without their dependencies."""

    name: str
    requirements: tuple[str, ...]
    bare: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return CACHE / "venvs" / self.name

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    def install(self) -> None:
        """Create it and install what it needs, unless the same requirements were installed before."""
        want = "\n".join([*self.requirements, "--", *self.bare])
        stamp = self.path / "bench-requirements"
        if stamp.exists() and stamp.read_text() == want:
            return
        print(f"installing {self.name}: {' '.join(self.requirements + self.bare)}", file=sys.stderr, flush=True)
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(self.path)], check=True)
        self._pip("install", "-q", *self.requirements)
        if self.bare:
            self._pip("install", "-q", "--no-deps", *self.bare)
        stamp.write_text(want)

    def freeze(self) -> dict[str, str]:
        """Installed versions by package name."""
        out = subprocess.run(
            [str(self.python), "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True
        ).stdout
        return dict(line.split("==", 1) for line in out.splitlines() if "==" in line)

    def _pip(self, *arguments: str) -> None:
        done = subprocess.run([str(self.python), "-m", "pip", *arguments], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"bench: installing {self.name} failed:\n{done.stderr[-2000:]}")


def enter_harness(arguments: Sequence[str]) -> None:
    """Replace this process by the same command inside the harness's environment, made first if it is not there.

    Of Hyperion itself only the load generator is used there, which needs nothing but what HARNESS has.
    """
    harness = Environment("harness", HARNESS)
    if Path(sys.prefix).resolve() == harness.path.resolve():
        sys.path.append(str(REPOSITORY / "src"))
        return
    harness.install()
    # What the caller put first stays first: `make bench` names the compiled package so.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(REPOSITORY)))),
    }
    os.execve(str(harness.python), [str(harness.python), "-m", "bench", *arguments], environment)


def timestamp() -> str:
    """UTC, fit for a file name."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def digest(path: Path) -> str:
    """First 12 hex digits of a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
