"""Triton's client against the edge, unchanged: every datatype, several tensors, streams, metadata, repository."""

import asyncio
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.gateway.grpc_serving import Serving, serving

grpcclient: Any = pytest.importorskip("tritonclient.grpc")
triton: Any = pytest.importorskip("tritonclient.utils")

NUMBERS = ["UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"]


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def client(served: Serving) -> Iterator[Any]:
    with grpcclient.InferenceServerClient(served.url) as client:
        yield client


def an_input(name: str, values: Any, datatype: str | None = None) -> Any:
    one = grpcclient.InferInput(name, list(values.shape), datatype or triton.np_to_triton_dtype(values.dtype))
    one.set_data_from_numpy(values)
    return one


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_of_every_datatype_come_back_doubled(client: Any, datatype: str) -> None:
    values = np.arange(6).reshape(2, 3).astype(triton.triton_to_np_dtype(datatype))
    result = client.infer("double", [an_input("x", values)]).as_numpy("x")
    assert result.dtype == values.dtype
    np.testing.assert_array_equal(result, values * 2)


def test_booleans_bfloats_and_bytes_come_back_computed(client: Any) -> None:
    booleans = np.array([[True], [False]])
    np.testing.assert_array_equal(client.infer("double", [an_input("x", booleans)]).as_numpy("x"), ~booleans)
    text = np.array([[b"abc", "ü".encode(), b""]], dtype=object)
    result = client.infer("double", [an_input("x", text)]).as_numpy("x")
    assert result.tolist() == [[b"cba", "ü".encode()[::-1], b""]]
    floats = np.array([[0.5, -3.0]]).astype(triton.triton_to_np_dtype("BF16"))  # float32 for older clients
    result = client.infer("double", [an_input("x", floats, "BF16")]).as_numpy("x")
    np.testing.assert_array_equal(result.astype(np.float32), [[1.0, -6.0]])


def test_several_inputs_give_several_outputs_or_only_those_requested(client: Any) -> None:
    inputs = [an_input("a", np.ones((1, 2), np.float32)), an_input("b", np.full((1, 1), 3, np.int64))]
    result = client.infer("double", inputs, request_id="seven", model_version="1")
    assert [one.name for one in result.get_response().outputs] == ["a", "b"]
    assert result.as_numpy("b").tolist() == [[6]]
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("seven", "double", "1")
    result = client.infer("double", inputs, outputs=[grpcclient.InferRequestedOutput("b")])
    assert [one.name for one in result.get_response().outputs] == ["b"]
    assert result.as_numpy("b").tolist() == [[6]]


def test_parameters_priority_and_timeout_arrive(served: Serving, client: Any) -> None:
    values = np.ones((1, 2), np.float32)
    client.infer("double", [an_input("x", values)], priority=2, timeout=5_000_000, parameters={"mode": "fast", "n": 3})
    call = served.pipeline.submitted[-1]["call"]
    assert (call.parameters, call.priority, call.timeout_ns) == ({"mode": "fast", "n": 3}, 2, 5_000_000_000)


def test_compressed_requests_are_understood(client: Any) -> None:
    values = np.zeros((1, 10_000), np.float32)
    for algorithm in ("gzip", "deflate"):
        result = client.infer("double", [an_input("x", values)], compression_algorithm=algorithm)
        np.testing.assert_array_equal(result.as_numpy("x"), values)


def test_large_tensors_pass_both_ways(client: Any) -> None:
    values = np.random.default_rng(0).random((1, 3, 1024, 1024), np.float32)
    np.testing.assert_array_equal(client.infer("double", [an_input("x", values)]).as_numpy("x"), values * 2)


