"""A runner that lies: whatever it sends, every caller of the batch is handed back, and the link ends."""

import asyncio
import os
import socket
from typing import Any

import pytest

from hyperion.gateway.dispatch import Batch, ReplicaLink, internal_error
from hyperion.gateway.pending import PendingCall
from hyperion.gateway.replica import Link
from hyperion.gateway.ring import PAGE, Ring
from hyperion.schema.call import InferenceCall, Tensor
from hyperion.wire.frame import CANCEL, HELLO, MARK, PART, PREDICT, PROTOCOL, RESULT, FrameReader, encode_frame
from hyperion.wire.frame_headers import Cancel, Failure, Hello, Result, TensorHead
from tests.gateway.runners import SIGNATURE
from tests.gateway.serving import on_uvloop
from tests.gateway.wires import Wire


class Outcomes:
    """What the link tells its pool, kept."""

    def __init__(self) -> None:
        self.answered: list[tuple[PendingCall, tuple[Tensor, ...], bool]] = []
        self.failures: list[tuple[PendingCall, str]] = []
        self.done: list[Batch] = []
        self.lost: list[tuple[list[Batch], int, str]] = []

    def mind(self, link: Link) -> None: ...

    def link_ready(self, hello: Hello) -> None: ...

    def link_lost(self, link: Link, held: list[Batch], computing: int, reason: str) -> None:
        self.lost.append((held, computing, reason))

    def succeeded(self, pending: PendingCall, outputs: Any, batch: Batch, result: Result, final: bool) -> None:
        pending.done = pending.done or final
        self.answered.append((pending, outputs, final))

    def succeeded_together(self, calls: Any, outputs: Any, batch: Batch, result: Result) -> bool:
        return False

    def failed(self, pending: PendingCall, error: Exception, batch: Batch, detail: str) -> None:
        pending.done = True
        self.failures.append((pending, detail))

    def batch_done(self, batch: Batch, result: Result) -> None:
        self.done.append(batch)


class Linked:
    """A link whose runner is the test."""

    def __init__(self, protocol: int = PROTOCOL) -> None:
        self.outcomes = Outcomes()
        self.wire = Wire()
        self.ring = Ring(1 << 20)
        self.lost = asyncio.get_running_loop().create_future()
        link: Any = ReplicaLink("r", self.ring, self.outcomes, self.lost)
        link.connection_made(self.wire)
        self.link: ReplicaLink = link
        hello = Hello(protocol, "r", "m", "1", "", "onnx", SIGNATURE, 64, {}, 1, 1)
        self.receive(HELLO, 0, hello)

    def receive(self, kind: int, batch_id: int, header: Any, *data: bytes) -> None:
        self.link.data_received(encode_frame(kind, batch_id, header, data))

    def send(self, *rows: int, stream: bool = False, size: int = 1) -> Batch:
        """One batch of calls with so many rows each."""
        calls = []
        for count in rows:
            tensor = Tensor("x", "UINT8", (count, size), bytes(count * size))
            call, nobody = InferenceCall("m", "", "", (tensor,)), Any
            calls.append(PendingCall(call, nobody, "http", "id", 0, 0, count, count * size, stream))  # type: ignore[arg-type]
        batch = Batch(calls, sum(rows), False, 0)
        self.link.send(batch)
        return batch


def head(*shape: int, size: int | None = None, datatype: str = "UINT8", offset: int = -1) -> TensorHead:
    count = 1
    for length in shape:
        count *= length
    return TensorHead("y", datatype, shape, count if size is None else size, offset)


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        (Result((head(4),)), b"1234", "of shape (4,) for 3 rows"),
        (Result((head(),)), b"1", "of shape () for 3 rows"),
        (Result((head(2, 1), head(3, 1))), b"12345", "of shape (2, 1) for 3 rows"),
        (Result((head(3, 2, size=5),)), b"12345", "takes 6 bytes, got 5"),
        (Result((head(3, datatype="UINT7"),)), b"123", 'unknown datatype "UINT7"'),
        (Result((head(-3, -1),)), b"123", "negative"),
        (Result((head(3, datatype="BYTES", size=3),)), b"123", 'output "y"'),
        (Result((head(3),)), b"12", "lie outside"),
        (Result((head(3),)), b"1234", "belong to no tensor"),
        (Result((head(3, offset=1 << 40),)), b"", "lie outside"),
        (Result((), (Failure(2, "E", ""),)), b"", "failure of request 2 in a batch of 2"),
        (Result((), (Failure(-1, "E", ""),)), b"", "failure of request -1"),
    ],
)
@on_uvloop
async def test_a_result_that_cannot_be_true_hands_its_batch_back_as_the_one_at_fault(
    header: Result, data: bytes, reason: str
) -> None:
    linked = Linked()
    first, second = linked.send(1, 2), linked.send(1)
    linked.receive(RESULT, first.id, header, data)
    ((held, computing, why),) = linked.outcomes.lost
    assert (held, computing) == ([first, second], first.id)
    assert "it broke the protocol" in why
    assert reason in why
    assert linked.wire.closed
    assert linked.lost.done()
    assert not linked.link.ready
    assert not any(call.done for call in first.calls)


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        (RESULT, Result((), (), 1)),
        (PART, Result((), (), 1)),
        (CANCEL, Cancel()),
        (PREDICT, Cancel()),
        (HELLO, Hello(PROTOCOL + 1, "r", "m", "1", "", "onnx", SIGNATURE, 64, {}, 1, 1)),
    ],
)
@on_uvloop
async def test_a_frame_out_of_place_hands_every_batch_back_and_blames_the_one_that_was_computed(
    kind: int, header: Any
) -> None:
    linked = Linked()
    batches = [linked.send(1), linked.send(1)]
    MARK.pack_into(linked.ring.view, 0, batches[0].id)
    linked.receive(kind, 99, header)
    ((held, computing, _why),) = linked.outcomes.lost
    assert (held, computing) == (batches, batches[0].id)
    linked.receive(kind, 99, header)
    assert len(linked.outcomes.lost) == 1


