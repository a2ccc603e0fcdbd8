"""From columns of Arrow to arrays of a model's datatypes: no copy where the types are the same, exact or refused.

The one exception is deliberate: a float is rounded to the nearest of a narrower kind, as every client of a model does,
and refused only where it is too large for it. Rows whose values do not fit are returned with the reason, never raised.
"""

from math import prod
from typing import Any

import numpy as np

from hyperion.batch.arrow import load_arrow
from hyperion.batch.columns import InputPlan, element_type, list_sizes
from hyperion.schema.errors import SchemaMismatch
from hyperion.wire.tensor import DATATYPES

Array = np.ndarray[Any, Any]
_ARROW = {
    "BOOL": "bool_",
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "binary",
}


class Misfit:
    """A value that does not fit: the row's index in the chunk, the column, and why."""

    __slots__ = ("column", "reason", "row")

    def __init__(self, row: int, column: str, reason: str) -> None:
        self.row = row
        self.column = column
        self.reason = reason


def arrow_type(datatype: str) -> Any:
    """The Arrow type of a V2 datatype.

    >>> str(arrow_type("FP32")), str(arrow_type("UINT8"))
    ('float', 'uint8')
    """
    return getattr(load_arrow(), _ARROW[datatype])()


def read_input(table: Any, plan: InputPlan, from_text: bool) -> tuple[list[Array], list[Misfit]]:
    """The columns of one input as arrays with a row each, and the values that do not fit, whose place holds anything.

    A nested input gives one array of shape [rows, *tail]. `from_text` lets text be read as numbers: a CSV file has
    nothing else.
    """
    misfits: list[Misfit] = []
    if plan.nested:
        return [_read_lists(table.column(plan.columns[0]), plan, misfits)], misfits
    return [_read_column(table.column(name), name, plan.datatype, from_text, misfits) for name in plan.columns], misfits


def _read_column(column: Any, name: str, datatype: str, from_text: bool, misfits: list[Misfit]) -> Array:
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if array.null_count:
        mask = array.is_null().to_numpy(zero_copy_only=False)
        misfits += [Misfit(int(row), name, "is null") for row in np.flatnonzero(mask)]
    wanted = arrow_type(datatype)
    if array.type != wanted:
        array = _cast(array, name, wanted, from_text, misfits)
    elif array.null_count:
        array = array.fill_null(_filling(wanted))
    if datatype == "BYTES":
        texts = np.empty(len(array), dtype=object)
        texts[:] = array.to_pylist()
        return texts
    if datatype != "BOOL":  # whose bits are packed
        # As a view of its memory, and not by `to_numpy`, which would import pandas where it is installed.
        return np.frombuffer(array.buffers()[1], DATATYPES[datatype].dtype, len(array) + array.offset)[array.offset :]
    values: Array = array.to_numpy(zero_copy_only=False)
    return values if values.dtype == np.dtype(DATATYPES[datatype].dtype) else values.astype(DATATYPES[datatype].dtype)


def _cast(array: Any, name: str, wanted: Any, from_text: bool, misfits: list[Misfit]) -> Any:
    """The array as `wanted`; misfits and nulls are filled."""
    arrow, compute = load_arrow(), load_arrow("compute")
    types = arrow.types
    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if types.is_null(array.type):
        return arrow.array([_filling(wanted)] * len(array), wanted)
    source = array.fill_null(_filling(array.type)) if array.null_count else array
    if from_text and (types.is_string(source.type) or types.is_large_string(source.type)):
        source = compute.utf8_trim_whitespace(source) if not types.is_binary(wanted) else source
        if array.null_count and not types.is_binary(wanted):
            source = compute.if_else(array.is_null(), "0", source)
    pieces: list[Any] = []
    _cast_range(source, 0, wanted, name, pieces, misfits)
    result = arrow.concat_arrays(pieces) if len(pieces) != 1 else pieces[0]
    if types.is_floating(wanted) and not types.is_float16(wanted):
        _find_overflow(source, result, name, wanted, misfits)
    return result


def _cast_range(source: Any, first: int, wanted: Any, name: str, pieces: list[Any], misfits: list[Misfit]) -> None:
    """Casts in one go what can be; halves what cannot, down to the values at fault."""
    arrow, compute = load_arrow(), load_arrow("compute")
    try:
        pieces.append(compute.cast(source, wanted, safe=True))
        return
    except arrow.ArrowException as error:
        if len(source) == 1:
            misfits.append(Misfit(first, name, _shorten(str(error))))
            pieces.append(arrow.array([_filling(wanted)], wanted))
            return
    half = len(source) // 2
    _cast_range(source.slice(0, half), first, wanted, name, pieces, misfits)
    _cast_range(source.slice(half), first + half, wanted, name, pieces, misfits)


