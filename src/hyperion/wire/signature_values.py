"""Tensors from JSON that names neither datatype nor shape: a model's signature and the nesting of the values say both.

Used by the protocols V1, invocations and generate.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from math import prod
from typing import Any

import msgspec
from msgspec import Raw, Struct

from hyperion.schema.call import Tensor
from hyperion.schema.errors import HyperionError, MalformedRequest, SchemaMismatch, TooLarge
from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.bytes_elements import encode_elements
from hyperion.wire.json.data import check_row_count, flatten, nesting, parse_any
from hyperion.wire.json.misfit import name_misfit
from hyperion.wire.json.nulls import MARK, Nulls, parse_any_with_nulls
from hyperion.wire.limits import WireLimits
from hyperion.wire.tensor import datatype_of


class _Base64(Struct):
    b64: str


def _text_decoders(element: Any) -> tuple[Any, ...]:
    decoders = [msgspec.json.Decoder(element).decode]
    for _ in range(9):
        element = list[element]
        decoders.append(msgspec.json.Decoder(element).decode)
    return tuple(decoders)


_TEXT_DECODERS = _text_decoders(str | _Base64)
_NULL_OR_TEXT_DECODERS = _text_decoders(str | _Base64 | None)


def parse_values(
    spec: TensorSpec, text: bytes, limits: WireLimits, nulls: Nulls = None, row: bool = False
) -> tuple[tuple[int, ...], bytes]:
    """Shape and bytes of nested JSON values as the input's datatype. BYTES may be `{"b64": …}` objects, too; `nulls` is
    what stands for a null, by input; `row` says that they are one row."""
    value = nulls.get(spec.name) if nulls is not None and MARK in text else None
    try:
        if spec.datatype == "BYTES":
            return _parse_texts(text, limits, value, row)
        if value is not None:
            return parse_any_with_nulls(text, datatype_of(spec.datatype), limits, value, row=row)
        return parse_any(text, datatype_of(spec.datatype), limits, row)
    except HyperionError as error:
        raise type(error)(f'input "{spec.name}": {error.message}') from None


def _parse_texts(text: bytes, limits: WireLimits, null: Any, row: bool) -> tuple[tuple[int, ...], bytes]:
    check_row_count(text, b"[", limits)
    if text.count(b'"') > 2 * limits.max_json_rows:
        raise TooLarge(f"more than {limits.max_json_rows} strings, which is the limit")
    depth = nesting(text)
    if depth > limits.max_rank:
        raise MalformedRequest(f"data is nested more than {limits.max_rank} deep")
    try:
        values = (_TEXT_DECODERS if null is None else _NULL_OR_TEXT_DECODERS)[depth](text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if misfit := name_misfit(error, datatype_of("BYTES"), depth, row=row):
            raise misfit from None
        raise MalformedRequest(f'BYTES wants strings or {{"b64": …}} objects: {error}') from None
    shape, flat = flatten(values, depth) if depth else ((), [values])
    return tuple(shape), encode_elements([_element(null if value is None else value) for value in flat])


def _element(value: str | _Base64) -> bytes:
    if isinstance(value, str):
        return value.encode()
    try:
        return base64.b64decode(value.b64, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedRequest(f"b64 is not base64: {error}") from None


def tensor_of_rows(spec: TensorSpec, text: bytes, limits: WireLimits, nulls: Nulls = None) -> Tensor:
    """The tensor of a JSON array whose nesting is the shape, rows first. Values [1, 2] for an input of shape [-1, 1]
    become [[1], [2]]."""
    shape, data = parse_values(spec, text, limits, nulls)
    if not shape:
        raise MalformedRequest(f'input "{spec.name}": expected an array, got a single value')
    if len(shape) + 1 == len(spec.shape) and spec.shape[-1] in (1, -1):
        shape = (*shape, 1)
    return Tensor(spec.name, spec.datatype, shape, data)


def tensor_of_one_row(spec: TensorSpec, text: bytes, batched: bool, limits: WireLimits, nulls: Nulls = None) -> Tensor:
    """The tensor of one row's value: nested as the row's shape, or flat (or single), to be laid out in it."""
    shape, data = parse_values(spec, text, limits, nulls, batched)
    row = spec.shape[1:] if batched else spec.shape
    fits = len(shape) == len(row) and all(want in (-1, got) for want, got in zip(row, shape, strict=True))
    if not fits:
        shape = _lay_out(spec, row, shape)
    return Tensor(spec.name, spec.datatype, (1, *shape) if batched else shape, data)


def _lay_out(spec: TensorSpec, row: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The row's shape for a flat value of `shape`: free dimensions are 1 but for the last, which takes what is left."""
    count = prod(shape)
    lengths: list[int] = [1 if length == -1 else length for length in row]
    known = prod(lengths)
    if -1 in row and known and count % known == 0:
        lengths[len(row) - 1 - row[::-1].index(-1)] = count // known
    if len(shape) > 1 or prod(lengths) != count:
        raise SchemaMismatch(f'input "{spec.name}": a row has the shape {list(row)}, got {list(shape)}')
    return tuple(lengths)


