"""Which clients are given up because answers that they do not read fill the memory. Asked by both edges once a second.

Each client has its own bounds and its own time; this is about many of them together.
"""

from collections.abc import Collection
from typing import Final, Protocol, TypeVar

MAX_UNREAD_BYTES: Final = 2 << 30  # of one edge; as much as bodies that are still arriving


class Unread(Protocol):
    """A connection."""

    def unsent_bytes(self) -> int: ...


Connection = TypeVar("Connection", bound=Unread)


def choose_unread(connections: Collection[Connection], most_bytes: int = MAX_UNREAD_BYTES) -> list[Connection]:
    """None as long as all together hold at most `most_bytes`; else those that hold the most, until the others hold no
    more than half of it."""
    held = [connection.unsent_bytes() for connection in connections]
    left = sum(held)
    if left <= most_bytes:
        return []
    chosen = []
    for size, _index, connection in sorted(zip(held, range(len(held)), connections, strict=True), reverse=True):
        if left <= most_bytes // 2:
            break
        left -= size
        chosen.append(connection)
    return chosen
