"""The gateway-control link as bytes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.errors import MalformedRequest, TooLarge
from hyperion.schema.job import (
    Begin,
    Begun,
    ClaimedJob,
    Failed,
    Held,
    HeldKey,
    Kept,
    KeyScope,
    Look,
    Lost,
    Renew,
    Seen,
    StoredAnswer,
    StoredRequest,
    Submission,
    Submit,
)
from hyperion.schema.release import GatewayReport, PairCounts, TrackCounts
from hyperion.schema.snapshot import ModelState, Snapshot
from hyperion.schema.usage import Amounts, OthersUsage, UsageRow
from hyperion.wire import link

SCOPE = KeyScope("acme", "fraud", "k")
ANSWER = StoredAnswer(200, (("x", "y"),), b"\0\xff", b"\1")
MESSAGES: list[link.Message] = [
    link.Poll(worker=0, have=0),
    link.Poll(worker=3, have=17, draining=("fraud@1.g2.0",)),
    link.Poll(worker=3, have=17, seen=18, rejected={"fraud": "no replica could be reached"}),
    link.Report(GatewayReport("3-ab", 3, (TrackCounts("fraud", 1, "2", latency=(1, 2)),), (PairCounts("fraud", 1),))),
    link.Publish(),
    link.Publish(Snapshot(version=4, index=(ModelState("fraud", "1", "UNAVAILABLE", "no such file"),))),
    link.Load("fraud", {"config": "{}"}),
    link.Unload("fraud"),
    link.UnknownKey("https://id.example.com"),
    link.Done(),
    link.Done("fraud: no such file", "model_refused"),
    link.Done(usage=(OthersUsage("acme", "2026-11-21", Amounts(1, 2, 3, 0.5), Amounts(10, 20, 30, 5.0)),)),
    link.Report(GatewayReport("3-ab", 3, usage=(UsageRow("acme", "2026-11-21", Amounts(1, 2)),))),
    link.Ask((Begin(SCOPE, "f", "t"), Renew((HeldKey(SCOPE, "t"),), (Held("j", 2),)), Look("acme", "j"))),
    link.Ask((Submit(Submission("j", "acme", "fraud", StoredRequest("POST", "/", (("a", "b"),), bytes(range(256))))),)),
    link.Told((Begun("replay", "t", ANSWER), Kept(False), Lost((Held("j", 2),)), Seen(None), Failed("x", "y"))),
    link.Claim(3),
    link.Work((ClaimedJob("j", 2, "acme", "fraud", StoredRequest("POST", "/", (), b"\0"), 9, 1.0),)),
]


@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_messages_survive_any_cutting_of_the_stream(cuts: list[int]) -> None:
    stream = b"".join(link.encode(message) for message in MESSAGES)
    decoder, received, position, turn = link.Decoder(), [], 0, 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        received += decoder.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert received == MESSAGES


def test_an_announced_length_over_the_limit_is_refused_before_its_body_arrives() -> None:
    with pytest.raises(TooLarge, match="17 bytes announced, the limit is 16"):
        link.Decoder(limit_bytes=16).feed((17).to_bytes(4, "little"))


def test_a_message_over_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_MESSAGE_BYTES", 8)
    with pytest.raises(TooLarge):
        link.encode(link.Unload("fraud"))


@pytest.mark.parametrize("body", [b"", b"{}", b"nonsense", b'{"type":"hug"}', b'{"type":"load"}'])
def test_a_body_that_is_no_message_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match="link message"):
        link.Decoder().feed(len(body).to_bytes(4, "little") + body)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_messages_or_one_of_the_two_errors(data: bytes) -> None:
    try:
        messages = link.Decoder(limit_bytes=1 << 16).feed(data)
    except (TooLarge, MalformedRequest):
        return
    assert all(isinstance(message, msgspec.Struct) for message in messages)
