"""Every door to a model, with credentials or without: what comes of a call, in one word for all protocols."""

import queue
import re
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from hyperion.wire.grpc.messages import ModelInferRequest
from tests.e2e.served import Served

OK, UNKNOWN, REFUSED, LIMITED = "ok", "unauthenticated", "forbidden", "limited"
WORDS = {
    **{"200": OK, "401": UNKNOWN, "403": REFUSED, "429": LIMITED},
    **{"UNAUTHENTICATED": UNKNOWN, "PERMISSION_DENIED": REFUSED, "RESOURCE_EXHAUSTED": LIMITED},
}
IN_WORDS = re.compile("needs credentials|this key (is not known|has expired)|the token is refused")
TWO_ROWS = {"shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
SUMS = {"inputs": [{"name": "a", **TWO_ROWS}, {"name": "b", **TWO_ROWS}]}

Headers = Mapping[str, str]
Door = Callable[[Served, Headers], str]


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def word(status: object) -> str:
    """`ok`, why not, or what it was that nobody expected."""
    text = str(status)
    return WORDS.get(text.removeprefix("StatusCode."), text)


def json_door(served: Served, headers: Headers, model: str = "sums") -> str:
    return word(served.post(f"/v2/models/{model}/infer", SUMS, dict(headers)).status)


def binary_door(served: Served, headers: Headers) -> str:
    return _ask_with_triton(tritonclient.http, served.url.partition("://")[2], headers)


def v1_door(served: Served, headers: Headers) -> str:
    body = {"instances": [{"a": [1, 2], "b": [3, 4]}]}
    return word(served.post("/v1/models/sums:predict", body, dict(headers)).status)


def generate_door(served: Served, headers: Headers) -> str:
    return word(served.post("/v2/models/countdown/generate", {"start": [3]}, dict(headers)).status)


def events_door(served: Served, headers: Headers) -> str:
    answer = served.post("/v2/models/countdown/generate_stream", {"start": [3]}, dict(headers))
    if answer.status == 200:
        assert answer.body.count(b"data: ") == 3, answer.body
    return word(answer.status)


def triton_grpc_door(served: Served, headers: Headers) -> str:
    return _ask_with_triton(tritonclient.grpc, served.grpc, headers)


def _ask_with_triton(module: Any, address: str, headers: Headers) -> str:
    inputs = []
    for name in ("a", "b"):
        tensor = module.InferInput(name, [1, 2], "FP32")
        tensor.set_data_from_numpy(np.array([[1, 2]], np.float32))
        inputs.append(tensor)
    with module.InferenceServerClient(address) as client:
        try:
            assert client.infer("sums", inputs, headers=dict(headers)).as_numpy("sum").tolist() == [[2.0, 4.0]]
        except InferenceServerException as error:
            return word(error.status())
    return OK


def triton_stream_door(served: Served, headers: Headers) -> str:
    start = tritonclient.grpc.InferInput("start", [1, 1], "INT32")
    start.set_data_from_numpy(np.array([[2]], np.int32))
    seen: queue.Queue[Any] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        client.start_stream(lambda result, error: seen.put(error or result), headers=dict(headers))
        client.async_stream_infer("countdown", [start])
        first = seen.get(timeout=20)
        client.stop_stream()
    if not isinstance(first, InferenceServerException):
        return OK
    # A stream may ask many endpoints: what is refused is one request of it, in a message without a status.
    message = str(first)
    return REFUSED if "may not call" in message else UNKNOWN if IN_WORDS.search(message) else message


def grpc_door(served: Served, headers: Headers, channel: grpc.Channel | None = None) -> str:
    """By grpcio itself. A call of its own connection, unless a channel is given."""
    request = ModelInferRequest(model_name="sums", raw_input_contents=[np.ones(2, np.float32).tobytes()] * 2)
    for name in ("a", "b"):
        request.inputs.add(name=name, datatype="FP32", shape=[1, 2])
    return ask_grpc(served, "inference.GRPCInferenceService/ModelInfer", request.SerializeToString(), headers, channel)


def ask_grpc(served: Served, method: str, message: bytes, headers: Headers, channel: grpc.Channel | None = None) -> str:
    """Any unary method."""
    own = grpc.insecure_channel(served.grpc) if channel is None else None
    try:
        call = (channel or own).unary_unary(f"/{method}")
        call(message, timeout=20, metadata=tuple(headers.items()))
    except grpc.RpcError as error:
        return word(error.code())
    finally:
        if own is not None:
            own.close()
    return OK


DOORS: dict[str, Door] = {
    "V2 JSON": json_door,
    "V2 binary": binary_door,
    "V1": v1_door,
    "generate": generate_door,
    "generate_stream": events_door,
    "gRPC": grpc_door,
    "gRPC of Triton's client": triton_grpc_door,
    "gRPC stream": triton_stream_door,
}


def all_doors(served: Served, headers: Headers) -> dict[str, str]:
    """What each door says to a caller with these headers."""
    return {name: door(served, headers) for name, door in DOORS.items()}


def every(said: str) -> dict[str, str]:
    """What `all_doors` gives where they all say this."""
    return dict.fromkeys(DOORS, said)
