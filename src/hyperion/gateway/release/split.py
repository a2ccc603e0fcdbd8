"""Which version of an endpoint answers a request that names none, while a release divides them, and what it counts for.

Made by `gateway/route` with each snapshot, asked by it and by `gateway/pipeline` for each call.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.release import Split
from hyperion.wire.tensor import DATATYPES

if TYPE_CHECKING:
    from hyperion.gateway.pool import VersionPool
    from hyperion.gateway.release.tally import Tally

HASH_BYTES: Final = 8


def place_of(salt: bytes, value: bytes) -> float:
    """Where a caller's value falls in [0, 1), evenly and for ever the same.

    >>> 0.0 <= place_of(b"s", b"anna") < 1.0 and place_of(b"s", b"anna") != place_of(b"t", b"anna")
    True
    """
    digest = blake2b(salt + b"\0" + value, digest_size=HASH_BYTES).digest()
    return (int.from_bytes(digest, "big") >> 11) / float(1 << 53)


def first_value(tensor: Tensor) -> bytes:
    """The bytes of a tensor's first element; b"" where it has none."""
    data = memoryview(tensor.data)
    size = DATATYPES[tensor.datatype].size
    if size:
        return bytes(data[: min(size, len(data))])
    if len(data) < 4:
        return b""
    return bytes(data[4 : 4 + int.from_bytes(data[:4], "little")])


class SplitRoute:
    """A split over the pools that there are for its tracks.

    The canary and further tracks take the lowest places, one above the other, and the control the rest: a caller who
    sticks to the canary stays with it when its share grows. A caller without the value to stick by is assigned by lot.
    """

    def __init__(
        self, split: Split, pools: "Mapping[str, VersionPool]", default: "VersionPool", draw: Callable[[], float]
    ) -> None:
        tracks = split.tracks
        self._draw = draw
        self._salt = split.salt.encode()
        self._header = split.sticky_header.lower().encode()
        self._input = "" if self._header else split.sticky_input
        self._ends: list[float] = []
        self._chosen: list[VersionPool | None] = []
        end = 0.0
        for track in tracks[1:]:
            end += track.share
            self._ends.append(end)
            self._chosen.append(pools.get(track.version))
        self._control = pools.get(tracks[0].version) if tracks else None
        known = [pools[track.version] for track in tracks if track.version in pools]
        self._known = known or [default]
        # Lots are fair only among those that could have been drawn.
        self._needed = [pools.get(track.version) for track in tracks if track.share > 0]

    def choose(self, headers: Mapping[bytes, bytes] | None) -> "VersionPool":
        """The pool for a call that names no version; the first track's where the choice has to wait for the input."""
        if self._header:
            value = None if headers is None else headers.get(self._header)
            return self._at(self._draw() if value is None else place_of(self._salt, value))
        return self._known[0] if self._input else self._at(self._draw())

    def choose_by_input(self, call: InferenceCall, pool: "VersionPool") -> "VersionPool":
        """The pool for a call that was decoded: `pool`, unless it sticks by an input."""
        if not self._input:
            return pool
        for tensor in call.inputs:
            if tensor.name == self._input:
                return self._at(place_of(self._salt, first_value(tensor)))
        return self._at(self._draw())

    def _at(self, place: float) -> "VersionPool":
        pool = self._control
        for index, end in enumerate(self._ends):
            if place < end:
                pool = self._chosen[index]
                break
        if pool is not None and pool.ready:
            return pool
        for other in self._known:
            if other.ready:
                return other
        return self._known[0]

    def all_ready(self) -> bool:
        """Whether a request could go to any of the tracks that have a share."""
        for pool in self._needed:  # spelled out because each request asks  # noqa: SIM110
            if pool is None or not pool.ready:
                return False
        return True


class Watch:
    """What one endpoint's requests count for, by the snapshot of the moment: the tallies of its tracks, and those that
    only keep a sample of the predictions."""

    def __init__(
        self, split: SplitRoute | None, tallies: "dict[str, Tally]", logs: "dict[str, Tally]", judged: bool = False
    ) -> None:
        self.judged: Final = judged  # versions are compared: each request must be computed by the one it was given to
        self._split = split
        self._tallies = tallies
        self._logs = logs

    def settle_on(self, call: InferenceCall, pool: "VersionPool") -> "VersionPool":
        """The pool for a decoded call for which `pool` was chosen by what was known before."""
        if self._split is None or call.version:
            return pool
        return self._split.choose_by_input(call, pool)

    def tally_of(self, call: InferenceCall, pool: "VersionPool") -> "Tally | None":
        """What the call counts for. One that names its version was not assigned by lot and counts for nothing, nor does
        any while a track is away: its share would go to the others, and the comparison would not be fair."""
        version = pool.served.version
        if call.version or self._split is None or not self._split.all_ready():
            return self._logs.get(version)
        return self._tallies.get(version)