def tensors_of_columns(
    columns: Mapping[str, Raw], signature: Signature, limits: WireLimits, nulls: Nulls = None
) -> tuple[Tensor, ...]:
    """Tensors of an object of input name → values, rows first."""
    specs = {spec.name: spec for spec in signature.inputs}
    known = [tensor_of_rows(specs[name], bytes(raw), limits, nulls) for name, raw in columns.items() if name in specs]
    return with_unknown(known, columns.keys() - specs.keys())


def tensors_of_records(
    records: list[dict[str, Raw]], signature: Signature, make: Callable[[TensorSpec, bytes], Tensor]
) -> tuple[Tensor, ...]:
    """Tensors of rows that are objects of input name → value, each made of an array of its values. Raises
    SchemaMismatch where a row lacks an input that another one has."""
    specs = {spec.name: spec for spec in signature.inputs}
    given = set(chain.from_iterable(records))
    names = [name for name in specs if name in given]
    for index, record in enumerate(records):
        for name in names:
            if name not in record:
                raise SchemaMismatch(f'input "{name}": row {index} has none, expected one in every row')
    known = [make(specs[name], join_texts([record[name] for record in records])) for name in names]
    return with_unknown(known, given - specs.keys())


def with_unknown(known: Sequence[Tensor], names: Iterable[str]) -> tuple[Tensor, ...]:
    """The tensors, and one more for the first of the names, which no input of the model has: the endpoint's rules say
    whether that is ignored or refused. It has no elements, as nobody knows of what datatype they are."""
    unknown = min(names, default=None)
    if unknown is None:
        return tuple(known)
    rows = known[0].shape[:1] if known else (1,)
    return (*known, Tensor(unknown[:64], "BYTES", rows, b""))


def check_records(records: list[dict[str, Raw]]) -> list[str]:
    """The names that every row has, in the first row's order. Raises MalformedRequest where rows differ."""
    if not records:
        raise MalformedRequest("expected at least one row")
    names = records[0].keys()
    for index, record in enumerate(records):
        if record.keys() != names:
            odd = sorted(record.keys() ^ names)[0]
            raise MalformedRequest(f'row {index}: "{odd[:64]}" is not in every row')
    return list(names)


def join_texts(texts: Iterable[Raw]) -> bytes:
    """A JSON array of values that are JSON texts."""
    return b"[" + b",".join([bytes(text) for text in texts]) + b"]"


def join_table(rows: Iterable[Iterable[Raw]]) -> bytes:
    """A JSON array of arrays of values that are JSON texts."""
    return b"[" + b",".join([join_texts(row) for row in rows]) + b"]"


def total_rows(tensors: Iterable[Tensor]) -> set[int]:
    """The numbers of rows that the tensors have."""
    return set(chain.from_iterable(tensor.shape[:1] or (1,) for tensor in tensors))
