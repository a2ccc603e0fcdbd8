"""Which of a caller's trace context (W3C Trace Context) goes on to another server. Pure: called by
`gateway/upstream/link`.

The gateway makes no spans of its own, so what is passed on is what came, to the byte.
"""

import re
from collections.abc import Mapping
from typing import Final

from hyperion.schema.errors import Fields

NO_TRACE: Final[Fields] = ()
MAX_MEMBERS: Final = 32  # of a tracestate, by the recommendation
_PARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_MEMBER: Final = re.compile(rb"[ \t]*[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{1,256}[ \t]*|[ \t]*")


def select_trace(headers: Mapping[bytes, bytes]) -> Fields:
    """The fields `traceparent` and `tracestate` of a request, names in lower case, where they are well-formed; a
    tracestate means nothing without its traceparent.

    >>> parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    >>> select_trace({b"traceparent": parent, b"tracestate": b"no"}) == ((b"traceparent", parent),)
    True
    >>> select_trace({b"traceparent": b"00-0-0-01"}), select_trace({b"tracestate": b"a=1"})
    ((), ())
    """
    parent = headers.get(b"traceparent")
    if parent is None or not _is_parent(parent):
        return NO_TRACE
    state = headers.get(b"tracestate")
    if state is None or not _is_state(state):
        return ((b"traceparent", parent),)
    return ((b"traceparent", parent), (b"tracestate", state))


def _is_parent(given: bytes) -> bool:
    """A later version than ours may say more behind another dash."""
    found = _PARENT.match(given)
    if found is None:
        return False
    rest = given[found.end() :]
    return not rest or (given[:2] != b"00" and rest[:1] == b"-" and all(0x20 < byte < 0x7F for byte in rest))


def _is_state(given: bytes) -> bool:
    members = given.split(b",")
    return len(members) <= MAX_MEMBERS and all(_MEMBER.fullmatch(member) for member in members)
