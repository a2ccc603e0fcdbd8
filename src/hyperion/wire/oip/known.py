"""Requests that differ from an earlier one in their numbers only. Called by `json.decode_infer`, for its hot path.

Nearly every client sends the same JSON around ever new data. What comes before and after the data was decoded and
checked once; where both are the same bytes again, and what is between them is one JSON array, a parser would come to
the same request with that array as its data. So only the array is parsed. This holds because the text up to the data
decides alone what the parser expects next, and an array that is complete leaves it just where the earlier one did.
"""

from math import prod
from typing import Final

from hyperion.schema.call import Buffer, Tensor
from hyperion.schema.errors import HyperionError
from hyperion.wire.json.data import parse_data
from hyperion.wire.limits import WireLimits
from hyperion.wire.tensor import DATATYPES, Datatype

MAX_KNOWN = 512
MAX_BODY_BYTES = 64 * 1024
MAX_BEFORE_BYTES = 1024
_KEY = b'"data":'


class KnownRequest:
    """What comes before and after the data of a request with one input and nothing else to remember, and that input
    without its data."""

    __slots__ = ("after", "before", "count", "datatype", "limits", "name", "shape")

    def __init__(
        self,
        before: bytes,
        after: bytes,
        name: str,
        datatype: Datatype,
        shape: tuple[int, ...],
        count: int,
        limits: WireLimits,
    ) -> None:
        self.before: Final = before
        self.after: Final = after
        self.name: Final = name
        self.datatype: Final = datatype
        self.shape: Final = shape
        self.count: Final = count
        self.limits: Final = limits


class KnownRequests:
    """The latest such requests by the text before their data. Forgets all when it is full, rather than track their
    ages."""

    def __init__(self) -> None:
        self._known: dict[bytes, KnownRequest] = {}
        self._latest: KnownRequest | None = None

    def decode(self, body: Buffer, limits: WireLimits) -> Tensor | None:
        """The one input of the request, or None where the whole of it has to be decoded (for a message, too)."""
        if not isinstance(body, bytes):
            return None
        known = self._latest
        if known is None or known.limits is not limits or not body.startswith(known.before):
            known = self._known.get(body[: _find_data(body)])
            if known is None or known.limits is not limits:
                return None
            self._latest = known
        start = len(known.before)
        stop = len(body) - len(known.after)
        if stop < start or not body.endswith(known.after):
            return None
        text = body[start:stop]
        try:
            data = parse_data(text, known.datatype, known.shape, known.count, limits)
        except HyperionError:
            return None
        return Tensor(known.name, known.datatype.name, known.shape, data)

    def learn(self, body: Buffer, text: bytes, tensor: Tensor, limits: WireLimits) -> None:
        """Remembers a request that was decoded strictly, whose only input has `text` as its data."""
        if not isinstance(body, bytes) or len(body) > MAX_BODY_BYTES or body.count(b'"data"') != 1:
            return
        start = _find_data(body)
        if start and body.startswith(text, start):
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            after = body[start + len(text) :]
            datatype = DATATYPES[tensor.datatype]
            count = prod(tensor.shape)
            before = body[:start]
            self._known[before] = KnownRequest(before, after, tensor.name, datatype, tensor.shape, count, limits)


def _find_data(body: bytes) -> int:
    """Where the data may begin: behind the key and at most one blank; 0 where there is no such key early on."""
    start = body.find(_KEY, 0, MAX_BEFORE_BYTES) + len(_KEY)
    if start < len(_KEY):
        return 0
    return start + 1 if body.startswith(b" ", start) else start
