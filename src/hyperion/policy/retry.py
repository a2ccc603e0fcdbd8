"""Whether a failed attempt is made again, and after how long. Pure; `gateway/recovery/plan` keeps the budget's state.

Retries are paid from a budget that grows with the traffic, so that an outage is never multiplied: 20 % of the requests
and one a second, by default. The wait doubles from try to try and is drawn from zero on ("full jitter": Brooker,
Exponential Backoff And Jitter, 2015).
"""

from typing import Final

from msgspec import Struct

from hyperion.schema.protect import Retry

PER_SECOND: Final = 1.0
MOST: Final = 10.0  # tries that a quiet time may save up
FIRST_WAIT_S: Final = 0.02
LONGEST_WAIT_S: Final = 2.0
WAIT_SHARE: Final = 0.25  # of the time that is left: the try itself needs some, too

# What the next try may find otherwise. Never here: our own overload and limits, which tries would make worse; what the
# caller or the model did, which stays the same; a passed deadline.
WORTH: Final = frozenset(("upstream_failed", "upstream_busy", "runner_lost"))
NOT_STARTED: Final = frozenset(("upstream_busy",))  # refused before the work began
SEQUENCE: Final = frozenset(("sequence_id", "sequence_start", "sequence_end"))


class Budget(Struct, frozen=True, gc=False):
    """Tries that may be made now, and when they were counted."""

    tries: float = 0.0
    at_ns: int = 0


def earn(budget: Budget, share: float, requests: int, now_ns: int) -> Budget:
    """The budget after `requests` more requests; `share` of them and `PER_SECOND` may be tried again.

    >>> earn(Budget(), 0.2, 10, 0).tries, earn(Budget(at_ns=0), 0.2, 0, 3_000_000_000).tries
    (2.0, 3.0)
    """
    seconds = max(0, now_ns - budget.at_ns) * 1e-9
    tries = budget.tries + share * requests + PER_SECOND * seconds
    return Budget(min(MOST, tries), max(now_ns, budget.at_ns))


def spend(budget: Budget, tries: int = 1) -> Budget | None:
    """The budget after so many tries, or None where it does not allow them.

    >>> spend(Budget(1.5)).tries, spend(Budget(0.5)) is None
    (0.5, True)
    """
    return Budget(budget.tries - tries, budget.at_ns) if budget.tries >= tries else None


def is_worth_it(code: str, parameters: frozenset[str] | set[str]) -> bool:
    """Whether an attempt that ended with the error `code` may be made again. An inference is a function of its inputs
    and may be computed twice, unless its `parameters` make it a step of a sequence that the server keeps: then only
    what did not start may.

    >>> is_worth_it("upstream_failed", set()), is_worth_it("overloaded", set()), is_worth_it("model_failed", set())
    (True, False, False)
    >>> is_worth_it("upstream_failed", {"sequence_id"}), is_worth_it("upstream_busy", {"sequence_id"})
    (False, True)
    """
    return code in NOT_STARTED or (code in WORTH and not SEQUENCE.intersection(parameters))


def wait_s(rule: Retry, tries: int, retry_after_s: float, left_s: float, draw: float) -> float | None:
    """Seconds until the next try after `tries` attempts on the same target, or None where there is to be none: there
    were enough, or it would leave too little of the `left_s` seconds. `draw` in [0, 1) is the jitter; who was told when
    to come back comes no earlier.

    >>> wait_s(Retry(attempts=3), 1, 0.0, 10.0, 0.5), wait_s(Retry(attempts=3), 3, 0.0, 10.0, 0.5) is None
    (0.01, True)
    >>> wait_s(Retry(), 1, 1.0, 10.0, 0.5), wait_s(Retry(), 1, 1.0, 2.0, 0.5) is None
    (1.01, True)
    """
    if tries >= rule.attempts:
        return None
    highest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(tries - 1, 32))
    wait = retry_after_s + draw * highest
    return wait if wait <= WAIT_SHARE * left_s else None
