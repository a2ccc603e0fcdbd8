"""Answers of a server that may be broken or hostile: read whole and within limits, or not at all."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.wire.http1_client import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    AnswerError,
    AnswerReader,
    encode_request_head,
    is_clean,
)

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: b\r\n\r\nabc"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("data", [PLAIN, CHUNKED, INTERIM + PLAIN, INTERIM * 8 + CHUNKED])
@given(cuts=st.lists(st.integers(0, 300), max_size=8))
def test_an_answer_is_the_same_in_whatever_pieces_it_comes(data: bytes, cuts: list[int]) -> None:
    reader = AnswerReader(100)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, stop in pairwise(places):
        if stop > start:
            assert not reader.complete
            reader.feed(data[start:stop])
    assert (reader.complete, reader.status, reader.body, reader.keep_alive) == (True, 200, b"abc", True)


def test_one_connection_brings_one_answer_after_the_other() -> None:
    reader = AnswerReader(100)
    reader.feed(PLAIN)
    assert reader.headers == {b"content-length": b"3", b"x-a": b"b"}
    reader.next()
    assert (reader.started, reader.complete) == (False, False)
    reader.feed(CHUNKED)
    assert reader.body == b"abc"


def test_a_connection_that_is_to_close_is_not_kept() -> None:
    reader = AnswerReader(100)
    reader.feed(OK + b"connection: close\r\ncontent-length: 0\r\n\r\n")
    assert (reader.complete, reader.keep_alive, reader.body) == (True, False, b"")


def test_an_answer_without_content_needs_no_length() -> None:
    reader = AnswerReader(100)
    reader.feed(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert (reader.complete, reader.status) == (True, 204)


WRONG = {
    "no http": (b"\x00\xff\x00\xff", "not HTTP/1.1"),
    "no length": (OK + b"\r\nabc", "does not say how long"),
    "announced too long": (OK + b"content-length: 101\r\n\r\n", "has 101 bytes, at most 100"),
    "chunked too long": (CHUNKED[:-5] + b"80\r\n" + b"x" * 128 + b"\r\n", "more than 100 bytes"),
    "compressed": (OK + b"content-encoding: gzip\r\ncontent-length: 1\r\n\r\nx", "compressed"),
    "endless field": (OK + b"x: " + b"a" * MAX_HEAD_BYTES, "head of its answer has more than"),
    "endless fields": (OK + b"x: a\r\n" * (MAX_HEADERS + 2), "more than 100 headers"),
    "two at once": (PLAIN + PLAIN, "more than one answer"),
    "two heads apart": (PLAIN + b" " * MAX_HEAD_BYTES, "more than one answer|not HTTP"),
    "upgrade": (b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", "does not come to"),
    "interim for ever": (INTERIM * 9, "does not come to its answer"),
    "trailers": (CHUNKED[:-2] + b"x: " + b"a" * 200_000, "far more around its body"),
    "extensions": (CHUNKED[:-5] + b"1;" + b"a" * 100_000, "far more around its body|not HTTP"),
}


@pytest.mark.parametrize(("data", "says"), WRONG.values(), ids=list(WRONG))
def test_what_breaks_a_rule_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(AnswerError, match=says):
        AnswerReader(100).feed(data)


def test_what_comes_behind_an_answer_is_refused() -> None:
    reader = AnswerReader(100)
    reader.feed(PLAIN)
    with pytest.raises(AnswerError, match="more than one answer"):
        reader.feed(b"H")


def test_a_large_body_comes_through_behind_a_head_in_the_same_piece() -> None:
    body = b"x" * 100_000
    reader = AnswerReader(len(body))
    reader.feed(OK + b"content-length: 100000\r\n\r\n" + body)
    assert reader.body == body


@given(st.binary(max_size=400))
def test_nothing_but_an_answer_error_is_raised_for_any_bytes(data: bytes) -> None:
    reader = AnswerReader(100)
    try:
        reader.feed(OK + data)
    except AnswerError:
        return
    assert len(reader.body) <= 100


def test_a_request_is_written_as_the_protocol_says() -> None:
    assert encode_request_head(b"POST", b"/a", b"h:1", {b"x-a": b"b"}, 3) == (
        b"POST /a HTTP/1.1\r\nhost: h:1\r\nx-a: b\r\ncontent-length: 3\r\n\r\n"
    )
    assert encode_request_head(b"GET", b"/", b"h", {}, None) == b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"


@pytest.mark.parametrize(
    ("name", "value", "clean"),
    [(b"a", b"b", True), (b"", b"b", False), (b"a:", b"b", False), (b"a", b"b\r\nc: d", False), (b"a", b"\x7f", False)],
)
def test_only_clean_fields_may_be_sent(name: bytes, value: bytes, clean: bool) -> None:
    assert is_clean(name, value) is clean
