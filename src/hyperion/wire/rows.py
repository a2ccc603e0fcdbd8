"""Rows picked out of tensors, and put together again. Used by the gateway where different models answer different rows
of one request."""

from collections.abc import Sequence
from math import prod

from hyperion.schema.call import Tensor
from hyperion.schema.errors import SchemaMismatch
from hyperion.wire.bytes_elements import row_offsets_bytes
from hyperion.wire.tensor import DATATYPES


def take_rows(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """The rows at these places, in this order, copied.

    >>> take_rows(Tensor("x", "INT8", (3, 2), b"aabbcc"), [2, 0])
    Tensor('x', 'INT8', (2, 2), b'ccaa')
    """
    return merge_rows([tensor], [(0, row) for row in rows])


def merge_rows(tensors: Sequence[Tensor], choice: Sequence[tuple[int, int]]) -> Tensor:
    """A tensor whose row i is row `choice[i][1]` of `tensors[choice[i][0]]`, under the name of the first. Raises
    SchemaMismatch where two of them differ in more than their rows.

    >>> merge_rows([Tensor("y", "INT8", (2,), b"ab"), Tensor("y", "INT8", (1,), b"c")], [(0, 0), (1, 0)])
    Tensor('y', 'INT8', (2,), b'ac')
    """
    head = tensors[0]
    shape = head.shape[1:]
    for tensor in tensors:
        if tensor.datatype != head.datatype or tensor.shape[1:] != shape:
            raise SchemaMismatch(
                f'tensor "{head.name}": rows of {tensor.datatype} {list(tensor.shape[1:])} do not go with rows of '
                f"{head.datatype} {list(shape)}"
            )
    views = [memoryview(tensor.data) for tensor in tensors]
    size = DATATYPES[head.datatype].size
    if size:
        row_bytes = prod(shape) * size
        parts = [views[source][row * row_bytes : (row + 1) * row_bytes] for source, row in choice]
    else:
        ends = [row_offsets_bytes(tensor.data, tensor.shape[0], prod(shape)) for tensor in tensors]
        parts = [views[source][ends[source][row] : ends[source][row + 1]] for source, row in choice]
    return Tensor(head.name, head.datatype, (len(choice), *shape), b"".join(parts))
