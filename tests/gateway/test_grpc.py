"""The gRPC edge below the clients: statuses, metadata, deadlines, cancellation, limits, health, reflection, TLS."""

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from hyperion.gateway.grpc.edge import GrpcTuning
from hyperion.gateway.grpc.status import CODES
from hyperion.gateway.http.status import CODES as HTTP_CODES
from hyperion.schema.call import BatchAnswer, Tensor
from hyperion.schema.errors import InvalidConfig
from hyperion.wire.grpc.messages import (
    HealthCheckRequest,
    HealthCheckResponse,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
    RepositoryModelLoadResponse,
)
from hyperion.wire.limits import WireLimits
from tests.gateway.grpc_serving import DIGEST, ERRORS, SERVICE, Serving, a_request, serving

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def channel(served: Serving) -> Iterator[Any]:
    with connect(served) as channel:
        yield channel


def connect(served: Serving) -> Any:
    """A channel of bytes; `Any`, because gRPC's types insist on serializers."""
    return grpc.insecure_channel(served.url)


def infer(channel: Any, request: bytes, **how: Any) -> tuple[bytes, dict[str, str], Any]:
    """Answer, trailing metadata and the finished call of one ModelInfer; raises grpc.RpcError."""
    data, call = channel.unary_unary(SERVICE + "ModelInfer").with_call(request, timeout=how.pop("timeout", 20), **how)
    return data, dict(call.trailing_metadata()), call


def refusal(channel: Any, request: bytes, **how: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, request, **how)
    return caught.value


def test_an_answer_says_in_its_metadata_who_made_it_and_how_long_it_took(channel: Any) -> None:
    data, metadata, _ = infer(channel, a_request(), metadata=(("x-request-id", "mine-1"),))
    assert ModelInferResponse.FromString(data).id == "the-id"
    assert metadata == {
        "x-request-id": "mine-1",
        "x-hyperion-model-version": "1",
        "x-hyperion-model-digest": DIGEST,
        "x-hyperion-served-by": "model",
        "server-timing": "queue;dur=1.000, batch;dur=0.000, compute;dur=2.500",
    }


@pytest.mark.parametrize("length", [1, 126, 127, 128])
def test_a_request_id_of_any_allowed_length_is_repeated(channel: Any, length: int) -> None:
    _, metadata, _ = infer(channel, a_request(), metadata=(("x-request-id", "i" * length),))
    assert metadata["x-request-id"] == "i" * length


@pytest.mark.parametrize("given", ["has blanks in it", "x" * 129, ""])
def test_a_request_id_that_cannot_be_repeated_safely_is_replaced(channel: Any, given: str) -> None:
    _, metadata, _ = infer(channel, a_request(), metadata=(("x-request-id", given),))
    assert metadata["x-request-id"].startswith("id-")


def test_the_table_of_statuses_knows_every_error_that_http_knows() -> None:
    assert set(CODES) == set(HTTP_CODES)
    assert set(ERRORS) <= set(CODES)
    for name in CODES.values():
        assert grpc.StatusCode[name]


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_every_error_has_the_status_of_the_table(channel: Any, code: str) -> None:
    error = refusal(channel, a_request(model=code))
    assert error.code() is grpc.StatusCode[CODES[code]]
    metadata = dict(error.trailing_metadata())
    if code == "internal":
        assert error.details() == f"internal error; request id {metadata['x-request-id']}"
    else:
        assert error.details() == "it went wrong"


def test_an_overload_says_when_to_come_back(channel: Any) -> None:
    metadata = dict(refusal(channel, a_request(model="overloaded")).trailing_metadata())
    assert metadata["retry-after"] == "2"
    assert metadata["grpc-retry-pushback-ms"] == "1500"


