"""NVIDIA Triton with its Python backend: the ``tritonserver`` binary that the PyTriton wheel carries, used directly.

The model repository is written at start; its ``model.py`` runs ONNX Runtime on whole batches.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from bench.env import REPOSITORY, RUNTIME, Environment
from bench.peer import HOST, Peer, Start, v2_answer, v2_request
from bench.workloads import Workload

ENVIRONMENT = Environment("triton", ("nvidia-pytriton==0.7.0", *RUNTIME))

CONFIG = """
name: "{model}"
backend: "python"
max_batch_size: {batch}
input [{{ name: "{input}" data_type: {datatype} dims: [ {dims} ] }}]
output [{{ name: "output" data_type: TYPE_FP32 dims: [ {width} ] }}]
instance_group [{{ count: {instances} kind: KIND_CPU }}]
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
"""

MODEL = """
import sys
sys.path.insert(0, {repository!r})
import numpy as np
import triton_python_backend_utils as pb
from bench import served
from bench.workloads import WORKLOADS

class TritonPythonModel:
    def initialize(self, args):
        self.predict = served.load(WORKLOADS[{workload!r}])

    def execute(self, requests):
        inputs = [pb.get_input_tensor_by_name(r, {input!r}).as_numpy() for r in requests]
        y = self.predict(np.concatenate(inputs) if len(inputs) > 1 else inputs[0])
        out, at = [], 0
        for x in inputs:
            out.append(pb.InferenceResponse([pb.Tensor("output", y[at:at + len(x)])]))
            at += len(x)
        return out
"""


def settings(workload: Workload) -> list[dict[str, object]]:
    """Dispatch at once, as Triton advises, or wait up to 1 ms for a larger batch; one or two instances."""
    return [{"delay": 0, "instances": 1}, {"delay": 1000, "instances": 1}, {"delay": 0, "instances": 2}]


def command(start: Start) -> list[str]:
    w = start.workload
    site = next(ENVIRONMENT.path.glob("lib/python3.*/site-packages"))
    version = site.parent.name.removeprefix("python")
    backend = start.directory / "backends" / "python"
    shutil.copytree(site / "pytriton" / "tritonserver" / "backends" / "python", backend)
    stub = site / "pytriton" / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, backend)
    repository = start.directory / "models"
    target = repository / w.model / "1"
    target.mkdir(parents=True)
    shape = w.samples[0].shape[1:]
    (target.parent / "config.pbtxt").write_text(
        CONFIG.format(
            model=w.model,
            batch=w.max_batch,
            input=w.input_name,
            dims=", ".join(map(str, shape)),
            width=w.width,
            datatype="TYPE_STRING" if w.datatype == "BYTES" else "TYPE_FP32",
            **start.setting,
        )
    )
    (target / "model.py").write_text(MODEL.format(repository=str(REPOSITORY), workload=w.name, input=w.input_name))
    return [
        str(site / "pytriton" / "tritonserver" / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={backend.parent}",
        f"--http-address={HOST}",
        f"--http-port={start.port}",
        f"--grpc-address={HOST}",
        f"--grpc-port={start.grpc_port}",
        f"--metrics-port={start.spare_port}",
        "--log-verbose=0",
        "--log-info=false",
        "--disable-auto-complete-config",
    ]


def variables(start: Start) -> dict[str, str]:
    """Where the server finds its libraries, and the interpreter that its stub must embed."""
    site = next(ENVIRONMENT.path.glob("lib/python3.*/site-packages"))
    return {
        "LD_LIBRARY_PATH": f"{libpython()}:{site / 'nvidia_pytriton.libs'}",
        "PATH": f"{ENVIRONMENT.path / 'bin'}:{os.environ['PATH']}",
    }


def libpython() -> str:
    """The directory of the environment's own libpython."""
    code = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    done = subprocess.run([str(ENVIRONMENT.python), "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


PEER = Peer(
    name="triton",
    environment=ENVIRONMENT,
    workloads=("small", "large", "image", "embed", "small-grpc", "image-grpc"),
    settings=settings,
    command=command,
    variables=variables,
    ready="/v2/models/{model}/ready",
    request=v2_request,
    answer=v2_answer,
    note="tritonserver from the nvidia-pytriton wheel, Python backend",
)
