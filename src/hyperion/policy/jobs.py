"""How jobs are worked off: what an attempt's answer means, when the next one is due, and when to give up.

Pure: called by `gateway/jobs/runner` (what an answer means) and by `store/jobs` (what follows from it).
"""

from typing import Final

from msgspec import Struct

from hyperion.schema.job import Kind, State

LEASE_S: Final = 10.0  # a gateway that does not renew for so long is taken for dead
RENEW_S: Final = 2.5
LONGEST_BACKOFF_S: Final = 600.0
BUSY_S: Final = 1.0  # until a job that was refused for load is tried again, where no longer time was named
LONG_S: Final = 10.0  # who is refused for longer has used up what is his, or asks what is down: others may go on
RETRYABLE: Final = frozenset((408, 425, 429, 502, 503, 504))

WINDOW_LEAST: Final = 1.0
WINDOW_MOST: Final = 64.0


class Next(Struct, frozen=True):
    """What becomes of a job after an attempt. `due_at` is in seconds since 1970, for `queued`; `counted` False means
    that the attempt is not held against it."""

    state: State
    due_at: float = 0.0
    reason: str = ""
    counted: bool = True


def classify(status: int, says_when: bool) -> Kind:
    """What an HTTP answer means for the job. `says_when`: what refused it knew when to come back, so nothing was
    tried: that is `busy` and counts for nothing. What no retry can mend is `failed`, with its answer.

    >>> classify(200, False), classify(503, True), classify(503, False), classify(422, False)
    ('done', 'busy', 'retry', 'failed')
    """
    if 200 <= status < 300:
        return "done"
    if status not in RETRYABLE:
        return "failed"
    return "busy" if says_when and status in (429, 503) else "retry"


def backoff_s(attempt: int, base_s: float, random: float) -> float:
    """Seconds until the next attempt after number `attempt` (1 and up): exponential with full jitter (Marc Brooker,
    "Exponential Backoff And Jitter", AWS 2015). `random` is uniform in [0, 1).

    >>> backoff_s(3, 1.0, 0.5), backoff_s(99, 1.0, 1.0)
    (2.0, 600.0)
    """
    return random * min(LONGEST_BACKOFF_S, base_s * 2.0 ** min(attempt - 1, 60))


def follow(
    kind: Kind,
    reason: str,
    attempts: int,
    max_attempts: int,
    base_s: float,
    expires_at: float,
    now: float,
    random: float,
    told_s: float = 0.0,
) -> Next:
    """What follows from an attempt that ended as `kind`. `attempts` counts it. `told_s`: with `busy`, seconds until it
    is worth trying again, as was said; it is believed up to the longest back-off, and to half of the job's time.

    >>> follow("retry", "503: gone", 2, 5, 1.0, 1e9, 100.0, 0.5)
    Next(state='queued', due_at=101.0, reason='503: gone', counted=True)
    >>> follow("retry", "503: gone", 5, 5, 1.0, 1e9, 100.0, 0.5).reason
    'gave up after 5 attempts; the last: 503: gone'
    >>> follow("busy", "429: quota", 1, 5, 1.0, 1e9, 100.0, 0.5, told_s=30.0).due_at
    130.0
    """
    if kind == "done":
        return Next("done")
    if kind == "failed":
        return Next("failed", reason=reason)
    if kind == "retry" and attempts >= max_attempts:
        return Next("dead", reason=f"gave up after {attempts} attempts; the last: {reason}")
    if kind == "retry":
        wait_s = backoff_s(attempts, base_s, random)
    else:
        wait_s = max(BUSY_S * (0.5 + random), min(told_s, LONGEST_BACKOFF_S, (expires_at - now) / 2))
    if now + wait_s >= expires_at:
        return Next("dead", reason=f"its time was over before it was done; the last: {reason}")
    return Next("queued", now + wait_s, reason, counted=kind == "retry")


def adapt(window: float, kind: Kind, told_s: float = 0.0) -> float:
    """How many jobs to run at a time after one ended as `kind`: one more per window that was taken, half where the
    platform is busy with others (additive increase, multiplicative decrease). A refusal for more than `LONG_S` is about
    this job alone.

    >>> adapt(10.0, "done"), adapt(10.0, "busy"), adapt(1.0, "busy"), adapt(10.0, "busy", told_s=3600.0)
    (10.1, 5.0, 1.0, 10.0)
    """
    if kind == "busy":
        if told_s > LONG_S:
            return window
        return max(WINDOW_LEAST, window / 2)
    return min(WINDOW_MOST, window + 1 / window)
