"""Triton repositories: what each field of a `config.pbtxt` becomes, and how those are refused that we do not do."""

from pathlib import Path
from typing import Any

import pytest

from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from hyperion.store.repositories.discover import discover
from hyperion.store.repositories.triton_schema import field_names, parse_model_config
from hyperion.store.versions.digest import digest_of
from tests.services import needs_module
from tests.store.layout import lay_out, only, refusal

INPUT = 'input { name: "X" data_type: TYPE_FP32 dims: 4 }'
OUTPUT = 'output { name: "label" data_type: TYPE_INT64 dims: [ 1 ] }'
IO = f"{INPUT}\n{OUTPUT}\n"
ONNX = b"\x08\x07"

WHOLE = """
name: "fraud"            # as people write them
platform: "onnxruntime_onnx"
backend: "onnxruntime"
max_batch_size: 16
input [
  { name: "X", data_type: TYPE_FP32, format: FORMAT_NCHW, dims: [ 3, -1, -1 ] },
  { name: "id"  data_type: TYPE_STRING  dims: 1  reshape { shape: [ 1 ] } }
]
output [ { name: "y" data_type: TYPE_BF16 dims: [ -1 ] } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 1500 default_queue_policy { } }
instance_group [ { name: "g" count: 2 kind: KIND_GPU gpus: [ 1 ] }, { kind: KIND_GPU gpus: 1 } ]
optimization { graph { level: 0 } input_pinned_memory { enable: true } output_pinned_memory { enable: false } }
parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
parameters: { key: "execution_mode", value: { string_value: "0" } }
model_warmup [ { name: "one" batch_size: 2 count: 3
  inputs { key: "X" value: { data_type: TYPE_FP32 dims: [ 3, 8, 8 ] random_data: true } }
  inputs { key: "id" value: { data_type: TYPE_STRING dims: [ 1 ] zero_data: true } } } ]
response_cache { enable: false }
model_transaction_policy { decoupled: False }
version_policy: { specific: { versions: [ 2, 10 ] } }
default_model_filename: "net.onnx"
"""


def repository(root: Path, config: str | None, versions: dict[str, bytes | Path] | None = None) -> Path:
    entries: dict[str, Any] = dict(versions if versions is not None else {"1/model.onnx": ONNX})
    if config is not None:
        entries["config.pbtxt"] = config
    return lay_out(root / "model", entries)


def test_every_supported_field_becomes_an_option_or_part_of_the_signature(tmp_path: Path) -> None:
    folder = repository(tmp_path, WHOLE, {"1/net.onnx": ONNX, "2/net.onnx": ONNX, "10/net.onnx": b"\x08\x08"})
    second, tenth = discover(folder, ModelOptions())
    assert (second.name, second.version, second.format, second.platform) == ("fraud", "2", "onnx", "onnxruntime_onnx")
    assert second.path == str(folder / "2" / "net.onnx")
    assert second.digest == digest_of(folder / "2") != tenth.digest
    assert tenth.version == "10"
    assert second.signature == Signature(
        (TensorSpec("X", "FP32", (-1, 3, -1, -1)), TensorSpec("id", "BYTES", (-1, 1))),
        (TensorSpec("y", "BF16", (-1, -1)),),
        batched=True,
    )
    assert second.options == ModelOptions(
        max_batch_size=16, buckets=(1, 2, 4, 8, 16), max_delay_ms=1.5, replicas=3, device="cuda:1", threads=2
    )
    assert second.settings == {"warmup_shapes": '{"X": [3, 8, 8], "id": [1]}'}


def test_without_batching_the_dims_are_the_whole_shape(tmp_path: Path) -> None:
    spec = only(repository(tmp_path, IO))
    assert spec.signature == Signature(
        (TensorSpec("X", "FP32", (4,)),), (TensorSpec("label", "INT64", (1,)),), batched=False
    )
    assert spec.options.max_batch_size == 1


@pytest.mark.parametrize("config", [None, "", 'name: "model"', "max_batch_size: 8"])
def test_a_model_without_declared_tensors_speaks_for_itself(tmp_path: Path, config: str | None) -> None:
    spec = only(repository(tmp_path, config))
    assert (spec.name, spec.version, spec.signature) == ("model", "1", None)
    assert spec.options.max_batch_size == (8 if config == "max_batch_size: 8" else 64)


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("", ["12"]),
        ("version_policy { latest { } }", ["12"]),
        ("version_policy { latest { num_versions: 2 } }", ["3", "12"]),
        ("version_policy { latest { num_versions: 99 } }", ["1", "3", "12"]),
        ("version_policy { all { } }", ["1", "3", "12"]),
        ("version_policy { specific { versions: 3 versions: 1 } }", ["1", "3"]),
    ],
)
def test_the_version_policy_chooses_the_folders(tmp_path: Path, policy: str, versions: list[str]) -> None:
    layout: dict[str, bytes | Path] = dict.fromkeys(("1/model.onnx", "3/model.onnx", "12/model.onnx"), ONNX)
    # As in Triton, these are no versions.
    layout |= {"007/model.onnx": ONNX, "old/model.onnx": ONNX, "v2/x": b"", "labels.txt": b"a"}
    folder = repository(tmp_path, policy, layout)
    assert [spec.version for spec in discover(folder, ModelOptions())] == versions


