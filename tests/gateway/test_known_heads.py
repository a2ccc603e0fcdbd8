"""The short cut for heads that were parsed before: whatever comes, and however it is cut, it changes no answer."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperion.gateway.http import protocol as http
from hyperion.gateway.http.protocol import HttpConnection
from tests.gateway.wires import Edge, Seen, Wire, feed

HEAD = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
OTHERS = [
    b"GET /g HTTP/1.1\r\nhost: x\r\n\r\n",
    b"HEAD /h HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST /e HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nee",
    b"POST /k HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nkk",
    b"\r\nPOST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\na",
]
LAST = [
    b"POST /z HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\nzz",
    b"POST /a HTTP/1.0\r\nhost: x\r\ncontent-length: 2\r\n\r\nzz",
    b"POST /u HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nuu",
    b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\na",
    b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
    b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1 1\r\n\r\na",
    b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1, 1\r\n\r\na",
    b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: \r\n\r\n",
    b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\n\r\n\r\na",
    b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\na",
    b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\na",
    b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\na",
]  # fmt: skip


@st.composite
def usual_requests(draw: st.DrawFn) -> bytes:
    """From so few heads that many are met again."""
    body = draw(st.binary(max_size=12) | st.sampled_from([b"\r\n\r\n", b"content-length: 3\r\n\r\n", OTHERS[0]]))
    length = draw(st.sampled_from([b"%d", b"%03d"])) % len(body)
    name = draw(st.sampled_from([b"content-length: ", b"Content-Length:", b"CONTENT-LENGTH: \t"]))
    lines = [b"host: x\r\n", name + length + draw(st.sampled_from([b"", b" "])) + b"\r\n"]
    lines += [draw(st.sampled_from([b"", b"x-request-id: mine\r\n", b"x-request-id: not mine\r\n", b"x-other: 1\r\n"]))]
    lines = draw(st.sampled_from([lines, lines[::-1]]))
    return (
        draw(st.sampled_from([b"POST /a", b"POST /b", b"PUT /a"])) + b" HTTP/1.1\r\n" + b"".join(lines) + b"\r\n" + body
    )


REQUESTS = st.lists(usual_requests() | st.sampled_from(OTHERS), min_size=1, max_size=8)


class Outcome:
    def __init__(self, pieces: list[bytes], at_once: bool, answers_from: int) -> None:
        edge = Edge(at_once)
        _, wire = edge.connect()

        def answer_some() -> None:
            if len(edge.open) >= answers_from:
                while edge.open:
                    edge.answer(edge.open.pop())  # the newest first: the edge must put them in order

        feed(wire, pieces, answer_some)
        while edge.open:
            edge.answer(edge.open.pop())
        self.edge, self.wire = edge, wire


def outcomes(pieces: list[bytes], at_once: bool = True, answers_from: int = 1) -> tuple[Outcome, Outcome]:
    """With the short cut, and without."""
    with_it = Outcome(pieces, at_once, answers_from)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "learn_head", lambda *_: None)
        without = Outcome(pieces, at_once, answers_from)
    return with_it, without


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges) if start < stop]


@settings(max_examples=200)
@given(REQUESTS, st.sampled_from([b"", *LAST]), st.data(), st.booleans(), st.integers(1, 3))
def test_no_answer_differs_however_the_requests_are_cut(
    requests: list[bytes], last: bytes, data: st.DataObject, at_once: bool, answers_from: int
) -> None:
    requests = [*requests, last] if last else requests
    if data.draw(st.booleans(), "one by one"):
        pieces = requests
    else:
        stream = b"".join(requests)
        pieces = cut(stream, data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    with_it, without = outcomes(pieces, at_once, answers_from)
    assert with_it.edge.seen == without.edge.seen
    assert with_it.wire.written == without.wire.written
    assert (with_it.wire.closed, with_it.wire.ended) == (without.wire.closed, without.wire.ended)
    assert [str(one) for one in with_it.edge.refusals] == [str(one) for one in without.edge.refusals]


@given(st.binary(max_size=30), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3))
def test_no_answer_differs_when_a_known_head_comes_back_damaged(body: bytes, damage: list[tuple[int, int]]) -> None:
    good = HEAD % len(body) + body
    bad = bytearray(good)
    for place, byte in damage:
        bad[place % len(bad)] = byte
    with_it, without = outcomes([good, bytes(bad), good])
    assert with_it.edge.seen == without.edge.seen
    assert with_it.wire.written == without.wire.written


def knows(connection: HttpConnection) -> bool:
    return connection._known_head is not None


def asked(*pieces: bytes) -> tuple[HttpConnection, Wire, list[Seen]]:
    edge = Edge()
    connection, wire = edge.connect()
    feed(wire, list(pieces))
    return connection, wire, edge.seen


class CountingParser:
    """Stands in for the parser once a head is known: any use of it is a failure."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the parser was asked for {name}")


