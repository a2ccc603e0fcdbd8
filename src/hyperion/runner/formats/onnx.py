"""ONNX models in ONNX Runtime: the default format.

Called by `runner/load`. The path of a request through here is one `session.run` with a prebuilt list of names; models
with strings, BF16 or ZipMap outputs, which numpy or the wire have no equal of, take the way of `onnx_values`.
"""

import re
from pathlib import Path
from typing import Any

import onnxruntime

from hyperion.runner.formats.onnx_file import check_external_files, read_references
from hyperion.runner.formats.onnx_values import Conversion, plan_conversion
from hyperion.runner.model import Array, Arrays, Unary
from hyperion.runner.signature import ANY, is_batched, settle_signature
from hyperion.runner.threads import resolve_threads
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelOptions, ModelSpec, Signature, TensorSpec

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_ZIPMAP = re.compile(r"seq\(map\((int64|string),tensor\(float\)\)\)")
# For `device: auto`, best first. TensorRT and OpenVINO compile for minutes or change numerics: never automatic.
_ACCELERATORS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "MIGraphXExecutionProvider")
_ERRORS_ONLY = 3


class OnnxModel(Unary):
    """A session with its signature; `conversion` is None for models whose tensors numpy and the wire both know."""

    platform = "onnxruntime_onnx"

    def __init__(self, session: Any, signature: Signature, conversion: Conversion | None) -> None:
        self.signature = signature
        self.session = session
        self._run = session.run
        self._all_outputs = [spec.name for spec in signature.outputs]
        self._conversion = conversion

    def predict(self, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        names = outputs or self._all_outputs
        if self._conversion is not None:
            return self._conversion.run(self.session, inputs, names)
        values: list[Array] = self._run(names, inputs)
        return dict(zip(names, values, strict=True))


def load(spec: ModelSpec) -> OnnxModel:
    """The session of the ONNX file `spec.path`. Raises ModelRefused for what is unsafe, broken or not supported."""
    path = Path(spec.path)
    try:
        references = read_references(path)
    except OSError as error:
        raise ModelRefused(f"{spec.name}: cannot read {path.name}: {error.strerror}") from error
    check_external_files(path, references.external)
    session = _open_session(spec, path)
    inputs = tuple(_describe(spec.name, "input", node, {}) for node in session.get_inputs())
    outputs = tuple(_describe(spec.name, "output", node, references.classes) for node in session.get_outputs())
    batched = is_batched(inputs, outputs) and _share_first_axis(session.get_inputs())
    signature = settle_signature(spec.name, Signature(inputs, outputs, batched), spec.signature)
    return OnnxModel(session, signature, plan_conversion(inputs, outputs, references.classes))


def _open_session(spec: ModelSpec, path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = resolve_threads(spec.options.threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # The pool's threads must sleep when they wait: the cores belong to the gateways and the other runners, too. On two
    # busy cores a 784-2048-2048-1024-10 network took 20 ms a batch so, and 28 to 51 ms with spinning.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    providers = choose_providers(spec.options, onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # the runtime's exceptions have no common class
        raise ModelRefused(f"{spec.name}: {clean_message(error, path)}") from error
    if spec.options.device.startswith("cuda") and "CUDAExecutionProvider" not in session.get_providers():
        raise ModelRefused(
            f"{spec.name}: device {spec.options.device}: ONNX Runtime could not use CUDA; see `hyperion doctor`"
        )
    return session


def choose_providers(options: ModelOptions, available: list[str]) -> list[Any]:
    """Execution providers for `options.device` (auto, cpu, cuda or cuda:N), best first; the CPU is always the last.

    Raises ModelRefused when the device is asked for and this build of ONNX Runtime has no provider for it.
    """
    device, _, number = options.device.partition(":")
    cpu = "CPUExecutionProvider"
    if device == "auto":
        return [*[name for name in _ACCELERATORS if name in available][:1], cpu]
    if device == "cpu":
        return [cpu]
    if device == "cuda" and "CUDAExecutionProvider" in available:
        return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), cpu]
    raise ModelRefused(
        f"device {options.device}: this ONNX Runtime has only {', '.join(available)}; "
        "install the build for your device (for CUDA: pip install onnxruntime-gpu)"
    )


def clean_message(error: Exception, path: Path) -> str:
    """The runtime's message in one line, with the file's name in place of its path."""
    text = str(error).replace(str(path), path.name)
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", r"\1: ", text)
    return " ".join(text.split())[:500]


def _describe(model: str, side: str, node: Any, classes: dict[str, tuple[int | str, ...]]) -> TensorSpec:
    """The spec of one input or output. Free dimensions have a name, or none, in ONNX, and are -1 here."""
    datatype = _DATATYPES.get(node.type)
    if datatype is not None:
        shape = tuple(size if isinstance(size, int) and size >= 0 else ANY for size in node.shape)
        return TensorSpec(node.name, datatype, shape)
    if _ZIPMAP.fullmatch(node.type):
        if classes.get(node.name):
            return TensorSpec(node.name, "FP32", (ANY, len(classes[node.name])))
        hint = "; export the classifier with options={'zipmap': False}"
    else:
        hint = "; export the model with plain tensors"
    raise ModelRefused(f'{model}: {side} "{node.name}" has type {node.type}, which cannot be served{hint}')


def _share_first_axis(nodes: list[Any]) -> bool:
    """False when inputs name their free first axes differently: then these do not count the same rows."""
    return (
        len({node.shape[0] for node in nodes if node.shape and isinstance(node.shape[0], str) and node.shape[0]}) <= 1
    )
