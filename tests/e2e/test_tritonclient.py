"""NVIDIA's client, unchanged: HTTP and gRPC, sync and async, JSON and binary."""

import queue
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from tests.e2e.arrays import every_datatype
from tests.e2e.served import Served

WAYS = ["http-binary", "http-json", "http-aio-binary", "http-aio-json", "grpc", "grpc-aio"]


def inputs_of(module: Any, arrays: dict[str, np.ndarray], binary: bool) -> list[Any]:
    inputs = []
    for name, array in arrays.items():
        datatype = tritonclient.utils.np_to_triton_dtype(array.dtype)
        tensor = module.InferInput(name, list(array.shape), datatype)
        if module is tritonclient.http:
            tensor.set_data_from_numpy(array, binary_data=binary)
        else:
            tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def outputs_of(module: Any, names: list[str], binary: bool) -> list[Any]:
    if module is tritonclient.http:
        return [module.InferRequestedOutput(name, binary_data=binary) for name in names]
    return [module.InferRequestedOutput(name) for name in names]


async def infer(
    way: str, served: Served, model: str, arrays: dict[str, np.ndarray], names: list[str], **more: Any
) -> Any:
    """One request the way that is named; the client's result."""
    protocol, _, rest = way.partition("-")
    module = tritonclient.http if protocol == "http" else tritonclient.grpc
    url = served.url.removeprefix("http://") if protocol == "http" else served.grpc
    binary = "json" not in rest
    arguments = {"inputs": inputs_of(module, arrays, binary), "outputs": outputs_of(module, names, binary), **more}
    if "aio" in rest:
        client = module.aio.InferenceServerClient(url)
        try:
            return await client.infer(model, **arguments)
        finally:
            await client.close()
    with module.InferenceServerClient(url) as blocking:
        return blocking.infer(model, **arguments)


@pytest.mark.parametrize("way", WAYS)
async def test_every_datatype_comes_back_as_it_was_sent(way: str, clients: Served) -> None:
    arrays = every_datatype(np.random.default_rng(7))
    model = "everything"
    if "json" in way:
        model = "everything_json"
        del arrays["BF16"]
    result = await infer(way, clients, model, arrays, [f"{name}_out" for name in arrays])
    for name, array in arrays.items():
        answer = result.as_numpy(f"{name}_out")
        if answer.dtype == object and isinstance(answer.flat[0], str):
            answer = np.array([text.encode() for text in answer.flat], dtype=object).reshape(answer.shape)
        assert answer.dtype == array.dtype, name
        np.testing.assert_array_equal(answer, array, err_msg=name)


@pytest.mark.parametrize("way", WAYS)
async def test_only_the_outputs_that_were_asked_for_come_back(way: str, clients: Served) -> None:
    a = np.array([[1, 2], [3, 4]], np.float32)
    b = np.array([[10, 20], [30, 40]], np.float32)
    result = await infer(way, clients, "sums", {"a": a, "b": b}, ["difference"], request_id="one")
    np.testing.assert_array_equal(result.as_numpy("difference"), a - b)
    assert result.as_numpy("sum") is None
    response = result.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "one"
    result = await infer(way, clients, "sums", {"a": a, "b": b}, ["sum", "difference"])
    np.testing.assert_array_equal(result.as_numpy("sum"), a + b)


@pytest.mark.parametrize("way", ["http-binary", "http-json", "grpc"])
async def test_a_wrong_shape_is_refused_with_a_message_that_names_the_input(way: str, clients: Served) -> None:
    arrays = {"a": np.zeros((1, 3), np.float32), "b": np.zeros((1, 2), np.float32)}
    with pytest.raises(InferenceServerException, match=r'input "a": expected FP32 \[-1, ?2\], got FP32 \[1, ?3\]'):
        await infer(way, clients, "sums", arrays, ["sum"])


