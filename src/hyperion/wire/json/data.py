"""The `data` of one tensor: JSON text to little-endian bytes. Used by every JSON protocol of this room.

Small tensors go through msgspec's typed decoders, large numeric ones through simdjson; both give the same bytes and
refuse the same texts (a property test holds them to that). Types are strict, as in the protocol: no number for a bool,
no bool for a number, no 1.0 for an integer, nothing that the datatype cannot hold, no ragged nests.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain
from struct import Struct as Packer
from struct import error as PackError  # noqa: N812  (it is an exception class in spite of its name)
from typing import Any, Final

import msgspec

from hyperion.schema.errors import HyperionError, MalformedRequest, SchemaMismatch, TooLarge, Unsupported
from hyperion.wire.bytes_elements import encode_elements
from hyperion.wire.json.large import parse_large
from hyperion.wire.json.misfit import name_misfit
from hyperion.wire.limits import WireLimits
from hyperion.wire.tensor import DATATYPES, Datatype, name_element

SIMD_ELEMENTS: Final = 256  # from here on simdjson is faster (bench/micro_wire.py measures it)
TEXT_BYTES_PER_ELEMENT: Final = 64  # generous: a float64 in full takes 25 characters, brackets and blanks a few more
TEXT_BYTES_FREE: Final = 1024 * 1024
_PACKERS_KEPT_BELOW: Final = 1024

_LEADING = re.compile(rb"[\s\[]*")
_BRACKETS_AND_BLANKS: Final = b"[], \t\r\n"
_KINDS: dict[str, tuple[type, str]] = {"f": (float, "numbers"), "i": (int, "integers"), "u": (int, "integers")}
_KINDS |= {"b": (bool, "booleans"), "s": (str, "strings")}
_packers: dict[str, dict[int, Callable[..., bytes]]] = {datatype.code: {} for datatype in DATATYPES.values()}


def _decoders(element: Any) -> tuple[Callable[[bytes], Any], ...]:
    """Decoders of lists nested 1 … 9 deep; index 0 is that of the bare element."""
    decoders = [msgspec.json.Decoder(element).decode]
    for _ in range(9):
        element = list[element]
        decoders.append(msgspec.json.Decoder(element).decode)
    return tuple(decoders)


_DECODERS = {kind: _decoders(element) for kind, (element, _) in _KINDS.items()}
_FLAT = {kind: decoders[1] for kind, decoders in _DECODERS.items()}


def parse_data(text: bytes, datatype: Datatype, shape: Sequence[int], count: int, limits: WireLimits) -> bytes:
    """The bytes of a tensor of `shape` (`count` elements in all) from JSON that is flat or nested just as the shape.

    Raises SchemaMismatch for elements of another type or out of the datatype's range, MalformedRequest for anything
    else, Unsupported for BF16 (JSON carries no such numbers), TooLarge for text or tensors over the limits. Messages
    are to be put after the name of the tensor.
    """
    kind = datatype.kind
    if not kind:
        raise no_json_form(datatype)
    if count >= SIMD_ELEMENTS or len(text) > TEXT_BYTES_FREE:
        check_text_size(len(text), datatype, count, limits)
        if kind in "fiu":
            data = parse_large(text, datatype, shape, count)
            if data is not None:
                return data
            if len(text) > TEXT_BYTES_FREE:  # the exact decoders would take seconds to say more
                raise SchemaMismatch(
                    f"shape {list(shape)} wants {count} {_KINDS[kind][1]} in the range of {datatype.name},"
                    " flat or nested just as the shape, and the data is not that"
                )
        check_row_count(text, b"[", limits)
    try:
        if not text.startswith(b"[["):
            values = _FLAT[kind](text)
            if len(values) == count:
                return pack(values, datatype, shape)
        elif len(shape) == 2:
            rows = _DECODERS[kind][2](text)
            if len(rows) == 1:
                values = rows[0]
                if len(values) == count and shape[0] == 1:
                    return pack(values, datatype, shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # what is wrong, if anything is (blanks between brackets are not), is found out below
    return _parse_nested(text, datatype, shape, count)


def no_json_form(datatype: Datatype) -> Unsupported:
    """The error for a datatype that JSON numbers cannot carry."""
    return Unsupported(f"{datatype.name} has no JSON form; send it as binary data, or as FP32")


def check_text_size(size: int, datatype: Datatype, count: int, limits: WireLimits) -> None:
    """Raise before parsing what cannot be right: parsed text takes far more memory than the text."""
    if count > limits.max_json_elements:
        raise TooLarge(
            f"{count} elements as JSON, at most {limits.max_json_elements} allowed; send them as binary data"
        )
    if not datatype.size and count > limits.max_json_rows:
        raise TooLarge(
            f"{count} BYTES elements as JSON, at most {limits.max_json_rows} allowed; send them as binary data"
        )
    if datatype.size and size > count * TEXT_BYTES_PER_ELEMENT + TEXT_BYTES_FREE:
        raise MalformedRequest(f"{size} bytes of text are far too many for {count} elements of {datatype.name}")


def check_row_count(text: bytes, mark: bytes, limits: WireLimits) -> None:
    """Raise TooLarge when `mark`, which begins or ends a row, is in the text more often than there may be rows."""
    if len(text) > limits.max_json_rows and text.count(mark) > limits.max_json_rows:
        raise TooLarge(f"more than {limits.max_json_rows} rows or members, which is the limit")


def _parse_nested(text: bytes, datatype: Datatype, shape: Sequence[int], count: int) -> bytes:
    """As `parse_data`, for the nested form and for explaining what is wrong with any form."""
    depth = nesting(text)
    rank = len(shape)
    if count == 0 and not text.translate(None, _BRACKETS_AND_BLANKS) and depth:
        try:
            msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise MalformedRequest(f"data is not JSON: {error}") from None
        return b""
    if depth not in (1, rank):
        wanted = "flat" if rank < 2 else f"flat or nested {rank} deep"
        raise MalformedRequest(f"shape {list(shape)} wants data {wanted}, got it nested {depth} deep")
    values = decode_text(text, datatype, depth, shape)
    if depth == 0:  # the nested form of a scalar
        return pack([values], datatype, shape)
    if depth == rank and depth > 1:
        found, values = flatten(values, depth)
        if tuple(found) != tuple(shape):
            raise MalformedRequest(f"shape {list(shape)} does not fit data nested as {found}")
    else:  # flat, and of the right length it would have been done before
        raise MalformedRequest(f"shape {list(shape)} wants {count} elements, got {len(values)}")
    return pack(values, datatype, shape)


def parse_any(text: bytes, datatype: Datatype, limits: WireLimits, row: bool = False) -> tuple[tuple[int, ...], bytes]:
    """Shape and bytes of JSON whose nesting says its shape; a bare element has shape (). `row` says that it is one row,
    for messages. Raises as `parse_data`."""
    if not datatype.kind:
        raise no_json_form(datatype)
    depth = nesting(text)
    if depth > limits.max_rank:
        raise MalformedRequest(f"data is nested more than {limits.max_rank} deep")
    check_row_count(text, b"[", limits)
    if datatype.size and len(text) > limits.max_json_elements:
        check_text_size(0, datatype, text.count(b",") + 1, limits)
    values = decode_text(text, datatype, depth, row=row)
    shape, flat = flatten(values, depth) if depth else ([], [values])
    return tuple(shape), pack(flat, datatype, (1, *shape) if row else shape)


def nesting(text: bytes) -> int:
    """How many brackets open before the first element."""
    match = _LEADING.match(text)
    return match.group().count(b"[") if match else 0


def decode_text(text: bytes, datatype: Datatype, depth: int, shape: Sequence[int] = (), row: bool = False) -> Any:
    """Lists nested `depth` deep (at most 9) of the Python values that the datatype wants. `shape` and `row` are as for
    `name_misfit`. Raises SchemaMismatch for an element of another type, MalformedRequest."""
    element, plural = _KINDS[datatype.kind]
    try:
        return _DECODERS[datatype.kind][depth](text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if misfit := name_misfit(error, datatype, depth, shape, row):
            raise misfit from None
        reason = str(error).replace(f"`{element.__name__}`", plural[:-1])
        raise MalformedRequest(f"{datatype.name} wants {plural}: {reason}") from None


def flatten(values: list[Any], depth: int) -> tuple[list[int], list[Any]]:
    """Shape and elements of regularly nested lists. Raises MalformedRequest when rows of one level differ in length."""
    shape = [len(values)]
    for level in range(1, depth):
        length = len(values[0]) if values else 0
        for index, row in enumerate(values):
            if len(row) != length:
                raise MalformedRequest(
                    f"data is ragged: at depth {level + 1} row 0 has {length} elements, row {index} has {len(row)}"
                )
        values = list(chain.from_iterable(values))
        shape.append(length)
    return shape, values


def pack(values: list[Any], datatype: Datatype, shape: Sequence[int]) -> bytes:
    """Little-endian bytes of Python values of the datatype's kind. Raises SchemaMismatch for one out of its range, by
    its place in the shape."""
    code = datatype.code
    if not code:
        return encode_elements(map(str.encode, values))
    count = len(values)
    pack_values = _packers[code].get(count)
    if pack_values is None:
        pack_values = Packer(f"<{count}{code}").pack
        if count < _PACKERS_KEPT_BELOW:
            _packers[code][count] = pack_values
    try:
        return pack_values(*values)
    except (PackError, OverflowError):
        raise _out_of_range(values, datatype, shape) from None


def _out_of_range(values: list[Any], datatype: Datatype, shape: Sequence[int]) -> HyperionError:
    """The error that names the first value which the datatype cannot hold."""
    one = Packer(f"<{datatype.code}")
    index = next(index for index, value in enumerate(values) if not _packs(one, value))
    where = name_element(shape, index)
    return SchemaMismatch(f"{where}: {str(values[index])[:40]} is out of range for {datatype.name}")


def _packs(one: Packer, value: Any) -> bool:
    try:
        one.pack(value)
    except (PackError, OverflowError):
        return False
    return True
