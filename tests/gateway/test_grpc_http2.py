"""The gRPC edge over raw sockets: what clients with libraries never do. Floods, silence, wrong requests."""

import asyncio
import contextlib
import gzip
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import pytest
from hpack import Decoder

from hyperion.gateway.grpc.server import GrpcTuning
from hyperion.wire.grpc.framing import MessageReader, frame_message
from hyperion.wire.grpc.messages import ModelInferResponse
from hyperion.wire.http2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    NO_ERROR,
    PING,
    PREFACE,
    REFUSED_STREAM,
    RST_STREAM,
    WINDOW_UPDATE,
    frame,
    settings_frame,
)
from hyperion.wire.limits import WireLimits
from tests.gateway.grpc_serving import SERVICE, Serving, a_request, serving
from tests.wire.http2_bytes import (
    ALLOWED,
    FIELDS,
    HELLO,
    VIOLATIONS,
    data,
    headers,
    read_frames,
    request,
    reset,
    window,
)

INFER = (SERVICE + "ModelInfer").encode()
STREAM = (SERVICE + "ModelStreamInfer").encode()
LIVE = (SERVICE + "ServerLive").encode()


class Client:
    """One connection, frame by frame. Windows are wide open unless `opening` says otherwise."""

    def __init__(self, served: Serving, hello: bytes = HELLO + window(0, 1 << 30)) -> None:
        self.socket = socket.create_connection(("127.0.0.1", served.edge.port), timeout=20)
        self._unread = b""
        self._frames: list[tuple[int, int, int, bytes]] = []
        self._hpack = Decoder()
        self.send(hello)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def next(self, *kinds: int) -> tuple[int, int, int, bytes]:
        """The next frame of one of these kinds. Raises EOFError at the end."""
        while True:
            while self._frames:
                found = self._frames.pop(0)
                if not kinds or found[0] in kinds:
                    return found
            try:
                more = self.socket.recv(1 << 20)
            except ConnectionError:
                more = b""
            if not more:
                raise EOFError
            self._unread += more
            self._frames = list(read_frames(self._unread))
            self._unread = self._unread[sum(9 + len(payload) for *_, payload in self._frames) :]

    def fault(self) -> tuple[int, int]:
        """The next thing that the server complains of: stream (0: the connection) and code."""
        while True:
            kind, _, stream_id, payload = self.next(GOAWAY, RST_STREAM)
            code = int.from_bytes(payload[4:8] if kind == GOAWAY else payload)
            if code != NO_ERROR:
                return stream_id, code

    def call(self, path: bytes, message: bytes, *fields: tuple[bytes, bytes], stream_id: int = 1) -> dict[str, Any]:
        """Makes a call and waits for its end."""
        self.send(headers(stream_id, a_head(path, *fields)), data(stream_id, message))
        return self.answer(stream_id)

    def answer(self, stream_id: int = 1) -> dict[str, Any]:
        """Fields of head and trailers of a call, and its data under ""."""
        found: dict[str, Any] = {"": b""}
        while True:
            kind, flags, stream, payload = self.next(HEADERS, DATA, RST_STREAM)
            if kind == HEADERS:
                fields = dict(self._hpack.decode(payload))
                if stream == stream_id:
                    found |= fields
            elif stream == stream_id and kind == RST_STREAM:
                return found | {"reset": int.from_bytes(payload)}
            elif stream == stream_id:
                found[""] += payload
            if stream == stream_id and kind in (DATA, HEADERS) and flags & END_STREAM:
                return found

    def is_closed(self) -> bool:
        """Reads until the server closes."""
        with contextlib.suppress(EOFError):
            while True:
                self.next()
        return True


def a_head(path: bytes, *fields: tuple[bytes, bytes], without: Iterable[bytes] = ()) -> list[tuple[bytes, bytes]]:
    replaced = {name for name, _ in fields} | set(without)
    head = [(name, path if name == b":path" else value) for name, value in FIELDS if name not in replaced]
    pseudo = [one for one in fields if one[0].startswith(b":")]
    return [*pseudo, *head, *(one for one in fields if not one[0].startswith(b":"))]


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving() as running:
        yield running


