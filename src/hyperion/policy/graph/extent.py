"""How much one request to a graph sets off: graphs of graphs multiply. Pure; `control` refuses what is too much."""

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

MOST_STEPS: Final = 256  # each is a call of its own: a request must not fill the queue of a model by itself
MOST_DEPTH: Final = 8


class Extent(Struct, frozen=True):
    """The steps that a request may run in all, how many graphs are in one another, and the names of the endpoints that
    it reaches. Of graphs that are too deep no more is looked at than shows that."""

    steps: int
    depth: int
    names: frozenset[str]

    @property
    def is_too_much(self) -> bool:
        """Whether a request would cost more than any should."""
        return self.steps > MOST_STEPS or self.depth > MOST_DEPTH


def measure(name: str, name_steps: Callable[[str], Sequence[str]]) -> Extent:
    """The extent of a graph. `name_steps` gives for each step of an endpoint the one that it calls, "" where it runs a
    model, and nothing for what is no graph.

    >>> graphs = {"top": ("mid", "mid", ""), "mid": ("leaf", "")}
    >>> found = measure("top", lambda name: graphs.get(name, ()))
    >>> found.steps, found.depth, sorted(found.names)
    (7, 2, ['leaf', 'mid', 'top'])
    """
    level, steps, depth = {name: 1}, 0, 0  # how often each endpoint is called at this depth
    names = {name}
    while depth <= MOST_DEPTH:
        below: dict[str, int] = {}
        called = 0
        for one, times in level.items():
            for other in name_steps(one):
                called += times
                if other:
                    below[other] = below.get(other, 0) + times
        if not called:
            break
        steps, depth = steps + called, depth + 1
        names |= below.keys()
        level = below
    return Extent(steps, depth, frozenset(names))
