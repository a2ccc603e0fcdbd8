"""KServe's client against the edge, unchanged. It runs in a process of its own: it registers the protocol's names in
protobuf's default pool, where Triton's client has registered them for the tests beside this one."""

import importlib.util
import json
import subprocess
import sys
import textwrap

import pytest

from tests.gateway.grpc_serving import serving

CLIENT = """
import asyncio, json, logging, sys
import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

logging.disable(logging.CRITICAL)
VALUES = {
    "BOOL": [True, False], "UINT8": [1, 2], "UINT16": [1, 2], "UINT32": [1, 2], "UINT64": [1, 2], "INT8": [-1, 2],
    "INT16": [-1, 2], "INT32": [-1, 2], "INT64": [-1, 2], "FP16": [0.5, 2.0], "FP32": [0.5, 2.0], "FP64": [0.5, 2.0],
}

async def main(url):
    seen = {"typed": {}, "raw": {}}
    async with InferenceGRPCClient(url, timeout=20) as client:
        seen["live"] = await client.is_server_live()
        seen["ready"] = await client.is_server_ready()
        seen["model ready"] = await client.is_model_ready("double")
        for datatype, values in VALUES.items():
            dtype = {"BOOL": bool, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64}.get(datatype)
            array = np.array([values], dtype or datatype.lower())
            if datatype != "FP16":
                one = InferInput(name="x", shape=[1, 2], datatype=datatype, data=values)
                answer = await client.infer(InferRequest(model_name="double", infer_inputs=[one], request_id="seven"))
                seen["typed"][datatype] = np.asarray(answer.outputs[0].as_numpy()).tolist()
            one = InferInput(name="x", shape=[1, 2], datatype=datatype)
            one.set_data_from_numpy(array, binary_data=True)
            answer = await client.infer(InferRequest(model_name="double", infer_inputs=[one], request_id="seven"))
            seen["raw"][datatype] = np.asarray(answer.outputs[0].as_numpy()).tolist()
        one = InferInput(name="x", shape=[1, 2], datatype="BYTES")
        one.set_data_from_numpy(np.array([[b"ab", b""]], dtype=object), binary_data=True)
        answer = await client.infer(InferRequest(model_name="double", infer_inputs=[one]))
        seen["bytes"] = [value.decode() for value in answer.outputs[0].as_numpy().ravel()]
        seen["id"], seen["model"], seen["version"] = answer.id, answer.model_name, answer.model_version
        try:
            await client.infer(InferRequest(model_name="absent", infer_inputs=[one]))
        except grpc.RpcError as error:
            seen["absent"] = error.code().name
    print(json.dumps(seen))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(importlib.util.find_spec("kserve") is None, reason="kserve is not installed")
def test_kserves_client_gets_the_right_numbers_for_typed_and_raw_requests() -> None:
    with serving() as served:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(CLIENT), served.url], capture_output=True, text=True, timeout=50
        )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    doubled = {
        "BOOL": [[False, True]],
        **{name: [[2, 4]] for name in ("UINT8", "UINT16", "UINT32", "UINT64")},
        **{name: [[-2, 4]] for name in ("INT8", "INT16", "INT32", "INT64")},
        **{name: [[1.0, 4.0]] for name in ("FP16", "FP32", "FP64")},
    }
    assert seen["raw"] == doubled
    assert seen["typed"] == {name: values for name, values in doubled.items() if name != "FP16"}
    assert seen["bytes"] == ["ba", ""]
    assert (seen["model"], seen["version"]) == ("double", "1")
    assert (seen["live"], seen["ready"], seen["model ready"]) == (True, True, True)
    assert seen["absent"] == "NOT_FOUND"
