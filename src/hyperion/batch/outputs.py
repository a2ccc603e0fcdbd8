"""From what a model answered to columns of a table.

[-1] and [-1, 1] become one column. Wider outputs become one column of lists where the target has lists (Parquet,
JSONL), and `NAME_0`, `NAME_1`, … where it has not (CSV, SQL).
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np
from msgspec import Struct

from hyperion.batch.arrow import load_arrow
from hyperion.batch.link import Array
from hyperion.batch.values import arrow_type
from hyperion.schema.errors import ModelFailed, SchemaMismatch
from hyperion.schema.model import Signature

MAX_COLUMNS: Final = 1_000


class OutputPlan(Struct, frozen=True):
    """One output: `tail` is the shape of a row, () for one value; `columns` are the names that it becomes; with `lists`
    its only column holds a list for each row (of lists, where the rank is higher)."""

    name: str
    datatype: str
    tail: tuple[int, ...]
    columns: tuple[str, ...]
    lists: bool = False


def plan_outputs(signature: Signature, has_lists: bool) -> tuple[OutputPlan, ...]:
    """The columns that a model's answers become. Raises SchemaMismatch for outputs that a target without lists cannot
    hold."""
    plans = []
    for spec in signature.outputs:
        tail: tuple[int, ...] = () if spec.shape[1:] == (1,) else spec.shape[1:]
        datatype = "FP32" if spec.datatype == "BF16" else spec.datatype
        if not tail or has_lists:
            plans.append(OutputPlan(spec.name, datatype, tail, (spec.name,), lists=bool(tail)))
            continue
        width = prod(tail)
        if -1 in tail or width > MAX_COLUMNS:
            raise SchemaMismatch(
                f'output "{spec.name}" has the shape {list(spec.shape)}, which needs a target with lists: write '
                "Parquet or JSONL"
            )
        columns = tuple(f"{spec.name}_{number}" for number in range(width))
        plans.append(OutputPlan(spec.name, datatype, tail, columns))
    return tuple(plans)


def output_fields(plans: Sequence[OutputPlan]) -> list[tuple[str, Any]]:
    """Name and Arrow type of each output column."""
    return [(name, _column_type(plan)) for plan in plans for name in plan.columns]


def build_columns(plan: OutputPlan, pieces: Sequence[Array]) -> list[Any]:
    """The columns of one output (`output_fields` says their types) from its arrays, each of some rows, in their order.
    Raises ModelFailed where the model does not answer in the shape of its signature."""
    arrow = load_arrow()
    flat = [_check(plan, piece) for piece in pieces]
    if plan.lists:
        return [arrow.chunked_array([_make_lists(plan, piece) for piece in flat], _column_type(plan))]
    if not flat:
        return [arrow.array([], _value_type(plan)) for _ in plan.columns]
    whole = (flat[0] if len(flat) == 1 else np.concatenate(flat)).reshape(-1, max(1, len(plan.columns)))
    return [_make_array(plan, whole[:, number]) for number in range(len(plan.columns))]


def _check(plan: OutputPlan, piece: Array) -> Array:
    tail = piece.shape[1:] if piece.shape[1:] != (1,) or plan.tail else ()
    fits = len(tail) == len(plan.tail) and all(want in (-1, got) for want, got in zip(plan.tail, tail, strict=True))
    if not fits:
        raise ModelFailed(
            f'output "{plan.name}": the model answered with rows of the shape {list(piece.shape[1:])}, its signature '
            f"says {list(plan.tail)}"
        )
    return piece


def _value_type(plan: OutputPlan) -> Any:
    return load_arrow().string() if plan.datatype == "BYTES" else arrow_type(plan.datatype)


def _column_type(plan: OutputPlan) -> Any:
    arrow = load_arrow()
    kind = _value_type(plan)
    for size in reversed(plan.tail if plan.lists else ()):
        kind = arrow.list_(kind) if size < 0 else arrow.list_(kind, size)
    return kind


def _make_lists(plan: OutputPlan, piece: Array) -> Any:
    arrow = load_arrow()
    values = _make_array(plan, piece.reshape(-1))
    for axis in range(len(plan.tail) - 1, -1, -1):
        size = piece.shape[axis + 1]
        if plan.tail[axis] < 0:
            offsets = np.arange(prod(piece.shape[: axis + 1]) + 1, dtype=np.int32) * size
            values = arrow.ListArray.from_arrays(arrow.array(offsets), values)
        else:
            values = arrow.FixedSizeListArray.from_arrays(values, size)
    return values


def _make_array(plan: OutputPlan, values: Array) -> Any:
    arrow = load_arrow()
    if plan.datatype == "BOOL":
        return arrow.array(values.tolist(), arrow.bool_())
    if plan.datatype != "BYTES":
        # Over its memory, and not by `array`, which would import pandas where it is installed.
        data = arrow.py_buffer(np.ascontiguousarray(values))
        return arrow.Array.from_buffers(_value_type(plan), len(values), [None, data])
    try:
        return arrow.array([value.decode("utf-8") for value in values.tolist()], arrow.string())
    except UnicodeDecodeError as error:
        raise ModelFailed(f'output "{plan.name}": the model answered with text that is not UTF-8: {error}') from error