@pytest.fixture
def client(served: Serving) -> Iterator[Client]:
    with Client(served) as client:
        yield client


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_client_that_breaks_a_rule_is_told_which_and_others_are_served(served: Serving, name: str) -> None:
    sent, stream_id, code = VIOLATIONS[name]
    with Client(served) as client, Client(served) as other:
        with contextlib.suppress(ConnectionError):  # the server may have closed before it was all sent
            client.send(sent)
        assert client.fault() == (stream_id, code)
        if stream_id and not name.startswith("requests"):
            assert client.call(LIVE, bytes(5), stream_id=10_001)["grpc-status"] == "0"
        else:
            assert client.is_closed()
        assert other.call(LIVE, bytes(5))["grpc-status"] == "0"
    assert served.edge.server.running == 0


@pytest.mark.parametrize("name", ALLOWED)
def test_a_client_may_be_odd(client: Client, name: str) -> None:
    client.send(ALLOWED[name])
    if not name.startswith("skipped"):
        assert client.call(LIVE, bytes(5), stream_id=10_001)["grpc-status"] == "0"


def test_the_server_answers_pings_and_goes_on(client: Client) -> None:
    client.send(frame(PING, 0, 0, b"abcdefgh"))
    assert client.next(PING) == (PING, ACK, 0, b"abcdefgh")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (((b"content-type", b"application/json"),), "415"),
        (((b"content-type", b"application/grpcish"),), "415"),
        (((b"content-type", b"text/html"),), "415"),
        (((b":method", b"GET"),), "405"),
    ],
)
def test_what_is_no_grpc_gets_an_http_status(client: Client, fields: Any, status: str) -> None:
    answer = client.call(LIVE, bytes(5), *fields)
    assert answer[":status"] == status
    assert client.call(LIVE, bytes(5), stream_id=3)["grpc-status"] == "0"


@pytest.mark.parametrize("kind", [b"application/grpc+proto", b"application/grpc;charset=utf-8", b"Application/GRPC"])
def test_content_types_may_name_their_codec(client: Client, kind: bytes) -> None:
    assert client.call(LIVE, bytes(5), (b"content-type", kind))["grpc-status"] == "0"


@pytest.mark.parametrize("path", [b"/", b"/inference.GRPCInferenceService/Absent", b"/a/b", b"*"])
def test_an_unknown_method_is_unimplemented(client: Client, path: bytes) -> None:
    answer = client.call(path, bytes(5))
    assert (answer[":status"], answer["grpc-status"]) == ("200", "12")
    assert client.call(LIVE, bytes(5), stream_id=3)["grpc-status"] == "0"


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "no message"),
        (b"\0\0\0\0", "before its message"),
        (b"\0\0\0\0\x05abc", "before its message"),
        (b"\0\0\0\0\0\0\0\0\0\0", "more than one message"),
        (b"\0\0\0\0\0\0", "more than one message"),
        (b"\x02\0\0\0\0", "begins with 2"),
        (b"\x01\0\0\0\0", "does not say how"),
    ],
)
def test_calls_without_exactly_one_whole_message_are_malformed(client: Client, message: bytes, why: str) -> None:
    for stream_id, path in ((1, LIVE), (3, INFER)):
        answer = client.call(path, message, stream_id=stream_id)
        assert answer["grpc-status"] == "3"
        if message:
            assert why in answer["grpc-message"]
    client.send(headers(5, a_head(LIVE), END_HEADERS | END_STREAM))
    assert client.answer(5)["grpc-status"] == "3"
    client.send(headers(7, a_head(LIVE)), data(7, bytes(5), 0), data(7, b"\0"))
    assert "more than one message" in client.answer(7)["grpc-message"]


def test_a_message_may_come_in_any_pieces_and_end_with_trailers(client: Client) -> None:
    message = frame_message(a_request())
    client.send(headers(1, a_head(INFER)))
    for at in range(len(message)):
        client.send(data(1, message[at : at + 1], 0))
    client.send(headers(1, [(b"x-checksum", b"1")], END_HEADERS | END_STREAM))
    answer = client.answer()
    assert answer["grpc-status"] == "0"
    assert ModelInferResponse.FromString(answer[""][5:]).id == "the-id"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity", "GZIP"])
def test_compressed_messages_are_inflated(client: Client, encoding: str) -> None:
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding.lower())
    plain = a_request()
    message = b"\x01" + frame_message(packed(plain))[1:] if packed else frame_message(plain)
    answer = client.call(INFER, message, (b"grpc-encoding", encoding.encode()))
    assert answer["grpc-status"] == "0"
    assert answer["grpc-accept-encoding"] == "identity,deflate,gzip"


def test_an_encoding_that_nobody_knows_is_unimplemented(client: Client) -> None:
    answer = client.call(INFER, frame_message(a_request()), (b"grpc-encoding", b"snappy"))
    assert answer["grpc-status"] == "12"
    assert "snappy" in answer["grpc-message"]
    assert answer["grpc-accept-encoding"] == "identity,deflate,gzip"


