"""What a `config.pbtxt` asks for, in our words; and a refusal that names the field for what we do not do.

Called by `triton`. Pure: a parsed message in, options out.
"""

import json
from typing import Any

from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import Signature, TensorSpec

FILE = "config.pbtxt"
# TYPE_INVALID has no datatype.
DATATYPES: tuple[str, ...] = (
    "", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64",
    "BYTES", "BF16",
)  # fmt: skip
MAX_RANK = 8
_SUPPORTED = frozenset(
    {"name", "platform", "backend", "version_policy", "max_batch_size", "input", "output", "dynamic_batching"}
    | {"instance_group", "default_model_filename", "model_warmup", "parameters", "optimization"}
)
# For the fields that people do use: what the field asks for, and what to do instead.
_ADVICE: dict[str, tuple[str, str]] = {
    "sequence_batching": (
        "state that is kept between requests",
        "send whole sequences to a Python model, or remove it",
    ),
    "ensemble_scheduling": ("a pipeline of several models", "serve the steps as models of their own"),
    "cc_model_filenames": ("a different file per GPU generation", "remove it and keep one file"),
    "metric_tags": ("labels of its own in the metrics", "remove it"),
    "model_operations": ("custom operator libraries", "use a Python model that loads them"),
    "model_transaction_policy": ("any number of answers per request", "use a Python model with stream()"),
    "model_repository_agents": ("agents that change the model before it is loaded", "apply them beforehand"),
    "response_cache": ("a response cache", "remove it"),
    "batch_input": ("inputs made from the batch itself", "remove it"),
    "batch_output": ("outputs scattered by the batch", "remove it"),
    "model_metrics": ("histograms of its own", "remove it"),
    "runtime": ("a backend library of its own", "remove it"),
}


def refuse(field: str, asks: str, advice: str = "remove it") -> ModelRefused:
    """The error for a field that we know and do not do."""
    return ModelRefused(f'{FILE}: field "{field}" asks for {asks}, which Hyperion does not do; {advice}')


def refuse_unsupported(config: Any) -> None:
    """Raises ModelRefused for the first field with a value of its own that nothing below reads."""
    for field, value in config.ListFields():
        if field.name in _SUPPORTED:
            continue
        # An empty message (`response_cache {}`) asks for nothing, unless its mere presence chooses a scheduler.
        if field.containing_oneof is None and _is_empty(value):
            continue
        asks, advice = _ADVICE.get(field.name, ("something", "remove it"))
        raise refuse(field.name, asks, advice)


def _is_empty(value: Any) -> bool:
    return hasattr(value, "ListFields") and not value.ListFields()


def _allow(message: Any, path: str, allowed: str) -> None:
    """Raises ModelRefused for a field of `message` that has a value of its own and is not among the `allowed`."""
    known = allowed.split()
    for field, value in message.ListFields():
        if field.name not in known and not _is_empty(value):
            raise refuse(f"{path}.{field.name}", _shown(value))


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return repr(text if len(text) <= 60 else text[:57] + "...")


def read_signature(config: Any) -> Signature | None:
    """The declared signature, with the batch axis that `max_batch_size` implies; None when nothing is declared."""
    if not config.input and not config.output:
        return None
    if not config.input or not config.output:
        missing = "output" if config.input else "input"
        raise ModelRefused(f'{FILE}: "{missing}" is missing; declare all inputs and outputs, or none of them')
    batched = config.max_batch_size > 0
    inputs = tuple(_read_tensor(tensor, "input", batched) for tensor in config.input)
    outputs = tuple(_read_tensor(tensor, "output", batched) for tensor in config.output)
    for kind, tensors in (("input", inputs), ("output", outputs)):
        names = [tensor.name for tensor in tensors]
        if len(set(names)) != len(names):
            raise ModelRefused(f"{FILE}: {kind}: two tensors have the same name")
    return Signature(inputs, outputs, batched)