@pytest.mark.parametrize("way", ["http-binary", "grpc"])
async def test_a_model_that_is_not_there_is_named(way: str, clients: Served) -> None:
    with pytest.raises(InferenceServerException, match="nowhere"):
        await infer(way, clients, "nowhere", {"a": np.zeros((1, 2), np.float32)}, ["sum"])


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request_is_understood(algorithm: str, clients: Served) -> None:
    arrays = {"a": np.ones((64, 2), np.float32), "b": np.ones((64, 2), np.float32)}
    with tritonclient.http.InferenceServerClient(clients.url.removeprefix("http://")) as client:
        result = client.infer(
            "sums", inputs_of(tritonclient.http, arrays, binary=False), request_compression_algorithm=algorithm
        )
    np.testing.assert_array_equal(result.as_numpy("sum"), 2 * arrays["a"])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_health_metadata_and_index_are_what_the_client_expects(protocol: str, clients: Served) -> None:
    if protocol == "http":
        client: Any = tritonclient.http.InferenceServerClient(clients.url.removeprefix("http://"))
        arguments: dict[str, Any] = {}
    else:
        client = tritonclient.grpc.InferenceServerClient(clients.grpc)
        arguments = {"as_json": True}
    with client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("sums")
        assert client.is_model_ready("sums", "1")
        assert not client.is_model_ready("nowhere")
        server = client.get_server_metadata(**arguments)
        assert server["name"] == "hyperion"
        assert "model_repository" in server["extensions"]
        model = client.get_model_metadata("sums", **arguments)
        shapes = {spec["name"]: (spec["datatype"], [int(size) for size in spec["shape"]]) for spec in model["inputs"]}
        assert (model["name"], model["versions"], model["platform"]) == ("sums", ["1"], "python")
        assert shapes == {"a": ("FP32", [-1, 2]), "b": ("FP32", [-1, 2])}
        index = client.get_model_repository_index(**arguments)
        rows = index if isinstance(index, list) else index["models"]
        assert {row["name"]: row["state"] for row in rows}["countdown"] == "READY"


def test_a_stream_over_grpc_gives_every_part_in_order(clients: Served) -> None:
    parts: queue.Queue[Any] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(clients.grpc) as client:
        client.start_stream(callback=lambda result, error: parts.put(error or result))
        arrays = {"start": np.array([[4]], np.int32)}
        client.async_stream_infer(
            "countdown",
            inputs_of(tritonclient.grpc, arrays, binary=True),
            request_id="s",
            enable_empty_final_response=True,
        )
        numbers = []
        while True:
            part = parts.get(timeout=30)
            assert not isinstance(part, Exception), part
            array = part.as_numpy("number")
            if array is not None:
                numbers.append(int(array[0, 0]))
            final = part.get_response().parameters.get("triton_final_response")
            if final is not None and final.bool_param:
                break
        client.stop_stream()
    assert numbers == [4, 3, 2, 1]


async def test_a_stream_over_async_grpc_gives_every_part_in_order(clients: Served) -> None:
    arrays = {"start": np.array([[3]], np.int32)}

    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": "countdown", "inputs": inputs_of(tritonclient.grpc, arrays, binary=True)}

    numbers = []
    async with tritonclient.grpc.aio.InferenceServerClient(clients.grpc) as client:
        async for result, error in client.stream_infer(requests()):
            assert error is None
            array = result.as_numpy("number")
            if array is not None:
                numbers.append(int(array[0, 0]))
    assert numbers == [3, 2, 1]


def test_a_model_is_unloaded_and_loaded_by_the_client(serve: Any, request: pytest.FixtureRequest) -> None:
    served = serve(request.path.parent / "models" / "sums")
    arrays = {"a": np.ones((1, 2), np.float32), "b": np.ones((1, 2), np.float32)}
    with tritonclient.http.InferenceServerClient(served.url.removeprefix("http://")) as client:
        client.unload_model("sums")
        assert not client.is_model_ready("sums")
        with pytest.raises(InferenceServerException):
            client.infer("sums", inputs_of(tritonclient.http, arrays, binary=True))
        client.load_model("sums")
        assert client.is_model_ready("sums")
        result = client.infer("sums", inputs_of(tritonclient.http, arrays, binary=True))
    np.testing.assert_array_equal(result.as_numpy("sum"), [[2, 2]])
