"""Who is given up when answers that nobody reads fill the memory; with clients it is tested at the edges."""

import pytest

from hyperion.gateway.http.exchange import MAX_UNSENT_BYTES
from hyperion.gateway.unread import choose_unread
from hyperion.schema.call import InferenceAnswer
from tests.gateway.wires import Edge, feed

POST = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n"


class Client:
    def __init__(self, size: int) -> None:
        self.size = size

    def unsent_bytes(self) -> int:
        return self.size


@pytest.mark.parametrize(
    ("sizes", "given_up"),
    [([], []), ([0, 40, 60], []), ([41, 0, 60], [60]), ([30, 30, 30, 30], [30, 30, 30]), ([500, 3, 1], [500])],
)
def test_those_that_hold_the_most_are_given_up_until_half_of_the_bound_is_free(
    sizes: list[int], given_up: list[int]
) -> None:
    assert [client.size for client in choose_unread([Client(size) for size in sizes], most_bytes=100)] == given_up


def test_a_stream_behind_an_answer_that_takes_long_is_held_within_its_bound() -> None:
    """It cannot be written before its turn, however fast it comes."""
    edge = Edge(at_once=False)
    connection, wire = edge.connect()
    feed(wire, [POST + b"1", POST + b"2"])
    stream = edge.open[1]
    stream.chunked = True
    stream.encode_event = lambda _answer: bytes(1 << 20)
    part = InferenceAnswer("m", "1", "", (), final=False)
    while connection.unsent_bytes() + (1 << 20) < MAX_UNSENT_BYTES:
        stream.answer(part)
        assert not wire.closed
    stream.answer(part)
    stream.answer(part)
    assert wire.closed


def test_what_was_held_is_no_more_counted_once_its_turn_came() -> None:
    edge = Edge(at_once=False)
    connection, wire = edge.connect()
    feed(wire, [POST + b"1", POST + b"2", POST + b"3"])
    for exchange in reversed(edge.open):
        edge.answer(exchange)
        assert (connection.unsent_bytes() > 0) is (exchange is not edge.open[0])
    assert wire.written.count(b"HTTP/1.1 200") == 3
