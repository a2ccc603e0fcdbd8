"""A call whose answer may be in Redis: it is looked up there before a pool computes it.

Called by `gateway/front/guard` once the own cache has missed and nobody computes the same. Whatever becomes of the
look, the call goes on within `shared_cache.BOUND_S`: answered, or to its pool.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hyperion.gateway.cache.answers import SHARED_HIT, ResponseCache
from hyperion.gateway.cache.flights import Finished, Flights
from hyperion.gateway.cache.memory import CachedAnswer
from hyperion.gateway.cache.shared import Outputs, SharedCache
from hyperion.gateway.pending import UNHEARD, PendingCall
from hyperion.schema.call import InferenceAnswer
from hyperion.schema.errors import ClientGone

if TYPE_CHECKING:
    from hyperion.gateway.pool import VersionPool

GoOn = Callable[[PendingCall, "VersionPool"], None]
Give = Callable[[PendingCall, InferenceAnswer], None]


class Elsewhere:
    """One endpoint's. `go_on` sends a call to its pool, `give` answers one that no pool has seen, `finished` is the
    pipeline's."""

    __slots__ = ("_cache", "_finished", "_flights", "_give", "_go_on", "shared")

    def __init__(
        self,
        shared: SharedCache,
        cache: ResponseCache,
        flights: Flights | None,
        go_on: GoOn,
        give: Give,
        finished: Finished,
    ) -> None:
        self.shared: Final = shared
        self._cache: Final = cache
        self._flights: Final = flights
        self._go_on: Final = go_on
        self._give: Final = give
        self._finished: Final = finished

    def look(self, key: bytes, pending: PendingCall, pool: "VersionPool") -> bool:
        """Whether the call is looked up; if not, it is to be computed now."""
        if not self.shared.usable:
            return False
        pending.on_cancel = self._leave
        self.shared.look_up(key, lambda found, left_ns: self._found(key, pending, pool, found, left_ns))
        return True

    def _leave(self, pending: PendingCall) -> None:
        """Its caller has left meanwhile."""
        pending.done = True
        pending.reply = UNHEARD
        self._finished(pending, ClientGone("the caller left before the answer"), 0, 0, time.monotonic_ns())

    def _found(
        self, key: bytes, pending: PendingCall, pool: "VersionPool", found: Outputs | None, left_ns: int
    ) -> None:
        if pending.done:
            return
        flights = self._flights
        if found is None:
            self._go_on(pending, pool)
            if flights is not None:
                flights.took_off(pending)
            return
        self._cache.counts[SHARED_HIT] += 1
        served = pool.served
        entry = self._cache.put(key, found, served.version, served.digest, time.monotonic_ns(), most_ns=left_ns)
        if entry is None:  # too large to be kept here
            entry = CachedAnswer(key, found, served.version, served.digest, 0)
        if flights is not None:
            flights.answered(pending, found)
        self._give(pending, entry.answer(pool.model, served.version))
