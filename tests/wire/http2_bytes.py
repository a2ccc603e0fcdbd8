"""HTTP/2 as a client writes it, frame by frame, and every way to break RFC 9113 with the answer that it asks for.

Used over the codec itself (`tests/wire`) and over real sockets (`tests/gateway`).
"""

from collections.abc import Iterable, Iterator
from typing import Final

from hyperion.wire.grpc.framing import field
from hyperion.wire.http2.frames import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_HEAD,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    frame,
    settings_frame,
)

PATH: Final = b"/inference.GRPCInferenceService/ServerLive"
FIELDS: Final = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", PATH),
    (b":authority", b"here"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)
HELLO: Final = PREFACE + settings_frame({})
MESSAGE: Final = bytes(5)  # an empty gRPC message


def block(fields: Iterable[tuple[bytes, bytes]] = FIELDS) -> bytes:
    return b"".join(field(name, value) for name, value in fields)


def headers(stream_id: int = 1, fields: Iterable[tuple[bytes, bytes]] = FIELDS, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream_id, block(fields))


def data(stream_id: int = 1, payload: bytes = MESSAGE, flags: int = END_STREAM) -> bytes:
    return frame(DATA, flags, stream_id, payload)


def request(stream_id: int = 1) -> bytes:
    return headers(stream_id) + data(stream_id)


def reset(stream_id: int, code: int = 8) -> bytes:
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4))


def window(stream_id: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, size.to_bytes(4))