def test_a_model_may_be_a_folder_with_its_weights(tmp_path: Path) -> None:
    folder = repository(tmp_path, None, {"1/model.onnx/model.onnx": ONNX, "1/model.onnx/weights": b"w"})
    spec = only(folder)
    assert spec.path == str(folder / "1/model.onnx/model.onnx")
    assert spec.digest == digest_of(folder / "1")


@pytest.mark.parametrize(
    ("groups", "replicas", "device"),
    [
        ("", 1, "auto"),
        ("instance_group { }", 1, "auto"),
        ("instance_group { count: 3 }", 3, "auto"),
        ("instance_group { count: 3 kind: KIND_CPU }", 3, "cpu"),
        ("instance_group { kind: KIND_GPU }", 1, "cuda"),
        ("instance_group { gpus: 0 }", 1, "cuda:0"),
    ],
)
def test_instances_become_replicas_on_one_device(tmp_path: Path, groups: str, replicas: int, device: str) -> None:
    options = only(repository(tmp_path, groups)).options
    assert (options.replicas, options.device) == (replicas, device)


def test_the_command_line_wins_over_the_configuration(tmp_path: Path) -> None:
    folder = repository(tmp_path, WHOLE, {"2/net.onnx": ONNX, "10/net.onnx": ONNX})
    spec, _ = discover(folder, ModelOptions(replicas=7), name="mine", pinned=frozenset({"replicas"}))
    assert (spec.name, spec.options.replicas, spec.options.threads) == ("mine", 7, 2)


def test_warm_up_sizes_follow_the_smaller_batch_of_another_layer(tmp_path: Path) -> None:
    config = "max_batch_size: 16 dynamic_batching { preferred_batch_size: [ 4, 8 ] }"
    folder = repository(tmp_path, config)
    (spec,) = discover(folder, ModelOptions(max_batch_size=4), pinned=frozenset({"max_batch_size"}))
    assert (spec.options.max_batch_size, spec.options.buckets) == (4, (1, 4))
    assert only(folder, ModelOptions(buckets=(1, 64))).options.buckets == (1, 4, 8, 16)
    lay_out(folder, {"hyperion.yaml": "max_batch_size: 8"})
    assert only(folder).options.buckets == (1, 4, 8)


FLOAT = "data_type: TYPE_FP32"
WARM = 'model_warmup {{ name: "w" batch_size: {size} inputs {{ key: "{name}" value: {{ {value} }} }} }}'