def _read_tensor(tensor: Any, kind: str, batched: bool) -> TensorSpec:
    path = f'{kind} "{tensor.name[:80]}"'
    if not tensor.name:
        raise ModelRefused(f"{FILE}: {kind}: a tensor without a name")
    # `format` only describes the image layout to clients; ONNX Runtime computes the same with and without it.
    _allow(tensor, path, "name data_type format dims reshape")
    if not 0 < tensor.data_type < len(DATATYPES):
        raise ModelRefused(f"{FILE}: {path}: expected a data_type such as TYPE_FP32")
    dims = tuple(tensor.dims)
    if not dims or len(dims) > MAX_RANK - 1 or any(size < 1 and size != -1 for size in dims):
        raise ModelRefused(f"{FILE}: {path}: expected dims of 1 to {MAX_RANK - 1} sizes, each -1 or at least 1")
    if tensor.HasField("reshape") and tuple(tensor.reshape.shape) != dims:
        shape = list(tensor.reshape.shape)
        raise refuse(
            f"{path}.reshape",
            f"dims {list(dims)} to be seen as {shape}",
            "declare the model's own dims",
        )
    return TensorSpec(tensor.name, DATATYPES[tensor.data_type], (-1, *dims) if batched else dims)


def read_options(config: Any, signature: Signature | None) -> dict[str, Any]:
    """The ModelOptions that the configuration sets, by name."""
    options: dict[str, Any] = {}
    if config.max_batch_size < 0:
        raise ModelRefused(f"{FILE}: max_batch_size: expected 0 or more, got {config.max_batch_size}")
    if config.max_batch_size > 0:
        options["max_batch_size"] = config.max_batch_size
    elif signature is not None:
        options["max_batch_size"] = 1
    sizes = _read_batching(config, options) | _read_warmup(config, signature)
    most = options.get("max_batch_size", 1)
    for size in sizes:
        if not 1 <= size <= most:
            raise ModelRefused(f"{FILE}: batch size {size} in dynamic_batching or model_warmup: expected 1 to {most}")
    if sizes:
        options["buckets"] = tuple(sorted(sizes | {1, most}))
    _read_instances(config, options)
    _read_optimization(config)
    _read_parameters(config, options)
    return options


def _read_batching(config: Any, options: dict[str, Any]) -> set[int]:
    """Sets the delay; returns the preferred batch sizes."""
    if not config.HasField("dynamic_batching"):
        return set()
    batching = config.dynamic_batching
    if batching.preserve_ordering:
        raise refuse(
            "dynamic_batching.preserve_ordering",
            "answers in the order of the requests",
            "remove it: each answer goes to its own request, the earliest deadline first",
        )
    _allow(batching, "dynamic_batching", "preferred_batch_size max_queue_delay_microseconds default_queue_policy")
    # Its fields have defaults that ask for nothing; whatever is left has a value of its own.
    _allow(batching.default_queue_policy, "dynamic_batching.default_queue_policy", "")
    if batching.max_queue_delay_microseconds:
        options["max_delay_ms"] = batching.max_queue_delay_microseconds / 1000
    return set(batching.preferred_batch_size)


def _read_warmup(config: Any, signature: Signature | None) -> set[int]:
    """Checks the warm-up samples; returns the batch sizes that they want warmed up."""
    declared = {tensor.name: tensor for tensor in signature.inputs} if signature else {}
    sizes = set()
    dims: dict[str, list[int]] = {}
    for sample in config.model_warmup:
        path = f'model_warmup "{sample.name[:80]}"'
        sizes.add(sample.batch_size or 1)
        for name, tensor in sample.inputs.items():
            where = f'{path} input "{name[:80]}"'
            if tensor.WhichOneof("input_data_type") == "input_data_file":
                raise refuse(f"{where}.input_data_file", "a file of sample data", "use zero_data or random_data")
            if tensor.WhichOneof("input_data_type") is None:
                raise ModelRefused(f"{FILE}: {where}: expected zero_data: true or random_data: true")
            if dims.setdefault(name, list(tensor.dims)) != list(tensor.dims):
                raise refuse(f"{where}.dims", "a warm-up with several shapes", "keep the samples of one shape")
            if declared:
                _check_sample(tensor, declared.get(name), where, signature is not None and signature.batched)
    return sizes


