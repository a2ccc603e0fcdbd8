"""The data of one tensor in which elements may be null: JSON text to little-endian bytes. Used by the JSON protocols
for the inputs to which an endpoint gives something that stands for a null, and where the text has one; all other data
takes the ways that know no null.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

import msgspec

from hyperion.schema.errors import MalformedRequest
from hyperion.wire.json.data import check_row_count, check_text_size, flatten, nesting, no_json_form, pack
from hyperion.wire.json.misfit import name_misfit
from hyperion.wire.limits import WireLimits
from hyperion.wire.tensor import MAX_RANK, Datatype

# What stands for a null, by input; None where no input may have one.
Nulls = Mapping[str, str | int | float | bool] | None
MARK: Final = b"null"


def _decoders(element: Any) -> tuple[Any, ...]:
    """Decoders of lists nested 1 … MAX_RANK deep; index 0 is that of the bare element."""
    element = element | None
    decoders = [msgspec.json.Decoder(element).decode]
    for _ in range(MAX_RANK):
        element = list[element]
        decoders.append(msgspec.json.Decoder(element).decode)
    return tuple(decoders)


_ELEMENTS: Final[dict[str, type]] = {"f": float, "i": int, "u": int, "b": bool, "s": str}
_DECODERS: Final = {kind: _decoders(element) for kind, element in _ELEMENTS.items()}


def parse_with_nulls(
    text: bytes, datatype: Datatype, shape: Sequence[int], count: int, limits: WireLimits, value: Any
) -> bytes:
    """As `data.parse_data`, with `value` in place of each null. `value` must be one that the datatype can hold."""
    check_text_size(len(text), datatype, count, limits)
    found, data = parse_any_with_nulls(text, datatype, limits, value, shape)
    if found != tuple(shape) and found != (count,):
        raise MalformedRequest(f"shape {list(shape)} does not fit data nested as {list(found)}")
    return data


def parse_any_with_nulls(
    text: bytes, datatype: Datatype, limits: WireLimits, value: Any, flat_of: Sequence[int] = (), row: bool = False
) -> tuple[tuple[int, ...], bytes]:
    """As `data.parse_any`, with `value` in place of each null. `flat_of` is the shape of the tensor whose elements a
    flat text lists."""
    if not datatype.kind:
        raise no_json_form(datatype)
    depth = nesting(text)
    if depth > limits.max_rank:
        raise MalformedRequest(f"data is nested more than {limits.max_rank} deep")
    check_row_count(text, b"[", limits)
    check_text_size(0, datatype, text.count(b",") + 1, limits)
    try:
        values = _DECODERS[datatype.kind][depth](text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if misfit := name_misfit(error, datatype, depth, flat_of, row):
            raise misfit from None
        raise MalformedRequest(f"{datatype.name}: {str(error).replace('`', '')}") from None
    shape, elements = flatten(values, depth) if depth else ([], [values])
    named = (1, *shape) if row else flat_of if len(shape) == 1 and prod(flat_of) == len(elements) else shape
    return tuple(shape), pack([value if element is None else element for element in elements], datatype, named)
