"""How strongly counts speak against a hypothesis, valid however often it is looked at: mixture E-processes. Pure.

An E-value is what a gambler's 1 has become who bets against the hypothesis at fair odds: if the hypothesis is true it
ever exceeds 1/α with a probability of at most α, at whatever moment one looks (Ville's inequality). Here every bet is
on a coin: `hits` of `trials` independent trials, each a hit with a chance of at most `chance` (or at least, for the
mirrored tests). The gambler splits the stake over fixed alternatives r, each of which multiplies the odds by r:

    log LR(r) = hits · log r − trials · log(1 + (r − 1) · chance)

It depends on counts only, so a restart, a lost report or another order changes nothing, and 10^7 events lose no digits.

Two coins are used. *Whose is this bad event?* The canary's with chance θ(m) = mρ / (mρ + 1 − ρ), where it gets the
share ρ of the requests at random and its rate of bad ones is m times the control's (`toss_whose`). *Is this request
bad?* With a chance of the limit that is allowed (`Toss` itself).
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import exp, inf, lgamma, log, log1p
from typing import Final

from msgspec import Struct

ABOVE: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
BELOW: Final = tuple(1 / ratio for ratio in ABOVE)
# "Hardly ever" gets half of the stake: it is what most new versions are.
RARE: Final = (0.0, 0.1, 0.25, 0.5, 0.75)
RARE_WEIGHTS: Final = (0.5, 0.125, 0.125, 0.125, 0.125)
LOG_MAX: Final = 690.0  # exp of more is no finite number


class Toss(Struct, frozen=True):
    """`hits` of `trials`, each a hit with `chance`, 0 to 1, if the hypothesis is just true."""

    hits: int
    trials: int
    chance: float


class Tally(Struct, frozen=True):
    """Bad events of one epoch: the canary's and the control's, and the canary's share of the requests, 0 to 1."""

    share: float
    canary: int
    control: int


def log_evidence(tosses: Iterable[Toss], ratios: Sequence[float] = ABOVE, weights: Sequence[float] = ()) -> float:
    """The log of the E-value against "the chance is no larger" (for `ratios` over 1) or "no smaller" (under 1).

    `weights` are the stakes, equal where none are given. Chances of 0 and 1 say nothing and are left out.

    >>> round(exp(log_evidence([Toss(4, 4, 0.05)])))
    13113
    >>> log_evidence([])
    0.0
    """
    stakes = [log(weight) for weight in weights] or [-log(len(ratios))] * len(ratios)
    logs = stakes
    for toss in tosses:
        if 0.0 < toss.chance < 1.0:
            gains = _gains(tuple(ratios), toss.chance)
            hits, trials = toss.hits, toss.trials
            logs = [
                total + (hits * hit if hits else 0.0) - trials * every
                for total, (hit, every) in zip(logs, gains, strict=True)
            ]
    return log_sum(logs) if logs is not stakes else 0.0


def log_sum(logs: Sequence[float]) -> float:
    """log Σ exp, of logs that may be -inf.

    >>> log_sum([0.0, -inf]), log_sum([-inf, -inf])
    (0.0, -inf)
    """
    top = max(logs)
    return top if top == -inf else top + log(sum(exp(item - top) for item in logs))


def toss_whose(tally: Tally, ratio: float) -> Toss:
    """The coin "is this bad event the canary's" if its rate is `ratio` times the control's.

    >>> toss_whose(Tally(0.5, 3, 1), 1.0)
    Toss(hits=3, trials=4, chance=0.5)
    """
    canary = ratio * tally.share
    return Toss(tally.canary, tally.canary + tally.control, canary / (canary + 1.0 - tally.share) if canary else 0.0)


def log_worse(tallies: Iterable[Tally], margin: float) -> float:
    """The log of the E-value against "the canary's rate of bad events is at most `margin` times the control's".

    >>> exp(log_worse([Tally(0.05, 7, 10)], 1.2)) > 100, exp(log_worse([Tally(0.05, 500, 9_500)], 1.2)) > 100
    (True, False)
    """
    return log_evidence([toss_whose(tally, margin) for tally in tallies], ABOVE)


def log_no_worse(tallies: Iterable[Tally], margin: float) -> float:
    """The log of the mirrored E-value: against "at least `margin` times the control's".

    >>> exp(log_no_worse([Tally(0.5, 250, 250)], 1.5)) > 20
    True
    """
    return log_evidence([toss_whose(tally, margin) for tally in tallies], BELOW)


def log_over(bad: int, requests: int, limit: float) -> float:
    """The log of the E-value against "the rate of bad requests is at most `limit`".

    >>> exp(log_over(3, 3, 0.05)) > 100, exp(log_over(5, 100, 0.05)) > 1
    (True, False)
    """
    return log_evidence([Toss(bad, requests, limit)], ABOVE)


def log_under(bad: int, requests: int, limit: float) -> float:
    """The log of the E-value against "the rate of bad requests is at least `limit`".

    >>> exp(log_under(0, 3_700, 0.001)) > 20, exp(log_under(0, 3_300, 0.001)) > 20
    (True, False)
    """
    return log_evidence([Toss(bad, requests, limit)], RARE, RARE_WEIGHTS)


def bound_above(bad: int, requests: int, level: float = 0.05) -> float:
    """The rate that `bad` of `requests` is under, at all times at once but for a probability of `level`.

    The largest limit that `log_under` does not refute (a confidence sequence by inverting the test). 1 without data.

    >>> round(bound_above(0, 10_000), 5), bound_above(0, 0)
    (0.00034, 1.0)
    """
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if log_under(bad, requests, middle) >= -log(level) else (middle, high)
    return high


def log_either_way(hits: int, trials: int, chance: float, strength: float = 10.0) -> float:
    """The log of the two-sided E-value against "each trial is a hit with just this chance".

    The alternative is a Beta mixture around `chance` that weighs as much as `strength` trials: the plug-in martingale
    that bets on (hits so far + strength · chance) / (trials so far + strength) at each trial, as one closed form.

    >>> exp(log_either_way(50, 1000, 0.05)) < 1 < 100 < exp(log_either_way(120, 1000, 0.05))
    True
    """
    if not 0.0 < chance < 1.0 or not trials:
        return 0.0
    yes, no = strength * chance, strength * (1.0 - chance)
    mixture = _log_beta(yes + hits, no + trials - hits) - _log_beta(yes, no)
    return mixture - hits * log(chance) - (trials - hits) * log1p(-chance)


def e_value(log_e: float) -> float:
    """The E-value as a number that JSON can hold.

    >>> e_value(0.0), e_value(-inf), e_value(10_000.0) == e_value(LOG_MAX)
    (1.0, 0.0, True)
    """
    return exp(min(log_e, LOG_MAX))


@lru_cache(maxsize=4096)
def _gains(ratios: tuple[float, ...], chance: float) -> tuple[tuple[float, float], ...]:
    """For each ratio: what a hit adds to the log, and what every trial takes from it."""
    return tuple((log(ratio) if ratio else -inf, log1p((ratio - 1.0) * chance)) for ratio in ratios)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
