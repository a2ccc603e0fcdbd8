"""Rows that are picked out of tensors and put together again are the same rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.call import Tensor
from hyperion.schema.errors import SchemaMismatch
from hyperion.wire.rows import merge_rows, take_rows
from hyperion.wire.tensor import from_numpy, to_numpy

ELEMENTS = {"INT16": st.integers(-9, 9), "FP64": st.floats(-9, 9), "BYTES": st.binary(max_size=5)}


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(sorted(ELEMENTS)))
    shape = (draw(st.integers(1, 9)), *draw(st.sampled_from([(), (1,), (3,), (2, 2), (0,)])))
    count = int(np.prod(shape))
    values = draw(st.lists(ELEMENTS[datatype], min_size=count, max_size=count))
    array = np.empty(count, dtype=object if datatype == "BYTES" else {"INT16": "<i2", "FP64": "<f8"}[datatype])
    array[:] = values
    return from_numpy("t", array.reshape(shape), datatype)


@given(tensors(), st.data())
def test_rows_are_taken_as_numpy_takes_them(tensor: Tensor, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, tensor.shape[0] - 1), max_size=12))
    taken = take_rows(tensor, rows)
    assert taken.shape == (len(rows), *tensor.shape[1:])
    assert to_numpy(taken).tolist() == to_numpy(tensor)[rows].tolist()


@given(tensors(), st.data())
def test_what_was_taken_apart_goes_together_again(tensor: Tensor, data: st.DataObject) -> None:
    rows = tensor.shape[0]
    order = data.draw(st.permutations(range(rows)))
    cut = data.draw(st.integers(1, rows))
    pieces = [order[:cut], order[cut:]] if cut < rows else [order]
    choice = [(0, 0)] * rows
    for number, piece in enumerate(pieces):
        for place, row in enumerate(piece):
            choice[row] = (number, place)
    merged = merge_rows([take_rows(tensor, piece) for piece in pieces], choice)
    assert (merged.shape, merged.datatype) == (tensor.shape, tensor.datatype)
    assert bytes(merged.data) == bytes(tensor.data)


@pytest.mark.parametrize("other", [Tensor("t", "INT8", (1, 3), b"abc"), Tensor("t", "UINT8", (1, 2), b"ab")])
def test_rows_that_are_not_alike_do_not_go_together(other: Tensor) -> None:
    with pytest.raises(SchemaMismatch, match="do not go with rows of INT8"):
        merge_rows([Tensor("t", "INT8", (1, 2), b"ab"), other], [(0, 0), (1, 0)])
