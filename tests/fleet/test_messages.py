"""The supervisor's protocol as bytes, and what it refuses."""

import pytest

from hyperion.fleet import messages
from hyperion.fleet.messages import Children, ChildSpec, List, Ok, Refused, Start, Stop
from hyperion.schema.errors import MalformedRequest, TooLarge

REQUESTS = [Start(ChildSpec("a", ("x",), {"k": "v"}, "label", 2, (), 5)), Stop("a", 1.5), List(3, 0.5)]
ANSWERS = [Ok(), Refused("no"), Children(7, (messages.Child("a", "ready"),))]


@pytest.mark.parametrize("message", REQUESTS)
def test_requests_survive_the_wire(message: messages.Request) -> None:
    data = messages.encode(message)
    assert messages.body_bytes(data[:4]) == len(data) - 4
    assert messages.decode_request(data[4:]) == message


@pytest.mark.parametrize("message", ANSWERS)
def test_answers_survive_the_wire(message: messages.Answer) -> None:
    assert messages.decode_answer(messages.encode(message)[4:]) == message


def test_a_length_over_the_limit_is_refused_before_anything_is_read() -> None:
    with pytest.raises(TooLarge):
        messages.body_bytes(b"\xff\xff\xff\xff")
    with pytest.raises(TooLarge):
        messages.encode(Refused("x" * messages.MAX_MESSAGE_BYTES))


@pytest.mark.parametrize("body", [b"", b"{}", b'{"type":"dance"}', b'{"type":"start"}'])
def test_what_is_no_request_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        messages.decode_request(body)