def test_an_error_names_the_cause_and_its_status(client: Any) -> None:
    values = np.ones((1, 2), np.float32)
    with pytest.raises(triton.InferenceServerException, match='no model "absent"') as caught:
        client.infer("absent", [an_input("x", values)])
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_health_and_metadata_say_what_is_served(served: Serving, client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("double")
    assert client.is_model_ready("double", "1")
    assert not client.is_model_ready("absent")
    served.pipeline.ready = False
    assert client.is_server_live()
    assert not client.is_server_ready()
    assert not client.is_model_ready("double")
    served.pipeline.ready = True
    server = client.get_server_metadata()
    assert server.name == "hyperion"
    assert "model_repository" in server.extensions
    model = client.get_model_metadata("double")
    assert (model.name, list(model.versions), model.platform) == ("double", ["1"], "numpy")
    assert [(one.name, one.datatype, list(one.shape)) for one in model.inputs] == [("x", "FP32", [-1, 2])]
    with pytest.raises(triton.InferenceServerException, match=r"NOT_FOUND"):
        client.get_model_metadata("double", "9")


def test_the_repository_lists_loads_and_unloads(served: Serving, client: Any) -> None:
    index = client.get_model_repository_index()
    assert [(one.name, one.state, one.reason) for one in index.models] == [
        ("double", "READY", ""),
        ("broken", "UNAVAILABLE", "bad file"),
    ]
    client.load_model("double", config="{}")
    client.unload_model("double")
    name, parameters = served.pipeline.loaded[-2]
    assert name == "double"
    assert parameters is not None
    assert parameters["config"] == "{}"
    assert served.pipeline.loaded[-1] == ("double", None)
    with pytest.raises(triton.InferenceServerException, match="the file is broken") as caught:
        client.load_model("broken")
    assert caught.value.status() == "StatusCode.FAILED_PRECONDITION"


def test_what_the_edge_does_not_do_is_unimplemented(client: Any) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        client.get_system_shared_memory_status()
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def stream(client: Any, requests: list[dict[str, Any]], expected: int) -> list[tuple[Any, Any]]:
    """What the callback of a stream was given, until `expected` messages have come."""
    seen: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: seen.put((result, error)))
    for request in requests:
        client.async_stream_infer(**request)
    messages = [seen.get(timeout=20) for _ in range(expected)]
    client.stop_stream()
    assert seen.empty()
    return messages


def test_a_stream_answers_many_requests_in_their_order(client: Any) -> None:
    requests = [
        {
            "model_name": "double",
            "inputs": [an_input("x", np.full((1, 2), index, np.int32))],
            "request_id": str(index),
        }
        for index in range(200)
    ]
    messages = stream(client, requests, 200)
    assert [result.get_response().id for result, _ in messages] == [str(index) for index in range(200)]
    assert [int(result.as_numpy("x")[0, 0]) for result, _ in messages] == [2 * index for index in range(200)]
    assert all(result.get_response().parameters["triton_final_response"].bool_param for result, _ in messages)


def test_one_failed_request_leaves_its_stream_alive(client: Any) -> None:
    good = {"model_name": "double", "inputs": [an_input("x", np.ones((1, 2), np.float32))]}
    messages = stream(client, [good, good | {"model_name": "absent"}, good], 3)
    assert [error is None for _, error in messages] == [True, False, True]
    assert 'no model "absent"' in str(messages[1][1])


@pytest.mark.parametrize("empty_end", [True, False])
def test_a_model_that_streams_answers_in_parts(client: Any, empty_end: bool) -> None:
    request = {
        "model_name": "parts",
        "inputs": [an_input("x", np.arange(6, dtype=np.float32).reshape(3, 2))],
        "parameters": {"empty end": empty_end},
    }
    messages = stream(client, [request], 3)
    assert [result.as_numpy("y").tolist() for result, _ in messages] == [[[0, 1]], [[2, 3]], [[4, 5]]]
    finals = [result.get_response().parameters["triton_final_response"].bool_param for result, _ in messages]
    assert finals == [False, False, not empty_end]


@pytest.mark.parametrize("empty_end", [True, False])
def test_who_asks_for_it_gets_an_empty_final_message(client: Any, empty_end: bool) -> None:
    request = {
        "model_name": "parts",
        "inputs": [an_input("x", np.arange(2, dtype=np.float32).reshape(1, 2))],
        "parameters": {"empty end": empty_end},
        "enable_empty_final_response": True,
        "request_id": "p",
    }
    (first, _), (last, _) = stream(client, [request], 2)
    assert first.as_numpy("y").tolist() == [[0, 1]]
    assert not first.get_response().parameters["triton_final_response"].bool_param
    assert last.get_response().parameters["triton_final_response"].bool_param
    assert len(last.get_response().outputs) == 0
    assert last.get_response().id == "p"


def test_a_stream_of_no_parts_still_gets_one_answer(client: Any) -> None:
    request = {
        "model_name": "parts",
        "inputs": [an_input("x", np.zeros((0, 2), np.float32))],
        "parameters": {"empty end": True},
    }
    ((result, error),) = stream(client, [request], 1)
    assert error is None
    assert result.get_response().parameters["triton_final_response"].bool_param


def test_the_asynchronous_client_infers_and_streams(served: Serving) -> None:
    aio = pytest.importorskip("tritonclient.grpc.aio")

    async def run() -> None:
        async with aio.InferenceServerClient(served.url) as client:
            values = np.ones((1, 2), np.float32)
            results = await asyncio.gather(*(client.infer("double", [an_input("x", values * i)]) for i in range(20)))
            assert [result.as_numpy("x")[0, 0] for result in results] == [2 * i for i in range(20)]

            async def requests() -> Any:
                for index in range(5):
                    yield {"model_name": "double", "inputs": [an_input("x", values * index)]}

            seen = [result.as_numpy("x")[0, 0] async for result, error in client.stream_infer(requests())]
            assert seen == [0, 2, 4, 6, 8]

    asyncio.run(run())
