"""Asks a second replica for what the first one takes unusually long for. Made by `gateway/recovery/plan` for an
endpoint with `hedge: true`, told by `gateway/pool` of each batch; when is `policy/hedge`'s.

The second try is paid from the endpoint's retry budget. The first answer wins; of the other one nobody hears.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hyperion.gateway.pending import PendingCall
from hyperion.gateway.replica import Batch, Link
from hyperion.policy.hedge import HedgeState, hedge_after_ns, observe_busy, observe_time

if TYPE_CHECKING:
    from hyperion.gateway.pool import VersionPool


class Hedging:
    """One pool's. `twin(pending)` makes the second try of a call, None where there is to be none; `pay(tries)` says if
    the budget allows so many."""

    __slots__ = ("_loop", "_pay", "_pool", "_twin", "state")

    def __init__(
        self, pool: "VersionPool", twin: Callable[[PendingCall], PendingCall | None], pay: Callable[[int], bool]
    ) -> None:
        self.state: HedgeState = HedgeState()
        self._pool: Final = pool
        self._twin = twin
        self._pay = pay
        self._loop = asyncio.get_running_loop()

    def plan(self, link: Link, batch: Batch, expected_ns: float) -> None:
        """A batch is about to be sent."""
        links = [other for other in self._pool.links() if other.ready]
        self.state = observe_busy(self.state, len([other for other in links if not other.idle]), len(links))
        after_ns = hedge_after_ns(self.state, expected_ns)
        if after_ns and len(links) > 1 and not batch.stream:
            self._loop.call_later(after_ns * 1e-9, self._hedge, link, batch)

    def observe(self, batch: Batch, expected_ns: float) -> None:
        """A batch came back."""
        self.state = observe_time(self.state, batch.back_ns - batch.sent_ns, expected_ns)

    def _hedge(self, link: Link, batch: Batch) -> None:
        """Sends what the link still holds to one that has nothing to do."""
        if not link.holds(batch):
            return
        now_ns = time.monotonic_ns()
        for other in self._pool.links():
            idle = other is not link and other.has_credit and other.idle
            if idle and (other.breaker is None or other.breaker.admits(now_ns)):
                break
        else:
            return
        calls = [pending for pending in batch.calls if not pending.done and pending.deadline_ns > now_ns]
        if not calls or not self._pay(len(calls)):
            return
        twins = [twin for twin in map(self._twin, calls) if twin is not None]
        if twins:
            if other.breaker is not None:
                other.breaker.began(now_ns)
            other.send(Batch(twins, sum([twin.rows for twin in twins]), False, now_ns))
