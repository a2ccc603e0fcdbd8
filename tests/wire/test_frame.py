"""Frames: what goes in comes out however the stream is cut, and what is no frame ends in `FrameError`."""

import itertools
import os
import resource
import subprocess
import sys

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.frame import (
    CANCEL,
    HELLO,
    KINDS,
    MAX_FRAME_BYTES,
    MAX_HEADER_BYTES,
    PART,
    PREDICT,
    PREFIX,
    PROTOCOL,
    RESULT,
    Frame,
    FrameError,
    FrameReader,
    encode_frame,
    read_tensors,
)
from hyperion.wire.frame_headers import INLINE, Cancel, Failure, Hello, Predict, Result, TensorHead

NAMES = st.text(max_size=8)
SIZES = st.integers(-1, 1 << 40)
HEADS = st.builds(TensorHead, NAMES, NAMES, st.lists(SIZES, max_size=4).map(tuple), SIZES, SIZES)
SPECS = st.lists(st.builds(TensorSpec, NAMES, NAMES, st.lists(SIZES, max_size=3).map(tuple)), max_size=2).map(tuple)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=5)
RESULTS = st.builds(
    Result,
    st.lists(HEADS, max_size=3).map(tuple),
    st.lists(st.builds(Failure, SIZES, NAMES, NAMES), max_size=2).map(tuple),
    SIZES,
    SIZES,
)
HEADERS = {
    HELLO: st.builds(
        Hello, SIZES, NAMES, NAMES, NAMES, NAMES, NAMES, st.builds(Signature, SPECS, SPECS), SIZES,
        st.dictionaries(SIZES, st.floats(allow_nan=False), max_size=3), SIZES, SIZES,
    ),
    PREDICT: st.builds(
        Predict, st.lists(SIZES, max_size=4).map(tuple), st.lists(HEADS, max_size=3).map(tuple),
        st.lists(NAMES, max_size=2).map(tuple), st.dictionaries(NAMES, SCALARS, max_size=3), st.booleans(), SIZES,
        SIZES,
    ),
    RESULT: RESULTS,
    PART: RESULTS,
    CANCEL: st.builds(Cancel, NAMES),
}  # fmt: skip
FRAMES = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.tuples(
        st.just(kind), st.integers(0, 2**64 - 1), HEADERS[kind], st.lists(st.binary(max_size=50), max_size=3)
    )
)
PREDICT_HEADER = msgspec.msgpack.encode(Predict((1,), ()))


def raw_frame(header: bytes, kind: int = PREDICT, size: int | None = None, header_bytes: int | None = None) -> bytes:
    """A frame with a header of any bytes, and lengths that need not be true."""
    size = len(header) if size is None else size
    return PREFIX.pack(size, len(header) if header_bytes is None else header_bytes, 7, kind) + header


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


@given(st.lists(FRAMES, max_size=5), st.lists(st.integers(0, 10**6), max_size=8))
def test_frames_come_out_as_they_went_in_wherever_the_stream_is_cut(
    sent: list[tuple[int, int, msgspec.Struct, list[bytes]]], places: list[int]
) -> None:
    stream = b"".join(encode_frame(*frame) for frame in sent)
    reader = FrameReader()
    received: list[Frame] = []
    for piece in cut(stream, places):
        received += reader.feed(piece)
    assert [(frame.kind, frame.id, frame.header, bytes(frame.data)) for frame in received] == [
        (kind, batch_id, header, b"".join(inline)) for kind, batch_id, header, inline in sent
    ]


