"""Run the model once per batch size before it is ready: first runs allocate, compile and fault pages in.

Called by `runner/process`. The times become the batcher's first idea of what a batch costs.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hyperion.runner.model import Arrays, LoadedModel
from hyperion.runner.signature import ANY, dtype_of
from hyperion.schema.model import ModelOptions, Signature

BUDGET_S = 2.0
NO_SHAPES: Mapping[str, Sequence[int]] = {}


def warm_up(
    model: LoadedModel,
    options: ModelOptions,
    report: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    clock: Callable[[], float] = time.perf_counter,
    shapes: Mapping[str, Sequence[int]] = NO_SHAPES,
) -> dict[int, float]:
    """Seconds per batch of each bucket's number of rows: the faster of two runs on zeros or empty strings.

    Stops after `BUDGET_S` in all, except that buckets named in the options are each run once. Made-up inputs may be
    ones that the model rightly refuses (a vocabulary index, a document), so a failure is reported and ends the
    warm-up, no more. `shapes` are the lengths of free axes that a repository gives, as in `make_inputs`. A model that
    is not batched runs as it is, under bucket 1.
    """
    took: dict[int, float] = {}
    started = clock()
    for rows in choose_buckets(model.signature, options):
        if took and clock() - started > BUDGET_S and not options.buckets:
            break
        inputs = make_inputs(model.signature, rows, shapes)
        for _run in range(2):
            before = clock()
            try:
                model.predict(inputs, ())
            except Exception as error:
                report(f"warm-up with {rows} rows of zeros failed: {type(error).__name__}: {error}")
                return took
            after = clock()
            took[rows] = min(after - before, took.get(rows, float("inf")))
            if after - started > BUDGET_S:
                break
    return took


def choose_buckets(signature: Signature, options: ModelOptions) -> tuple[int, ...]:
    """Batch sizes to warm up, ascending: those of the options, or 1, 8 and the largest batch.

    >>> choose_buckets(Signature((), ()), ModelOptions(max_batch_size=64))
    (1, 8, 64)
    """
    if not signature.batched:
        return (1,)
    most = options.max_batch_size
    return tuple(sorted({min(size, most) for size in options.buckets or (1, 8, most)}))


def make_inputs(signature: Signature, rows: int, shapes: Mapping[str, Sequence[int]] = NO_SHAPES) -> Arrays:
    """Zeros, or empty strings, of the signature's types and shapes. A free axis that does not count rows is of length
    1, or of that in `shapes`: by input, the shape without the axis of rows."""
    inputs: Arrays = {}
    for spec in signature.inputs:
        shape = [1 if size == ANY else size for size in spec.shape]
        if signature.batched:
            shape[0] = rows
        if spec.name in shapes:
            shape[int(signature.batched) :] = shapes[spec.name]
        filling = b"" if spec.datatype == "BYTES" else 0
        inputs[spec.name] = np.full(shape, filling, dtype=dtype_of(spec.datatype))
    return inputs