def _check_sample(tensor: Any, declared: TensorSpec | None, where: str, batched: bool) -> None:
    if declared is None:
        raise ModelRefused(f"{FILE}: {where}: the model has no input of that name")
    shape = declared.shape[1:] if batched else declared.shape
    dims = tuple(tensor.dims)
    fits = len(dims) == len(shape) and all(want in (-1, got) for want, got in zip(shape, dims, strict=True))
    if not fits or any(size < 1 for size in dims):
        raise ModelRefused(f"{FILE}: {where}: expected dims that fit {list(shape)}, got {list(dims)}")
    if not 0 < tensor.data_type < len(DATATYPES) or DATATYPES[tensor.data_type] != declared.datatype:
        raise ModelRefused(f"{FILE}: {where}: expected the input's data type, {declared.datatype}")


def warmup_shapes(config: Any) -> str:
    """JSON `{input: dims without the batch axis}` of the first warm-up sample, or ""; it settles variable axes."""
    if not config.model_warmup:
        return ""
    return json.dumps({name: list(tensor.dims) for name, tensor in sorted(config.model_warmup[0].inputs.items())})


def _read_instances(config: Any, options: dict[str, Any]) -> None:
    """Instances become replicas, a process each; all of a version's are on one device."""
    devices = set()
    replicas = 0
    for group in config.instance_group:
        _allow(group, "instance_group", "name count gpus kind")
        if group.count < 0:
            raise ModelRefused(f"{FILE}: instance_group.count: expected 0 or more, got {group.count}")
        if group.kind not in (0, 1, 2):
            raise refuse("instance_group.kind", "KIND_MODEL", "choose KIND_CPU or KIND_GPU")
        if group.kind == 2 and group.gpus:
            raise ModelRefused(f"{FILE}: instance_group.gpus: KIND_CPU has none")
        if len(set(group.gpus)) > 1:
            raise refuse(
                "instance_group.gpus",
                f"one model on {len(set(group.gpus))} GPUs",
                "name one GPU, and serve a second copy under another name for the next",
            )
        if group.gpus and group.gpus[0] < 0:
            raise ModelRefused(f"{FILE}: instance_group.gpus: expected 0 or more, got {group.gpus[0]}")
        gpu = f"cuda:{group.gpus[0]}" if group.gpus else "cuda"
        devices.add("cpu" if group.kind == 2 else gpu if group.kind == 1 or group.gpus else "auto")
        replicas += group.count or 1
    if len(devices) > 1:
        raise refuse("instance_group", f"one model on several devices ({', '.join(sorted(devices))})", "keep one group")
    if devices:
        options.update(replicas=replicas, device=devices.pop())


def _read_optimization(config: Any) -> None:
    """Accepts pinned memory, which only speeds copies up, and the defaults; ONNX Runtime optimises fully anyway."""
    _allow(config.optimization, "optimization", "graph input_pinned_memory output_pinned_memory")
    _allow(config.optimization.graph, "optimization.graph", "")


def _read_parameters(config: Any, options: dict[str, Any]) -> None:
    """Of ONNX Runtime's parameters: the thread count is an option of ours; defaults spelt out change nothing."""
    for name, parameter in sorted(config.parameters.items()):
        value = parameter.string_value.strip()
        if name == "intra_op_thread_count" and value.isascii() and value.isdecimal() and len(value) < 5:
            options["threads"] = int(value)
        elif name not in _HARMLESS or value not in _HARMLESS[name]:
            raise refuse(f"parameters.{name[:80]}", _shown(value))


# Parameters of Triton's ONNX Runtime backend, with the values that ask for what we do anyway. Threads between operators
# are used in the parallel execution mode alone, which is refused.
_HARMLESS: dict[str, frozenset[str]] = {
    "inter_op_thread_count": frozenset(map(str, range(257))),
    "execution_mode": frozenset({"0"}),
    "enable_mem_arena": frozenset({"1"}),
    "enable_mem_pattern": frozenset({"1"}),
}