def _find_overflow(source: Any, result: Any, name: str, wanted: Any, misfits: list[Misfit]) -> None:
    types = load_arrow().types
    after = result.to_numpy(zero_copy_only=False)
    infinite = np.flatnonzero(np.isinf(after))
    for row in infinite:
        value = source[int(row)].as_py()
        text = str(value).strip().lower().lstrip("+-")
        if text not in ("inf", "infinity") and not (types.is_floating(source.type) and np.isinf(value)):
            misfits.append(Misfit(int(row), name, f"{str(value)[:40]} is too large for {wanted}"))


def check_types(plan: InputPlan, schema: Any, from_text: bool) -> None:
    """Raise SchemaMismatch for a column whose type can stand for no value of the input's."""
    types, wanted = load_arrow().types, arrow_type(plan.datatype)
    for name in plan.columns:
        kind = schema.field(name).type
        given = element_type(kind) if plan.nested else kind
        given = given.value_type if types.is_dictionary(given) else given
        if not types.is_null(given) and not _is_alike(types, given, wanted, from_text and not plan.nested):
            raise SchemaMismatch(
                f'column "{name}" has the type {kind}, input "{plan.name}" is {plan.datatype}: convert the column '
                "where the table is made"
            )


def _is_alike(types: Any, given: Any, wanted: Any, from_text: bool) -> bool:
    """If values of one type may stand for values of the other at all."""
    text = types.is_string(given) or types.is_large_string(given)
    if types.is_binary(wanted):
        return bool(text or types.is_binary(given) or types.is_large_binary(given))
    if text:
        return from_text
    if types.is_boolean(wanted):
        return bool(types.is_boolean(given))
    return bool(
        types.is_integer(given)
        or types.is_floating(given)
        or types.is_boolean(given)
        or (types.is_decimal(given) and types.is_floating(wanted))
    )


def _read_lists(column: Any, plan: InputPlan, misfits: list[Misfit]) -> Array:
    """Lists of one size as an array [rows, *tail]: each level is looked at and then taken off, without the rows that do
    not fit."""
    arrow, compute = load_arrow(), load_arrow("compute")
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array, arrow.ExtensionArray):
        array = array.storage
    name, rows = plan.columns[0], len(array)
    sizes = plan.tail if len(list_sizes(array.type)) > 1 else (prod(plan.tail),)
    good, each = np.arange(rows), 1  # rows that fit so far, and how many lists of this level a row has
    for size in sizes:
        lengths = compute.list_value_length(array)
        wrong = compute.fill_null(compute.not_equal(lengths, size), True).to_numpy(zero_copy_only=False)
        places = np.flatnonzero(wrong)
        if len(places):
            at_fault, firsts = np.unique(places // each, return_index=True)
            for row, place in zip(at_fault, places[firsts], strict=True):
                length = lengths[int(place)].as_py()
                why = "is null" if length is None else f"has {length} elements, the model takes {size}"
                within = "" if each == 1 else f"list {place % each} in it "
                misfits.append(Misfit(int(good[row]), name, within + why))
            array = array.take(arrow.array(np.flatnonzero(np.repeat(~np.isin(np.arange(len(good)), at_fault), each))))
            good = np.delete(good, at_fault)
        array, each = array.flatten(), each * size
    found: list[Misfit] = []
    flat = _read_column(arrow.chunked_array([array]), name, plan.datatype, False, found)
    misfits += [Misfit(int(good[one.row // each]), name, f"element {one.row % each} {one.reason}") for one in found]
    values = flat.reshape(len(good), *plan.tail)
    if len(good) == rows:
        return values
    whole = np.zeros((rows, *plan.tail), dtype=values.dtype)
    whole[good] = values
    return whole


def _filling(kind: Any) -> Any:
    types = load_arrow().types
    if types.is_binary(kind) or types.is_large_binary(kind):
        return b""
    if types.is_string(kind) or types.is_large_string(kind):
        return ""
    return False if types.is_boolean(kind) else 0


def _shorten(text: str) -> str:
    return " ".join(text.split())[:160]
