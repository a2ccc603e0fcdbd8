"""When a second replica is asked for what the first one has not answered yet. Pure; `gateway/pool` keeps the state.

The first one is given the time within which 95 of 100 batches come back, relative to what is expected of a batch of its
size. The quantile is followed by a stochastic approximation that needs one number: it steps up by 0.95 w for a value
above it and down by 0.05 w for one below, and so stands still where 5 % are above (Ma, Muthukrishnan, Sandler, Frugal
Streaming for Estimating Quantiles, 2013; here with steps in proportion to the value).
"""

from typing import Final

from msgspec import Struct

QUANTILE: Final = 0.95
STEP: Final = 0.05
MIN_SEEN: Final = 20
BUSY_LIMIT: Final = 0.7
BUSY_WEIGHT: Final = 0.05  # of the newest look at how many replicas are busy
SHORTEST_NS: Final = 1_000_000  # a second try costs more than a millisecond that it could save


class HedgeState(Struct, frozen=True, gc=False):
    """`ratio` is the quantile of a batch's time by its expected time, of `seen` batches; `busy` the moving mean of the
    share of replicas that were computing when a batch was sent."""

    ratio: float = 1.0
    seen: int = 0
    busy: float = 0.0


def observe_time(state: HedgeState, took_ns: float, expected_ns: float) -> HedgeState:
    """The state after a batch came back.

    >>> round(observe_time(HedgeState(), 2e6, 1e6).ratio, 4), round(observe_time(HedgeState(), 1e6, 2e6).ratio, 4)
    (1.0475, 0.9975)
    """
    if expected_ns <= 0.0:
        return state
    step = QUANTILE if took_ns > state.ratio * expected_ns else QUANTILE - 1.0
    return HedgeState(state.ratio * (1.0 + STEP * step), state.seen + 1, state.busy)


def observe_busy(state: HedgeState, busy: int, replicas: int) -> HedgeState:
    """The state after a look at the replicas, `busy` of which compute.

    >>> observe_busy(HedgeState(), 1, 2).busy
    0.025
    """
    share = busy / max(replicas, 1)
    return HedgeState(state.ratio, state.seen, state.busy + BUSY_WEIGHT * (share - state.busy))


def hedge_after_ns(state: HedgeState, expected_ns: float) -> int:
    """Nanoseconds after which a batch is sent to a second replica, too; 0 is never: too little is known, or the
    replicas have no time to spare.

    >>> hedge_after_ns(HedgeState(2.0, 20, 0.5), 4e6), hedge_after_ns(HedgeState(2.0, 20, 0.8), 4e6)
    (8000000, 0)
    """
    if state.seen < MIN_SEEN or state.busy >= BUSY_LIMIT or expected_ns <= 0.0:
        return 0
    return max(SHORTEST_NS, int(state.ratio * expected_ns))
