"""How many tokens a gateway takes out of a bucket that it shares with others, and what that may cost. Pure.

The shared bucket lies on a server; a gateway takes tokens before it needs them (a lease) about each `PERIOD_S`, so that
no request ever waits for the server. Where it holds none it may use an advance, of which it tells the server at the
next exchange; it gets a new one when it is told then that the level is not below 0. Called by `gateway/limits/shared`
and `gateway/limits/buckets`; the server's side is `gateway/limits/shared_script`.

**Bound.** Let `S` be the level of the shared bucket, plus all tokens leased and not yet used, minus all that gateways
owe and have not yet told. The server refills only as far as level and leases together stay within the burst, so
`S <= burst`, and `S` grows by no more than the rate. Every admitted request takes one from `S`. The server grants only
what there is and each gateway has at most one advance since it last found a level of 0 or more, so `S` never falls
below `-gateways * advance`. In any `t` seconds therefore

    admitted <= burst + rate * t + gateways * advance

A request of more rows than the advance may pass as one where so many seem to be left, so with rows the largest request
counts in place of the advance where it is larger. A gateway that dies takes its lease with it: at most `lease_most`
fewer are admitted; what it owed and had not yet told, at most `advance`, is admitted in addition.
"""

import math
from typing import Final

PERIOD_S: Final = 0.02  # between two exchanges with the server
AHEAD: Final = 2  # periods that a lease is to last: one until the next exchange, one for a late answer
ADVANCE_PART: Final = 4  # all gateways together owe at most this part of the burst


def shared_burst(per_second: float, burst: int) -> int:
    """The burst of a bucket that is shared: at least twice what the rate brings while leases last, or it would be full
    of leases and could not be refilled.

    >>> shared_burst(1000.0, 10), shared_burst(1000.0, 500)
    (80, 500)
    """
    return max(burst, math.ceil(per_second * 2 * AHEAD * PERIOD_S))


def advance(burst: int, gateways: int) -> int:
    """Tokens that a gateway may use where it holds none, before the server has heard of it; at least one, or the first
    request would be refused.

    >>> advance(1200, 3), advance(2, 3)
    (100, 1)
    """
    return max(1, burst // (ADVANCE_PART * max(1, gateways)))


def lease_most(per_second: float, burst: int, gateways: int) -> int:
    """Tokens that a gateway may hold: its share of the burst, and no less than the whole rate brings while they last,
    so that one gateway can use all of the limit where the others need nothing.

    >>> lease_most(100.0, 1200, 3), lease_most(10_000.0, 600, 3)
    (400, 400)
    """
    return max(1, burst // max(1, gateways), math.ceil(per_second * AHEAD * PERIOD_S))


def lease_wanted(asked: int, largest: int, held: int, per_second: float, burst: int, gateways: int) -> int:
    """Tokens to ask for, by a gateway that was asked for `asked` since the last exchange (`largest` at once) and holds
    `held`: enough for as much again in each of `AHEAD` periods, at least as much as it could use in advance.

    >>> lease_wanted(asked=30, largest=1, held=20, per_second=100.0, burst=1200, gateways=3)
    80
    >>> lease_wanted(asked=900, largest=1, held=0, per_second=100.0, burst=1200, gateways=3)
    400
    >>> lease_wanted(asked=600, largest=600, held=0, per_second=100.0, burst=1200, gateways=3)
    600
    >>> lease_wanted(asked=0, largest=0, held=150, per_second=100.0, burst=1200, gateways=3)
    0
    """
    wanted = max(AHEAD * asked, advance(burst, gateways))
    most = max(lease_most(per_second, burst, gateways), min(largest, burst))
    return max(0, min(wanted, most) - held)


def admitted_most(per_second: float, burst: int, gateways: int, seconds: float, outages: int = 0) -> float:
    """The bound: how many can be admitted by all gateways together in any so many seconds, in which the server went
    away and came back `outages` times. Each time can add two bursts: one where gateways divide what they last heard to
    be left, one where they come back one after the other.

    >>> admitted_most(100.0, 100, 3, 60.0)
    6124.0
    >>> admitted_most(100.0, 100, 3, 60.0, outages=1)
    6324.0
    """
    whole = shared_burst(per_second, burst)
    return whole * (1 + 2 * outages) + per_second * seconds + gateways * advance(whole, gateways)
