"""Headers as lines of a file, `name: value` each: credentials for another server. Read by whoever calls it.

An error says which line is wrong and never what it holds.
"""

from typing import Final

from hyperion.schema.errors import InvalidConfig
from hyperion.wire.http1_client import is_clean

MAX_BYTES: Final = 16 << 10
MAX_LINES: Final = 32
# Said by us, by the connection or by the body; a file that says otherwise would break the request.
RESERVED: Final = frozenset(
    (b"host", b"connection", b"content-length", b"content-type", b"transfer-encoding", b"te", b"upgrade", b"trailer")
)


def parse_header_lines(data: bytes, source: str) -> dict[bytes, bytes]:
    """The headers, names in lower case; empty lines and those that begin with `#` say nothing. Raises InvalidConfig,
    which names the `source` and the line.

    >>> parse_header_lines(b"# for the other one\\nAuthorization: Bearer x\\n", "token")
    {b'authorization': b'Bearer x'}
    """
    if len(data) > MAX_BYTES:
        raise InvalidConfig(f"{source}: larger than {MAX_BYTES >> 10} KiB")
    headers: dict[bytes, bytes] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        name, colon, value = line.partition(b":")
        name, value = name.strip().lower(), value.strip()
        if not colon or not is_clean(name, value):
            raise InvalidConfig(f"{source}: line {number}: expected `name: value`, in plain characters")
        if name in RESERVED or name in headers or len(headers) == MAX_LINES:
            why = (
                "is given twice" if name in headers else "is not for you to set" if name in RESERVED else "is too many"
            )
            raise InvalidConfig(f"{source}: line {number}: the header {why}")
        headers[name] = value
    return headers
