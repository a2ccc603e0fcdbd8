"""How deep a JSON text nests, found without recursion. Used before any decoder that would follow unknown members."""

import re

from hyperion.schema.call import Buffer
from hyperion.schema.errors import MalformedRequest

_CHUNK_BYTES = 1024 * 1024
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_AS_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # +1 and -1 as signed bytes
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def check_depth(text: Buffer, max_depth: int) -> None:
    """Raise MalformedRequest when arrays and objects nest deeper than `max_depth`.

    Text that is not JSON may pass or not; its decoder will tell. Time is linear in the text, whatever it holds.

    >>> check_depth(b'{"a": [[1]], "b": "[[[["}', 3)
    """
    text = bytes(text)
    if text.count(b"[") + text.count(b"{") <= max_depth:
        return
    if _depth(_STRINGS.sub(b"", text)) > max_depth:
        raise MalformedRequest(f"the JSON is nested more than {max_depth} deep")


def _depth(text: bytes) -> int:
    """The most brackets that are open at once in a text without strings, whose brackets do not count."""
    import numpy as np  # not before the first text with many: it takes a while

    steps = np.frombuffer(text.translate(_AS_STEPS, _NOT_BRACKETS), np.int8)
    deepest = depth = 0
    for start in range(0, len(steps), _CHUNK_BYTES):
        depths = steps[start : start + _CHUNK_BYTES].cumsum(dtype=np.int32)
        deepest = max(deepest, depth + int(depths.max()))
        depth += int(depths[-1])
    return deepest
