"""The Open Inference Protocol V2 as this benchmark's clients speak it: JSON, binary extension, gRPC bytes.

Pure functions on bytes; used by peers to say what a request looks like and by the harness to check answers. Protobuf
is written by hand here because two messages do not deserve a code generator.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from bench.workloads import Workload

GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"


def json_body(workload: Workload, x: np.ndarray) -> bytes:
    """An infer request with ``data`` flat, floats in the shortest form that reads back to the same FP32."""
    if workload.body == "text":
        data: list[object] = [value.decode() for value in x.ravel()]
    else:
        data = [float(str(value)) for value in x.ravel()]
    tensor = {"name": workload.input_name, "shape": list(x.shape), "datatype": workload.datatype, "data": data}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def binary_body(workload: Workload, x: np.ndarray) -> tuple[dict[str, str], bytes]:
    """Headers and body of an infer request whose tensor follows the JSON as raw bytes; the answer comes as JSON."""
    raw = np.ascontiguousarray(x, "<f4").tobytes()
    tensor = {
        "name": workload.input_name,
        "shape": list(x.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor], "outputs": [{"name": "output"}]}, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return headers, head + raw


def json_answer(body: bytes) -> np.ndarray:
    """The first output of a V2 answer as FP32 ``[n, width]``."""
    output = json.loads(body)["outputs"][0]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def grpc_request(workload: Workload, x: np.ndarray, model: str) -> bytes:
    """A serialised ``ModelInferRequest`` with ``raw_input_contents``."""
    shape = b"".join(_varint(n) for n in x.shape)
    tensor = _field(1, workload.input_name.encode()) + _field(2, b"FP32") + _field(3, shape)
    raw = np.ascontiguousarray(x, "<f4").tobytes()
    return _field(1, model.encode()) + _field(5, tensor) + _field(7, raw)


def grpc_answer(message: bytes) -> np.ndarray:
    """The first output of a serialised ``ModelInferResponse`` (raw or typed contents) as a flat FP32 array."""
    typed = np.empty(0, np.float32)
    for number, value in _fields(message):
        if number == 6:
            return np.frombuffer(value, "<f4")
        if number == 5:
            for inner, contents in _fields(value):
                if inner == 5:
                    floats = [v for n, v in _fields(contents) if n == 6]
                    typed = np.frombuffer(b"".join(floats), "<f4")
    return typed


def grpc_frame(message: bytes) -> bytes:
    """A message as gRPC puts it on the wire: a flag, four bytes of length, the message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Length-delimited fields of a message, in order; scalars are skipped (fixed32 is given as its four bytes)."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        size = {0: 0, 1: 8, 5: 4}.get(tag & 7, -1)
        if size == 0:
            varint()
            continue
        if size < 0:
            size = varint()
        yield tag >> 3, message[at : at + size]
        at += size
