"""HTTP/2 frames as bytes (RFC 9113): their numbers, the faults they can be, and how the server's own are written.

Used by `http2_receive` and `send`. Pure: one function, one frame.
"""

from struct import Struct
from typing import Final

__all__ = [
    "ACK",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "ENHANCE_YOUR_CALM",
    "FLOW_CONTROL_ERROR",
    "FRAME_HEAD",
    "FRAME_SIZE_ERROR",
    "GOAWAY",
    "HEADERS",
    "HEADER_TABLE_SIZE",
    "INITIAL_WINDOW_SIZE",
    "INTERNAL_ERROR",
    "MAX_CONCURRENT_STREAMS",
    "MAX_FRAME_SIZE",
    "MAX_HEADER_LIST_SIZE",
    "MAX_STREAM_ID",
    "MAX_WINDOW",
    "NO_ERROR",
    "PADDED",
    "PING",
    "PREFACE",
    "PRIORITY",
    "PRIORITY_FLAG",
    "PROTOCOL_ERROR",
    "PUSH_PROMISE",
    "REFUSED_STREAM",
    "RST_STREAM",
    "SETTINGS",
    "SETTINGS_ACK",
    "STREAM_CLOSED",
    "WINDOW_UPDATE",
    "ConnectionFault",
    "StreamFault",
    "frame",
    "goaway_frame",
    "ping_frame",
    "reset_frame",
    "settings_frame",
    "window_frame",
]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Frame types (section 6).
DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

# Flags.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

# Error codes (section 7).
NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

# Settings (section 6.5.2).
HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

MAX_WINDOW: Final = 2**31 - 1
MAX_STREAM_ID: Final = 2**31 - 1
FRAME_HEAD: Final = Struct(">HBBBI")  # length / 256, length % 256, type, flags, stream id with its reserved bit

_SETTING: Final = Struct(">HI")


class ConnectionFault(Exception):
    """The peer broke a rule that ends the connection: GOAWAY with `code`, and `message` as its debug data."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class StreamFault(Exception):
    """The peer broke a rule that ends one stream: RST_STREAM with `code`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Any frame.

    >>> frame(PING, ACK, 0, bytes(8)).hex()
    '0000080601000000000000000000000000'
    """
    size = len(payload)
    return FRAME_HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def settings_frame(settings: dict[int, int]) -> bytes:
    """What this side can take."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*setting) for setting in settings.items()))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings of a frame whose length is a multiple of six."""
    return list(_SETTING.iter_unpack(payload))


def reset_frame(stream_id: int, code: int) -> bytes:
    """The stream ends here, in both directions."""
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4))


def window_frame(stream_id: int, size: int) -> bytes:
    """The peer may send `size` more bytes on the stream, or with 0 on the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, size.to_bytes(4))


def ping_frame(payload: bytes, ack: bool) -> bytes:
    """A question if the peer is there, or the answer to its own; `payload` has 8 bytes."""
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway_frame(last_id: int, code: int, message: str = "") -> bytes:
    """No stream above `last_id` is or will be served."""
    return frame(GOAWAY, 0, 0, last_id.to_bytes(4) + code.to_bytes(4) + message.encode()[:256])