def test_a_message_that_unfolds_over_the_limit_is_refused() -> None:
    with serving(limits=WireLimits(max_body_bytes=10_000)) as served, Client(served) as client:
        bomb = b"\x01" + frame_message(gzip.compress(bytes(1 << 20)))[1:]
        assert client.call(INFER, bomb, (b"grpc-encoding", b"gzip"))["grpc-status"] == "8"
        broken = b"\x01" + frame_message(b"no gzip")[1:]
        assert client.call(INFER, broken, (b"grpc-encoding", b"gzip"), stream_id=3)["grpc-status"] == "3"
        assert client.call(INFER, b"\0\0\0\x27\x11", stream_id=5)["grpc-status"] == "8"


@pytest.mark.parametrize("timeout", [b"", b"5", b"5x", b"123456789S", b"-1S"])
def test_a_timeout_of_another_form_is_refused(client: Client, timeout: bytes) -> None:
    answer = client.call(LIVE, bytes(5), (b"grpc-timeout", timeout))
    assert answer["grpc-status"] == "3"
    assert "grpc-timeout" in answer["grpc-message"]


def test_metadata_over_its_limits_is_refused_and_the_connection_lives(client: Client) -> None:
    for stream_id, fields in ((1, [(b"a", b"x" * 17_000)]), (3, [(b"a%d" % n, b"") for n in range(101)])):
        assert client.call(LIVE, bytes(5), *fields, stream_id=stream_id)["grpc-status"] == "8"
    assert client.call(LIVE, bytes(5), stream_id=5)["grpc-status"] == "0"


def test_a_request_that_stops_halfway_is_ended_and_its_memory_given_back() -> None:
    with serving(body_timeout_s=0.5) as served, Client(served) as client:
        client.send(headers(1, a_head(INFER)), data(1, b"\0\0\0\x10\0" + bytes(3000), 0))
        client.send(headers(3, a_head(STREAM)), data(3, b"\0\0\0\x10\0" + bytes(3000), 0))
        assert {client.answer(1)["grpc-status"], client.answer(3)["grpc-status"]} == {"4"}
        assert [error.code for error in served.pipeline.refusals] == ["client_too_slow"]
        assert (served.edge.server.buffered_bytes, served.edge.server.running) == (0, 0)


def test_the_deadline_holds_for_a_request_that_does_not_come() -> None:
    with serving() as served, Client(served) as client:
        client.send(headers(1, a_head(INFER, (b"grpc-timeout", b"100m"))))
        client.send(headers(3, a_head(STREAM, (b"grpc-timeout", b"100m"))))
        assert {client.answer(3)["grpc-status"], client.answer(1)["grpc-status"]} == {"4"}


def test_a_connection_that_says_nothing_is_closed() -> None:
    with serving(tuning=GrpcTuning(handshake_timeout_s=0.2)) as served:
        for words in (b"", PREFACE[:9], PREFACE):
            with Client(served, words) as client:
                assert client.is_closed()


def test_a_silent_client_is_asked_if_it_lives_and_left_if_it_does_not() -> None:
    with serving(tuning=GrpcTuning(keepalive_s=0.2, keepalive_timeout_s=1.5)) as served, Client(served) as client:
        for _ in range(2):
            _, _, _, payload = client.next(PING)
            client.send(frame(PING, ACK, 0, payload))
        client.next(PING)
        assert client.is_closed()


def test_answers_that_nobody_takes_are_given_up() -> None:
    """The client's window is shut: first the stream is ended, and what waited for it is dropped."""
    with (
        serving(body_timeout_s=0.5) as served,
        Client(served, HELLO + settings_frame({INITIAL_WINDOW_SIZE: 0})) as client,
    ):
        client.send(headers(1, a_head(INFER)), data(1, frame_message(a_request())))
        assert client.answer(1)["reset"] == 8
        client.send(settings_frame({INITIAL_WINDOW_SIZE: 1000}))
        assert client.call(INFER, frame_message(a_request()), stream_id=3)["grpc-status"] == "0"


def test_a_client_that_does_not_read_is_cut_off() -> None:
    with serving(body_timeout_s=0.5) as served:
        hello = HELLO + settings_frame({INITIAL_WINDOW_SIZE: 2**31 - 1}) + window(0, 1 << 30)
        with Client(served, hello) as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            message = frame_message(a_request(rows=500_000))
            client.send(headers(1, a_head(INFER)))
            for at in range(0, len(message), 16_000):
                client.send(data(1, message[at : at + 16_000], END_STREAM if at + 16_000 >= len(message) else 0))
            wait_until(lambda: served.edge.server.connections == set())
        assert served.edge.server.buffered_bytes == 0