def test_frames_come_out_when_every_byte_comes_alone() -> None:
    stream = encode_frame(PREDICT, 1, Predict((2,), ()), [b"abc"]) * 2
    reader = FrameReader()
    counts = [len(reader.feed(stream[index : index + 1])) for index in range(len(stream))]
    assert sum(counts) == 2
    assert counts[len(stream) // 2 - 1] == counts[-1] == 1


def test_a_frame_is_whole_in_one_buffer_whatever_kind_of_buffers_its_data_are() -> None:
    inline = [b"ab", bytearray(b"cd"), memoryview(b"xefx")[1:3], memoryview(bytes(8)).cast("q")]
    (frame,) = FrameReader().feed(encode_frame(CANCEL, 3, Cancel("why"), inline))
    assert frame.header == Cancel("why")
    assert bytes(frame.data) == b"abcdef" + bytes(8)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (raw_frame(PREDICT_HEADER, kind=0), "unknown kind 0"),
        (raw_frame(PREDICT_HEADER, kind=6), "unknown kind 6"),
        (raw_frame(b"", size=10, header_bytes=11), "over the limit"),
        (raw_frame(b"", size=MAX_FRAME_BYTES + 1), "over the limit"),
        (raw_frame(b"", size=MAX_FRAME_BYTES, header_bytes=MAX_HEADER_BYTES + 1), "over the limit"),
        (raw_frame(PREDICT_HEADER, kind=HELLO), "frame of kind 1"),
        (raw_frame(b""), "frame of kind 2"),
        (raw_frame(b"\xc1"), "frame of kind 2"),
        (raw_frame(PREDICT_HEADER + b"\x00"), "frame of kind 2"),
        (raw_frame(b"\x92\x91\x01\x91\x95\xa1\xff\xa1y\x90\x00\xff"), "frame of kind 2"),  # a name that is no UTF-8
        (raw_frame(b"\x94\x91\x01\x90\x90\x81\xa1a" + b"\x91" * 100_000 + b"\xc0"), "frame of kind 2"),  # deep
        (raw_frame(b"\x94\xdd\xff\xff\xff\xff"), "frame of kind 2"),  # an array of four billion, it says
        (raw_frame(b"\x94\x91\x01\x90\x90\x81\xa1a\x81\x81\x01\x02\x03"), "frame of kind 2"),  # a map as a map's key
    ],
)
def test_what_is_no_frame_is_refused(stream: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        FrameReader().feed(stream)


@pytest.mark.parametrize("have", range(1, PREFIX.size + 1))
def test_a_bad_prefix_is_refused_as_soon_as_it_is_there(have: int) -> None:
    stream = raw_frame(b"", size=MAX_FRAME_BYTES + 1)
    reader = FrameReader()
    if have < PREFIX.size:
        assert reader.feed(stream[:have]) == []
    with pytest.raises(FrameError):
        reader.feed(stream[have:] if have < PREFIX.size else stream)


@given(st.sampled_from(sorted(KINDS)), st.binary(max_size=60), st.integers(0, 64))
@example(PREDICT, b"\x95\x91\x00\x90\x90\xc7\x0c\xff" + b"\xff" * 12 + b"\xc2", 0)  # a timestamp out of range
@example(PREDICT, b"\x94\x90\x90\x90\x81\xa1a\xd4\x05\x00", 0)  # an extension type
def test_of_any_bytes_only_frame_error_comes_out(kind: int, header: bytes, place: int) -> None:
    stream = raw_frame(header, kind)
    reader = FrameReader()
    try:
        for piece in cut(stream, [place]):
            for frame in reader.feed(piece):
                assert frame.kind == kind
    except FrameError:
        pass


@given(FRAMES, st.data())
def test_of_a_damaged_frame_only_frame_error_comes_out(
    sent: tuple[int, int, msgspec.Struct, list[bytes]], data: st.DataObject
) -> None:
    stream = bytearray(encode_frame(*sent))
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place] ^= data.draw(st.integers(1, 255))
    try:
        frames = FrameReader().feed(bytes(stream))
    except FrameError:
        return
    for frame in frames:
        if frame.kind in (PREDICT, RESULT, PART):
            try:
                read_tensors(frame.header.tensors, frame.data, memoryview(bytes(100)))
            except FrameError:
                continue