def test_a_head_that_comes_again_is_served_without_the_parser() -> None:
    edge = Edge()
    connection, wire = edge.connect()
    feed(wire, [HEAD % 3 + b"abc"])
    connection._parser = CountingParser()
    feed(wire, [HEAD % 5 + b"hello", HEAD % 0])
    assert [seen.body for seen in edge.seen] == [b"abc", b"hello", b""]


def test_a_head_that_comes_again_on_another_connection_is_served_without_the_parser() -> None:
    edge = Edge()
    (other, waiting), (_, wire) = edge.connect(), edge.connect()
    feed(wire, [HEAD % 3 + b"abc"])
    other._parser = CountingParser()
    feed(waiting, [HEAD % 5 + b"hello"])
    assert [seen.body for seen in edge.seen] == [b"abc", b"hello"]
    assert (waiting.written.count(b"\r\n\r\n"), waiting.closed) == (wire.written.count(b"\r\n\r\n"), False)


@pytest.mark.parametrize(
    "data",
    [
        HEAD % 3 + b"ab",  # not whole
        HEAD % 1 + b"a" + HEAD % 1 + b"b",  # two at once
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",  # no length
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na",
        b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\na",
        b"POST / HTTP/1.0\r\nhost: x\r\ncontent-length: 1\r\n\r\na",
    ],
)
def test_only_a_whole_request_of_the_usual_kind_is_learnt_from(data: bytes) -> None:
    assert not knows(asked(data)[0])
    assert knows(asked(HEAD % 1 + b"a")[0])


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (HEAD % 5 + b"abcd", 1),  # its last byte is still to come
        (HEAD % 3 + b"abcd", 2),  # one byte of the next
        (HEAD % 1 + b"a" + HEAD % 1 + b"b", 3),
        (HEAD.replace(b"\r\n\r\n", b"\r\nx-more: 1\r\n\r\n") % 1 + b"a", 2),
        (HEAD.replace(b"/a", b"/b") % 1 + b"a", 2),
        (HEAD.replace(b"POST", b"PUT") % 1 + b"a", 2),
    ],
)
def test_what_only_looks_like_a_known_head_goes_to_the_parser(data: bytes, seen: int) -> None:
    _connection, wire, requests = asked(HEAD % 3 + b"abc", data)
    assert len(requests) == seen
    assert not wire.closed
    if seen == 1:
        feed(wire, [b"e"])
        assert len(requests) == 2
        assert requests[-1].body == b"abcde"


def test_a_request_of_a_known_head_in_two_pieces_is_whole_wherever_it_is_cut() -> None:
    whole = HEAD % 5 + b"hello"
    for place in range(1, len(whole)):
        _, wire, requests = asked(HEAD % 3 + b"abc", whole[:place], whole[place:], HEAD % 3 + b"abc")
        assert [one.body for one in requests] == [b"abc", b"hello", b"abc"], place
        assert not wire.closed


def test_a_known_head_is_not_served_in_the_middle_of_a_body() -> None:
    """A body that contains a request is a body."""
    inner = HEAD % 3 + b"abc"
    outer = b"POST /outer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(inner)
    _, _, requests = asked(inner, outer, inner)
    assert [(one.path, one.body) for one in requests] == [(b"/a", b"abc"), (b"/outer", inner)]


def test_a_draining_edge_closes_a_connection_whose_head_is_known() -> None:
    edge = Edge(at_once=False)
    _, wire = edge.connect()
    feed(wire, [HEAD % 1 + b"a", HEAD % 1 + b"b"])
    edge.edge.drain()
    feed(wire, [HEAD % 1 + b"c"])
    for exchange in edge.open:
        edge.answer(exchange)
    assert len(edge.seen) == 3
    assert wire.closed
    assert wire.written.count(b"connection: close") == 1