def warm(size: int = 1, name: str = "X", value: str = "data_type: TYPE_FP32 dims: 4 zero_data: true") -> str:
    return f"max_batch_size: 8 {IO} " + WARM.format(size=size, name=name, value=value)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("sequence_batching { }", 'field "sequence_batching" asks for state that is kept'),
        ("sequence_batching { direct { } }", 'field "sequence_batching"'),
        ("ensemble_scheduling { step { model_name: 'a' } }", 'field "ensemble_scheduling"'),
        ("cc_model_filenames { key: '8.0' value: 'a.onnx' }", 'field "cc_model_filenames"'),
        ("metric_tags { key: 'a' value: 'b' }", 'field "metric_tags"'),
        ("model_operations { op_library_filename: 'a.so' }", 'field "model_operations"'),
        ("model_transaction_policy { decoupled: true }", 'field "model_transaction_policy"'),
        ("model_repository_agents { agents { name: 'checksum' } }", 'field "model_repository_agents"'),
        ("response_cache { enable: true }", 'field "response_cache" asks for a response cache'),
        ("batch_input { kind: BATCH_ELEMENT_COUNT }", 'field "batch_input"'),
        ("batch_output { target_name: 'y' }", 'field "batch_output"'),
        ("model_metrics { metric_control { } }", 'field "model_metrics"'),
        ("runtime: 'a.so'", 'field "runtime"'),
        ("backend: 'python'", "TritonPythonModel"),
        ("backend: 'tensorrt'", 'backend "tensorrt" is not supported'),
        ("platform: 'pytorch_libtorch'", 'platform "pytorch_libtorch" is not supported'),
        ("default_model_filename: 'model.plan'", "default_model_filename: expected a .onnx file"),
        ("default_model_filename: '../../x.onnx'", "expected ../../x.onnx in it"),
        ("max_batch_size: -1", "max_batch_size: expected 0 or more"),
        ("max_batch_size: 70000", "max_batch_size: expected 1 to 65536"),
        (INPUT, '"output" is missing'),
        (OUTPUT, '"input" is missing'),
        (IO + INPUT, "two tensors have the same name"),
        (f"input {{ data_type: TYPE_FP32 dims: 1 }} {OUTPUT}", "a tensor without a name"),
        (f"input {{ name: 'X' dims: 1 }} {OUTPUT}", 'input "X": expected a data_type'),
        (f"input {{ name: 'X' data_type: 99 dims: 1 }} {OUTPUT}", "config.pbtxt"),
        (f"input {{ name: 'X' data_type: TYPE_FP32 }} {OUTPUT}", 'input "X": expected dims'),
        (f"input {{ name: 'X' data_type: TYPE_FP32 dims: 0 }} {OUTPUT}", 'input "X": expected dims'),
        (f"input {{ name: 'X' data_type: TYPE_FP32 dims: [1,1,1,1,1,1,1,1] }} {OUTPUT}", "1 to 7 sizes"),
        (f"{OUTPUT} input {{ name: 'X' data_type: TYPE_FP32 dims: 1 reshape {{ }} }}", 'field "input "X".reshape"'),
        (f"{OUTPUT} input {{ name: 'X' data_type: TYPE_FP32 dims: 1 optional: true }}", "optional"),
        (f"{OUTPUT} input {{ name: 'X' data_type: TYPE_FP32 dims: 1 allow_ragged_batch: true }}", "allow_ragged_batch"),
        (f"{INPUT} output {{ name: 'y' data_type: TYPE_FP32 dims: 1 label_filename: 'l' }}", "label_filename"),
        ("dynamic_batching { preserve_ordering: true }", "dynamic_batching.preserve_ordering"),
        ("dynamic_batching { priority_levels: 2 }", "dynamic_batching.priority_levels"),
        ("dynamic_batching { default_queue_policy { max_queue_size: 5 } }", "default_queue_policy.max_queue_size"),
        (
            "dynamic_batching { priority_queue_policy { key: 1 value { max_queue_size: 3 } } }",
            "dynamic_batching.priority_queue_policy",
        ),
        ("max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }", "batch size 8"),
        ("max_batch_size: 4 dynamic_batching { preferred_batch_size: 0 }", "batch size 0"),
        ("dynamic_batching { max_queue_delay_microseconds: 9000000 }", "max_delay_ms: expected 0 to 1000"),
        ("instance_group { count: -1 }", "instance_group.count"),
        ("instance_group { count: 5000 }", "replicas: expected 0 to 1024"),
        ("instance_group { kind: KIND_MODEL }", "instance_group.kind"),
        ("instance_group { kind: KIND_CPU gpus: 0 }", "KIND_CPU has none"),
        ("instance_group { gpus: [ 0, 1 ] }", "one model on 2 GPUs"),
        ("instance_group { gpus: -1 }", "instance_group.gpus"),
        ("instance_group [ { kind: KIND_CPU }, { kind: KIND_GPU } ]", "several devices (cpu, cuda)"),
        ("instance_group { profile: 'p' }", "instance_group.profile"),
        ("instance_group { passive: true }", "instance_group.passive"),
        ("instance_group { rate_limiter { priority: 1 } }", "instance_group.rate_limiter"),
        ("instance_group { host_policy: 'numa' }", "instance_group.host_policy"),
        ("optimization { graph { level: 1 } }", "optimization.graph.level"),
        ("optimization { eager_batching: true }", "optimization.eager_batching"),
        ("optimization { priority: PRIORITY_MAX }", "optimization.priority"),
        ("optimization { cuda { graphs: true } }", "optimization.cuda"),
        (
            "optimization { execution_accelerators { gpu_execution_accelerator { name: 'tensorrt' } } }",
            "optimization.execution_accelerators",
        ),
        ("parameters { key: 'execution_mode' value { string_value: '1' } }", "parameters.execution_mode"),
        ("parameters { key: 'intra_op_thread_count' value { string_value: 'all' } }", "intra_op_thread_count"),
        ("parameters { key: 'enable_mem_arena' value { string_value: '0' } }", "parameters.enable_mem_arena"),
        (warm(size=9), "batch size 9"),
        (warm(name="Y"), 'input "Y": the model has no input of that name'),
        (warm(value="data_type: TYPE_FP32 dims: 5 zero_data: true"), "expected dims that fit [4], got [5]"),
        (warm(value="data_type: TYPE_FP32 dims: [4, 1] zero_data: true"), "expected dims that fit [4]"),
        (warm(value="data_type: TYPE_FP64 dims: 4 zero_data: true"), "the input's data type, FP32"),
        (
            f"max_batch_size: 2 input {{ name: 'X' data_type: TYPE_FP32 dims: -1 }} {OUTPUT}"
            + "".join(WARM.format(size=1, name="X", value=f"{FLOAT} dims: {size} zero_data: true") for size in (1, 2)),
            "several shapes",
        ),
        (warm(value="data_type: TYPE_FP32 dims: 4"), "zero_data: true or random_data: true"),
        (warm(value="data_type: TYPE_FP32 dims: 4 input_data_file: 'raw'"), "input_data_file"),
        ("version_policy { specific { versions: 2 } }", "expected versions among [1], got [2]"),
        ("version_policy { specific { } }", "expected versions among [1], got []"),
        ("name: 'a b'", "--name"),
        ("max_batchsize: 3", 'line 1: "max_batchsize" is no field of Triton\'s model configuration; did you mean'),
        ("\n\nmax_batch_size: many", "line 3"),
        ("max_batch_size: 1 max_batch_size: 2", "max_batch_size"),
        ("input {", "config.pbtxt"),
        ("input [", "config.pbtxt"),
        ("name: 'a", "line 1"),
        ("{}", "line 1"),
        ("[type.googleapis.com/x] { }", "config.pbtxt"),
        ("max_batch_size: 99999999999999999999", "config.pbtxt"),
        ("max_batch_size: " + "9" * 5000, "config.pbtxt"),
        ("input { data_type: TYPE_FLOAT }", "TYPE_FLOAT"),
    ],
)
def test_what_we_do_not_do_is_refused_by_name(tmp_path: Path, config: str, says: str) -> None:
    message = refusal(repository(tmp_path, config))
    assert says in message
    assert len(message) < 700