@on_uvloop
async def test_a_part_for_a_batch_that_is_no_stream_ends_the_link() -> None:
    linked = Linked()
    batch = linked.send(1)
    linked.receive(PART, batch.id, Result(()))
    assert linked.outcomes.lost[0][0] == [batch]


@on_uvloop
async def test_a_runner_of_another_protocol_is_never_ready() -> None:
    linked = Linked(PROTOCOL + 1)
    assert not linked.link.ready
    assert f"version {PROTOCOL + 1} of the protocol, expected {PROTOCOL}" in linked.outcomes.lost[0][2]


@on_uvloop
async def test_each_caller_gets_its_rows_and_those_that_left_are_skipped() -> None:
    linked = Linked()
    batch = linked.send(1, 2, 1, 1)
    batch.calls[2].done = True
    linked.receive(RESULT, batch.id, Result((head(4, 1),), (Failure(3, "ValueError", "why"),), 5), b"abbc")
    assert [(call, bytes(outputs[0].data), final) for call, outputs, final in linked.outcomes.answered] == [
        (batch.calls[0], b"a", True),
        (batch.calls[1], b"bb", True),
    ]
    assert linked.outcomes.failures == [(batch.calls[3], "ValueError: why")]
    assert linked.outcomes.done == [batch]
    assert linked.link.idle
    assert linked.link.held_rows == 0


@on_uvloop
async def test_credit_is_taken_by_batches_and_given_back_by_results() -> None:
    linked = Linked()
    one, two = linked.send(1), linked.send(1)
    assert not linked.link.has_credit
    assert one.slot != two.slot
    linked.receive(RESULT, two.id, Result((), (Failure(0, "E", ""),)))
    assert linked.link.has_credit
    stream = linked.send(1, stream=True)
    assert linked.link.has_credit
    linked.receive(RESULT, stream.id, Result(()))
    assert linked.link.held_rows == 1


@on_uvloop
async def test_large_tensors_lie_in_the_ring_and_others_in_the_frame() -> None:
    linked = Linked()
    small, large = linked.send(1, 2, size=10), linked.send(3, 4, size=20_000)
    (inline,), (in_ring,) = (FrameReader().feed(frame)[0].header.tensors for frame in split(linked.wire.written))
    assert (inline.offset, inline.size_bytes, inline.shape) == (-1, 30, (3, 10))
    assert in_ring.offset >= PAGE
    assert (in_ring.size_bytes, in_ring.shape) == (140_000, (7, 20_000))
    assert (small.rows, large.rows) == (3, 7)


def split(stream: bytes) -> list[bytes]:
    """The frames of a stream, each by itself."""
    frames = []
    while stream:
        size = int.from_bytes(stream[:4], "little") + 20
        frames.append(stream[:size])
        stream = stream[size:]
    return frames


@on_uvloop
async def test_a_stream_that_nobody_wants_is_cancelled_and_its_parts_are_skipped() -> None:
    linked = Linked()
    stream = linked.send(1, stream=True)
    linked.receive(PART, stream.id, Result((head(1, 1),)), b"a")
    linked.link.cancel(stream.calls[0])
    stream.calls[0].done = True
    linked.receive(PART, stream.id, Result((head(1, 1),)), b"b")
    linked.receive(RESULT, stream.id, Result(()))
    assert [bytes(outputs[0].data) for _call, outputs, _final in linked.outcomes.answered] == [b"a"]
    assert FrameReader().feed(split(linked.wire.written)[1])[0].kind == CANCEL
    assert linked.link.idle


@on_uvloop
async def test_who_hears_of_a_frame_and_glances_sees_the_next_one_in_its_turn() -> None:
    linked = Linked()
    batch = linked.send(1, stream=True)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    linked.link._descriptor = ours.fileno()
    answered = linked.outcomes.succeeded

    def glance(*outcome: Any) -> None:
        answered(*outcome)
        linked.link.glance()

    linked.outcomes.succeeded = glance  # type: ignore[method-assign]
    with ours, theirs:
        theirs.send(encode_frame(RESULT, batch.id, Result((), (), 1)))
        part = encode_frame(PART, batch.id, Result((head(1),)), [b"a"])
        linked.link.data_received(part + part)
        assert not linked.outcomes.lost
        assert [final for _, _, final in linked.outcomes.answered] == [False, False]
        linked.link.glance()
        assert [final for _, _, final in linked.outcomes.answered] == [False, False, True]
        linked.link._descriptor = -1


@on_uvloop
async def test_the_ring_cannot_be_shrunk_by_a_runner() -> None:
    ring = Ring(5000)
    assert ring.slot_bytes == 2 * PAGE
    with pytest.raises(PermissionError):
        os.ftruncate(ring.fd, 0)
    assert ring.computing() == 0
    assert ring.write(ring.request_offset(1), memoryview(bytes(16)).cast("q")) == ring.request_offset(1) + 16
    ring.close()


def test_a_bug_of_ours_is_told_by_its_id_only() -> None:
    assert internal_error("id-7").message == "an internal error; quote request id id-7 when you report it"
