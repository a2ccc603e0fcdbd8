"""Whether endpoints that name each other come back to where they began. Pure."""

from collections.abc import Callable, Sequence


def find_circle(start: str, name_others: Callable[[str], Sequence[str]]) -> tuple[str, ...]:
    """A way from `start` back to itself, () where there is none; `name_others` says which endpoints one names.

    >>> others = {"fraud": ["rules", "large"], "large": ["fraud"]}
    >>> find_circle("fraud", lambda name: others.get(name, []))
    ('fraud', 'large', 'fraud')
    >>> find_circle("rules", lambda name: others.get(name, []))
    ()
    """
    came_from: dict[str, str] = {}
    pending = [start]
    while pending:
        name = pending.pop()
        for other in name_others(name):
            if other == start:
                way = [start]
                while name != start:
                    way.append(name)
                    name = came_from[name]
                return (start, *reversed(way))
            if other not in came_from:
                came_from[other] = name
                pending.append(other)
    return ()
