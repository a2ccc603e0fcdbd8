"""What a model predicted, in one number or one label per request, and into which bins such predictions fall. Pure.

Called by `gateway/release/counts`, many batches at a time: numpy costs the same for one row and for hundreds. A
request's prediction is that of its first row, so that a request is one event however many rows it has.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence

from hyperion.policy.detectors import LONGEST
from hyperion.policy.redact import redact_text
from hyperion.policy.values import write_value
from hyperion.schema.call import Tensor
from hyperion.schema.release import OutputBins
from hyperion.wire.bytes_elements import decode_elements
from hyperion.wire.tensor import DATATYPES

MAX_ROW_VALUES = 1024  # of a row; what lies behind them is not looked at
MAX_LABEL = 128
NUMBER, CLASS, LABEL = "number", "class", "label"

# An output as a batch gave it, and which of its rows are a request's first; None: each one is.
Chunk = tuple[Tensor, list[int] | None]


def kind_of(tensor: Tensor) -> str:
    """What a row of such an output predicts: a label where it is text or one whole number, a class where it is several
    numbers, else a number."""
    datatype = DATATYPES[tensor.datatype]
    if datatype.kind == "s":
        return LABEL
    if row_width(tensor) > 1:
        return CLASS
    return LABEL if datatype.kind in "uib" and datatype.kind else NUMBER


def row_width(tensor: Tensor) -> int:
    """Values in a row."""
    width = 1
    for length in tensor.shape[1:]:
        width *= length
    return width


def predictions(chunks: Sequence[Chunk], clean: Callable[[str], str] | None = None) -> tuple[list[float], list[str]]:
    """The numbers (for a class its index), or the labels, that were predicted. Of whole numbers both. `clean` is what
    is made of each text before it is cut."""
    numbers: list[float] = []
    labels: list[str] = []
    start = 0
    while start < len(chunks):  # neighbours that look alike go together
        first = chunks[start][0]
        stop = start + 1
        while stop < len(chunks) and _alike(first, chunks[stop][0]):
            stop += 1
        if first.datatype == "BYTES":
            for tensor, firsts in chunks[start:stop]:
                labels += _texts(tensor, firsts, clean)
        elif row_width(first) and first.shape:
            found = _numbers(first, chunks[start:stop])
            numbers += found
            if kind_of(first) == LABEL:
                labels += [str(int(value)) for value in found]
        start = stop
    return numbers, labels


def value_of(outputs: Sequence[Tensor], name: str) -> str | None:
    """The prediction of a request's first row in the output of this name, as a label would say it; None for none, and
    for a text with personal data, which is not to be kept."""
    for tensor in outputs:
        if tensor.name != name or not tensor.shape or not tensor.shape[0] or not row_width(tensor):
            continue
        datatype = DATATYPES[tensor.datatype]
        if datatype.kind in ("i", "u") and row_width(tensor) == 1:  # a float does not hold all of these
            first = memoryview(tensor.data)[: datatype.size]
            return write_value(int.from_bytes(first, "little", signed=datatype.kind == "i"))
        numbers, labels = predictions([(tensor, [0])])
        if labels and labels[0] and not predictions([(tensor, [0])], _blank_personal)[1][0]:
            return None
        return write_value(labels[0] if labels else numbers[0])
    return None


def _blank_personal(text: str) -> str:
    return text if redact_text(text) == text else ""


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.datatype == other.datatype and one.shape[1:] == other.shape[1:]


def _texts(tensor: Tensor, firsts: list[int] | None, clean: Callable[[str], str] | None) -> list[str]:
    width = row_width(tensor)
    if not tensor.shape or not width:
        return []
    elements = decode_elements(tensor.data, tensor.shape[0] * width)[::width]
    if firsts is not None:
        elements = [elements[row] for row in firsts]
    if clean is None:
        return [element[:MAX_LABEL].decode("utf-8", "replace") for element in elements]
    whole = MAX_LABEL + LONGEST  # so that nothing is cut in half before it is looked at
    return [clean(element[:whole].decode("utf-8", "replace"))[:MAX_LABEL] for element in elements]


def _numbers(first: Tensor, chunks: Sequence[Chunk]) -> list[float]:
    import numpy as np

    datatype = DATATYPES[first.datatype]
    width = row_width(first)
    used = min(width, MAX_ROW_VALUES)
    row_bytes, used_bytes = width * datatype.size, used * datatype.size
    pieces: list[bytes | memoryview] = []
    for tensor, firsts in chunks:
        if firsts is None and used == width:
            pieces.append(memoryview(tensor.data))
            continue
        view = memoryview(tensor.data)
        starts = [row * row_bytes for row in (range(tensor.shape[0]) if firsts is None else firsts)]
        pieces += [view[start : start + used_bytes] for start in starts]
    array = np.frombuffer(b"".join(pieces), dtype=datatype.dtype).reshape(-1, used)
    if first.datatype == "BF16":
        array = (array.astype("<u4") << 16).view("<f4")
    values = array.argmax(axis=1) if used > 1 else array[:, 0]
    found: list[float] = values.astype(float).tolist()
    return found


class Binner:
    """Counts predictions into the bins that control has frozen."""

    def __init__(self, bins: OutputBins) -> None:
        self._edges = list(bins.edges)
        self._labels = {label: index for index, label in enumerate(bins.labels)}
        self._argmax = bins.argmax
        self.size = len(bins.labels) + 1 if bins.labels else len(bins.edges) + 1

    def count(self, numbers: Sequence[float], labels: Sequence[str], counts: list[int]) -> None:
        """Adds each prediction to its bin: for a label its place or the last, for a number the first bin whose edge it
        does not exceed. What is no number falls in the last bin."""
        if self._labels:
            place, other = self._labels, len(self._labels)
            for label in labels or [str(int(number)) for number in numbers]:
                counts[place.get(label, other)] += 1
            return
        edges, last = self._edges, len(self._edges)
        for number in numbers:
            counts[bisect_left(edges, number) if number == number else last] += 1
