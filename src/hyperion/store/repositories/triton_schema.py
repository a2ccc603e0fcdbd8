"""Triton's `ModelConfig` message, all of it, so that a `config.pbtxt` is parsed by protobuf's own text format.

Called by `triton`. Fields that we do not support are here too: they must be recognised in order to be refused by name.
The descriptors live in a pool of their own, because a client library in the same process may register Triton's real
ones. Transcribed from the field list of `model_config.proto`; a test compares it with the one in `tritonclient`. Text
format knows fields by name alone, so one that was renamed between releases is here under both names.
"""

import functools
import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from hyperion.schema.errors import ModelRefused
from hyperion.store.reading import suggest

# Per message: `name number type`, with `*` for repeated, `{key value}` for a map, `@x` for membership in oneof x.
_MESSAGES: dict[str, str] = {
    "ModelConfig": """
        name 1 string, platform 2 string, version_policy 3 ModelVersionPolicy, max_batch_size 4 int32,
        input 5 *ModelInput, output 6 *ModelOutput, instance_group 7 *ModelInstanceGroup,
        default_model_filename 8 string, cc_model_filenames 9 {string string}, metric_tags 10 {string string},
        dynamic_batching 11 ModelDynamicBatching @scheduling_choice, optimization 12 ModelOptimizationPolicy,
        sequence_batching 13 ModelSequenceBatching @scheduling_choice, parameters 14 {string ModelParameter},
        ensemble_scheduling 15 ModelEnsembling @scheduling_choice, model_warmup 16 *ModelWarmup, backend 17 string,
        model_operations 18 ModelOperations, model_transaction_policy 19 ModelTransactionPolicy,
        batch_input 20 *BatchInput, batch_output 21 *BatchOutput, model_repository_agents 23 ModelRepositoryAgents,
        response_cache 24 ModelResponseCache, runtime 25 string, model_metrics 26 ModelMetrics""",
    "ModelInput": """
        name 1 string, data_type 2 DataType, format 3 Format, dims 4 *int64, reshape 5 ModelTensorReshape,
        is_shape_tensor 6 bool, allow_ragged_batch 7 bool, optional 8 bool, is_non_linear_format_io 9 bool""",
    "ModelOutput": """
        name 1 string, data_type 2 DataType, dims 3 *int64, label_filename 4 string, reshape 5 ModelTensorReshape,
        is_shape_tensor 6 bool, is_non_linear_format_io 7 bool""",
    "ModelTensorReshape": "shape 1 *int64",
    "ModelVersionPolicy": """
        latest 1 Latest @policy_choice, all 2 All @policy_choice, specific 3 Specific @policy_choice""",
    "Latest": "num_versions 1 uint32",
    "All": "",
    "Specific": "versions 1 *int64",
    "ModelInstanceGroup": """
        name 1 string, count 2 int32, gpus 3 *int32, kind 4 InstanceKind, profile 5 *string,
        rate_limiter 6 ModelRateLimiter, passive 7 bool, secondary_devices 8 *SecondaryDevice, host_policy 9 string""",
    "ModelRateLimiter": "resources 1 *Resource, priority 2 uint32",
    "Resource": "name 1 string, global 2 bool, count 3 uint32",
    "SecondaryDevice": "kind 1 SecondaryDeviceKind, device_id 2 int64",
    "ModelDynamicBatching": """
        preferred_batch_size 1 *int32, max_queue_delay_microseconds 2 uint64, preserve_ordering 3 bool,
        priority_levels 4 uint64, default_priority_level 5 uint64, default_queue_policy 6 ModelQueuePolicy,
        priority_queue_policy 7 {uint64 ModelQueuePolicy}""",
    "ModelQueuePolicy": """
        timeout_action 1 TimeoutAction, default_timeout_microseconds 2 uint64, allow_timeout_override 3 bool,
        max_queue_size 4 uint32""",
    "ModelOptimizationPolicy": """
        graph 1 Graph, priority 2 ModelPriority, cuda 3 Cuda, execution_accelerators 4 ExecutionAccelerators,
        input_pinned_memory 5 PinnedMemoryBuffer, output_pinned_memory 6 PinnedMemoryBuffer,
        gather_kernel_buffer_threshold 7 uint32, eager_batching 8 bool""",
    "Graph": "level 1 int32",
    "Cuda": "graphs 1 bool, busy_wait_events 2 bool, graph_spec 3 *GraphSpec, output_copy_stream 4 bool",
    "GraphSpec": "batch_size 1 int32, input 2 {string Shape}, graph_lower_bound 3 LowerBound",
    "LowerBound": "batch_size 1 int32, input 2 {string Shape}",
    "Shape": "dim 1 *int64",
    "ExecutionAccelerators": "gpu_execution_accelerator 1 *Accelerator, cpu_execution_accelerator 2 *Accelerator",
    "Accelerator": "name 1 string, parameters 2 {string string}",
    "PinnedMemoryBuffer": "enable 1 bool",
    "ModelSequenceBatching": """
        max_sequence_idle_microseconds 1 uint64, control_input 2 *ControlInput,
        direct 3 StrategyDirect @strategy_choice, oldest 4 StrategyOldest @strategy_choice, state 5 *State,
        iterative_sequence 6 bool""",
    "ControlInput": "name 1 string, control 2 *Control",
    "Control": """
        kind 1 ControlKind, int32_false_true 2 *int32, fp32_false_true 3 *float, data_type 4 DataType,
        bool_false_true 5 *bool""",
    "State": """
        input_name 1 string, output_name 2 string, data_type 3 DataType, dims 4 *int64, initial_state 5 *InitialState,
        use_same_buffer_for_input_output 6 bool, use_growable_memory 7 bool""",
    "InitialState": """
        data_type 1 DataType, dims 2 *int64, zero_data 3 bool @state_data, data_file 4 string @state_data,
        name 5 string""",
    "StrategyDirect": "max_queue_delay_microseconds 1 uint64, minimum_slot_utilization 2 float",
    "StrategyOldest": """
        max_candidate_sequences 1 int32, preferred_batch_size 2 *int32, max_queue_delay_microseconds 3 uint64,
        preserve_ordering 4 bool""",
    "ModelEnsembling": "step 1 *Step, max_inflight_requests 2 uint32, max_inflight_responses 3 uint32",
    "Step": """
        model_name 1 string, model_version 2 int64, input_map 3 {string string}, output_map 4 {string string},
        model_namespace 5 string""",
    "ModelParameter": "string_value 1 string",
    "ModelWarmup": "name 1 string, batch_size 2 uint32, inputs 3 {string WarmupInput}, count 4 uint32",
    "WarmupInput": """
        data_type 1 DataType, dims 2 *int64, zero_data 3 bool @input_data_type, random_data 4 bool @input_data_type,
        input_data_file 5 string @input_data_type""",
    "BatchInput": "kind 1 BatchInputKind, target_name 2 *string, data_type 3 DataType, source_input 4 *string",
    "BatchOutput": "target_name 1 *string, kind 2 BatchOutputKind, source_input 3 *string",
    "ModelOperations": "op_library_filename 1 *string",
    "ModelTransactionPolicy": "decoupled 1 bool",
    "ModelRepositoryAgents": "agents 1 *Agent",
    "Agent": "name 1 string, parameters 2 {string string}",
    "ModelResponseCache": "enable 1 bool",
    "ModelMetrics": "metric_control 1 *MetricControl",
    "MetricControl": "metric_identifier 1 MetricIdentifier, histogram_options 2 HistogramOptions @metric_options",
    "MetricIdentifier": "family 1 string",
    "HistogramOptions": "buckets 1 *double",
}
# Numbered from 0 in this order.
_ENUMS: dict[str, str] = {
    "DataType": """TYPE_INVALID TYPE_BOOL TYPE_UINT8 TYPE_UINT16 TYPE_UINT32 TYPE_UINT64 TYPE_INT8 TYPE_INT16 TYPE_INT32
        TYPE_INT64 TYPE_FP16 TYPE_FP32 TYPE_FP64 TYPE_STRING TYPE_BF16""",
    "Format": "FORMAT_NONE FORMAT_NHWC FORMAT_NCHW",
    "InstanceKind": "KIND_AUTO KIND_GPU KIND_CPU KIND_MODEL",
    "SecondaryDeviceKind": "KIND_NVDLA",
    "TimeoutAction": "REJECT DELAY",
    "ModelPriority": "PRIORITY_DEFAULT PRIORITY_MAX PRIORITY_MIN",
    "ControlKind": "CONTROL_SEQUENCE_START CONTROL_SEQUENCE_READY CONTROL_SEQUENCE_END CONTROL_SEQUENCE_CORRID",
    "BatchInputKind": """BATCH_ELEMENT_COUNT BATCH_ACCUMULATED_ELEMENT_COUNT BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO
        BATCH_MAX_ELEMENT_COUNT_AS_SHAPE BATCH_ITEM_SHAPE BATCH_ITEM_SHAPE_FLATTEN""",
    "BatchOutputKind": "BATCH_SCATTER_WITH_INPUT_SHAPE",
}
_PACKAGE = "hyperion.triton"
_NO_FIELD = re.compile(r'has no field named "([^"]*)"')


