"""The server's side of HTTP/2, byte for byte: what each rule of RFC 9113 asks for, limits, flow control, hostility."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperion.wire.http2.connection import MAX_REMEMBERED, Http2Connection, Http2Limits
from hyperion.wire.http2.fields import Fields
from hyperion.wire.http2.frames import (
    ACK,
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    NO_ERROR,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    ConnectionFault,
    StreamFault,
    frame,
    settings_frame,
)
from hyperion.wire.http2.stream import MOST_POINTS, Patience, Stream
from tests.wire.http2_bytes import (
    ALLOWED,
    FIELDS,
    HELLO,
    MESSAGE,
    VIOLATIONS,
    data,
    faults,
    headers,
    read_frames,
    request,
    reset,
    window,
)


class Head:
    def __init__(self, content_length: int) -> None:
        self.content_length = content_length


def read_head(fields: Fields) -> Head:
    lengths = [value for name, value in fields if name == b"content-length"]
    if len(lengths) > 1 or not all(value.isdigit() for value in lengths):
        raise StreamFault(PROTOCOL_ERROR, "content-length is not a number")
    return Head(int(lengths[0]) if lengths else -1)


class Server:
    """Answers `answer` to each request that has come whole; None leaves it open."""

    def __init__(self, answer: bytes | None = b"ok", limits: Http2Limits | None = None) -> None:
        self.answer = answer
        self.http2 = Http2Connection(self, read_head, limits or Http2Limits(), 0.0)
        self.bodies: dict[int, bytes] = {}
        self.reset: list[int] = []

    def on_request(self, stream: Stream) -> None:
        self.bodies[stream.id] = b""
        if stream.remote_ended:
            self.on_data(stream, b"")

    def on_data(self, stream: Stream, data: object) -> None:
        assert not stream.closed
        self.bodies[stream.id] += bytes(data)  # type: ignore[call-overload]
        if stream.remote_ended and self.answer is not None:
            self.http2.sender.send_answer(stream, b"\x88", self.answer, b"\x00\x01a\x01b")

    def on_reset(self, stream: Stream) -> None:
        assert stream.closed
        self.reset.append(stream.id)

    def take(self) -> bytes:
        """What it has written since."""
        out, self.http2.sender.out = self.http2.sender.out, []
        return b"".join(out)

    def tell(self, data: bytes, now_s: float = 0.0) -> bytes:
        self.http2.receive(data, now_s)
        return self.take()


def greeted(answer: bytes | None = b"ok", limits: Http2Limits | None = None) -> Server:
    server = Server(answer, limits)
    server.tell(HELLO)
    return server


def received(data: bytes, stream_id: int = 1) -> tuple[bytes, bool]:
    """The data of a stream, and whether the stream was ended."""
    body, ended = b"", False
    for kind, flags, stream, payload in read_frames(data):
        if stream == stream_id and kind == DATA:
            body += payload
        if stream == stream_id and kind in (DATA, HEADERS) and flags & END_STREAM:
            ended = True
    return body, ended


def test_the_server_says_first_what_it_can_take_and_acknowledges_what_the_client_can() -> None:
    server = Server()
    kinds = [(kind, stream) for kind, _, stream, _ in read_frames(server.take())]
    assert kinds == [(SETTINGS, 0), (WINDOW_UPDATE, 0)]
    assert not server.http2.greeted
    assert list(read_frames(server.tell(HELLO))) == [(SETTINGS, ACK, 0, b"")]
    assert server.http2.greeted
    assert server.tell(frame(SETTINGS, ACK, 0)) == b""


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/1.1",
        PREFACE + data(1),
        PREFACE + frame(SETTINGS, ACK, 0),
        b"\x16\x03\x01",
    ],
)
def test_what_does_not_begin_as_http2_is_told_so_and_not_heard(words: bytes) -> None:
    server = Server()
    server.take()
    assert faults(server.tell(words)) == [(0, PROTOCOL_ERROR)]
    assert server.http2.closed
    assert server.tell(HELLO + request()) == b""
    server.http2.fail(ConnectionFault(PROTOCOL_ERROR, "again"))
    server.http2.go_away(at_once=True)
    assert server.take() == b""


@pytest.mark.parametrize("name", VIOLATIONS)
@pytest.mark.parametrize("whole", [True, False])
def test_each_violation_has_the_answer_of_the_rfc(name: str, whole: bool) -> None:
    sent, stream_id, code = VIOLATIONS[name]
    server = greeted()
    if whole:
        told = server.tell(sent)
    else:
        if len(sent) > 100_000:
            sent = sent[: len(sent) // 10 * 10]
        step = max(1, len(sent) // 5000)
        told = b"".join(server.tell(sent[at : at + step]) for at in range(0, len(sent), step))
    found = [fault for fault in faults(told) if fault[1] != NO_ERROR]
    assert found[0] == (stream_id, code), server.http2.fault
    assert server.http2.closed is (stream_id == 0 or (0, ENHANCE_YOUR_CALM) in found)
    if not server.http2.closed:
        assert received(server.tell(request(99)), 99) == (b"ok", True)


@pytest.mark.parametrize("name", ALLOWED)
@pytest.mark.parametrize("step", [1, 7, 10**6])
def test_what_only_looks_like_a_fault_is_none(name: str, step: int) -> None:
    server = greeted()
    sent = ALLOWED[name]
    told = b"".join(server.tell(sent[at : at + step]) for at in range(0, len(sent), step))
    assert (0, PROTOCOL_ERROR) not in faults(told)
    assert not server.http2.closed
    asked = {n for n, body in server.bodies.items() if body == MESSAGE}
    assert asked or name.startswith("unknown")
    for stream_id in asked:
        assert received(told, stream_id) == (b"ok", True)
    assert not server.http2.streams


def test_more_data_than_the_windows_allow_is_refused() -> None:
    limits = Http2Limits(stream_window_bytes=1000, connection_window_bytes=100_000)
    server = greeted(limits=limits)
    server.tell(headers())
    server.http2.withhold(server.http2.streams[1], True)
    assert faults(server.tell(data(1, bytes(1001), 0))) == [(1, FLOW_CONTROL_ERROR)]
    assert server.reset == [1]
    assert faults(server.tell(data(1, bytes(100), 0))) == []  # late
    server = greeted(limits=Http2Limits(stream_window_bytes=200_000, connection_window_bytes=70_000))
    assert faults(server.tell(headers() + data(1, bytes(70_001), 0))) == [(0, FLOW_CONTROL_ERROR)]


def windows(told: bytes) -> dict[int, int]:
    """How much each window was opened."""
    found: dict[int, int] = {}
    for kind, _, stream_id, payload in read_frames(told):
        if kind == WINDOW_UPDATE:
            found[stream_id] = found.get(stream_id, 0) + int.from_bytes(payload)
    return found


def test_windows_are_opened_again_as_data_comes_and_held_shut_where_asked() -> None:
    limits = Http2Limits(stream_window_bytes=1000, connection_window_bytes=100_000)
    server = greeted(limits=limits)
    assert windows(server.tell(headers() + data(1, bytes(400), 0))) == {}
    assert windows(server.tell(data(1, bytes(200), 0))) == {1: 600}
    stream = server.http2.streams[1]
    server.http2.withhold(stream, True)
    assert windows(server.tell(data(1, bytes(900), 0))) == {}
    server.http2.withhold(stream, False)
    assert windows(server.take()) == {1: 900}
    server.http2.withhold(stream, False)
    assert windows(server.take()) == {}
    told = server.tell(b"".join(headers(n) + data(n, bytes(900)) for n in range(3, 200, 2)))
    assert windows(told).keys() == {0}
    server.http2.reset(stream)
    server.http2.withhold(stream, False)
    assert windows(server.take()) == {}


def test_an_answer_waits_for_the_windows_and_ends_behind_its_last_byte() -> None:
    answer = bytes(range(256)) * 400
    server = greeted(answer)
    told = server.tell(request())
    assert received(told) == (answer[:65_535], False)
    assert server.http2.sender.queued_bytes == len(answer) - 65_535
    assert received(server.tell(window(1, 50_000))) == (b"", False)  # the connection's is shut
    told = server.tell(window(0, 10_000))
    assert received(told) == (answer[65_535:75_535], False)
    told = server.tell(window(0, 10**6))
    assert received(told) == (answer[75_535:], True)
    assert server.http2.sender.queued_bytes == 0
    assert server.http2.streams == {}


def test_settings_change_the_windows_of_open_streams_even_below_zero() -> None:
    answer = bytes(70_000)
    server = greeted(answer)
    server.tell(window(0, 10**6) + settings_frame({INITIAL_WINDOW_SIZE: 10}))
    assert received(server.tell(request()))[0] == bytes(10)
    assert received(server.tell(settings_frame({INITIAL_WINDOW_SIZE: 4})))[0] == b""
    assert received(server.tell(window(1, 6)))[0] == b""
    assert received(server.tell(window(1, 5)))[0] == bytes(5)
    told = server.tell(settings_frame({INITIAL_WINDOW_SIZE: 10**6, MAX_FRAME_SIZE: 2**20}))
    assert received(told) == (bytes(70_000 - 15), True)
    assert max(len(payload) for _, _, _, payload in read_frames(told)) == 70_000 - 15


def test_streams_take_turns() -> None:
    server = greeted(bytes(40_000))
    server.tell(settings_frame({INITIAL_WINDOW_SIZE: 10**6}))
    server.http2.sender.writable = False
    assert received(server.tell(request(1) + request(3) + window(0, 10**6)))[0] == b""
    server.http2.sender.writable = True
    server.http2.sender.pump()
    order = [stream for kind, _, stream, _ in read_frames(server.take()) if kind == DATA]
    assert order == [1, 3, 1, 3, 1, 3]


def test_an_answer_before_the_end_of_the_request_stops_the_request() -> None:
    server = greeted()
    server.tell(headers())
    stream = server.http2.streams[1]
    sender = server.http2.sender
    sender.send_head(stream, b"\x88", True)
    assert faults(server.take()) == [(1, NO_ERROR)]
    sender.send_head(stream, b"\x88")
    sender.send_data(stream, b"more")
    sender.send_trailers(stream, b"")
    server.http2.reset(stream, CANCEL)
    assert server.take() == b""
    assert server.tell(data()) == b""
    assert server.bodies[1] == b""


def test_an_answer_in_parts() -> None:
    server = greeted(None)
    server.tell(request())
    stream, sender = server.http2.streams[1], server.http2.sender
    sender.send_head(stream, b"\x88")
    sender.send_data(stream, b"one")
    sender.send_data(stream, b"")
    sender.send_data(stream, b"two")
    assert received(server.take()) == (b"onetwo", False)
    sender.send_trailers(stream, b"")
    assert received(server.take()) == (b"", True)


@pytest.mark.parametrize("by_client", [True, False])
def test_what_waits_for_a_stream_goes_with_it(by_client: bool) -> None:
    server = greeted(bytes(100_000))
    server.tell(request())
    assert server.http2.sender.queued_bytes
    stream = server.http2.streams[1]
    if by_client:
        server.tell(reset(1))
    else:
        server.http2.reset(stream, CANCEL)
    assert server.reset == [1]
    assert (server.http2.sender.queued_bytes, server.http2.sender.blocked) == (0, {})
    assert received(server.tell(window(0, 10**6))) == (b"", False)


def test_headers_on_a_stream_whose_request_has_ended_end_it() -> None:
    server = greeted(None)
    server.tell(request())
    assert faults(server.tell(headers(1, [], END_HEADERS | END_STREAM))) == [(1, STREAM_CLOSED)]
    server.tell(request(3))
    assert faults(server.tell(data(3))) == [(3, STREAM_CLOSED)]


def test_streams_over_the_limit_are_refused_so_that_they_can_be_tried_again() -> None:
    server = greeted(None, Http2Limits(max_streams=2))
    told = server.tell(request(1) + request(3) + request(5))
    assert faults(told) == [(5, REFUSED_STREAM)]
    server.tell(reset(1))
    assert faults(server.tell(request(7))) == []


def test_a_server_that_leaves_warns_waits_and_refuses() -> None:
    server = greeted(None)
    server.tell(headers(1))
    server.http2.go_away(at_once=False)
    server.http2.ping()
    frames = list(read_frames(server.take()))
    assert [kind for kind, *_ in frames] == [GOAWAY, PING]
    assert int.from_bytes(frames[0][3][:4]) == 2**31 - 1
    server.tell(headers(3) + frame(PING, ACK, 0, frames[1][3]))
    assert server.http2.pongs == 1
    server.http2.go_away(at_once=True)
    ((_, _, _, payload),) = read_frames(server.take())
    assert int.from_bytes(payload[:4]) == 3
    assert faults(server.tell(headers(5) + data(3))) == [(5, REFUSED_STREAM)]
    assert server.bodies == {1: b"", 3: MESSAGE}
    server.http2.end()
    assert server.reset == [1, 3]


@pytest.mark.parametrize(
    ("number", "code"),
    [(1, PROTOCOL_ERROR), (4 * MAX_REMEMBERED + 1, STREAM_CLOSED), (6 * MAX_REMEMBERED - 1, STREAM_CLOSED)],
)
def test_no_more_streams_are_remembered_than_the_limit(number: int, code: int) -> None:
    server = greeted()
    for n in range(1, 6 * MAX_REMEMBERED, 2):
        server.tell(request(n))
    assert faults(server.tell(data(number))) == [(0, code)]


def test_patience_comes_back_with_time_and_with_sensible_calls() -> None:
    pings = frame(PING, 0, 0, bytes(8)) * 1900
    server = greeted()
    assert faults(server.tell(pings, 1.0)) == []
    assert faults(server.tell(pings, 20.0)) == []
    assert faults(server.tell(pings, 20.1)) == [(0, ENHANCE_YOUR_CALM)]
    server = greeted()
    for n in range(1, 6000, 2):  # each is answered, so a window update for each is no flood
        assert faults(server.tell(request(n) + window(0, 1) * 4)) == []
    patience = Patience(0.0)
    patience.earn(5.0)
    assert patience.points == MOST_POINTS


def test_a_call_that_lived_for_a_while_may_be_given_up_for_nothing() -> None:
    server = greeted(None)
    for n in range(1, 5001, 2):
        server.tell(headers(n), n * 0.001)
        assert faults(server.tell(reset(n), n * 0.001 + 2.0)) == []


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_behind_the_greeting_are_borne(noise: bytes, step: int) -> None:
    server = greeted()
    for at in range(0, len(noise), step):
        server.tell(noise[at : at + step])
    if not server.http2.closed and not noise:
        assert received(server.tell(request()))[1]


PIECES = st.sampled_from([*ALLOWED.values(), *(sent for sent, _, _ in VIOLATIONS.values() if len(sent) < 2000)])


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=6), st.integers(1, 10**4), st.booleans())
def test_frames_in_any_order_never_break_the_server_and_its_books_balance(
    pieces: list[bytes], step: int, answers: bool
) -> None:
    server = greeted(b"x" * 20_000 if answers else None)
    sent = b"".join(pieces)
    for at in range(0, len(sent), step):
        server.tell(sent[at : at + step])
        http2 = server.http2
        assert http2.sender.queued_bytes == sum(stream.queued_bytes for stream in http2.streams.values())
        assert all(not stream.closed for stream in http2.streams.values())
        assert set(http2.sender.blocked) <= set(http2.streams.values())
    server.http2.end()
    assert not server.http2.streams


def test_the_same_request_in_the_same_bytes_is_decoded_once() -> None:
    server = greeted()
    server.tell(request(1))
    known = server.http2._decoder.known
    assert len(known) == 1
    (head,) = known.values()
    server.tell(request(3))
    assert list(known.values()) == [head]
    assert len(FIELDS) == 6
