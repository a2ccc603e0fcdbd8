"""One ModelMetadata call to another server: HTTP/2 with prior knowledge, one stream, one message each way. Called by
`ask`, which bounds the time.

Everything that comes is counted against one limit, so that frames that carry nothing end the call, too.
"""

import asyncio
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from hpack import Decoder, Encoder, HPACKError

from hyperion.schema.errors import HyperionError, UpstreamFailed
from hyperion.schema.protect import Upstream
from hyperion.wire.grpc.framing import MessageReader, frame_message
from hyperion.wire.grpc.messages import INFERENCE_SERVICE
from hyperion.wire.http1_client import AnswerError
from hyperion.wire.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY_FLAG,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    frame,
    ping_frame,
    settings_frame,
    window_frame,
)
from hyperion.wire.oip.model_metadata import ModelMetadata, decode_model_message, encode_model_request

ANSWER_BYTES: Final = 1 << 20
MAX_FRAME: Final = 16_384  # what RFC 9113 lets a peer send that was told nothing else
HEADER_BYTES: Final = 64 << 10
_HEAD_BYTES: Final = 9
_STREAM: Final = 1


async def ask_grpc(
    upstream: Upstream, headers: Mapping[bytes, bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> ModelMetadata:
    """What the server at the other end says of the model. Raises `AnswerError` for what is no HTTP/2 or no answer,
    `UpstreamFailed` for an answer that says no."""
    parts = urlsplit(upstream.url)
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"https" if parts.scheme == "https" else b"http"),
        (b":path", f"/{INFERENCE_SERVICE}/ModelMetadata".encode()),
        (b":authority", parts.netloc.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"hyperion"),
        *headers.items(),
    ]
    request = frame_message(encode_model_request(upstream.model, upstream.version))
    writer.write(
        PREFACE
        + settings_frame({INITIAL_WINDOW_SIZE: ANSWER_BYTES})
        + window_frame(0, ANSWER_BYTES)
        + frame(HEADERS, END_HEADERS, _STREAM, Encoder().encode(fields, huffman=False))
        + frame(DATA, END_STREAM, _STREAM, request)
    )
    call = _Call(writer)
    while not call.ended:
        kind, flags, stream, payload = await _read_frame(reader, call)
        call.take(kind, flags, stream, payload)
    return call.read_answer(parts.netloc)


async def _read_frame(reader: asyncio.StreamReader, call: "_Call") -> tuple[int, int, int, bytes]:
    try:
        head = await reader.readexactly(_HEAD_BYTES)
        size = int.from_bytes(head[:3])
        call.received += _HEAD_BYTES + size
        if size > MAX_FRAME or call.received > ANSWER_BYTES:
            raise AnswerError(f"what it sent is not HTTP/2, or more than {ANSWER_BYTES} bytes")
        return head[3], head[4], int.from_bytes(head[5:]) & 0x7FFFFFFF, await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        raise AnswerError("it closed the connection before its answer was there") from None


class _Call:
    """What has come of the answer."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.ended = False
        self.received = 0
        self._writer = writer
        self._decoder = Decoder(max_header_list_size=HEADER_BYTES)
        self._block = b""
        self._ends = False  # the block is the last of the stream
        self._fields: dict[bytes, bytes] = {}
        self._data = bytearray()

    def take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """One frame. Raises `AnswerError`."""
        if kind == SETTINGS and not flags & ACK:
            self._writer.write(SETTINGS_ACK)
        elif kind == PING and not flags & ACK:
            self._writer.write(ping_frame(payload, ack=True))
        elif kind == GOAWAY and payload[4:8] == bytes(4) and int.from_bytes(payload[:4]) >= _STREAM:
            return  # it takes no more calls, and finishes this one (RFC 9113, section 6.8)
        elif kind == GOAWAY or (kind == RST_STREAM and stream == _STREAM):
            raise AnswerError(f"it ended the call with HTTP/2 error {int.from_bytes(payload[-4:])}")
        elif kind == DATA and stream == _STREAM:
            self._data += _strip(payload, flags, priority=False)
            self.ended = bool(flags & END_STREAM)
        elif kind in (HEADERS, CONTINUATION) and stream == _STREAM:
            if kind == HEADERS:
                self._ends = bool(flags & END_STREAM)
                payload = _strip(payload, flags, priority=True)
            self._block += payload
            if flags & END_HEADERS:
                self._finish_block()

    def _finish_block(self) -> None:
        try:
            self._fields |= dict(self._decoder.decode(self._block, raw=True))
        except (HPACKError, IndexError) as error:
            raise AnswerError(f"its headers cannot be read: {error}") from error
        self._block = b""
        self.ended = self._ends

    def read_answer(self, where: str) -> ModelMetadata:
        """The metadata. Raises `UpstreamFailed`."""
        if self._fields.get(b":status") != b"200":
            status = self._fields.get(b":status", b"nothing")[:8].decode("latin-1")
            raise UpstreamFailed(f"{where}: answered HTTP {status}, expected gRPC")
        if self._fields.get(b"grpc-status") != b"0":
            status = self._fields.get(b"grpc-status", b"none")[:8].decode("latin-1")
            message = self._fields.get(b"grpc-message", b"")[:200].decode("latin-1")
            raise UpstreamFailed(f"{where}: ModelMetadata ended with gRPC status {status}: {message}".rstrip(": "))
        try:
            messages = MessageReader(ANSWER_BYTES, lambda _: None).feed(bytes(self._data))
        except HyperionError as error:
            raise UpstreamFailed(f"{where}: {error.message}") from error
        if len(messages) != 1 or messages[0].compressed:
            raise UpstreamFailed(f"{where}: answered {len(messages)} messages, expected one that is not compressed")
        return decode_model_message(bytes(messages[0].data))


def _strip(payload: bytes, flags: int, *, priority: bool) -> bytes:
    """The payload without padding and priority (RFC 9113, sections 6.1 and 6.2)."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload or payload[0] >= end:
            raise AnswerError("its padding is longer than the frame")
        start, end = 1, end - payload[0]
    if priority and flags & PRIORITY_FLAG:
        start += 5
    return payload[start:end]
