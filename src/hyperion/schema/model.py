"""What a model version is: its signature, where it lies, and how its runner is to be set up."""

from msgspec import Struct


class TensorSpec(Struct, frozen=True):
    """One input or output of a model: V2 datatype and shape, where -1 means any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Signature(Struct, frozen=True):
    """The inputs and outputs of a model. `batched` says that the first axis of every tensor counts rows,
    so that requests may be merged along it; otherwise each request is computed alone. `streams` says that
    the model can answer one request with several partial answers."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool = True
    streams: bool = False


class ModelOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How one model version wants to be run. Every default is right for most models.

    `threads` 0 lets the platform divide the cores; `memory_mb` 0 sets no limit; `buckets` are the batch sizes
    (rows) that are warmed up before the replica is ready, () means 1, 8 and `max_batch_size`. The sandbox lets the
    model use the `network`, or start `processes`, only where that is asked for, and write at most `scratch_mb` of
    temporary files.
    """

    max_batch_size: int = 64
    max_delay_ms: float = 0.0
    buckets: tuple[int, ...] = ()
    replicas: int = 1
    threads: int = 0
    memory_mb: int = 0
    deadline_ms: int = 30_000
    warmup: bool = True
    trust_pickle: bool = False
    device: str = "auto"
    network: bool = False
    processes: bool = False
    scratch_mb: int = 1024
    env: dict[str, str] = {}
    labels: dict[str, str] = {}


class ModelSpec(Struct, frozen=True):
    """One model version as it lies on disk, ready to be loaded by a runner.

    `format` is the loader's name: onnx, sklearn, xgboost, lightgbm, torch, python or mlflow-pyfunc.
    `path` is the file or the directory that the loader opens. `digest` is `sha256:…` over what lies there.
    `signature` is given where the repository declares one (Triton, MLflow); None takes the model's own.
    `settings` are loader-specific (for example the class path of an MLServer model).
    """

    name: str
    version: str
    format: str
    path: str
    digest: str = ""
    options: ModelOptions = ModelOptions()
    signature: Signature | None = None
    settings: dict[str, str] = {}
    platform: str = ""
