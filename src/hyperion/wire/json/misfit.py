"""What is said of an element of JSON that is no element of its tensor: which one it is, what came, what was expected.

Used by every JSON protocol of this room once a typed decoder has refused a text. A text that is JSON, and of which one
element is of another type, is a request that does not fit; any other is no request.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from hyperion.schema.errors import HyperionError, SchemaMismatch
from hyperion.wire.tensor import Datatype, name_element, name_place

# Of msgspec: what it got, and where, as a path of indices, if it was not the text as a whole.
_GOT: Final = re.compile(r"(?:got `([a-z]+)`|Number out of range)(?: - at `\$((?:\[[0-9]+\])*)`)?$")
_WANTED: Final = {"f": "a number", "i": "an integer", "u": "an integer", "b": "true or false", "s": "a string"}
_FOUND: Final = {
    None: "",
    "null": "null",
    "str": "a string",
    "bool": "a boolean",
    "int": "an integer",
    "float": "a float",
}


def name_misfit(
    error: Exception, datatype: Datatype, depth: int, shape: Sequence[int] = (), row: bool = False
) -> HyperionError | None:
    """The error for the element that the decoder of lists nested `depth` deep refused with `error`; None where it
    refused something else. `shape` is that of the tensor whose elements a flat text lists, `row` says that the text is
    one row. The message is to be put after the name of the tensor."""
    if not isinstance(error, msgspec.ValidationError):
        return None
    found = _GOT.search(str(error))
    if found is None or found[1] not in _FOUND:
        return None  # lists where there should be elements, or the other way round
    indices = [int(index) for index in (found[2] or "[]")[1:-1].split("][") if index]
    if len(indices) != depth:
        return None
    if row:
        indices.insert(0, 0)
    where = name_element(shape, indices[0]) if len(indices) == 1 < len(shape) else name_place(indices)
    if found[1] is None:
        return SchemaMismatch(f"{where} is out of range for {datatype.name}")
    return SchemaMismatch(f"{where} is {_FOUND[found[1]]}, expected {_WANTED[datatype.kind]} ({datatype.name})")