def parse_model_config(text: str, file_name: str) -> Any:
    """A ModelConfig message of the text of a `config.pbtxt`; ModelRefused with the line where it is not one."""
    config = _model_config_class()()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        raise ModelRefused(_describe(error, file_name)) from error
    except (ValueError, OverflowError, RecursionError) as error:
        # Surrogates, numbers with thousands of digits: what the tokeniser itself does not turn into a ParseError.
        raise ModelRefused(f"{file_name}: not a protobuf text file: {str(error)[:200]}") from error
    return config


def _describe(error: text_format.ParseError, file_name: str) -> str:
    line = error.GetLine()
    where = f"{file_name} line {line}" if line else file_name
    unknown = _NO_FIELD.search(str(error))
    if unknown:
        field = unknown.group(1)
        return f'{where}: "{field[:80]}" is no field of Triton\'s model configuration{suggest(field, field_names())}'
    reason = re.sub(r"^\d+:\d+\s*:\s*", "", str(error)).replace(_PACKAGE + ".", "")
    return f"{where}: not a model configuration in protobuf text format: {reason[:300]}"


def field_names() -> frozenset[str]:
    """The names of all fields of all messages."""
    return frozenset(field.split()[0] for fields in _MESSAGES.values() for field in fields.split(",") if field.strip())


