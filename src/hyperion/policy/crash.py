"""What to do with the requests that a dead replica held. Called by `gateway/pipeline`; pure.

A replica may die for reasons of its own, or because one request in its batch kills it. The batch is run again in ever
smaller groups, each alone, so that the innocent are answered and a poison request ends up in a group of one; a
group of one that was there for `MAX_DEATHS_ALONE` deaths is refused.
"""

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

MAX_DEATHS_ALONE = 2
PARTS = 8  # each death costs a restart, each extra group only a batch: so cut into eighths, not halves


class CrashPlan(Struct, frozen=True):
    """Groups of positions to run again, each as a batch that nothing else may join, and positions to refuse."""

    retry: tuple[tuple[int, ...], ...]
    refuse: tuple[int, ...] = ()


def split_group(positions: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """At most `PARTS` groups of nearly equal size, in order.

    >>> split_group(range(3))
    ((0,), (1,), (2,))
    """
    parts = min(PARTS, len(positions))
    cuts = [len(positions) * part // parts for part in range(parts + 1)] if parts else [0]
    return tuple(tuple(positions[start:stop]) for start, stop in pairwise(cuts))


def plan_after_crash(deaths_alone: Sequence[int]) -> CrashPlan:
    """What to do after a replica died while it held one batch; `deaths_alone[i]` counts the deaths at which request i
    was the only one held, this one included.

    >>> plan_after_crash([2])
    CrashPlan(retry=(), refuse=(0,))
    >>> plan_after_crash([0, 0])
    CrashPlan(retry=((0,), (1,)), refuse=())
    """
    refuse = tuple(index for index, deaths in enumerate(deaths_alone) if deaths >= MAX_DEATHS_ALONE)
    keep = [index for index, deaths in enumerate(deaths_alone) if deaths < MAX_DEATHS_ALONE]
    return CrashPlan(split_group(keep), refuse)
