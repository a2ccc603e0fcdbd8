"""gRPC's framing: messages in any pieces, timeouts, and header blocks that any decoder understands."""

from typing import Any

import pytest
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.errors import MalformedRequest, TooLarge
from hyperion.wire.grpc.framing import (
    ANSWER_HEAD,
    STATUSES,
    MessageReader,
    field,
    frame_message,
    http_status_block,
    read_timeout_ns,
    status_block,
)

MESSAGES = st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=6)


def nothing(_size: int) -> None:
    return None


def some(size: int) -> memoryview | None:
    return memoryview(bytearray(size)) if size > 10 else None


@given(MESSAGES, st.integers(1, 30), st.booleans())
def test_messages_come_out_as_they_went_in_whatever_the_pieces(
    messages: list[tuple[bytes, bool]], step: int, lent: bool
) -> None:
    sent = b"".join(bytes([packed]) + frame_message(data)[1:] for data, packed in messages)
    reader = MessageReader(40, some if lent else nothing)
    found = []
    for at in range(0, len(sent), step):
        found += [(bytes(one.data), one.compressed) for one in reader.feed(sent[at : at + step])]
        whole = sum(len(data) + 5 for data, _ in messages[: len(found)])
        assert reader.held_bytes <= 45
        assert whole <= at + step
    assert found == messages
    assert reader.held_bytes == 0


def test_a_message_over_the_limit_is_refused_before_it_is_kept() -> None:
    reader = MessageReader(10, nothing)
    with pytest.raises(TooLarge, match="the message has 11 bytes, at most 10 are allowed"):
        reader.feed(b"\0\0\0\0\x0b")


def test_a_prefix_that_is_no_prefix_is_malformed() -> None:
    with pytest.raises(MalformedRequest, match="begins with 7, expected 0 or 1"):
        MessageReader(10, nothing).feed(b"\x07\0\0\0\0")


@pytest.mark.parametrize(
    ("given", "expected_ns"),
    [
        *((b"1H", 3600 * 10**9), (b"2M", 120 * 10**9), (b"3S", 3 * 10**9), (b"4m", 4 * 10**6), (b"5u", 5000)),
        *((b"6n", 6), (b"99999999H", 99_999_999 * 3600 * 10**9), (b"0n", 0)),
    ],
)
def test_timeouts_are_read_in_their_units(given: bytes, expected_ns: int) -> None:
    assert read_timeout_ns(given) == expected_ns


@pytest.mark.parametrize("given", [b"", b"S", b"1", b"1s", b"1.5S", b"-1S", b"+1S", b" 1S", b"123456789n", b"1 S"])
def test_timeouts_of_another_form_are_refused(given: bytes) -> None:
    with pytest.raises(MalformedRequest, match="grpc-timeout is"):
        read_timeout_ns(given)


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=20_000))
def test_a_field_is_understood_by_any_decoder(name: bytes, value: bytes) -> None:
    (decoded,) = Decoder(max_header_list_size=1 << 20).decode(field(name, value), raw=True)
    assert tuple(decoded) == (name, value)


def decode(block: bytes) -> list[tuple[Any, ...]]:
    return [tuple(one) for one in Decoder().decode(block)]


def test_heads_and_trailers_are_understood_by_any_decoder() -> None:
    assert decode(ANSWER_HEAD) == [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-accept-encoding", "identity,deflate,gzip"),
    ]
    assert decode(http_status_block(415)) == [(":status", "415"), ("content-length", "0")]
    trailers = status_block("NOT_FOUND", 'no "ü"\n100 %', [("x-request-id", "7")])
    assert decode(trailers) == [
        ("grpc-status", "5"),
        ("grpc-message", 'no "%C3%BC"%0A100 %25'),
        ("x-request-id", "7"),
    ]
    assert decode(status_block("OK", "", [])) == [("grpc-status", "0")]
    assert STATUSES["UNAUTHENTICATED"] == 16
