"""How much optional work an endpoint gives up while it is overloaded: a level from 0 (none) to 3, with hysteresis.

Looked at by `gateway/pool` some times a second. What is given up at which level is the constants'; who does such work
asks the pool for its level first. Pure: time and wait come in.
"""

from math import exp
from typing import Final

from msgspec import Struct

COPIES: Final = 1  # from this level on: no copies for a shadow, no sampled predictions
HEDGES: Final = 2  # and no second tries for slow answers
SOFT: Final = 3  # and no soft members of ensembles
MOST: Final = SOFT

SMOOTH_NS: Final = 500e6  # over which the wait is averaged: batches leave a queue in leaps
HIGH: Final = 0.8  # of the wait at which callers are refused
LOW: Final = 0.4
NO_LOAD: Final = 0.01  # below which there is nothing to look at
RISE_NS: Final = 1_000_000_000  # above `HIGH` before each step up: a burst is no overload
FALL_NS: Final = 5_000_000_000  # below `LOW` before each step down: work that is taken up again must not bring it back


class Brownout(Struct, frozen=True, gc=False):
    """`load` is the moving mean of wait over target as of `seen_ns`; `since_ns` is when it last entered the range that
    it is in, or the level changed."""

    level: int = 0
    load: float = 0.0
    since_ns: int = 0
    seen_ns: int = 0


def look(state: Brownout, wait_ns: float, target_ns: float, now_ns: int) -> Brownout:
    """The state after one more look at a queue in which a newcomer would wait `wait_ns`, where `target_ns` is as much
    as any may.

    >>> state = look(Brownout(), 100.0, 100.0, 1)
    >>> for second in range(1, 5):
    ...     state = look(state, 100.0, 100.0, second * 10**9)
    >>> state.level, look(state, 0.0, 100.0, 5 * 10**9).level
    (3, 3)
    """
    load = wait_ns / target_ns if target_ns > 0 else 0.0
    if state.seen_ns:
        load = state.load + (load - state.load) * (1.0 - exp(-max(0, now_ns - state.seen_ns) / SMOOTH_NS))
    if _range_of(load) != _range_of(state.load) or not state.seen_ns:
        return Brownout(state.level, load, now_ns, now_ns)
    held_ns = now_ns - state.since_ns
    if load >= HIGH and state.level < MOST and held_ns >= RISE_NS:
        return Brownout(state.level + 1, load, now_ns, now_ns)
    if load <= LOW and state.level and held_ns >= FALL_NS:
        return Brownout(state.level - 1, load, now_ns, now_ns)
    return Brownout(state.level, load, state.since_ns, now_ns)


def _range_of(load: float) -> int:
    return (load >= HIGH) - (load <= LOW)
