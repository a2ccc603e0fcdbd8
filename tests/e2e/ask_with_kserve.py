"""Asks a server with KServe's own clients and prints what they got, as JSON.

A program of its own, started by `test_kserve_client`: KServe's and Triton's generated messages have the same names, and
one process can hold only one of them.
"""

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig


def sums_request(binary: bool) -> InferRequest:
    inputs = []
    for name, values in (("a", [[1, 2]]), ("b", [[10, 20]])):
        tensor = InferInput(name, [1, 2], "FP32")
        tensor.set_data_from_numpy(np.array(values, np.float32), binary_data=binary)
        inputs.append(tensor)
    return InferRequest(model_name="sums", infer_inputs=inputs, request_id="k")


def values_of(response: Any) -> dict[str, Any]:
    return {output.name: output.as_numpy().tolist() for output in response.outputs}


async def ask(url: str, grpc: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as rest:
        seen["rest_live"] = await rest.is_server_live(url)
        seen["rest_ready"] = await rest.is_server_ready(url)
        seen["rest_model_ready"] = await rest.is_model_ready(url, "sums")
        seen["rest_model_not_ready"] = await rest.is_model_ready(url, "nowhere")
        seen["rest_binary"] = values_of(await rest.infer(url, sums_request(binary=True), model_name="sums"))
        seen["rest_json"] = values_of(await rest.infer(url, sums_request(binary=False), model_name="sums"))
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as rest:
        seen["v1_live"] = await rest.is_server_live(url)
        seen["v1_model_ready"] = await rest.is_model_ready(url, "sums")
        body = {"instances": [{"a": [1, 2], "b": [10, 20]}]}
        seen["v1"] = await rest.infer(url, body, model_name="sums")
    async with InferenceGRPCClient(url=grpc) as client:
        seen["grpc_live"] = await client.is_server_live()
        seen["grpc_ready"] = await client.is_server_ready()
        seen["grpc_model_ready"] = await client.is_model_ready("sums")
        seen["grpc"] = values_of(await client.infer(sums_request(binary=True)))
    return seen


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(sys.argv[1], sys.argv[2]))))
