"""Which columns of a table make which inputs of a model, and which are carried over. Decided once, before any row.

The rules, first match wins: what `columns` says (names, or patterns of the shell such as `f*`, in the order of the
table); a column of the input's name; for the only input of a model, the numeric columns in their order, if it takes so
many.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from math import prod
from typing import Any

from msgspec import Struct

from hyperion.batch.arrow import load_arrow
from hyperion.schema.errors import SchemaMismatch
from hyperion.schema.model import Signature, TensorSpec
from hyperion.store.reading import suggest

EVERY = "*"
_SHOWN = 8  # names in a message


class InputPlan(Struct, frozen=True):
    """One input: `tail` is the shape of a row. `nested` says that its only column holds lists with all of a row's
    elements, flat or nested as `tail` says; otherwise each column gives one element."""

    name: str
    datatype: str
    tail: tuple[int, ...]
    columns: tuple[str, ...]
    nested: bool = False


def plan_inputs(signature: Signature, schema: Any, given: Mapping[str, Sequence[str]]) -> tuple[InputPlan, ...]:
    """How a table of that Arrow schema feeds a model. Raises SchemaMismatch, naming input, columns and what to do."""
    if not signature.batched:
        raise SchemaMismatch(
            "this model takes no batches (its first axis does not count rows): it cannot score a table"
        )
    names = [spec.name for spec in signature.inputs]
    for name in given:
        if name not in names:
            raise SchemaMismatch(
                f'columns: the model has no input "{name}"{suggest(name, names)}; it has {_list(names)}'
            )
    return tuple(_plan(spec, schema, given, len(names) == 1) for spec in signature.inputs)


def _plan(spec: TensorSpec, schema: Any, given: Mapping[str, Sequence[str]], alone: bool) -> InputPlan:
    if spec.datatype == "BF16":
        raise SchemaMismatch(f'input "{spec.name}" is BF16, which no column of a table can be')
    if spec.name in given:
        return _fit(spec, schema, _expand(spec.name, given[spec.name], schema.names))
    if spec.name in schema.names:
        return _fit(spec, schema, (spec.name,))
    if not alone:
        raise SchemaMismatch(
            f'input "{spec.name}": the table has no column of that name{suggest(spec.name, schema.names)} (it has '
            f"{_list(schema.names)}); say which columns it is made of: columns {spec.name}=…"
        )
    types = load_arrow().types
    numeric = tuple(
        field.name
        for field in schema
        if types.is_integer(field.type) or types.is_floating(field.type) or types.is_boolean(field.type)
    )
    width = spec.shape[1] if len(spec.shape) == 2 else 1
    if not numeric or width not in (-1, len(numeric)):
        raise SchemaMismatch(
            f'input "{spec.name}" takes {width if width > 0 else "some"} columns, the table has {len(numeric)} numeric '
            f"ones ({_list(numeric)}); say which: columns {spec.name}=…"
        )
    return _fit(spec, schema, numeric)


def _expand(name: str, given: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    chosen: list[str] = []
    for word in given:
        found = [word] if word in known else [one for one in known if fnmatchcase(one, word)]
        if not found:
            raise SchemaMismatch(
                f'columns: input "{name}": the table has no column "{word}"{suggest(word, known)} (it has '
                f"{_list(known)})"
            )
        chosen += found
    for column in chosen:
        if chosen.count(column) > 1:
            raise SchemaMismatch(f'columns: input "{name}": column "{column}" is given twice')
    return tuple(chosen)


def _fit(spec: TensorSpec, schema: Any, columns: tuple[str, ...]) -> InputPlan:
    """The plan, if so many columns make a row of the input."""
    for column in columns:
        _check_unique(column, schema)
    tail = spec.shape[1:]
    sizes = list_sizes(schema.field(columns[0]).type)
    if len(columns) == 1 and sizes:
        return InputPlan(spec.name, spec.datatype, _fit_lists(spec, columns[0], sizes), columns, nested=True)
    if len(tail) > 1:
        raise SchemaMismatch(
            f'input "{spec.name}" has the shape {list(spec.shape)}: give it one column of lists with {prod(tail)} '
            "elements"
        )
    if tail == (-1,):
        tail = (len(columns),)
    if prod(tail) != len(columns):
        raise SchemaMismatch(
            f'input "{spec.name}" takes {prod(tail)} columns, {len(columns)} were given: {_list(columns)}'
        )
    return InputPlan(spec.name, spec.datatype, tail, columns)


def _fit_lists(spec: TensorSpec, column: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a row that a column of lists makes: lists that are nested as deep as the shape, or flat ones with
    all elements of a row."""
    tail = spec.shape[1:]
    if len(sizes) not in (1, len(tail)) or (len(sizes) < len(tail) and tail.count(-1) > 1):
        raise SchemaMismatch(
            f'input "{spec.name}" has the shape {list(spec.shape)}: lists of column "{column}" cannot be made to fit '
            f"it, as they are {len(sizes)} deep; expected flat lists{f' or {len(tail)} deep ones' if tail else ''}"
        )
    if len(sizes) < len(tail):
        rest = prod(size for size in tail if size != -1)
        known = sizes[0] // rest if sizes[0] >= 0 else -1
        fitted = tuple(known if size == -1 else size for size in tail)
    else:
        fitted = tuple(given if size == -1 else size for size, given in zip(tail, sizes, strict=True))
        if any(given not in (-1, size) for size, given in zip(fitted, sizes, strict=True)):
            raise SchemaMismatch(
                f'input "{spec.name}" takes rows of the shape {list(tail)}, column "{column}" holds some of the shape '
                f"{list(sizes)}"
            )
    if -1 in fitted:
        raise SchemaMismatch(
            f'input "{spec.name}" has the shape {list(spec.shape)}: lists of column "{column}" need a fixed size'
        )
    return fitted


