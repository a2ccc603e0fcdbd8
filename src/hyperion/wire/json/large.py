"""Large arrays of JSON numbers, through simdjson and numpy: half the time of the exact decoders from 200 numbers on.

Every function here answers None, or raises, for anything that is not plainly right; its caller then asks the exact
decoders, which know the few right texts that are refused here, and say what is wrong with the others.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import simdjson

from hyperion.wire.tensor import Datatype

KEPT_PARSER_BYTES = 1024 * 1024  # some 14 bytes stay allocated per byte of the largest such text
NOT_PARSED = (ValueError, TypeError, RuntimeError, AttributeError, LookupError)
"""What simdjson raises for texts that are not JSON, numbers over 64 bits, elements of another type, missing members."""

_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[],"))
_FLOAT_END = {2: 65520.0, 4: float(2**128 - 2**103), 8: float("inf")}  # the least values that round to infinity
_WIDEST = {"f": ("d", "<f8"), "i": ("i", "<i8"), "u": ("u", "<u8")}
_kept_parser = simdjson.Parser()


def parse_document(text: bytes) -> Any:
    """The parsed text, as simdjson's objects. Raises one of NOT_PARSED.

    A parser's memory is kept for the next text unless this one is large; simdjson refuses to use it again while objects
    of the text before are alive, and then a new one is made.
    """
    if len(text) > KEPT_PARSER_BYTES:
        return simdjson.Parser().parse(text)
    try:
        return _kept_parser.parse(text)
    except RuntimeError:
        return simdjson.Parser().parse(text)


def parse_large(text: bytes, datatype: Datatype, shape: Sequence[int], count: int) -> bytes | None:
    """The little-endian bytes of `count` numbers, flat or nested just as `shape`; None when it cannot tell."""
    try:
        document = parse_document(text)
        if not _is_regular(text, document, shape, count):
            return None
        return numbers(document, datatype, count)
    except NOT_PARSED:
        return None


def numbers(document: Any, datatype: Datatype, count: int) -> bytes | None:
    """The bytes of all numbers of an array, however nested; None unless there are `count` and all of them fit.

    Raises one of NOT_PARSED for elements that are not numbers of the datatype's kind.
    """
    import numpy as np  # not before the first large text: it takes a while

    kind = datatype.kind
    letter, widest = _WIDEST[kind]
    values = np.frombuffer(document.as_buffer(of_type=letter), widest)
    if len(values) != count:
        return None
    if datatype.size == 8:
        return values.tobytes()
    lowest, highest = np.minimum.reduce(values), np.maximum.reduce(values)
    if kind == "f":
        end = _FLOAT_END[datatype.size]
        fits = -end < lowest and highest < end
    else:
        bounds = np.iinfo(datatype.dtype)
        fits = bounds.min <= lowest and highest <= bounds.max
    return values.astype(datatype.dtype).tobytes() if fits else None


def count_brackets(shape: Sequence[int]) -> int:
    """How many brackets open in data nested as `shape`.

    >>> count_brackets((2, 3))
    3
    """
    return sum([prod(shape[:level]) for level in range(len(shape))])


def has_brackets(text: bytes, count: int) -> bool:
    """If just `count` brackets open in the text. Quick where they are far apart, which bytes.count is not."""
    place = -1
    for _ in range(count):
        place = text.find(b"[", place + 1)
        if place < 0:
            return False
    return text.find(b"[", place + 1) < 0


def rows_fit(document: Any, shape: Sequence[int]) -> bool:
    """If nested arrays have the lengths of `shape`. The innermost may have arrays for elements: count the brackets."""
    if not isinstance(document, simdjson.Array) or len(document) != shape[0]:
        return False
    return len(shape) == 1 or all(rows_fit(row, shape[1:]) for row in document)


def is_short_rowed(text_bytes: int, shape: Sequence[int], count: int) -> bool:
    """If visiting each row of nested data takes longer than comparing all brackets and commas."""
    return count // shape[-1] * 256 > text_bytes


def _is_regular(text: bytes, document: Any, shape: Sequence[int], count: int) -> bool:
    """If a text of numbers and arrays only, with `count` numbers, is flat or nested just as `shape`."""
    if text.find(b"[", 1) < 0:
        return True
    if is_short_rowed(len(text), shape, count):
        return text.translate(None, _NOT_STRUCTURE) == _structure(shape)
    return has_brackets(text, count_brackets(shape)) and rows_fit(document, shape)


def _structure(shape: Sequence[int]) -> bytes:
    """Brackets and commas of data nested as `shape`, which has no 0.

    >>> _structure((2, 3))
    b'[[,,],[,,]]'
    """
    text = b""
    for length in reversed(shape):
        text = b"[" + b",".join([text] * length) + b"]"
    return text