@pytest.mark.parametrize(
    ("versions", "says"),
    [
        ({"labels.txt": b"a"}, "expected a folder named 1 with model.onnx"),
        ({"01/model.onnx": ONNX}, "expected a folder named 1"),
        ({"1/net.onnx": ONNX}, "model/1: expected model.onnx in it"),
        ({"1/model.onnx": b"junk"}, "not an ONNX model"),
        ({"1/model.onnx/net.onnx": ONNX}, "'model.onnx' does not exist"),
    ],
)
def test_version_folders_without_a_model_are_refused(
    tmp_path: Path, versions: dict[str, bytes | Path], says: str
) -> None:
    assert says in refusal(repository(tmp_path, IO, versions))


def test_a_file_name_that_leads_out_of_the_version_is_refused(tmp_path: Path) -> None:
    folder = repository(tmp_path, "default_model_filename: '../other.onnx'", {"1/x": b"", "other.onnx": ONNX})
    assert "lies outside" in refusal(folder)


def test_a_configuration_over_its_limit_is_refused(tmp_path: Path) -> None:
    assert "1024 KiB" in refusal(repository(tmp_path, "#" * ((1 << 20) + 1)))


def test_the_schema_has_every_field_of_triton_s_own_client() -> None:
    """Names, numbers, types, repetition and oneofs, for every message that can be reached from ModelConfig."""
    pb2 = needs_module("tritonclient.grpc.model_config_pb2", extra="clients")
    compare(pb2.ModelConfig.DESCRIPTOR, parse_model_config("", "x").DESCRIPTOR, set())
    assert {"sequence_batching", "max_batch_size", "zero_data"} <= field_names()


def compare(theirs: Any, ours: Any, seen: set[str]) -> None:
    if theirs.full_name in seen:
        return
    seen.add(theirs.full_name)
    assert theirs.GetOptions().map_entry == ours.GetOptions().map_entry
    for field in theirs.fields:
        mine = ours.fields_by_name.get(field.name)
        assert mine is not None, f"{theirs.full_name}.{field.name} is missing"
        assert shape_of(mine) == shape_of(field), f"{theirs.full_name}.{field.name}"
        if field.message_type is not None:
            compare(field.message_type, mine.message_type, seen)
        if field.enum_type is not None:
            values = {value.name: value.number for value in field.enum_type.values}
            assert values.items() <= {value.name: value.number for value in mine.enum_type.values}.items()


def shape_of(field: Any) -> tuple[Any, ...]:
    oneof = field.containing_oneof
    return (field.number, field.type, field.is_repeated, oneof.name if oneof is not None else "")