def wait_until(is_so: Any) -> None:
    ends = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_more_connections_than_the_limit_are_sent_away() -> None:
    with serving(max_connections=1) as served, Client(served) as first:
        assert first.call(LIVE, bytes(5))["grpc-status"] == "0"
        with Client(served) as second:
            assert second.fault() == (0, ENHANCE_YOUR_CALM)
            assert second.is_closed()
        assert first.call(LIVE, bytes(5), stream_id=3)["grpc-status"] == "0"


def test_more_streams_than_the_limit_are_refused() -> None:
    with serving(tuning=GrpcTuning(max_streams=2)) as served, Client(served) as client:
        client.send(*(headers(n, a_head(INFER)) for n in (1, 3, 5)))
        assert client.fault() == (5, REFUSED_STREAM)
        client.send(reset(1))
        assert client.call(LIVE, bytes(5), stream_id=7)["grpc-status"] == "0"


@pytest.mark.parametrize("polite", [True, False])
def test_a_caller_who_resets_or_disappears_cancels_the_work(served: Serving, polite: bool) -> None:
    while served.pipeline.cancelled.acquire(blocking=False) or served.pipeline.arrived.acquire(blocking=False):
        pass
    with Client(served) as client:
        client.send(headers(1, a_head(INFER)), data(1, frame_message(a_request(model="hold"))))
        assert served.pipeline.arrived.acquire(timeout=20)
        if polite:
            client.send(reset(1))
            assert served.pipeline.cancelled.acquire(timeout=20)
    if not polite:
        assert served.pipeline.cancelled.acquire(timeout=20)
    call, reply = served.pipeline.held[-1]
    served.call(reply.answer, served.pipeline.answer_to(call, call.inputs))  # too late, and harmless
    wait_until(lambda: served.edge.server.running == 0)


def test_a_stream_is_not_read_faster_than_it_is_served() -> None:
    with serving(tuning=GrpcTuning(inflight=1)) as served, Client(served) as client:
        client.send(headers(1, a_head(STREAM)))
        message = frame_message(a_request(model="hold", rows=1000))
        for _ in range(2000):
            client.send(data(1, message, 0))
        assert served.pipeline.arrived.acquire(timeout=20)
        served.call(lambda: None)
        granted = 0
        client.send(frame(PING, 0, 0, b"areyouon"))
        while (found := client.next(WINDOW_UPDATE, PING))[0] == WINDOW_UPDATE:
            granted += int.from_bytes(found[3]) if found[2] == 1 else 0
        assert granted == 0
        assert len(served.pipeline.held) == 1


def test_a_stream_writes_no_faster_than_its_client_reads() -> None:
    """Its window is shut at first: little is held for it, and nothing is lost once it opens."""
    with serving() as served, Client(served, HELLO + settings_frame({INITIAL_WINDOW_SIZE: 0})) as client:
        parts = frame_message(a_request(model="parts", rows=3000))
        client.send(headers(1, a_head(STREAM)), data(1, parts))
        client.next(HEADERS)
        assert client.call(LIVE, b"", stream_id=3)["grpc-status"] == "3"
        (connection,) = served.edge.server.connections
        assert connection.sender.queued_bytes < 100_000
        client.send(window(0, 1 << 28), window(1, 1 << 28))
        answer = client.answer(1)
        assert answer["grpc-status"] == "0"
        reader = MessageReader(1 << 20, lambda _size: None)
        assert len(reader.feed(answer[""])) == 3000


@pytest.mark.parametrize(
    ("message", "status"), [(b"\x07\0\0\0\0", "3"), (b"\0\x7f\0\0\0", "8"), (b"\0\0\0\0\x05abc", "3")]
)
def test_a_stream_whose_framing_breaks_ends(client: Client, message: bytes, status: str) -> None:
    client.send(headers(1, a_head(STREAM)), data(1, frame_message(a_request()), 0))
    client.next(DATA)
    client.send(data(1, message))
    answer = client.answer(1)
    assert answer["grpc-status"] == status


def test_a_watch_or_a_stream_without_messages_ends(client: Client) -> None:
    for stream_id, path, status in ((1, b"/grpc.health.v1.Health/Watch", "3"), (3, STREAM, "0")):
        client.send(headers(stream_id, a_head(path), END_HEADERS | END_STREAM))
        assert client.answer(stream_id)["grpc-status"] == status
    assert client.call(STREAM, b"", (b"grpc-timeout", b"soon"), stream_id=5)["grpc-status"] == "3"


