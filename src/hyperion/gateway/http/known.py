"""Request heads that llhttp has accepted before on the same connection, to tell the next one by. Called by
`gateway/http`.

A client that keeps its connection sends the same head with every request, but for the length of the body. What llhttp
said of the first one holds for the next: only the digits are looked at. Pure.
"""

import re
from typing import Final

from hyperion.policy.redact import is_personal

MAX_LENGTH_DIGITS: Final = 12
MAX_SIZES: Final = 256
UNUSUAL: Final = frozenset((b"connection", b"expect", b"upgrade", b"transfer-encoding"))


class KnownHead:
    """A request head that llhttp accepted, cut around the digits of its content-length. `by_size` has whole heads by
    the size of the request that began with them, as bodies come in a few sizes."""

    __slots__ = ("after", "before", "by_size", "headers", "method", "path", "request_id")

    def __init__(
        self, before: bytes, after: bytes, method: bytes, path: bytes, headers: dict[bytes, bytes], request_id: str
    ) -> None:
        self.before: Final = before
        self.after: Final = after
        self.method: Final = method
        self.path: Final = path
        self.headers: Final = headers
        self.request_id: Final = request_id
        self.by_size: Final[dict[int, bytes]] = {}


def learn_head(data: bytes, method: bytes, path: bytes, headers: dict[bytes, bytes]) -> KnownHead | None:
    """The head of a request that came whole in `data` and alone, or None where it is not of the usual kind."""
    length = headers.get(b"content-length")
    end = data.find(b"\r\n\r\n") + 4
    if length is None or end < 4 or len(data) - end != int(length) or not UNUSUAL.isdisjoint(headers):
        return None
    found = re.search(rb"\r\ncontent-length:[ \t]*", data[:end], re.IGNORECASE)
    if found is None:
        return None
    start = found.end()
    after = data[start + len(length) : end]
    if not after.startswith(b"\r\n"):
        return None
    given = headers.get(b"x-request-id")
    return KnownHead(data[:start], after, method, path, headers, clean_id(given) if given else "")


def find_body(known: KnownHead, data: bytes, max_body_bytes: int) -> int:
    """Where the body begins if `data` is one whole request with that head, but for the length; else 0."""
    size = len(data)
    head = known.by_size.get(size)
    if head is not None and data.startswith(head):
        return len(head)
    if not data.startswith(known.before):
        return 0
    start = len(known.before)
    stop = data.find(b"\r", start, start + MAX_LENGTH_DIGITS)
    if stop < 0:
        return 0
    length = data[start:stop]
    if not length.isdigit() or not data.startswith(known.after, stop):
        return 0
    body_start = stop + len(known.after)
    body_bytes = int(length)
    if size - body_start != body_bytes or body_bytes > max_body_bytes:
        return 0
    if len(known.by_size) >= MAX_SIZES:
        known.by_size.clear()
    known.by_size[size] = data[:body_start]
    return body_start


def clean_id(given: bytes) -> str:
    """A caller's request id if it is safe to repeat in headers and logs and is nobody's address or number, else "".

    >>> clean_id(b"abc-1"), clean_id(b"a b"), clean_id(b"jane@example.com")
    ('abc-1', '', '')
    """
    text = given.decode("latin-1")
    if len(text) > 128 or not text.isascii() or not text.isprintable() or " " in text or is_personal(text):
        return ""
    return text
