"""How deep a JSON text nests, found without recursion. Used before any decoder that would follow unknown members."""

import re

from hyperion.schema.call import Buffer
from hyperion.schema.errors import MalformedRequest

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def check_depth(text: Buffer, max_depth: int) -> None:
    """Raise MalformedRequest when arrays and objects nest deeper than `max_depth`.

    Text that is not JSON may pass or not; its decoder will tell. Time and memory are linear in the text.

    >>> check_depth(b'{"a": [[1]], "b": "[[[["}', 3)
    """
    text = bytes(text)
    if text.count(b"[") + text.count(b"{") <= max_depth:
        return
    if _fits(text, max_depth) or _fits(_STRINGS.sub(b"", text), max_depth):
        return
    raise MalformedRequest(f"the JSON is nested more than {max_depth} deep, or its brackets do not match")


def _fits(text: bytes, max_depth: int) -> bool:
    """If taking away the innermost pairs of brackets `max_depth` times leaves none."""
    brackets = text.translate(_AS_SQUARE, _NOT_BRACKETS)
    for _ in range(max_depth):
        if not brackets:
            break
        brackets = brackets.replace(b"[]", b"")
    return not brackets
