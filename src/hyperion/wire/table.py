"""Tables (data frames and CSV) to input tensors. Used by `invocations`.

A table whose columns are the model's inputs gives each input its column. Otherwise a model with a single input gets the
whole table as a matrix, one row per row. An empty cell of a column of floats is NaN, as in pandas.
"""

import csv
import io
from collections.abc import Sequence
from itertools import chain
from math import nan

import msgspec
from msgspec import Raw

from hyperion.schema.call import Buffer, Tensor
from hyperion.schema.errors import HyperionError, MalformedRequest, TooLarge
from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.bytes_elements import encode_elements
from hyperion.wire.json.data import check_row_count, flatten, nesting, pack
from hyperion.wire.limits import WireLimits
from hyperion.wire.signature_values import check_records, join_table, join_texts, tensor_of_rows
from hyperion.wire.tensor import Datatype, datatype_of

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
    if not names_inputs(columns, signature):
        return (_tensor_of_cells(_only_input(signature, columns), data, limits),)
    check_row_count(data, b"[", limits)
    try:
        rows: list[list[Raw]] = _decode_rows(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedRequest(f"dataframe_split.data: {error}") from None
    order = list(columns or ())
    _check_widths([len(row) for row in rows], len(order))
    places = {name: order.index(name) for name in order}
    return tuple(
        [
            _tensor_of_cells(spec, join_texts([row[places[spec.name]] for row in rows]), limits)
            for spec in signature.inputs
        ]
    )


def tensors_of_frame_records(text: bytes, signature: Signature, limits: WireLimits) -> tuple[Tensor, ...]:
    """Input tensors of a data frame in pandas' orientation "records": a JSON array of objects of column → cell."""
    check_row_count(text, b"{", limits)
    try:
        records: list[dict[str, Raw]] = _decode_records(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedRequest(f"dataframe_records: {error}") from None
    columns = check_records(records)
    if names_inputs(columns, signature):
        return tuple(
            [
                _tensor_of_cells(spec, join_texts([record[spec.name] for record in records]), limits)
                for spec in signature.inputs
            ]
        )
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
        return (Tensor(spec.name, spec.datatype, shape, _pack_cells(spec, cells)),)
    tensors = []
    for spec in signature.inputs:
        place = columns.index(spec.name)
        shape = (len(rows), 1) if len(spec.shape) == 2 else (len(rows),)
        tensors.append(Tensor(spec.name, spec.datatype, shape, _pack_cells(spec, [row[place] for row in rows])))
    return tuple(tensors)


def names_inputs(columns: Sequence[str] | None, signature: Signature) -> bool:
    """If the columns are the inputs of the model: all of them, and no others, in any order."""
    return columns is not None and sorted(columns) == sorted(spec.name for spec in signature.inputs)


def _only_input(signature: Signature, columns: Sequence[str] | None) -> TensorSpec:
    """The input that takes the whole table. Raises MalformedRequest when there are several."""
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        got = ", ".join(columns)[:256] if columns else "no column names"
        raise MalformedRequest(f"expected the columns {names}, got {got}")
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
        data = pack([nan if value is None else value for value in flat], datatype)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
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


def _pack_cells(spec: TensorSpec, cells: list[str]) -> bytes:
    """The bytes of CSV cells as the input's datatype."""
    datatype = datatype_of(spec.datatype)
    if datatype.kind == "s":
        return encode_elements([cell.encode("utf-8", "surrogatepass") for cell in cells])
    try:
        return pack([_value(cell, datatype) for cell in cells], datatype)
    except HyperionError as error:
        raise type(error)(f'input "{spec.name}": {error.message}') from None


def _value(cell: str, datatype: Datatype) -> float | int | bool:
    try:
        if datatype.kind == "f":
            return float(cell) if cell.strip() else nan
        if datatype.kind == "b":
            return _BOOLEANS[cell.strip()]
        return int(cell)
    except (ValueError, KeyError):
        raise MalformedRequest(f'"{cell[:40]}" is not {datatype.name}') from None