def test_a_slow_method_ends_at_its_deadline_and_with_its_caller(served: Serving, client: Client) -> None:
    left = threading.Semaphore(0)

    async def never(*_: object) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            left.release()

    load = (SERVICE + "RepositoryModelLoad").encode()
    original, served.pipeline.load = served.pipeline.load, never  # type: ignore[method-assign]
    try:
        message = frame_message(b"\x0a\x06double")
        assert client.call(load, message, (b"grpc-timeout", b"50m"))["grpc-status"] == "4"
        assert left.acquire(timeout=20)
        client.send(headers(3, a_head(load)), data(3, message))
        assert client.call(LIVE, bytes(5), stream_id=5)["grpc-status"] == "0"
        client.send(reset(3))
        assert left.acquire(timeout=20)
    finally:
        served.pipeline.load = original  # type: ignore[method-assign]


def test_draining_warns_finishes_what_runs_and_closes() -> None:
    with serving() as served, Client(served) as client, Client(served, b"") as silent, Client(served) as idle:
        assert idle.call(LIVE, bytes(5))["grpc-status"] == "0"
        client.send(headers(1, a_head(INFER)), data(1, frame_message(a_request(model="hold"))))
        assert served.pipeline.arrived.acquire(timeout=20)
        stopping = asyncio.run_coroutine_threadsafe(served.edge.stop(20), served.loop)
        _, _, _, payload = client.next(GOAWAY)
        assert int.from_bytes(payload[:4]) == 2**31 - 1
        assert idle.call(LIVE, bytes(5), stream_id=3)["grpc-status"] == "0"  # nor had this one
        client.send(headers(3, a_head(LIVE)), data(3))  # it had not heard of it yet
        assert client.answer(3)["grpc-status"] == "0"
        client.send(frame(PING, ACK, 0, b"hyperion"))
        _, _, _, payload = client.next(GOAWAY)
        assert (int.from_bytes(payload[:4]), int.from_bytes(payload[4:8])) == (3, NO_ERROR)
        client.send(headers(5, a_head(LIVE)), data(5))
        assert client.fault() == (5, REFUSED_STREAM)
        call, reply = served.pipeline.held[0]
        served.call(reply.answer, served.pipeline.answer_to(call, call.inputs))
        assert client.answer(1)["grpc-status"] == "0"
        assert client.is_closed()
        assert silent.is_closed()
        assert idle.is_closed()
        stopping.result(20)
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", served.edge.port), timeout=20)


def test_an_end_without_grace_cancels_what_runs() -> None:
    with serving() as served, Client(served) as client:
        client.send(headers(1, a_head(INFER)), data(1, frame_message(a_request(model="hold"))))
        assert served.pipeline.arrived.acquire(timeout=20)
        served.wait(served.edge.stop(0))
        assert served.pipeline.cancelled.acquire(timeout=20)
        assert client.is_closed()


def test_a_socket_that_is_handed_over_is_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        early = socket.create_connection(listener.getsockname(), timeout=20)  # waits in the backlog
        with early, serving(grpc_fd=listener.fileno()) as served:
            assert served.edge.port == listener.getsockname()[1]
            early.sendall(HELLO + request())
            found = b""
            while HEADERS not in [kind for kind, *_ in read_frames(found)]:
                found += early.recv(4096)


def test_many_calls_on_one_connection_do_not_wear_it_out(served: Serving) -> None:
    with grpc.insecure_channel(served.url) as channel:
        call: Any = channel.unary_unary(SERVICE + "ModelInfer")
        for _ in range(3):
            running = [call.future(a_request(), timeout=20) for _ in range(500)]
            assert all(ModelInferResponse.FromString(one.result()).id == "the-id" for one in running)


def test_over_tls_only_http2_is_spoken(served: Serving, authority: Any) -> None:
    files: dict[str, Any] = {"tls_cert": str(authority / "server.pem"), "tls_key": str(authority / "server.key")}
    with serving(**files) as tls:
        for offered in (["http/1.1"], []):
            context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
            if offered:
                context.set_alpn_protocols(offered)
            with (
                contextlib.suppress(ConnectionError, ssl.SSLError),
                socket.create_connection(("127.0.0.1", tls.edge.port), timeout=20) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                secure.sendall(HELLO + request())
                assert secure.recv(4096) == b""
