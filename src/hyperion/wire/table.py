"""Tables (data frames and CSV) to input tensors. Used by `invocations`.

A table whose columns are the model's inputs gives each input its column. Otherwise a model with a single input gets the
whole table as a matrix, one row per row. Columns that are no inputs of a model with several are for the endpoint to
ignore or refuse. An empty cell of a column of floats is NaN, as in pandas.
"""

import csv
import io
from collections.abc import Sequence
from itertools import chain
from math import nan

import msgspec
from msgspec import Raw

from hyperion.policy.redact import shorten
from hyperion.schema.call import Buffer, Tensor
from hyperion.schema.errors import HyperionError, MalformedRequest, SchemaMismatch, TooLarge
from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.bytes_elements import encode_elements
from hyperion.wire.json.data import check_row_count, flatten, nesting, pack
from hyperion.wire.json.misfit import name_misfit
from hyperion.wire.limits import WireLimits
from hyperion.wire.signature_values import (
    check_records,
    join_table,
    join_texts,
    tensor_of_rows,
    tensors_of_records,
    with_unknown,
)
from hyperion.wire.tensor import Datatype, datatype_of, name_element

_decode_rows = msgspec.json.Decoder(list[list[Raw]]).decode
_decode_records = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_decode_column = msgspec.json.Decoder(list[float | None]).decode
_decode_matrix = msgspec.json.Decoder(list[list[float | None]]).decode
_BOOLEANS = {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}


