"""Graphs of real members: runner processes that a test lets answer, raise or hang."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from hyperion.policy.graph.members import name_member
from hyperion.policy.graph.signature import derive_signature
from hyperion.schema.config import RunnerConfig
from hyperion.schema.model import ModelOptions, ModelSpec, Signature, TensorSpec
from hyperion.schema.protect import Graph, GraphStep, Protection
from hyperion.schema.snapshot import ServedVersion
from tests.gateway.runners import served_by, start_runner, stop_runner
from tests.gateway.serving import UNPROTECTED, Serving, request

SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1, 3)), TensorSpec("id", "BYTES", (-1, 1))),
    (TensorSpec("scores", "FP32", (-1, -1)), TensorSpec("name", "BYTES", (-1, 1)), TensorSpec("label", "INT64", (-1,))),
)
NAMES = ("a", "b", "c")


class Steps:
    """The members `a`, `b` and `c`, for everybody who needs some."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.served: dict[str, ServedVersion] = {}
        self._configs: dict[str, RunnerConfig] = {}
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def make(self, name: str) -> None:
        """One replica of this member."""
        options = ModelOptions(env={"STEP": name, "STEPS_DIR": str(self.directory)}, threads=1, deadline_ms=5_000)
        path = str(Path(__file__).parent / "steps")
        spec = ModelSpec(name, "1", "python", path, "sha256:" + name * 64, options)
        config = RunnerConfig(f"{name}@1.g1.0", str(self.directory / f"{name}.sock"), spec, sandbox="off")
        self._configs[name] = config
        self.served[name] = msgspec.structs.replace(served_by([config]), signature=SIGNATURE)
        self.start(name)

    def start(self, name: str) -> None:
        self._processes[name] = start_runner(self._configs[name])

    def kill(self, name: str) -> None:
        stop_runner(self._processes[name])

    def tell(self, **modes: str) -> None:
        """What they do from now on; who is not named does well. Forgets their batches."""
        for name in NAMES:
            (self.directory / f"{name}.mode").write_text(modes.get(name, "well"))
            (self.directory / f"{name}.batches").write_text("")

    def batches(self, name: str) -> list[int]:
        """Rows of each batch since then."""
        return [int(line) for line in (self.directory / f"{name}.batches").read_text().split()]


@contextmanager
def run_steps(directory: Path) -> Iterator[Steps]:
    """One replica of each."""
    steps = Steps(directory)
    steps.tell()
    with ExitStack() as stack:
        for name in NAMES:
            steps.make(name)
            stack.callback(steps.kill, name)
        yield steps


async def serve_graph(
    gateway: Serving, steps: Steps, graph: Graph, protection: Protection = UNPROTECTED, deadline_ms: int = 5_000
) -> None:
    """Serves it as the endpoint `g`; each step runs the member of its own name, or of the first letter of it."""
    members = {step.name: steps.served[step.name[0]] for step in graph.steps}
    signature = derive_signature(graph, {name: one.signature for name, one in members.items()})
    version = ServedVersion(
        "graph", "sha256:g", 1, f"graph_{graph.kind}", signature, ModelOptions(deadline_ms=deadline_ms), (), graph=graph
    )
    await gateway.protect(
        ("g", version),
        protection=protection,
        members=tuple((name_member("g", name), one) for name, one in members.items()),
    )


def step(name: str, **fields: Any) -> GraphStep:
    return GraphStep(name, f"{name}@1", **fields)


def ask(rows: list[list[float]], outputs: tuple[str, ...] = (), parameters: Any = None, **headers: str | int) -> bytes:
    """A request with these rows, which are numbered from 0."""
    x = {"name": "x", "shape": [len(rows), 3], "datatype": "FP32", "data": rows}
    ids = {"name": "id", "shape": [len(rows), 1], "datatype": "BYTES", "data": [str(n) for n in range(len(rows))]}
    body: dict[str, Any] = {"inputs": [x, ids]}
    if outputs:
        body["outputs"] = [{"name": name} for name in outputs]
    if parameters:
        body["parameters"] = parameters
    return request(json.dumps(body).encode(), "/v2/models/g/infer", **headers)