@functools.cache
def _model_config_class() -> Any:
    """Built once, when the first Triton repository is read: a constant that is only made when it is needed."""
    file = descriptor_pb2.FileDescriptorProto(name="hyperion/triton.proto", package=_PACKAGE, syntax="proto3")
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values.split()):
            enum.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields.split(","):
            if field.strip():
                _add_field(message, field)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.ModelConfig"))


def _add_field(message: Any, text: str) -> None:
    """Adds one field to a DescriptorProto from its line above."""
    kinds = descriptor_pb2.FieldDescriptorProto
    name, number, kind = text.split(maxsplit=2)
    kind, _, oneof = (part.strip() for part in kind.partition("@"))
    field = message.field.add(name=name, number=int(number), label=kinds.LABEL_OPTIONAL)
    if kind.startswith("*"):
        field.label, kind = kinds.LABEL_REPEATED, kind[1:]
    if kind.startswith("{"):
        entry = message.nested_type.add(name=name.title().replace("_", "") + "Entry")
        entry.options.map_entry = True
        key, value = kind.strip("{}").split()
        _add_field(entry, f"key 1 {key}")
        _add_field(entry, f"value 2 {value}")
        field.label, field.type = kinds.LABEL_REPEATED, kinds.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{message.name}.{entry.name}"
    elif kind in _MESSAGES or kind in _ENUMS:
        field.type = kinds.TYPE_MESSAGE if kind in _MESSAGES else kinds.TYPE_ENUM
        field.type_name = f".{_PACKAGE}.{kind}"
    else:
        field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    if oneof:
        names = [known.name for known in message.oneof_decl]
        if oneof not in names:
            message.oneof_decl.add(name=oneof)
            names.append(oneof)
        field.oneof_index = names.index(oneof)