def list_sizes(kind: Any) -> tuple[int, ...]:
    """How many elements lists of that Arrow type have, the outermost first: -1 where that differs, () for no list.

    >>> arrow = load_arrow()
    >>> list_sizes(arrow.list_(arrow.list_(arrow.int64(), 3))), list_sizes(arrow.int64())
    ((-1, 3), ())
    """
    arrow, types = load_arrow(), load_arrow().types
    if isinstance(kind, arrow.FixedShapeTensorType) and list(kind.permutation or ()) == sorted(kind.permutation or ()):
        return tuple(kind.shape)
    sizes = []
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        sizes.append(kind.list_size if types.is_fixed_size_list(kind) else -1)
        kind = kind.value_type
    return tuple(sizes)


def element_type(kind: Any) -> Any:
    """The Arrow type of what lists hold in the end.

    >>> arrow = load_arrow()
    >>> str(element_type(arrow.list_(arrow.list_(arrow.int64()))))
    'int64'
    """
    while list_sizes(kind):
        kind = kind.value_type
    return kind


def _check_unique(name: str, schema: Any) -> None:
    if schema.names.count(name) > 1:
        raise SchemaMismatch(
            f'the table has several columns of the name "{name}": give each a name of its own where the table is made, '
            "or leave them out of columns and keep"
        )


def choose_kept(keep: Sequence[str], schema: Any, outputs: Sequence[str]) -> tuple[str, ...]:
    """The columns that are carried over, in the order of the table. Raises SchemaMismatch for one that is not there, is
    there twice, or has the name of an output column."""
    for name in keep:
        if name != EVERY and name not in schema.names:
            raise SchemaMismatch(f'keep: the table has no column "{name}"{suggest(name, schema.names)}')
    kept = tuple(name for name in schema.names if EVERY in keep or name in keep)
    for name in kept:
        _check_unique(name, schema)
    for name in outputs:
        if name in kept:
            raise SchemaMismatch(
                f'the table has a column "{name}", and so would the output; leave it out of keep: keep '
                f"{_list([one for one in kept if one != name]) or 'none'}"
            )
    return kept


def _list(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
