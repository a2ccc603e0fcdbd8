"""Turns the .proto files of `hyperion.wire.grpc` into `wire/grpc/descriptors.py`; run it after changing one of them.

The result holds serialized descriptors, not generated classes, so that one file suits every protobuf runtime that we
support; generated classes refuse runtimes older than the compiler.
"""

import base64
import importlib.resources
import sys
import tempfile
import textwrap
from pathlib import Path

import grpc_tools  # type: ignore[import-untyped]
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

WIRE = Path(__file__).parent.parent / "src" / "hyperion" / "wire" / "grpc"
RESULT = WIRE / "descriptors.py"
PROTOS = ("inference.proto", "health.proto", "reflection_v1.proto", "reflection_v1alpha.proto")

HEADER = '''"""The .proto files beside this one, serialized. Made by `tools/compile_protos.py`; do not edit."""

from base64 import b64decode
'''


def compile_proto(name: str) -> bytes:
    """The serialized FileDescriptorProto of one of our .proto files. Raises RuntimeError when it does not compile."""
    included = importlib.resources.files(grpc_tools) / "_proto"
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "descriptors"
        arguments = ["protoc", f"-I{WIRE}", f"-I{included}", f"--descriptor_set_out={result}", name]
        if protoc.main(arguments) != 0:
            raise RuntimeError(f"{name} does not compile; protoc says why above")
        descriptors = FileDescriptorSet.FromString(result.read_bytes())
    return descriptors.file[0].SerializeToString(deterministic=True)


def render() -> str:
    """The text of `wire/grpc/descriptors.py`."""
    parts = [HEADER]
    for name in PROTOS:
        lines = textwrap.wrap(base64.b64encode(compile_proto(name)).decode(), 110)
        body = "\n".join(f'    "{line}"' for line in lines)
        parts.append(f"\n{name.removesuffix('.proto').upper()} = b64decode(\n{body}\n)\n")
    return "".join(parts)


def main() -> int:
    RESULT.write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