def tensors_of_split(
    columns: Sequence[str] | None, data: bytes, signature: Signature, limits: WireLimits
) -> tuple[Tensor, ...]:
    """Input tensors of a data frame in pandas' orientation "split": column names and rows of cells (JSON text).

    Raises MalformedRequest when columns and rows do not match, or columns are not what the model wants.
    """
    if columns is None or not names_inputs(columns, signature):
        return (_tensor_of_cells(_only_input(signature, columns), data, limits),)
    check_row_count(data, b"[", limits)
    try:
        rows: list[list[Raw]] = _decode_rows(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedRequest(f"dataframe_split.data: {error}") from None
    _check_widths([len(row) for row in rows], len(columns))
    places = _places(columns)
    known = [
        _tensor_of_cells(spec, join_texts([row[places[spec.name]] for row in rows]), limits)
        for spec in signature.inputs
        if spec.name in places
    ]
    return with_unknown(known, _unknown(columns, signature))


def tensors_of_frame_records(text: bytes, signature: Signature, limits: WireLimits) -> tuple[Tensor, ...]:
    """Input tensors of a data frame in pandas' orientation "records": a JSON array of objects of column → cell."""
    check_row_count(text, b"{", limits)
    try:
        records: list[dict[str, Raw]] = _decode_records(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedRequest(f"dataframe_records: {error}") from None
    if not records or len(signature.inputs) == 1:
        columns = check_records(records)
    else:
        columns = list(dict.fromkeys(chain.from_iterable(records)))
    if names_inputs(columns, signature):
        return tensors_of_records(records, signature, lambda spec, cells: _tensor_of_cells(spec, cells, limits))
    text = join_table([record[name] for name in columns] for record in records)
    return (_tensor_of_cells(_only_input(signature, columns), text, limits),)


def tensors_of_csv(body: Buffer, signature: Signature, limits: WireLimits) -> tuple[Tensor, ...]:
    """Input tensors of CSV with a header of column names (MLflow); a first row of nothing but numbers is taken as data
    without a header (SageMaker)."""
    if len(body) > limits.max_body_bytes:
        raise TooLarge(f"the body has {len(body)} bytes, at most {limits.max_body_bytes} are allowed")
    body = bytes(body)
    check_row_count(body, b"\n", limits)
    if body.count(b",") + body.count(b"\n") > limits.max_json_elements:
        raise TooLarge(f"the CSV is over the limit of {limits.max_json_elements} cells")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedRequest(f"the CSV is not UTF-8: {error}") from None
    try:
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error as error:
        raise MalformedRequest(f"not CSV: {error}") from None
    columns = rows.pop(0) if rows and not all(map(_is_number, rows[0])) else None
    if not rows:
        raise MalformedRequest("the CSV has no rows")
    width = len(columns or rows[0])
    _check_widths([len(row) for row in rows], width)
    if columns is None or not names_inputs(columns, signature):
        spec = _only_input(signature, columns)
        cells = list(chain.from_iterable(rows))
        shape = (len(rows), width) if len(spec.shape) != 1 or width != 1 else (len(rows),)
        return (Tensor(spec.name, spec.datatype, shape, _pack_cells(spec, cells, shape)),)
    tensors = []
    places = _places(columns)
    for spec in signature.inputs:
        place = places.get(spec.name)
        if place is not None:
            shape = (len(rows), 1) if len(spec.shape) == 2 else (len(rows),)
            cells = [row[place] for row in rows]
            tensors.append(Tensor(spec.name, spec.datatype, shape, _pack_cells(spec, cells, shape)))
    return with_unknown(tensors, _unknown(columns, signature))


def names_inputs(columns: Sequence[str], signature: Signature) -> bool:
    """If the columns are inputs of the model: the only one and no other, or any of several."""
    names = {spec.name for spec in signature.inputs}
    return list(columns) == list(names) if len(names) == 1 else not names.isdisjoint(columns)


def _places(columns: Sequence[str]) -> dict[str, int]:
    """Where each column is. Raises MalformedRequest for one that is there twice."""
    places: dict[str, int] = {}
    for place, name in enumerate(columns):
        if name in places:
            raise MalformedRequest(f'column "{name[:64]}" is there twice')
        places[name] = place
    return places


def _unknown(columns: Sequence[str], signature: Signature) -> set[str]:
    return set(columns).difference([spec.name for spec in signature.inputs])


def _only_input(signature: Signature, columns: Sequence[str] | None) -> TensorSpec:
    """The input that takes the whole table. Raises SchemaMismatch when there are several."""
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        got = ", ".join(columns)[:256] if columns else "no column names"
        raise SchemaMismatch(f"expected the columns {names}, got {got}")
    return signature.inputs[0]


def _check_widths(widths: list[int], width: int) -> None:
    for index, got in enumerate(widths):
        if got != width:
            raise MalformedRequest(f"row {index} has {got} cells, expected {width}")


def _tensor_of_cells(spec: TensorSpec, text: bytes, limits: WireLimits) -> Tensor:
    """As `tensor_of_rows`; null is NaN in columns and matrices of floats."""
    datatype = datatype_of(spec.datatype)
    depth = nesting(text)
    if datatype.kind != "f" or b"null" not in text or depth not in (1, 2):
        return tensor_of_rows(spec, text, limits)
    try:
        values = _decode_column(text) if depth == 1 else _decode_matrix(text)
        shape, flat = flatten(values, depth)
        data = pack([nan if value is None else value for value in flat], datatype, shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if misfit := name_misfit(error, datatype, depth):
            raise SchemaMismatch(f'input "{spec.name}": {misfit.message}') from None
        raise MalformedRequest(f'input "{spec.name}": {datatype.name} wants numbers: {error}') from None
    except HyperionError as error:
        raise type(error)(f'input "{spec.name}": {error.message}') from None
    if depth == 1 and len(spec.shape) == 2:
        shape.append(1)
    return Tensor(spec.name, spec.datatype, tuple(shape), data)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _pack_cells(spec: TensorSpec, cells: list[str], shape: tuple[int, ...]) -> bytes:
    """The bytes of CSV cells, which are a tensor of that shape, as the input's datatype."""
    datatype = datatype_of(spec.datatype)
    if datatype.kind == "s":
        return encode_elements([cell.encode("utf-8", "surrogatepass") for cell in cells])
    try:
        return pack([_value(cells, place, datatype, shape) for place in range(len(cells))], datatype, shape)
    except HyperionError as error:
        raise type(error)(f'input "{spec.name}": {error.message}') from None


def _value(cells: list[str], place: int, datatype: Datatype, shape: tuple[int, ...]) -> float | int | bool:
    cell = cells[place]
    try:
        if datatype.kind == "f":
            return float(cell) if cell.strip() else nan
        if datatype.kind == "b":
            return _BOOLEANS[cell.strip()]
        return int(cell)
    except (ValueError, KeyError):
        where = name_element(shape, place)
        raise SchemaMismatch(f'{where} is "{shorten(cell, 40)}", which is not {datatype.name}') from None
