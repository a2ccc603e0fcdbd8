"""Server-sent events: one event of a stream as bytes. Used for every streamed answer over HTTP."""

CONTENT_TYPE = "text/event-stream; charset=utf-8"


def encode_event(data: bytes) -> bytes:
    r"""One event that carries `data`; line ends of any kind in it become new `data:` lines, as the standard has it.

    >>> encode_event(b'{"a": 1}')
    b'data: {"a": 1}\n\n'
    """
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    return b"data: %b\n\n" % data
