"""Header blocks: what is remembered of them means at any time what decoding them would."""

import contextlib

import pytest
from hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperion.wire.http2.fields import MAX_KNOWN, MAX_KNOWN_BYTES, FieldDecoder, Fields, list_bytes
from hyperion.wire.http2.frames import PROTOCOL_ERROR, ConnectionFault, StreamFault
from tests.wire.http2_bytes import FIELDS, block


def as_list(fields: Fields) -> list[tuple[bytes, bytes]]:
    return [(bytes(name), bytes(value)) for name, value in fields]


REQUESTS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from([b"a", b"b", b"te-x"]), st.sampled_from([b"1", b"2" * 300])), max_size=3),
        st.sampled_from([None, None, None, 0, 100, 4096]),
        st.booleans(),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(REQUESTS)
def test_what_is_remembered_is_what_decoding_would_give(
    requests: list[tuple[list[tuple[bytes, bytes]], int | None, bool]],
) -> None:
    """The client inserts, evicts and resizes as it likes, and repeats itself."""
    client, plain = Encoder(), Decoder()
    decoder = FieldDecoder(as_list)
    for more, size, huffman in requests:
        if size is not None:
            client.header_table_size = size
        sent = client.encode([*FIELDS, *more], huffman=huffman)
        assert [(bytes(name), bytes(value)) for name, value in plain.decode(sent, raw=True)] == [*FIELDS, *more]
        assert decoder.decode_request(sent) == [*FIELDS, *more]


def test_a_block_is_decoded_once_as_long_as_the_table_stays_as_it_is() -> None:
    client, seen = Encoder(), []

    def read(fields: Fields) -> int:
        seen.append(fields)
        return len(seen)

    decoder = FieldDecoder(read)
    blocks = [client.encode(FIELDS) for _ in range(4)]
    assert blocks[0] != blocks[1] == blocks[2]
    assert [decoder.decode_request(sent) for sent in blocks] == [1, 2, 2, 2]
    decoder.decode(b"\x40\x01a\x01b")  # trailers that change the table
    assert decoder.known == {}


def test_the_memory_is_bounded_and_keeps_nothing_large() -> None:
    decoder = FieldDecoder(as_list)
    large = block([*FIELDS, (b"a", b"x" * MAX_KNOWN_BYTES)])
    decoder.decode_request(large)
    assert decoder.known == {}
    for n in range(MAX_KNOWN + 1):
        decoder.decode_request(block([*FIELDS, (b"a", b"%d" % n)]))
    assert len(decoder.known) == 1


def test_a_malformed_request_is_not_remembered_and_the_table_stays_good() -> None:
    client, decoder = Encoder(), FieldDecoder(as_list)
    bad = client.encode(FIELDS[1:])
    for _ in range(2):
        with pytest.raises(StreamFault) as caught:
            decoder.decode_request(bad)
        assert (caught.value.code, decoder.known) == (PROTOCOL_ERROR, {})
        bad = client.encode(FIELDS[1:])
    assert decoder.decode_request(client.encode(FIELDS)) == list(FIELDS)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_a_fault(noise: bytes) -> None:
    decoder = FieldDecoder(as_list)
    with contextlib.suppress(ConnectionFault):
        assert list_bytes(decoder.decode(noise)) >= 0