def read_frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of each whole frame."""
    position = 0
    while position + 9 <= len(data):
        high, low, kind, flags, stream_id = FRAME_HEAD.unpack_from(data, position)
        size = high << 8 | low
        payload = data[position + 9 : position + 9 + size]
        if len(payload) < size:
            return
        yield kind, flags, stream_id, payload
        position += 9 + size


def faults(data: bytes) -> list[tuple[int, int]]:
    """What a server complains of: (stream, code), stream 0 for the connection."""
    found = []
    for kind, _flags, stream_id, payload in read_frames(data):
        if kind == GOAWAY:
            found.append((0, int.from_bytes(payload[4:8])))
        elif kind == RST_STREAM:
            found.append((stream_id, int.from_bytes(payload)))
    return found


def _with(*more: tuple[bytes, bytes], without: bytes = b"") -> bytes:
    return headers(1, [*(one for one in FIELDS if one[0] != without), *more])


def _literal_with_index(name: bytes, value: bytes) -> bytes:
    return b"\x40" + field(name, value)[1:]


LARGE_BLOCK: Final = b"".join(_literal_with_index(b"a%d" % n, b"x" * 60) for n in range(3))
_NO_END: Final = headers(1, flags=0)

# What a client sends behind preface and settings, and the first fault that it must be told.
VIOLATIONS: Final[dict[str, tuple[bytes, int, int]]] = {
    # framing
    "a frame over the limit": (FRAME_HEAD.pack(0x1000, 1, DATA, 0, 1), 0, FRAME_SIZE_ERROR),
    "an unknown frame over the limit": (FRAME_HEAD.pack(0x1000, 1, 200, 0, 0), 0, FRAME_SIZE_ERROR),
    "a huge settings frame": (FRAME_HEAD.pack(0x100, 0, SETTINGS, 0, 0), 0, FRAME_SIZE_ERROR),
    "a header block over its limit": (FRAME_HEAD.pack(0x90, 0, HEADERS, 0, 1), 0, ENHANCE_YOUR_CALM),
    "a push": (frame(PUSH_PROMISE, 0, 1, bytes(8)), 0, PROTOCOL_ERROR),
    # data
    "data without a stream": (data(0), 0, PROTOCOL_ERROR),
    "data before headers": (data(1), 0, PROTOCOL_ERROR),
    "data of an even stream": (data(2), 0, PROTOCOL_ERROR),
    "data after the end": (request() + data(), 0, STREAM_CLOSED),
    "data with more padding than frame": (headers() + data(1, b"\x05abcd", PADDED), 0, PROTOCOL_ERROR),
    "padded data without a length": (headers() + data(1, b"", PADDED), 0, PROTOCOL_ERROR),
    # headers
    "headers without a stream": (headers(0), 0, PROTOCOL_ERROR),
    "headers of an even stream": (headers(2), 0, PROTOCOL_ERROR),
    "a stream number below the last": (request(5) + request(3), 0, PROTOCOL_ERROR),
    "headers after the end": (request() + headers(), 0, STREAM_CLOSED),
    "headers with more padding than frame": (frame(HEADERS, PADDED | END_HEADERS, 1, b"\xff"), 0, PROTOCOL_ERROR),
    "padded headers without a length": (frame(HEADERS, PADDED | END_HEADERS, 1), 0, PROTOCOL_ERROR),
    "a priority that is cut short": (frame(HEADERS, PRIORITY_FLAG | END_HEADERS, 1, b"abc"), 0, PROTOCOL_ERROR),
    "headers in the middle": (headers() + headers(), 1, PROTOCOL_ERROR),
    "a pseudo-header in the trailers": (
        headers() + headers(1, [(b":path", b"/")], END_HEADERS | END_STREAM),
        1,
        PROTOCOL_ERROR,
    ),
    "a continuation of nothing": (frame(CONTINUATION, END_HEADERS, 1), 0, PROTOCOL_ERROR),
    "a block that is not continued": (_NO_END + frame(PING, 0, 0, bytes(8)), 0, PROTOCOL_ERROR),
    "a block that data interrupts": (_NO_END + data(), 0, PROTOCOL_ERROR),
    "a block that an unknown frame interrupts": (_NO_END + frame(99, 0, 0), 0, PROTOCOL_ERROR),
    "a block continued on another stream": (_NO_END + frame(CONTINUATION, END_HEADERS, 3), 0, PROTOCOL_ERROR),
    "a block in too many pieces": (_NO_END + frame(CONTINUATION, 0, 1) * 16, 0, ENHANCE_YOUR_CALM),
    "a block in too large pieces": (_NO_END + frame(CONTINUATION, 0, 1, bytes(16_000)) * 3, 0, ENHANCE_YOUR_CALM),
    # compression
    "an index out of the table": (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\x00"), 0, COMPRESSION_ERROR),
    "a block that is cut short": (frame(HEADERS, END_HEADERS, 1, b"\x00\x05ab"), 0, COMPRESSION_ERROR),
    "an empty literal": (frame(HEADERS, END_HEADERS, 1, b"\x00"), 0, COMPRESSION_ERROR),
    "broken Huffman text": (frame(HEADERS, END_HEADERS, 1, b"\x00\x84\xff\xff\xff\xff\x00"), 0, COMPRESSION_ERROR),
    "a table over its limit": (frame(HEADERS, END_HEADERS, 1, b"\x3f\xe2\x1f"), 0, COMPRESSION_ERROR),
    "a resize behind a field": (frame(HEADERS, END_HEADERS, 1, b"\x83\x20"), 0, COMPRESSION_ERROR),
    "a list that unfolds": (
        frame(HEADERS, END_HEADERS, 1, _literal_with_index(b"a", b"x" * 3900) + b"\xbe" * 30),
        0,
        ENHANCE_YOUR_CALM,
    ),
    # requests
    "an upper-case name": (_with((b"X-A", b"b")), 1, PROTOCOL_ERROR),
    "an empty name": (_with((b"", b"b")), 1, PROTOCOL_ERROR),
    "a name with a blank": (_with((b"a b", b"c")), 1, PROTOCOL_ERROR),
    "a name with a colon": (_with((b"a:b", b"c")), 1, PROTOCOL_ERROR),
    "a value with a line feed": (_with((b"a", b"b\nc")), 1, PROTOCOL_ERROR),
    "a value with a null": (_with((b"a", b"b\0c")), 1, PROTOCOL_ERROR),
    "a path with a return": (_with((b":path", b"/\r"), without=b":path"), 1, PROTOCOL_ERROR),
    "a value that begins with a blank": (_with((b"a", b" b")), 1, PROTOCOL_ERROR),
    "a value that ends with a tab": (_with((b"a", b"b\t")), 1, PROTOCOL_ERROR),
    "a connection field": (_with((b"connection", b"close")), 1, PROTOCOL_ERROR),
    "a transfer encoding": (_with((b"transfer-encoding", b"chunked")), 1, PROTOCOL_ERROR),
    "te with something else": (_with((b"te", b"gzip"), without=b"te"), 1, PROTOCOL_ERROR),
    "an unknown pseudo-header": (
        headers(1, [(b":status", b"200"), *FIELDS]),
        1,
        PROTOCOL_ERROR,
    ),
    "a pseudo-header twice": (headers(1, [FIELDS[0], *FIELDS]), 1, PROTOCOL_ERROR),
    "a pseudo-header behind a field": (_with((b":authority", b"here"), without=b":authority"), 1, PROTOCOL_ERROR),
    "no method": (headers(1, FIELDS[1:]), 1, PROTOCOL_ERROR),
    "no scheme": (headers(1, (FIELDS[0], *FIELDS[2:])), 1, PROTOCOL_ERROR),
    "an empty path": (headers(1, (*FIELDS[:2], (b":path", b""))), 1, PROTOCOL_ERROR),
    "CONNECT": (headers(1, ((b":method", b"CONNECT"), (b":authority", b"here"))), 1, PROTOCOL_ERROR),
    "a content-length that is no number": (_with((b"content-length", b"five")), 1, PROTOCOL_ERROR),
    "two content-lengths": (_with((b"content-length", b"5"), (b"content-length", b"5")), 1, PROTOCOL_ERROR),
    "more data than content-length": (_with((b"content-length", b"4")) + data(), 1, PROTOCOL_ERROR),
    "less data than content-length": (_with((b"content-length", b"6")) + data(), 1, PROTOCOL_ERROR),
    "no data but a content-length": (
        headers(1, [*FIELDS, (b"content-length", b"6")], END_HEADERS | END_STREAM),
        1,
        PROTOCOL_ERROR,
    ),
    "trailers before content-length is full": (
        _with((b"content-length", b"6")) + headers(1, [], END_HEADERS | END_STREAM),
        1,
        PROTOCOL_ERROR,
    ),
    # control
    "settings of a stream": (frame(SETTINGS, 0, 1), 0, PROTOCOL_ERROR),
    "settings of a broken length": (frame(SETTINGS, 0, 0, bytes(5)), 0, FRAME_SIZE_ERROR),
    "an acknowledgement with settings": (frame(SETTINGS, ACK, 0, bytes(6)), 0, FRAME_SIZE_ERROR),
    "too many settings": (frame(SETTINGS, 0, 0, b"\x0f\x0f\0\0\0\0" * 65), 0, ENHANCE_YOUR_CALM),
    "ENABLE_PUSH of 2": (settings_frame({2: 2}), 0, PROTOCOL_ERROR),
    "a window setting over its limit": (settings_frame({INITIAL_WINDOW_SIZE: 2**31}), 0, FLOW_CONTROL_ERROR),
    "a frame size under its limit": (settings_frame({MAX_FRAME_SIZE: 16_383}), 0, PROTOCOL_ERROR),
    "a frame size over its limit": (settings_frame({MAX_FRAME_SIZE: 2**24}), 0, PROTOCOL_ERROR),
    "a setting that overflows a window": (
        headers() + window(1, 2**31 - 1 - 65_535) + settings_frame({INITIAL_WINDOW_SIZE: 65_536}),
        0,
        FLOW_CONTROL_ERROR,
    ),
    "a ping of a stream": (frame(PING, 0, 1, bytes(8)), 0, PROTOCOL_ERROR),
    "a short ping": (frame(PING, 0, 0, bytes(7)), 0, FRAME_SIZE_ERROR),
    "a goodbye of a stream": (frame(GOAWAY, 0, 1, bytes(8)), 0, PROTOCOL_ERROR),
    "a short goodbye": (frame(GOAWAY, 0, 0, bytes(7)), 0, FRAME_SIZE_ERROR),
    "a reset of nothing": (reset(1), 0, PROTOCOL_ERROR),
    "a reset without a stream": (reset(0), 0, PROTOCOL_ERROR),
    "a short reset": (headers() + frame(RST_STREAM, 0, 1, bytes(3)), 0, FRAME_SIZE_ERROR),
    "a window update of nothing": (window(1, 1), 0, PROTOCOL_ERROR),
    "a short window update": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), 0, FRAME_SIZE_ERROR),
    "an empty window update": (window(0, 0), 0, PROTOCOL_ERROR),
    "an empty window update of a stream": (headers() + window(1, 0), 1, PROTOCOL_ERROR),
    "a window over its limit": (window(0, 2**31 - 1), 0, FLOW_CONTROL_ERROR),
    "a stream's window over its limit": (headers() + window(1, 2**31 - 1), 1, FLOW_CONTROL_ERROR),
    "a priority without a stream": (frame(PRIORITY, 0, 0, bytes(5)), 0, PROTOCOL_ERROR),
    "a short priority": (headers() + frame(PRIORITY, 0, 1, bytes(4)), 1, FRAME_SIZE_ERROR),
    "a short priority of nothing": (frame(PRIORITY, 0, 1, bytes(4)), 0, FRAME_SIZE_ERROR),
    # after a reset by the client
    "headers after a reset": (headers() + reset(1) + headers(), 0, STREAM_CLOSED),
    "data after a reset": (headers() + reset(1) + data(), 0, STREAM_CLOSED),
    # floods
    "pings": (frame(PING, 0, 0, bytes(8)) * 2100, 0, ENHANCE_YOUR_CALM),
    "settings": (settings_frame({}) * 300, 0, ENHANCE_YOUR_CALM),
    "resets": (b"".join(headers(n) + reset(n) for n in range(1, 2500, 2)), 0, ENHANCE_YOUR_CALM),
    "requests that break the rules": (
        b"".join(headers(n, FIELDS[1:]) for n in range(1, 2500, 2)),
        1,
        PROTOCOL_ERROR,
    ),
    "empty data": (headers() + data(1, b"", 0) * 11_000, 0, ENHANCE_YOUR_CALM),
    "tiny pieces of data": (headers() + data(1, b"\0", 0) * 5 + data(1, b"", 0) * 11_000, 0, ENHANCE_YOUR_CALM),
    "window updates": (window(0, 1) * 11_000, 0, ENHANCE_YOUR_CALM),
    "priorities": (frame(PRIORITY, 0, 1, bytes(5)) * 11_000, 0, ENHANCE_YOUR_CALM),
    "unknown frames": (frame(77, 0, 0) * 11_000, 0, ENHANCE_YOUR_CALM),
}

# What may look like a fault and is none.
ALLOWED: Final[dict[str, bytes]] = {
    "unknown frames": frame(77, 3, 5, bytes(40_000)) + frame(255, 0, 0),
    "unknown settings": settings_frame({0x0F0F: 7, 3: 1, 1: 0, 6: 0}),
    "unknown flags": frame(PING, 0xFE, 0, bytes(8)),
    "the reserved bit": headers(1 | 1 << 31) + data(1 | 1 << 31),
    "a priority of a stream that comes": frame(PRIORITY, 0, 7, bytes(5)) + request(7),
    "a priority of a stream that is over": request() + frame(PRIORITY, 0, 1, bytes(5)),
    "a late reset": request() + reset(1),
    "a late window update": request() + window(1, 5),
    "padding": frame(HEADERS, END_HEADERS | PADDED | PRIORITY_FLAG, 1, b"\x03" + bytes(5) + block() + bytes(3))
    + data(1, b"\x04" + MESSAGE + bytes(4), PADDED | END_STREAM),
    "nothing but padding": headers() + data(1, b"\x04" + bytes(4), PADDED) + data(),
    "an empty padding": headers() + data(1, b"\x00", PADDED) + data(),
    "headers in pieces": frame(HEADERS, 0, 1, block()[:9])
    + frame(CONTINUATION, 0, 1)
    + frame(CONTINUATION, END_HEADERS, 1, block()[9:])
    + data(),
    "trailers": headers() + data(1, MESSAGE, 0) + headers(1, [(b"a", b"b")], END_HEADERS | END_STREAM),
    "skipped stream numbers": request(7) + request(2**31 - 1),
    "a goodbye": request() + frame(GOAWAY, 0, 0, bytes(8) + b"why"),
    "data after our refusal": headers(1, FIELDS[1:]) + data(1) + headers(1, [], END_HEADERS | END_STREAM) + request(3),
}
