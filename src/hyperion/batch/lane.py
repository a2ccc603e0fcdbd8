"""One lane: chunks in, scored tables out, by one link. A thread of its own for each.

A row that does not fit, or for which the model fails, ends the run or is left out with its reason, as was asked.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from hyperion.batch.arrow import load_arrow
from hyperion.batch.columns import InputPlan
from hyperion.batch.link import Answer, Array, Batch, Link
from hyperion.batch.outputs import OutputPlan, build_columns
from hyperion.batch.source import Chunk
from hyperion.batch.target import RowError
from hyperion.batch.values import Misfit, read_input
from hyperion.schema.errors import ModelFailed, RunnerLost, SchemaMismatch

ATTEMPTS: Final = 3
_SKIP: Final = "--on-error skip leaves such rows out"


class Stopped(Exception):
    """The run was told to stop: what this lane was at is done again another time."""


class Plan:
    """What every lane does with a chunk: frozen once the run begins."""

    def __init__(
        self,
        inputs: Sequence[InputPlan],
        outputs: Sequence[OutputPlan],
        kept: Sequence[str],
        schema: Any,
        *,
        batch_rows: int,
        skip: bool,
        from_text: bool,
    ) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.kept = list(kept)
        self.schema = schema
        self.batch_rows = batch_rows
        self.skip = skip
        self.from_text = from_text


class Lane:
    """`stopping` is asked between batches."""

    def __init__(self, link: Link, plan: Plan, stopping: Callable[[], bool]) -> None:
        self._link = link
        self._plan = plan
        self._stopping = stopping

    def score(self, chunk: Chunk) -> tuple[Any, list[RowError]]:
        """The table of the chunk's rows with the model's answers, and the rows that were skipped, in order.

        Raises SchemaMismatch, ModelFailed or StorageFailed where the run is over, RunnerLost where the model's process
        does not survive these rows, Stopped."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._score(chunk)
            except RunnerLost as error:
                if attempt == ATTEMPTS:
                    raise ModelFailed(
                        f"the model's process died {ATTEMPTS} times in rows {chunk.first} to "
                        f"{chunk.first + chunk.rows - 1}: {error.message}"
                    ) from error
                self._link.revive()
        raise AssertionError("unreachable")

    def _score(self, chunk: Chunk) -> tuple[Any, list[RowError]]:
        errors: dict[int, RowError] = {}
        arrays: dict[str, list[Array]] = {}
        for wanted in self._plan.inputs:
            arrays[wanted.name], misfits = read_input(chunk.table, wanted, self._plan.from_text)
            self._note(chunk, misfits, errors)
        rows = _without(np.arange(chunk.rows), errors)
        if errors:
            arrays = {name: [array[rows] for array in columns] for name, columns in arrays.items()}
        pieces: dict[str, list[Array]] = {plan.name: [] for plan in self._plan.outputs}
        for answer in self._answers(arrays, len(rows)):
            self._note_failures(chunk, answer, rows, errors)
            for plan in self._plan.outputs:
                if plan.name in answer.outputs:
                    pieces[plan.name].append(answer.outputs[plan.name])
        kept = chunk.table.select(self._plan.kept)
        if errors:
            kept = kept.take(load_arrow().array(_without(np.arange(chunk.rows), errors)))
        columns = [self._as_kept(kept.column(name), name, chunk) for name in self._plan.kept]
        for plan in self._plan.outputs:
            columns += build_columns(plan, pieces[plan.name])
        table = load_arrow().table(columns, schema=self._plan.schema)
        return table, [errors[row] for row in sorted(errors)]

    def _as_kept(self, column: Any, name: str, chunk: Chunk) -> Any:
        """A column as it is carried over: those of a model may have been read as text."""
        wanted = self._plan.schema.field(name).type
        if column.type == wanted:
            return column
        arrow, text = load_arrow(), column.type
        try:
            if arrow.types.is_string(text) and not arrow.types.is_string(wanted):
                column = load_arrow("compute").utf8_trim_whitespace(column)  # as when its type was found out
            return column.cast(wanted)
        except arrow.ArrowException as error:
            raise SchemaMismatch(
                f'column "{name}", rows {chunk.first} to {chunk.first + chunk.rows - 1}: not all are {wanted}, as its '
                f"first ones are: {' '.join(str(error).split())[:200]}; leave the column out of keep"
            ) from error

    def _answers(self, arrays: dict[str, list[Array]], rows: int) -> list[Answer]:
        """The answer to each batch, in order. One in which the model failed is asked again, row by row."""
        answers = list(self._link.score(self._batches(arrays, rows), self._plan.inputs))
        for number, answer in enumerate(answers):
            if answer.failures:
                again = make_batch(arrays, answer.batch.first, answer.batch.last, single=True)
                answers[number] = next(self._link.score([again], self._plan.inputs))
        return answers

    def _batches(self, arrays: dict[str, list[Array]], rows: int) -> Iterator[Batch]:
        for first in range(0, rows, self._plan.batch_rows):
            if self._stopping():
                raise Stopped
            yield make_batch(arrays, first, min(rows, first + self._plan.batch_rows))

    def _note(self, chunk: Chunk, misfits: Sequence[Misfit], errors: dict[int, RowError]) -> None:
        for misfit in misfits:
            error = RowError(chunk.first + misfit.row, misfit.column, misfit.reason)
            if not self._plan.skip:
                raise SchemaMismatch(f'row {error.row}, column "{error.column}": {error.error}; {_SKIP}')
            errors.setdefault(misfit.row, error)

    def _note_failures(self, chunk: Chunk, answer: Answer, rows: Array, errors: dict[int, RowError]) -> None:
        for index, reason in answer.failures.items():
            row = int(rows[answer.batch.first + index])
            if not self._plan.skip:
                raise ModelFailed(f"row {chunk.first + row}: the model failed: {reason}; {_SKIP}")
            errors[row] = RowError(chunk.first + row, "", reason)


def make_batch(arrays: dict[str, list[Array]], first: int, last: int, single: bool = False) -> Batch:
    """Rows `first` to `last` (not included) of the columns by input."""

    def fill(plan: InputPlan, target: Array) -> None:
        columns = arrays[plan.name]
        if plan.nested or not plan.tail:
            target[:] = columns[0][first:last]
            return
        matrix = target.reshape(last - first, len(columns))
        for number, column in enumerate(columns):
            matrix[:, number] = column[first:last]

    def take(plan: InputPlan) -> Array:
        columns = arrays[plan.name]
        if plan.nested or not plan.tail:
            return columns[0][first:last]
        return np.stack([column[first:last] for column in columns], axis=1)

    return Batch(first, last, fill, take, single)


def _without(rows: Array, errors: dict[int, RowError]) -> Array:
    return np.delete(rows, sorted(errors)) if errors else rows