def test_an_announced_gigabyte_takes_no_memory_before_it_arrives() -> None:
    reader = FrameReader()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reader.feed(PREFIX.pack(MAX_FRAME_BYTES, 10, 1, PREDICT))
    for _ in range(50):
        reader.feed(bytes(1000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10  # KiB


def test_lengths_that_lie_inside_a_header_take_no_memory() -> None:
    """Run with 256 MiB to take: an array or a text of four gigabytes that is only announced must fail at once."""
    program = """
import resource
from hyperion.wire.frame import *
resource.setrlimit(resource.RLIMIT_DATA, (256 << 20,) * 2)
for start in (b"", b"\\x94", b"\\x94\\x91\\x01\\x90\\x90\\x81\\xa1a", b"\\x94\\x91\\x01\\x91\\x95"):
    for lie in (b"\\xdd", b"\\xdf", b"\\xdb", b"\\xc6"):
        header = start + lie + b"\\xff\\xff\\xff\\xff"
        try:
            FrameReader().feed(PREFIX.pack(len(header), len(header), 1, PREDICT) + header)
        except FrameError:
            continue
        raise SystemExit(f"{header!r} is no frame")
"""
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ))
    assert (outcome.returncode, outcome.stderr) == (0, "")


def head(size: int, offset: int = INLINE, name: str = "x") -> TensorHead:
    return TensorHead(name, "UINT8", (size,), size, offset)


def test_tensors_are_views_into_the_frame_and_into_the_ring() -> None:
    ring = bytearray(b"0123456789")
    inline = memoryview(b"abcde")
    tensors = read_tensors([head(2), head(3, 4), head(0, 10), head(3)], inline, memoryview(ring))
    ring[4:7] = b"XYZ"
    assert [bytes(tensor.data) for tensor in tensors] == [b"ab", b"XYZ", b"", b"cde"]
    assert [tensor.shape for tensor in tensors] == [(2,), (3,), (0,), (3,)]


@pytest.mark.parametrize(
    ("heads", "inline", "ring", "message"),
    [
        ([head(3)], b"ab", None, "lie outside 2"),
        ([head(2), head(1)], b"ab", None, "lie outside 2"),
        ([head(-1)], b"", None, "lie outside"),
        ([head(1, 0)], b"", None, "never passed"),
        ([head(11, 0)], b"", bytes(10), "11 bytes at 0 lie outside 10"),
        ([head(1, 10)], b"", bytes(10), "lie outside 10"),
        ([head(1, -2)], b"", bytes(10), "lie outside 10"),
        ([head(-5, 7)], b"", bytes(10), "lie outside 10"),
        ([head(2**63, 2**63)], b"", bytes(10), "lie outside 10"),
        ([], b"a", None, "1 bytes belong to no tensor"),
        ([head(1)], b"abc", None, "2 bytes belong to no tensor"),
        ([head(3), head(-2)], b"a", None, "lie outside"),
    ],
)
def test_a_tensor_that_is_not_where_it_should_be_is_refused(
    heads: list[TensorHead], inline: bytes, ring: bytes | None, message: str
) -> None:
    with pytest.raises(FrameError, match=message):
        read_tensors(heads, memoryview(inline), None if ring is None else memoryview(ring))


@given(st.lists(HEADS, max_size=4), st.binary(max_size=30), st.binary(max_size=30))
def test_no_head_reaches_outside_its_bytes(heads: list[TensorHead], inline: bytes, ring: bytes) -> None:
    try:
        tensors = read_tensors(heads, memoryview(inline), memoryview(ring))
    except FrameError:
        return
    for tensor, where in zip(tensors, heads, strict=True):
        source, start = (ring, where.offset) if where.offset != INLINE else (inline, inline.find(bytes(tensor.data)))
        assert bytes(tensor.data) == source[start : start + where.size_bytes]
        assert len(tensor.data) == where.size_bytes


def test_a_peer_of_another_protocol_can_be_told_by_its_hello() -> None:
    hello = Hello(PROTOCOL + 1, "r", "m", "1", "", "onnx", Signature((), ()), 8, {1: 0.5}, 1, 2)
    (frame,) = FrameReader().feed(encode_frame(HELLO, 0, hello))
    assert frame.header.protocol == PROTOCOL + 1
