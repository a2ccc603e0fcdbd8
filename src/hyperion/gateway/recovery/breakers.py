"""The breakers of one pool: one per replica, or one for an upstream, however many connections to it there are.

Made by `gateway/pool`, told by its links how calls end. When one opens and for how long is `policy/breaker`'s.
"""

from collections.abc import Callable, Iterable
from typing import Final, Literal

from hyperion.policy.breaker import (
    CLOSED,
    GAUGE,
    SLOT_NS,
    BreakerState,
    admits,
    begin,
    may_leave_alone,
    note,
    timeout_counts,
)
from hyperion.schema.protect import Breaker
from hyperion.telemetry.logs import EventLog

UPSTREAM: Final = "upstream"  # the name of an upstream's only breaker


class BreakerBook:
    """One breaker and what it has counted. `others` gives the breakers of the replicas that answer, itself among them;
    None for an upstream, which has no others."""

    __slots__ = ("_draw", "_endpoint", "_fine", "_log", "_others", "_rule", "_slot", "name", "state")

    def __init__(
        self,
        name: str,
        endpoint: str,
        rule: Breaker,
        draw: Callable[[], float],
        log: EventLog,
        others: "Callable[[], list[BreakerBook]] | None",
    ) -> None:
        self.name: Final = name
        self.state: BreakerState = CLOSED
        self._endpoint = endpoint
        self._rule = rule
        self._draw = draw
        self._log = log
        self._others = others
        self._slot = 0
        self._fine = 0  # calls of this second that did not fail: counted when one does, or the second is over

    def admits(self, now_ns: int) -> bool:
        """Whether a call may be made now."""
        return self.state.phase == "closed" or admits(self.state, now_ns)

    def left_s(self, now_ns: int) -> float:
        """Seconds until one may be made."""
        return 0.0 if self.admits(now_ns) else max(0.0, (self.state.until_ns - now_ns) * 1e-9)

    def began(self, now_ns: int) -> None:
        """A call is made."""
        if self.state.phase != "closed":
            self._turn(begin(self.state, now_ns), now_ns)

    def note(self, calls: int, failures: int, took_ns: int, now_ns: int) -> None:
        """So many calls ended, of which so many failed; all have where they took too long."""
        slow_ms = self._rule.slow_ms
        if slow_ms and took_ns > slow_ms * 1e6:
            failures = calls
        slot = now_ns // SLOT_NS
        if not failures and slot == self._slot and self.state.phase == "closed" and not self.state.run:
            self._fine += calls
            return
        if self._fine:
            self.state = note(self.state, self._rule, self._slot * SLOT_NS, self._fine, 0, 0.0, False)
            self._fine = 0
        self._slot = slot
        may_open = failures > 0 and self._may_open(calls, failures, now_ns)
        self._turn(note(self.state, self._rule, now_ns, calls, failures, self._draw(), may_open), now_ns)

    def note_timeout(self, held_ns: int, expected_ns: float, deadline_ns: int, now_ns: int) -> bool:
        """A call was given up after so long. Whether that counted."""
        counts = timeout_counts(held_ns, expected_ns, deadline_ns)
        if counts:
            self.note(1, 1, held_ns, now_ns)
        return counts

    def _may_open(self, calls: int, failures: int, now_ns: int) -> bool:
        if self._others is None:
            return True
        books = self._others()
        states = [book.state for book in books]
        if self not in books:
            return True  # it does not answer anyway
        own = books.index(self)
        states[own] = note(self.state, self._rule, now_ns, calls, failures, 0.0, False)
        return may_leave_alone(own, states, [True] * len(states), now_ns)

    def _turn(self, state: BreakerState, now_ns: int) -> None:
        """Takes the next state; a change is news for the log."""
        before, self.state = self.state, state
        if state.phase == before.phase:
            return
        level: Literal["info", "warning"] = "warning" if state.phase == "open" else "info"
        open_s = round((state.until_ns - now_ns) * 1e-9, 3) if state.phase == "open" else 0.0
        self._log.write(level, "breaker " + state.phase, endpoint=self._endpoint, replica=self.name, open_s=open_s)


class Breakers:
    """All of a pool's. Without a rule there are none, and nothing is counted."""

    def __init__(self, endpoint: str, log: EventLog, draw: Callable[[], float], answering: Callable[[], Iterable[str]]):
        self._endpoint = endpoint
        self._log = log
        self._draw = draw
        self._answering = answering
        self._rule: Breaker | None = None
        self._books: dict[str, BreakerBook] = {}

    def follow(self, rule: Breaker | None) -> bool:
        """Whether the rule is another one; then what was counted is forgotten."""
        if rule == self._rule:
            return False
        self._rule = rule
        self._books = {}
        return True

    def book_of(self, name: str) -> BreakerBook | None:
        """The breaker of that replica; it outlives the connection to it."""
        if self._rule is None:
            return None
        book = self._books.get(name)
        if book is None:
            others = None if name == UPSTREAM else self._of_those_that_answer
            book = self._books[name] = BreakerBook(name, self._endpoint, self._rule, self._draw, self._log, others)
        return book

    def _of_those_that_answer(self) -> list[BreakerBook]:
        books = []
        for name in self._answering():
            book = self.book_of(name)
            if book is not None:
                books.append(book)
        return books

    def gauges(self) -> dict[str, float]:
        """0 closed, 1 half-open, 2 open, by name."""
        return {name: GAUGE[book.state.phase] for name, book in self._books.items()}
