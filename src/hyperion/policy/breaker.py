"""When a replica or an upstream is left alone because it fails too often, and when it is tried again. Pure: clocks and
randomness come in; `gateway/recovery/breakers` keeps the state.

Closed, it counts calls and failures of the last seconds; at the share `failures` of at least `min_calls` it opens, and
after `min_calls` failures in a row, however well the seconds before went.
Open, it lets nothing through for `open_s`, doubled each time that it opens again without having been closed, up to a
minute. Then it is half-open: one call may try. Its outcome closes or opens it.
"""

from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct

from hyperion.schema.protect import Breaker

Phase = Literal["closed", "half-open", "open"]
GAUGE: Final[dict[Phase, float]] = {"closed": 0.0, "half-open": 1.0, "open": 2.0}

SLOTS: Final = 10
SLOT_NS: Final = 1_000_000_000  # so the window is ten seconds long
LONGEST_OPEN_NS: Final = 60_000_000_000
JITTER: Final = 0.2  # gateways that saw the same failure must not all try again at the same moment
PEER_SHARE: Final = 0.5  # of a replica's failures that its peers have at most, where the fault is the replica's
EARLY_SHARE: Final = 0.25  # of the endpoint's deadline, below which a timeout is the caller's impatience
LATE_FACTOR: Final = 5.0  # of the usual time, above which it never is
CLOSE_SHARE: Final = 0.05  # of the time that a call was given, which is as good as over then
CLOSE_NS: Final = 10_000_000


class BreakerState(Struct, frozen=True, gc=False):
    """`calls` and `failures` are counted per slot of a second, `slot` is the number of the newest one. `until_ns` is
    when an open one may be tried, or when a probe of a half-open one counts as lost; `open_ns` is how long it was open
    the last time, 0 once it was closed. `run` counts the failures in a row."""

    phase: Phase = "closed"
    slot: int = 0
    calls: tuple[int, ...] = (0,) * SLOTS
    failures: tuple[int, ...] = (0,) * SLOTS
    until_ns: int = 0
    open_ns: int = 0
    probing: bool = False
    run: int = 0


CLOSED: Final = BreakerState()


def admits(state: BreakerState, now_ns: int) -> bool:
    """Whether a call may be made now. Whoever makes one asks `begin` for the next state.

    >>> admits(CLOSED, 0), admits(BreakerState("open", until_ns=5), 4), admits(BreakerState("open", until_ns=5), 5)
    (True, False, True)
    """
    if state.phase == "closed":
        return True
    if state.phase == "half-open" and not state.probing:
        return True
    return now_ns >= state.until_ns


def begin(state: BreakerState, now_ns: int) -> BreakerState:
    """The state while a call is made that was admitted: half-open with a probe under way, unless it is closed. A probe
    without an outcome is lost after as long as the breaker was open."""
    if state.phase == "closed":
        return state
    return BreakerState("half-open", until_ns=now_ns + state.open_ns, open_ns=state.open_ns, probing=True)


def note(
    state: BreakerState,
    rule: Breaker,
    now_ns: int,
    calls: int,
    failures: int,
    draw: float,
    may_open: bool = True,
) -> BreakerState:
    """The state after the outcomes of `calls` calls, of which `failures` failed. `draw` in [0, 1) is the jitter;
    `may_open` False only counts (see `may_leave_alone`).

    >>> rule = Breaker(failures=0.5, min_calls=4, open_s=5.0)
    >>> state = note(CLOSED, rule, 0, calls=4, failures=2, draw=0.0)
    >>> state.phase, state.until_ns / 1e9
    ('open', 5.0)
    >>> note(begin(state, state.until_ns), rule, state.until_ns, 1, 0, 0.0).phase
    'closed'
    """
    if state.phase == "open":
        return state  # what was under way when it opened says nothing new
    if state.phase == "half-open":
        if not failures:
            return CLOSED
        return _opened(rule, now_ns, state.open_ns, draw)
    state = _advance(state, now_ns // SLOT_NS)
    state = BreakerState(
        "closed",
        state.slot,
        (*state.calls[:-1], state.calls[-1] + calls),
        (*state.failures[:-1], state.failures[-1] + failures),
        run=state.run + failures if failures == calls else 0,
    )
    seen = sum(state.calls)
    too_many = seen >= rule.min_calls and sum(state.failures) >= rule.failures * seen
    if may_open and failures and (too_many or state.run >= rule.min_calls):
        return _opened(rule, now_ns, 0, draw)
    return state


def _opened(rule: Breaker, now_ns: int, open_ns: int, draw: float) -> BreakerState:
    """Open for twice as long as before, and a little longer."""
    open_ns = min(LONGEST_OPEN_NS, 2 * open_ns) if open_ns else int(rule.open_s * 1e9)
    return BreakerState("open", until_ns=now_ns + int(open_ns * (1.0 + JITTER * draw)), open_ns=open_ns)


def _advance(state: BreakerState, slot: int) -> BreakerState:
    """The state with `slot` as its newest one; a clock that went back stays in the newest."""
    steps = min(slot - state.slot, SLOTS)
    if steps <= 0:
        return state
    empty = (0,) * steps
    return BreakerState(
        "closed", slot, (*state.calls[steps:], *empty), (*state.failures[steps:], *empty), run=state.run
    )


def failure_share(state: BreakerState, now_ns: int) -> float:
    """Failures per call in the window; 0.0 where there was no call.

    >>> failure_share(note(CLOSED, Breaker(), 0, 4, 1, 0.0), 0)
    0.25
    """
    state = _advance(state, now_ns // SLOT_NS)
    calls = sum(state.calls)
    return sum(state.failures) / calls if calls else 0.0


def may_leave_alone(index: int, states: Sequence[BreakerState], ready: Sequence[bool], now_ns: int) -> bool:
    """Whether replica `index` of a set may be left alone: another one answers that fails clearly less. So the last
    healthy one never is, and none is where all fail alike, for then the model or the requests are at fault.

    >>> bad = note(CLOSED, Breaker(min_calls=100), 0, 4, 4, 0.0)
    >>> may_leave_alone(0, (bad, CLOSED), (True, True), 0), may_leave_alone(0, (bad, bad), (True, True), 0)
    (True, False)
    """
    limit = PEER_SHARE * failure_share(states[index], now_ns)
    for other, (state, answers) in enumerate(zip(states, ready, strict=True)):
        if other != index and answers and state.phase == "closed" and failure_share(state, now_ns) <= limit:
            return True
    return False


def timeout_counts(held_ns: int, expected_ns: float, deadline_ns: int) -> bool:
    """Whether a call that was given up after `held_ns` says something about who held it, and not about an impatient
    caller: it took a good part of the endpoint's own deadline, or far longer than usual (0.0: not known).

    >>> timeout_counts(10_000_000, 20e6, 10**9), timeout_counts(10_000_000, 1e6, 10**9)
    (False, True)
    """
    return held_ns >= EARLY_SHARE * deadline_ns or 0.0 < LATE_FACTOR * expected_ns <= held_ns


def is_time_over(left_ns: int, given_ns: int) -> bool:
    """Whether another server that gave a call up for its deadline, when so much of the time that it was given was left,
    means that time and not one of its own: it rounds, and counts from when it had read the request.

    >>> is_time_over(20_000_000, 10**9), is_time_over(500_000_000, 10**9), is_time_over(4_000_000, 5_000_000)
    (True, False, True)
    """
    return left_ns <= max(CLOSE_NS, CLOSE_SHARE * given_ns)
