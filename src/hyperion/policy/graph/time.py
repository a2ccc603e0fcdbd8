"""How much of a request's time a step of a graph may take that the answer can do without. Pure; used by
`gateway/graph/run`.

What is optional has to end a little before the request's deadline, so that the answer without it still comes in time.
"""

from typing import Final

KEPT_NS: Final = 100_000_000  # a gateway looks at deadlines every 10 ms, and may be kept from it by others on its core
KEPT_PART: Final = 5  # one part in five at most, rounded up


def optional_ns(left_ns: int) -> int:
    """Nanoseconds of the `left_ns` until the deadline that an optional step may take; 0 where nothing is left.

    >>> optional_ns(1_000_000_000), optional_ns(10_000_000), optional_ns(-5)
    (900000000, 8000000, 0)
    """
    return max(0, left_ns - min(KEPT_NS, -(-left_ns // KEPT_PART)))


def has_time(left_ns: int, expected_ns: float) -> bool:
    """Whether an optional step that is expected to take so long (0: not known) is worth beginning with.

    >>> has_time(100_000_000, 50e6), has_time(100_000_000, 81e6), has_time(0, 0.0)
    (True, False, False)
    """
    return 0 < optional_ns(left_ns) >= expected_ns
