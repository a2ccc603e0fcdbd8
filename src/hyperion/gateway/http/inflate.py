"""Compressed request bodies, inflated up to a limit. Called by `gateway/http` before a body is decoded."""

import zlib

from hyperion.schema.call import Buffer
from hyperion.schema.errors import MalformedRequest, TooLarge, Unsupported

_WINDOWS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


def inflate(body: Buffer, encoding: bytes, limit_bytes: int) -> bytes:
    """The body behind one `content-encoding`. Raises Unsupported, TooLarge (before more than the limit is held) or
    MalformedRequest."""
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return bytes(body)
    window = _WINDOWS.get(name)
    if window is None:
        raise Unsupported(f'content-encoding "{encoding[:40].decode("latin-1")}" is not supported; use gzip or deflate')
    if name == b"deflate" and body[:1] and (body[0] & 0x0F) != 8:
        window = -15  # some clients send the raw stream without the zlib header
    inflater = zlib.decompressobj(window)
    try:
        data = inflater.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise MalformedRequest(f"the body is not valid {name.decode()}: {error}") from None
    if len(data) > limit_bytes:
        raise TooLarge(f"the inflated body is over the limit of {limit_bytes} bytes")
    if not inflater.eof:
        raise MalformedRequest(f"the {name.decode()} body is cut short")
    if inflater.unused_data:
        raise MalformedRequest(f"{len(inflater.unused_data)} bytes follow the {name.decode()} body")
    return data