@pytest.mark.parametrize("data", [b"\xff\xff", b"\x0a\x7f", b"\x0b" * 300, b""])
def test_malformed_bytes_are_the_callers_fault_and_are_recorded(served: Serving, channel: Any, data: bytes) -> None:
    before = len(served.pipeline.refusals)
    assert refusal(channel, data).code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [error.code for error in served.pipeline.refusals[before:]] == ["malformed"]
    for method in ("ModelReady", "ModelMetadata", "ServerLive", "RepositoryModelLoad"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(SERVICE + method)(data or b"\xff", timeout=20)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    infer(channel, a_request())


def test_a_bug_shows_the_caller_an_id_and_the_log_the_cause(served: Serving, channel: Any) -> None:
    error = refusal(channel, a_request(model="bug"), metadata=(("x-request-id", "seen-1"),))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "internal error; request id seen-1"
    assert "a secret of the platform" in served.log.getvalue()
    assert "seen-1" in served.log.getvalue()


def test_a_long_message_is_cut_to_what_clients_accept(channel: Any) -> None:
    request = ModelInferRequest(model_name="double")
    for index in range(2):
        request.inputs.add(name="x", datatype="é" * 60, shape=[index])
    error = refusal(channel, request.SerializeToString())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(error.details()) <= 1024


def test_a_deadline_reaches_the_pipeline_and_ends_the_call(served: Serving, channel: Any) -> None:
    error = refusal(channel, a_request(model="hold"), timeout=0.3)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    how = served.pipeline.submitted[-1]
    assert 0 < how["timeout_ns"] <= 350_000_000  # gRPC rounds deadlines up
    assert how["call"].timeout_ns == 0


@pytest.mark.parametrize(("asked_ms", "expected_s"), [("100", 0.1), ("90000", 20.0)])
def test_the_shorter_of_deadline_and_header_holds(
    served: Serving, channel: Any, asked_ms: str, expected_s: float
) -> None:
    infer(channel, a_request(), metadata=(("x-request-timeout-ms", asked_ms), ("x-hyperion-priority", "3")))
    how = served.pipeline.submitted[-1]
    assert expected_s * 0.5e9 < how["timeout_ns"] <= expected_s * 1.1e9  # gRPC rounds deadlines up
    assert how["priority"] == 3


def test_a_call_without_deadline_or_header_leaves_both_to_the_endpoint(served: Serving, channel: Any) -> None:
    infer(channel, a_request(), timeout=None)
    how = served.pipeline.submitted[-1]
    assert how["timeout_ns"] == 0
    assert how["priority"] is None
    infer(channel, a_request(), timeout=None, metadata=(("x-request-timeout-ms", "250"),))
    assert served.pipeline.submitted[-1]["timeout_ns"] == 250_000_000


@pytest.mark.parametrize("name", ["authorization", "x-hyperion-tenant", "idempotency-key"])
def test_who_asks_is_said_once(channel: Any, name: str) -> None:
    error = refusal(channel, a_request(), metadata=((name, "one"), (name, "another")))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f'"{name}" is there twice' in error.details()
    infer(channel, a_request(), metadata=((name, "one"), ("x-other", "one"), ("x-other", "another")))


@pytest.mark.parametrize(
    "header", [("x-request-timeout-ms", "0"), ("x-request-timeout-ms", "1e3"), ("x-hyperion-priority", "10")]
)
def test_a_header_out_of_its_range_is_refused_by_name(channel: Any, header: tuple[str, str]) -> None:
    error = refusal(channel, a_request(), metadata=(header,))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert header[0] in error.details()


def test_a_caller_who_leaves_cancels_the_work(served: Serving, channel: Any) -> None:
    while served.pipeline.arrived.acquire(blocking=False):
        pass
    call = channel.unary_unary(SERVICE + "ModelInfer").future(a_request(model="hold"))
    assert served.pipeline.arrived.acquire(timeout=20)
    before = drain(served.pipeline.cancelled)
    call.cancel()
    assert served.pipeline.cancelled.acquire(timeout=20), f"the call was not cancelled ({before} were before)"


def drain(semaphore: Any) -> int:
    count = 0
    while semaphore.acquire(blocking=False):
        count += 1
    return count


def test_the_answers_of_a_batch_are_those_of_each_call(served: Serving, channel: Any) -> None:
    drain(served.pipeline.arrived)
    served.pipeline.held.clear()
    request = ModelInferRequest.FromString(a_request(model="hold"))
    request.id = ""
    infer_ = channel.unary_unary(SERVICE + "ModelInfer")
    running = [infer_.future(request.SerializeToString(), metadata=(("x-request-id", f"n{n}"),)) for n in range(3)]
    for _ in running:
        assert served.pipeline.arrived.acquire(timeout=20)
    calls = [call for call, _ in served.pipeline.held]
    replies = [reply for _, reply in served.pipeline.held]
    assert len({reply.together for reply in replies}) == 1
    outputs = (Tensor("y", "FP32", (3, 1), b"aaaabbbbcccc"),)
    batch = BatchAnswer("hold", "1", DIGEST, outputs, 1, [1_000_000, 2_000_000, 3_000_000], "model", 0, 2_500_000)

    def answer() -> None:
        together = replies[0].together
        assert together is not None
        messages = together(replies, batch)
        assert messages is not None
        for reply, message in zip(replies, messages, strict=True):
            reply.send(message)

    served.call(answer)
    seen = {dict(call.trailing_metadata())["x-request-id"]: call.result() for call in running}
    assert seen.keys() == {"n0", "n1", "n2"}
    raw = {bytes(ModelInferResponse.FromString(data).raw_output_contents[0]) for data in seen.values()}
    assert raw == {b"aaaa", b"bbbb", b"cccc"}
    timings = {dict(call.trailing_metadata())["server-timing"] for call in running}
    assert timings == {f"queue;dur={n}.000, batch;dur=0.000, compute;dur=2.500" for n in (1, 2, 3)}
    assert [call.id for call in calls] == ["", "", ""]


def test_a_call_whose_id_is_repeated_is_answered_alone(served: Serving, channel: Any) -> None:
    served.pipeline.held.clear()
    call = channel.unary_unary(SERVICE + "ModelInfer").future(a_request(model="hold"))
    assert served.pipeline.arrived.acquire(timeout=20)
    assert served.pipeline.held[-1][1].together is None
    call.cancel()


def test_a_caller_who_leaves_a_stream_cancels_all_of_its_requests(served: Serving, channel: Any) -> None:
    drain(served.pipeline.arrived)
    call = channel.stream_stream(SERVICE + "ModelStreamInfer")(iter([a_request(model="hold")] * 3))
    for _ in range(3):
        assert served.pipeline.arrived.acquire(timeout=20)
    drain(served.pipeline.cancelled)
    call.cancel()
    for _ in range(3):
        assert served.pipeline.cancelled.acquire(timeout=20)


def test_a_request_of_a_stream_that_is_refused_for_now_is_told_when_to_come_back(channel: Any) -> None:
    (data,) = channel.stream_stream(SERVICE + "ModelStreamInfer")(iter([a_request(model="overloaded")]), timeout=20)
    told = ModelStreamInferResponse.FromString(data).infer_response.parameters
    assert told["retry-after"].string_param == "2"
    assert told["x-request-id"].string_param
    assert "grpc-retry-pushback-ms" not in told


def test_a_malformed_message_fails_alone_in_its_stream(channel: Any) -> None:
    requests = [a_request(), b"\xff", a_request(model="bug"), a_request(model="overloaded"), a_request()]
    answers = [
        ModelStreamInferResponse.FromString(data)
        for data in channel.stream_stream(SERVICE + "ModelStreamInfer")(iter(requests), timeout=20)
    ]
    assert [bool(answer.error_message) for answer in answers] == [False, True, True, True, False]
    assert "not a message" in answers[1].error_message
    assert "internal error" in answers[2].error_message
    assert (answers[3].error_message, answers[3].infer_response.id) == ("it went wrong", "the-id")


def test_a_stream_with_an_idempotency_key_is_refused_rather_than_run_without_one(served: Serving, channel: Any) -> None:
    before = len(served.pipeline.submitted)
    answers = channel.stream_stream(SERVICE + "ModelStreamInfer")(
        iter([a_request()]), metadata=(("idempotency-key", "k"),), timeout=20
    )
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code().name == CODES["unsupported"]
    assert "a stream cannot be kept under an idempotency-key" in caught.value.details()
    assert len(served.pipeline.submitted) == before


def test_answers_wait_for_those_before_them_in_their_stream(served: Serving, channel: Any) -> None:
    drain(served.pipeline.arrived)
    served.pipeline.held.clear()
    answers = channel.stream_stream(SERVICE + "ModelStreamInfer")(
        iter([a_request(model="hold"), a_request(model="hold"), a_request(model="parts", rows=2)]), timeout=20
    )
    for _ in range(2):
        assert served.pipeline.arrived.acquire(timeout=20)
    parts = [ModelStreamInferResponse.FromString(next(answers)).infer_response for _ in range(2)]
    assert [one.model_name for one in parts] == ["parts", "parts"]  # a model that streams waits for nobody
    (first, first_reply), (second, second_reply) = served.pipeline.held
    answer = served.pipeline.answer_to
    served.call(second_reply.answer, answer(second, second.inputs[:0]))
    served.call(first_reply.answer, answer(first, first.inputs))
    outputs = [len(ModelStreamInferResponse.FromString(next(answers)).infer_response.outputs) for _ in range(2)]
    assert outputs == [1, 0]
    assert list(answers) == []


def test_no_more_requests_are_read_from_a_stream_than_may_be_open() -> None:
    with serving(tuning=GrpcTuning(inflight=4)) as served, connect(served) as channel:
        answers = channel.stream_stream(SERVICE + "ModelStreamInfer")(iter([a_request(model="hold")] * 9), timeout=20)
        for _ in range(4):
            assert served.pipeline.arrived.acquire(timeout=20)
        served.call(lambda: None)
        assert len(served.pipeline.held) == 4
        for index in range(9):
            if index >= 4:
                assert served.pipeline.arrived.acquire(timeout=20)
            call, reply = served.pipeline.held[index]
            served.call(reply.answer, served.pipeline.answer_to(call, call.inputs))
        assert len(list(answers)) == 9


def test_partial_answers_that_nobody_reads_end_their_request() -> None:
    with serving(tuning=GrpcTuning(backlog_bytes=10_000)) as served, connect(served) as channel:
        requests = [a_request(model="parts", rows=5000), a_request()]
        answers = [
            ModelStreamInferResponse.FromString(data)
            for data in channel.stream_stream(SERVICE + "ModelStreamInfer")(iter(requests), timeout=20)
        ]
    errors = [answer.error_message for answer in answers if answer.error_message]
    assert errors == ["the stream's answers are not read fast enough; read them, or ask for fewer"]
    assert len(answers) < 5000
    assert any(answer.infer_response.model_name == "double" for answer in answers)


def test_a_model_that_streams_is_refused_where_one_answer_is_asked_for(channel: Any) -> None:
    error = refusal(channel, a_request(model="parts", rows=2))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "ModelStreamInfer" in error.details()


def test_messages_and_metadata_over_their_limits_are_refused_and_the_server_goes_on() -> None:
    with serving(limits=WireLimits(max_body_bytes=10_000)) as served, connect(served) as channel:
        assert refusal(channel, a_request(rows=2000)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        huge = (("x-anything", "x" * 20_000),)
        assert refusal(channel, a_request(), metadata=huge).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        infer(channel, a_request())


def test_calls_over_the_limit_of_all_connections_are_refused() -> None:
    with serving(tuning=GrpcTuning(max_calls=2)) as served, connect(served) as channel:
        held = [channel.unary_unary(SERVICE + "ModelInfer").future(a_request(model="hold")) for _ in range(2)]
        for _ in held:
            assert served.pipeline.arrived.acquire(timeout=20)
        error = refusal(channel, a_request())
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
        stream = channel.stream_stream(SERVICE + "ModelStreamInfer")(iter([a_request()]), timeout=20)
        with pytest.raises(grpc.RpcError, match="2 calls are open"):
            next(stream)
        assert [error.code for error in served.pipeline.refusals] == ["overloaded"]
        for call in held:
            call.cancel()
        for _ in held:
            assert served.pipeline.cancelled.acquire(timeout=20)
        infer(channel, a_request())


def test_kserves_form_of_loading_is_understood(served: Serving, channel: Any) -> None:
    data = channel.unary_unary(SERVICE + "RepositoryModelLoad")(b"\x0a\x06double", timeout=20)
    assert RepositoryModelLoadResponse.FromString(data).isLoaded
    assert served.pipeline.loaded[-1] == ("double", {})


def health(channel: Any, service: str) -> int:
    request = HealthCheckRequest(service=service).SerializeToString()
    data = channel.unary_unary(CHECK)(request, timeout=20)
    status: int = HealthCheckResponse.FromString(data).status
    return status


def test_health_is_known_for_the_server_its_service_and_each_model(served: Serving, channel: Any) -> None:
    for service in ("", "inference.GRPCInferenceService", "double"):
        assert health(channel, service) == 1
    served.pipeline.ready = False
    for service in ("", "inference.GRPCInferenceService", "double"):
        assert health(channel, service) == 2
    served.pipeline.ready = True
    with pytest.raises(grpc.RpcError) as caught:
        health(channel, "absent")
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(CHECK)(b"\xff", timeout=20)
    error = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("told", [True, False])
def test_a_watch_sees_each_change_once(told: bool) -> None:
    tuning = GrpcTuning(watch_interval_s=600.0 if told else 0.02)
    with serving(tuning=tuning) as served, connect(served) as channel:
        watch = channel.unary_stream(WATCH)(HealthCheckRequest(service="double").SerializeToString(), timeout=20)
        states = (HealthCheckResponse.FromString(data).status for data in watch)
        assert next(states) == 1
        for ready, expected in ((False, 2), (True, 1)):
            served.pipeline.ready = ready
            if told:
                served.call(served.edge.readiness_changed)
            assert next(states) == expected
        watch.cancel()
        absent = channel.unary_stream(WATCH)(HealthCheckRequest(service="absent").SerializeToString(), timeout=20)
        assert HealthCheckResponse.FromString(next(absent)).status == 3


def test_stopping_tells_watchers_ends_streams_and_finishes_what_runs() -> None:
    with serving() as served, connect(served) as channel:
        watch = channel.unary_stream(WATCH)(b"", timeout=20)
        assert HealthCheckResponse.FromString(next(watch)).status == 1
        call = channel.unary_unary(SERVICE + "ModelInfer").future(a_request(model="hold"), timeout=20)
        assert served.pipeline.arrived.acquire(timeout=20)
        stream = channel.stream_stream(SERVICE + "ModelStreamInfer")(never_ending(a_request()), timeout=20)
        assert ModelStreamInferResponse.FromString(next(stream)).infer_response.model_name == "double"
        stopping = asyncio.run_coroutine_threadsafe(served.edge.stop(20), served.loop)
        assert HealthCheckResponse.FromString(next(watch)).status == 2
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        held, reply = served.pipeline.held[0]
        served.call(reply.answer, served.pipeline.answer_to(held, held.inputs))
        assert ModelInferResponse.FromString(call.result()).id == "the-id"
        stopping.result(20)


def never_ending(request: bytes) -> Iterator[bytes]:
    """One request, and then a client that keeps its side open."""
    yield request
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
def test_reflection_lets_a_stranger_build_a_request(served: Serving, version: str) -> None:
    with connect(served) as channel:
        database = ProtoReflectionDescriptorDatabase(_Renamed(channel, version))
        services = set(database.get_services())
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= services
        found = database.FindFileContainingSymbol("inference.GRPCInferenceService")
        methods = {method.name for method in found.service[0].method}
        assert {"ModelInfer", "ModelStreamInfer", "RepositoryIndex"} <= methods
        messages = {
            message.name: {field.name: field.number for field in message.field} for message in found.message_type
        }
        assert messages["ModelInferRequest"]["raw_input_contents"] == 7
        assert database.FindFileContainingSymbol("grpc.reflection.v1alpha.ServerReflection").service
        with pytest.raises(KeyError):
            database.FindFileContainingSymbol("inference.Absent")


class _Renamed:
    """A channel that asks for the other name of the reflection service, which the client library does not know."""

    def __init__(self, channel: Any, version: str) -> None:
        self._channel = channel
        self._version = version

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._channel.stream_stream(method.replace("v1alpha", self._version), *arguments, **options)


def test_workers_share_one_port() -> None:
    with serving() as first, serving(grpc_port=first.edge.port) as second:
        assert second.edge.port == first.edge.port


def test_an_address_that_cannot_be_bound_is_a_configuration_error() -> None:
    with (
        pytest.raises(InvalidConfig, match=r"gRPC cannot listen on 203\.0\.113\.1:0"),
        serving(grpc_host="203.0.113.1"),
    ):
        pass


@pytest.mark.parametrize("client_certificate", [True, False])
def test_tls_is_spoken_and_a_client_certificate_demanded_where_configured(
    authority: Path, client_certificate: bool
) -> None:
    files: dict[str, Any] = {"tls_cert": str(authority / "server.pem"), "tls_key": str(authority / "server.key")}
    read = {path.name: path.read_bytes() for path in authority.iterdir()}
    anonymous = grpc.ssl_channel_credentials(read["ca.pem"])
    known = grpc.ssl_channel_credentials(read["ca.pem"], read["client.key"], read["client.pem"])
    if client_certificate:
        files["tls_client_ca"] = str(authority / "ca.pem")
    with serving(**files) as served:
        address = f"localhost:{served.edge.port}"
        with grpc.secure_channel(address, known if client_certificate else anonymous) as channel:
            infer(channel, a_request())
        if client_certificate:
            with grpc.secure_channel(address, anonymous) as channel:
                assert refusal(channel, a_request()).code() is grpc.StatusCode.UNAVAILABLE
        with connect(served) as channel:
            assert refusal(channel, a_request()).code() is grpc.StatusCode.UNAVAILABLE


def test_a_tls_file_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.pem")
    with pytest.raises(InvalidConfig, match=r"absent\.pem cannot be read"), serving(tls_cert=absent, tls_key=absent):
        pass


def test_hostile_messages_never_look_like_a_fault_of_ours(channel: Any) -> None:
    chance = random.Random(7)
    good = a_request(priority=1)
    ours = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    for _ in range(300):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        try:
            infer(channel, bytes(data))
        except grpc.RpcError as error:
            refused: Any = error
            assert refused.code() not in ours, (bytes(data), refused.details())
    infer(channel, good)


def test_a_stranger_who_speaks_no_http2_disturbs_nobody(served: Serving, channel: Any) -> None:
    for words in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01" + b"\xff" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500,
    ):
        with socket.create_connection(("127.0.0.1", served.edge.port), timeout=20) as stranger:
            stranger.sendall(words)
            with contextlib.suppress(ConnectionError):
                while stranger.recv(4096):
                    pass  # the server says its settings, and then good-bye
    infer(channel, a_request())
