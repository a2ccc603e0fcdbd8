"""gRPC server reflection: what services there are and the files that describe them, so that tools need no .proto files.

Called by the gateway's gRPC edge. v1 and v1alpha have the same messages under two names; these are v1's.
"""

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from hyperion.wire.grpc.descriptors import HEALTH, INFERENCE, REFLECTION_V1, REFLECTION_V1ALPHA
from hyperion.wire.grpc.messages import (
    HEALTH_SERVICE,
    INFERENCE_SERVICE,
    REFLECTION_SERVICES,
    ServerReflectionRequest,
    ServerReflectionResponse,
    parse,
)

__all__ = ["answer_reflection"]

_NOT_FOUND: Final = 5
_INVALID_ARGUMENT: Final = 3
_SERVICES: Final = (INFERENCE_SERVICE, HEALTH_SERVICE, *REFLECTION_SERVICES)


def _index(files: tuple[bytes, ...]) -> tuple[dict[str, bytes], dict[str, bytes], set[str]]:
    """The files by their names and by each symbol in them, and the names of the messages."""
    by_name, by_symbol, messages = {}, {}, set()
    for data in files:
        file = FileDescriptorProto.FromString(data)
        by_name[file.name] = data

        def add(prefix: str, message: Any, data: bytes = data) -> None:
            name = f"{prefix}.{message.name}"
            by_symbol[name] = data
            messages.add(name)
            for one in (*message.field, *message.oneof_decl):
                by_symbol[f"{name}.{one.name}"] = data
            for nested in message.nested_type:
                add(name, nested)
            for kind in message.enum_type:
                add_enum(name, kind, data)

        def add_enum(prefix: str, kind: Any, data: bytes = data) -> None:
            by_symbol[f"{prefix}.{kind.name}"] = data
            for value in kind.value:
                by_symbol[f"{prefix}.{value.name}"] = data

        for message in file.message_type:
            add(file.package, message)
        for service in file.service:
            by_symbol[f"{file.package}.{service.name}"] = data
            for method in service.method:
                by_symbol[f"{file.package}.{service.name}.{method.name}"] = data
    return by_name, by_symbol, messages


_FILES, _SYMBOLS, _MESSAGES = _index((INFERENCE, HEALTH, REFLECTION_V1, REFLECTION_V1ALPHA))


def answer_reflection(request: bytes) -> bytes:
    """The ServerReflectionResponse for one ServerReflectionRequest. Raises MalformedRequest.

    None of the files imports another one or has extensions, so one file is always the whole answer.
    """
    asked = parse(ServerReflectionRequest, request)
    answer = ServerReflectionResponse(valid_host=asked.host, original_request=asked)
    what = asked.WhichOneof("message_request")
    if what == "list_services":
        for name in _SERVICES:
            answer.list_services_response.service.add(name=name)
    elif what == "all_extension_numbers_of_type" and asked.all_extension_numbers_of_type in _MESSAGES:
        answer.all_extension_numbers_response.base_type_name = asked.all_extension_numbers_of_type
    elif what == "file_by_filename" and asked.file_by_filename in _FILES:
        answer.file_descriptor_response.file_descriptor_proto.append(_FILES[asked.file_by_filename])
    elif what == "file_containing_symbol" and asked.file_containing_symbol in _SYMBOLS:
        answer.file_descriptor_response.file_descriptor_proto.append(_SYMBOLS[asked.file_containing_symbol])
    elif what is None:
        answer.error_response.error_code = _INVALID_ARGUMENT
        answer.error_response.error_message = "nothing is asked for"
    else:
        answer.error_response.error_code = _NOT_FOUND
        answer.error_response.error_message = "not found"
    data: bytes = answer.SerializeToString()
    return data
