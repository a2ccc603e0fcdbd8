"""PyTorch programs: `torch.export` archives (`.pt2`) and TorchScript archives (`.pt`, `.ts`).

Called by `runner/load`. Both are read with pickle or carry code, so both need trust. An exported program knows its
signature; a TorchScript archive does not: `signature.json` among its extra files says it, or its repository does.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from hyperion.runner.model import Array, Arrays, Unary
from hyperion.runner.signature import (
    ANY,
    count_rows,
    fit_outputs,
    is_batched,
    read_tensors,
    select_outputs,
    settle_signature,
)
from hyperion.runner.threads import resolve_threads
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelSpec, Signature, TensorSpec

SIGNATURE_FILE = "signature.json"
_DATATYPES = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}
_DTYPES = {datatype: dtype for dtype, datatype in _DATATYPES.items()}


class TorchModel(Unary):
    """A callable with tensors in the order of `arguments`, whose flattened results are named by `results`."""

    platform = "pytorch"

    def __init__(
        self,
        signature: Signature,
        call: Callable[..., Any],
        arguments: Sequence[TensorSpec],
        results: Sequence[str],
        device: str,
    ) -> None:
        self.signature = signature
        self._call = call
        self._arguments = [(spec.name, _DTYPES[spec.datatype]) for spec in arguments]
        self._results = tuple(results)
        self._device = device

    def predict(self, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        with torch.inference_mode():
            answer = self._call(*(self._to_tensor(inputs[name], dtype) for name, dtype in self._arguments))
        values = (
            answer if isinstance(answer, dict) else dict(zip(self._results, pytree.tree_leaves(answer), strict=False))
        )
        specs = select_outputs(self.signature, outputs)
        arrays = {spec.name: to_array(values[spec.name]) for spec in specs if spec.name in values}
        return fit_outputs(specs, arrays, count_rows(self.signature, inputs))

    def _to_tensor(self, array: Array, dtype: torch.dtype) -> torch.Tensor:
        # The array may view memory that is read-only, and a program may write to its arguments: it gets a copy.
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        return tensor.to(device=self._device, dtype=dtype)


def load(spec: ModelSpec) -> TorchModel:
    """The program in the file `spec.path`. Raises ModelRefused for what is not trusted, broken or not a program."""
    path = Path(spec.path)
    if not spec.options.trust_pickle:
        raise ModelRefused(
            f"{spec.name}: {path.name} is a PyTorch archive: loading it can run whatever code its author put in. "
            "Export the model to ONNX instead, or serve it with --trust-pickle if you trust its source"
        )
    torch.set_num_threads(resolve_threads(spec.options.threads))
    device = _choose_device(spec)
    try:
        return _load_exported(spec, path, device) if path.suffix == ".pt2" else _load_script(spec, path, device)
    except ModelRefused:
        raise
    except Exception as error:
        reason = " ".join(str(error).replace(str(path), path.name).split())
        hint = ""
        if path.suffix != ".pt2":
            hint = "; a state dict or a pickled module is no program: save it with torch.export.save"
        raise ModelRefused(f"{spec.name}: cannot load {path.name}: {reason[:300]}{hint}") from error


def _choose_device(spec: ModelSpec) -> str:
    wanted = spec.options.device
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelRefused(f"{spec.name}: device {wanted}: this PyTorch sees no CUDA device")
    return wanted


def _load_exported(spec: ModelSpec, path: Path, device: str) -> TorchModel:
    program = torch.export.load(path)
    if device != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    names = program.graph_signature.user_inputs
    inputs = tuple(_describe(spec.name, "input", str(name), values.get(str(name))) for name in names)
    results = _name_results(program.call_spec.out_spec)
    found = program.graph_signature.user_outputs
    outputs = tuple(
        _describe(spec.name, "output", name, values.get(str(node))) for name, node in zip(results, found, strict=True)
    )
    own = Signature(inputs, outputs, is_batched(inputs, outputs))
    signature = settle_signature(spec.name, own, spec.signature)
    module, in_spec = program.module(), program.call_spec.in_spec

    def call(*tensors: torch.Tensor) -> Any:
        args, kwargs = pytree.tree_unflatten(list(tensors), in_spec)
        return module(*args, **kwargs)

    return TorchModel(signature, call, inputs, results, device)


def _name_results(out_spec: Any) -> tuple[str, ...]:
    """Names of the flattened results: the keys of a dict, `output` for one, `output_0`, `output_1`, … for several."""
    if out_spec.type is dict:
        return tuple(map(str, out_spec.context))
    count = out_spec.num_leaves
    return ("output",) if count == 1 else tuple(f"output_{index}" for index in range(count))


def _describe(model: str, side: str, name: str, value: Any) -> TensorSpec:
    datatype = _DATATYPES.get(getattr(value, "dtype", None))
    if datatype is None:
        raise ModelRefused(f'{model}: {side} "{name}" of the program is not a tensor of a type that can be served')
    shape = tuple(size if isinstance(size, int) else ANY for size in value.shape)
    return TensorSpec(name, datatype, shape)


def _load_script(spec: ModelSpec, path: Path, device: str) -> TorchModel:
    files = {SIGNATURE_FILE: ""}
    module = torch.jit.load(path, map_location=device, _extra_files=files)
    module.eval()
    signature = spec.signature
    if files[SIGNATURE_FILE]:
        signature = settle_signature(spec.name, _read_signature(spec.name, files[SIGNATURE_FILE]), spec.signature)
    if signature is None:
        raise ModelRefused(
            f"{spec.name}: {path.name} does not say what its inputs and outputs are; save it with "
            f"torch.jit.save(module, path, _extra_files={{'{SIGNATURE_FILE}': …}}), "
            "or better with torch.export.save as .pt2"
        )
    for tensor in (*signature.inputs, *signature.outputs):
        if tensor.datatype not in _DTYPES:
            raise ModelRefused(f'{spec.name}: "{tensor.name}": PyTorch has no tensors of {tensor.datatype}')
    arguments = [argument.name for argument in module.forward.schema.arguments[1:]]
    if len(arguments) != len(signature.inputs):
        raise ModelRefused(
            f"{spec.name}: {len(signature.inputs)} inputs are declared, the program takes {', '.join(arguments)}"
        )
    by_name = {tensor.name: tensor for tensor in signature.inputs}
    # By name where the names are those of the program's arguments, else in the declared order (Triton's INPUT__0).
    order = [by_name[name] for name in arguments] if by_name.keys() == set(arguments) else list(signature.inputs)
    return TorchModel(signature, module, order, [tensor.name for tensor in signature.outputs], device)


def _read_signature(model: str, text: str | bytes) -> Signature:
    """The signature in `{"inputs": {name: [datatype, shape]}, "outputs": {…}}`."""
    try:
        notes = json.loads(text)
        sides = notes["inputs"], notes["outputs"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelRefused(f"{model}: {SIGNATURE_FILE} needs inputs and outputs, it has {text!r:.80}") from error
    where = f"{model}: {SIGNATURE_FILE}"
    inputs, outputs = read_tensors(where, "inputs", sides[0]), read_tensors(where, "outputs", sides[1])
    return Signature(inputs, outputs, is_batched(inputs, outputs))


def to_array(value: Any) -> Array:
    """A tensor as numpy sees it; BF16, which numpy lacks, as float32."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"the program returned a {type(value).__name__} where its signature has a tensor")
    tensor = value.detach()
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()
    array: Array = tensor.cpu().numpy()
    return array
