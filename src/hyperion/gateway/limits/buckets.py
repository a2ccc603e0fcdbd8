"""What a limit keeps between requests: a bucket of tokens for a rate, a gate for how many are open at a time.

Kept by `gateway/limits/book` for as long as they matter, asked by `gateway/limits/limiter` for each request. A bucket
lives by itself, or on tokens that `gateway/limits/shared` leases from one that all gateways share. Never here: clocks,
sockets.
"""

from typing import Final

from hyperion.policy import lease
from hyperion.policy.rate_limit import SECOND, interval_of, pass_at, remaining_of, tolerance_of


class Bucket:
    """One rate: `per_second` of something, at most `burst` at once, for all gateways together.

    By itself it has the `share`-th part of the limit, as `policy/rate_limit` keeps it, in its units of time. While it
    is `leased` it lives on `credit`, the tokens that this gateway holds of the shared one, and on `advance`, what it
    may use beyond them and then has `owed` until the server was told (both below 0 where one large request took
    more). `asked` and `largest` say what was wanted since the last exchange with the server, `asked_at` when that last
    happened, `due_at` when an exchange is due without. `level` is what the shared one had left when it was
    `heard_at`.
    """

    __slots__ = (
        "advance",
        "asked",
        "asked_at",
        "burst",
        "credit",
        "due_at",
        "heard_at",
        "interval",
        "largest",
        "leased",
        "level",
        "name",
        "owed",
        "pace",
        "per_second",
        "share",
        "spent_until",
        "tolerance",
    )

    def __init__(self, name: str, per_second: float, burst: int, share: int) -> None:
        self.name: Final = name
        self.per_second: Final = per_second
        self.burst: Final = burst
        self.pace: Final = interval_of(per_second)
        self.share = 0
        self.interval = 0
        self.tolerance = 0
        self.spent_until = 0
        self.leased = False
        self.credit = 0
        self.advance = 0
        self.owed = 0
        self.asked = 0
        self.asked_at = 0
        self.due_at = 0
        self.heard_at = 0
        self.largest = 0
        self.level = burst
        self.take_share(share)

    def take_share(self, share: int) -> None:
        """Its own part of the limit is the `share`-th from now on."""
        self.share = share
        self.interval = self.pace * share
        self.tolerance = tolerance_of(self.interval, self.burst, share)
        self.advance = min(self.advance, lease.advance(self.burst, share))

    def start_lease(self, now: int) -> None:
        """Lives on leases from now on. What it let pass by itself, and has not got back by now, it owes; who owes
        nothing may use an advance at once."""
        self.leased = True
        self.level = remaining_of(self.spent_until, now, self.interval, self.tolerance) * self.share
        self.owed = -(-max(0, self.spent_until - now) // self.interval)
        self.advance = 0 if self.owed else lease.advance(self.burst, self.share)
        self.credit = self.spent_until = self.due_at = 0
        self.heard_at = now

    def end_lease(self, now: int) -> None:
        """Lives by itself from now on, with what it holds and its share of what was left."""
        held = max(0, self.credit + max(0, self._left(now)) // self.share - self.owed)
        self.leased = False
        self.spent_until = now + max(0, self.tolerance - held * self.interval)
        self.credit = self.owed = self.asked = self.largest = 0

    def hear(self, granted: int, level: int, now: int) -> None:
        """The server's answer. A new advance is for whom it owes nothing any more."""
        self.credit += granted
        self.level = level
        self.heard_at = now
        if level >= 0:
            self.advance = lease.advance(self.burst, self.share) - self.owed
        self.due_at = now + min(SECOND, max(1, -level) * self.pace)

    def is_due(self, now: int, quiet: int) -> bool:
        """Whether there is something to exchange: demand, a debt, a lease that nobody has used for `quiet`."""
        if self.asked or self.owed:
            return True
        if self.credit:
            return now - self.asked_at > quiet
        return now >= self.due_at and self.advance < lease.advance(self.burst, self.share)

    def take(self, count: int, now: int) -> int:
        """Lets `count` pass, and returns 0; or takes nothing, and returns the units of time until they may pass."""
        if not self.leased:
            after = pass_at(self.spent_until, now, count * self.interval, self.tolerance)
            if after < 0:
                return -after
            self.spent_until = after
            return 0
        self.asked += count
        if count > self.largest:
            self.largest = count
        needed = count if count < self.burst else self.burst
        if self.credit >= needed:
            self.credit -= count
            return 0
        advance = self.advance
        if advance >= count or (advance >= lease.advance(self.burst, self.share) and self._left(now) >= needed):
            self.advance -= count
            self.owed += count
            return 0
        return (needed - self.credit - min(0, self.level)) * self.pace

    def give_back(self, count: int) -> None:
        """As if `count` that passed had not."""
        if self.leased:
            self.credit += count
        else:
            self.spent_until -= count * self.interval

    def remaining(self, now: int) -> int:
        """How many may pass now, as far as this gateway knows."""
        if not self.leased:
            return remaining_of(self.spent_until, now, self.interval, self.tolerance)
        return max(0, self.credit + self._left(now) - self.owed)

    def full_after(self, now: int) -> int:
        """Units of time until all of the burst may pass again."""
        if not self.leased:
            return max(0, self.spent_until - now)
        return max(0, self.burst - self.remaining(now)) * self.pace

    def is_idle(self, now: int) -> bool:
        """Whether nothing is lost with it: a new one in its place would be the same."""
        if not self.leased:
            return self.spent_until <= now
        return not (self.asked or self.owed or self.credit) and self.advance >= lease.advance(self.burst, self.share)

    def _left(self, now: int) -> int:
        """What the shared one may have left by now: as last heard, and what one gateway's share has brought since."""
        return min(self.burst, self.level + (now - self.heard_at) // self.interval)


class Gate:
    """How many requests are open that count for one limit, and how many of them are attempts at jobs. The limit is the
    plan's: it may change while some are."""

    __slots__ = ("jobs", "name", "open")

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.open = 0
        self.jobs = 0
