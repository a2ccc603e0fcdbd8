"""Requests that differ in their numbers only: what the short cut gives is what the whole decoder gives, always."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.call import Tensor
from hyperion.schema.errors import HyperionError
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip import known as oip_known
from hyperion.wire.oip.json import _decode_again, _decode_input, decode_infer
from hyperion.wire.oip.known import KnownRequests
from hyperion.wire.oip.request import Request

LIMITS = WireLimits()
BEFORE = b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":'
AFTER = b"}]}"


def request(data: bytes, before: bytes = BEFORE, after: bytes = AFTER) -> bytes:
    return before + data + after


def learned(body: bytes) -> KnownRequests:
    """What is known after `body` was decoded in full."""
    known = KnownRequests()
    found: Request = _decode_again(body, LIMITS)
    known.learn(body, bytes(found.inputs[0].data), _decode_input(found.inputs[0], None, LIMITS), LIMITS)
    return known


def decode_in_full(body: bytes) -> Tensor | str:
    """The one input as the decoder without memory gives it, or its error."""
    try:
        return _decode_input(_decode_again(body, LIMITS).inputs[0], None, LIMITS)
    except HyperionError as error:
        return error.message


@pytest.mark.parametrize("blank", [b"", b" "])
@pytest.mark.parametrize("data", [b"[4,5,6.5]", b"[[7,8,9]]", b"[ 1 , 2 , 3 ]"])
def test_another_array_in_the_same_request_is_its_data(blank: bytes, data: bytes) -> None:
    before = BEFORE + blank
    known = learned(request(b"[1,2,3]", before))
    body = request(data, before)
    assert known.decode(body, LIMITS) == decode_in_full(body)


@pytest.mark.parametrize(
    "data",
    [
        b"[1,2]",
        b"[1,2,3,4]",
        b'[1,2,"3"]',
        b"[1,2,true]",
        b"[1,2,1e99]",
        b"[[1,2],[3]]",
        b"[1,2,3]],",
        b'[1,2,3],"data":[4,5,6]',
        b'[1,2,3],"parameters":{"binary_data_size":4}',
        b"",
        b"null",
    ],
)
def test_anything_but_one_fitting_array_is_left_to_the_decoder(data: bytes) -> None:
    assert learned(request(b"[1,2,3]")).decode(request(data), LIMITS) is None


def test_a_body_too_short_for_what_is_around_the_data_is_left_to_the_decoder() -> None:
    """What comes before the data and what comes after it may share their bytes: `"data":1` ends as `1` does."""
    known = KnownRequests()
    before, after = b'{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":', b'a":'
    known.learn(before + b"[1]" + after, b"[1]", Tensor("x", "FP32", (1, 1), b"\0" * 4), LIMITS)
    assert known.decode(before + b"[1]" + after, LIMITS) is not None
    for size in range(len(before) + len(after)):
        assert known.decode((before + after)[:size], LIMITS) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[{"name":"data","shape":[1,3],"datatype":"FP32","parameters":{"data":1},"data":[1,2,3]}]}',
        b'{"inputs":[{"data":[9,9,9],"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}',
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data"  :  [1,2,3]}]}',
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":   [1,2,3]}]}',
        b'{"inputs":[{"name":"' + b"x" * 1000 + b'","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}',
        request(b"[" + b"1," * 40_000 + b"1]").replace(b"[1,3]", b"[1,40001]"),
    ],
)
def test_what_is_ambiguous_unusual_or_large_is_not_learned(body: bytes) -> None:
    assert learned(body).decode(body, LIMITS) is None


def test_a_request_under_other_limits_or_in_another_buffer_is_decoded_in_full() -> None:
    body = request(b"[1,2,3]")
    known = learned(body)
    assert known.decode(body, LIMITS) is not None
    assert known.decode(body, WireLimits(max_rank=1)) is None
    assert known.decode(memoryview(body), LIMITS) is None
    unlearned = KnownRequests()
    unlearned.learn(memoryview(body), b"[1,2,3]", Tensor("x", "FP32", (1, 3), b""), LIMITS)
    assert unlearned.decode(body, LIMITS) is None


def test_it_forgets_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oip_known, "MAX_KNOWN", 2)
    known = KnownRequests()
    bodies = [request(b"[1,2,3]", BEFORE.replace(b'"x"', b'"%d"' % number)) for number in range(3)]
    for body in bodies:
        found = _decode_again(body, LIMITS).inputs[0]
        known.learn(body, bytes(found.data), _decode_input(found, None, LIMITS), LIMITS)
    assert [known.decode(body, LIMITS) is not None for body in bodies] == [False, False, True]


NUMBERS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-5, 5), max_size=5)
JUNK = st.sampled_from([b"", b" ", b",", b"]", b"[", b"}", b'"data":', b'"data":[1,2,3],', b"\\", b'"', b"1", b"true"])


@given(st.lists(st.tuples(NUMBERS, JUNK, JUNK), min_size=1, max_size=4))
def test_no_request_is_decoded_otherwise_for_what_came_before_it(parts: list[tuple[list[float], bytes, bytes]]) -> None:
    """Every body, well-formed or not, gives the same call or the same error with memory as without."""
    for numbers, ahead, behind in parts:
        body = request(ahead + json.dumps(numbers).encode() + behind)
        try:
            outcome: Tensor | str = decode_infer("m", "", body, None, LIMITS)[0].inputs[0]
        except HyperionError as error:
            outcome = error.message
        expected = decode_in_full(body)
        assert outcome == expected or (isinstance(outcome, str) and isinstance(expected, str))
