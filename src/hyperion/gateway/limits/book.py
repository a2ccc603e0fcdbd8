"""All buckets, gates and meters of one gateway process: kept from one snapshot to the next, and a bounded number of
them.

Made by `gateway/process`; each endpoint's `Limiter` (`gateway/limits/limiter`) gets its buckets here,
`gateway/limits/shared` leases tokens for them. A bucket is known by whom it limits and by its limit, so one whose limit
has not changed goes on where it was, and one whose limit has starts full. Nothing that is half full or open is ever
forgotten, unless there are more than `MAX_BUCKETS` of them.
"""

import time
from collections.abc import Callable
from typing import Final

from hyperion.gateway.limits.buckets import Bucket, Gate
from hyperion.gateway.limits.usage import Usages
from hyperion.policy import lease
from hyperion.policy.quota import day_ends_s, day_of
from hyperion.policy.rate_limit import UNITS_PER_NS

MAX_BUCKETS: Final = 65_536
SWEEP_NS: Final = 10_000_000_000


class LimitBook:
    """One gateway's. `workers` gateway processes divide each limit among them, as long as nobody says how many there
    are in all (`share`). With `leases` rates are shared through Redis. `requests_per_second` and `concurrency` are for
    all requests to the `workers` processes together, 0 for no limit. `wall` gives seconds since 1970.

    `generation` grows whenever what was got from here may not be what is here.
    """

    def __init__(
        self,
        workers: int = 1,
        leases: bool = False,
        requests_per_second: float = 0.0,
        concurrency: int = 0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.workers: Final = max(1, workers)
        self.leases: Final = leases
        self.requests_per_second: Final = requests_per_second
        self.concurrency: Final = concurrency
        self.share = self.workers
        self.generation = 0
        self.leasing = False  # the server answers
        self.buckets: dict[str, Bucket] = {}
        self.gates: dict[str, Gate] = {}
        self._wall = wall
        self.usages: Final = Usages(day_of(wall()))
        self.day_ends_ns = 0  # 0: look at the clock first
        self._swept_ns = 0

    def bucket(self, name: str, per_second: float, burst: int, now_ns: int, local: bool = False) -> Bucket:
        """The bucket of that name and limit. A `local` one is this process's and its siblings' alone."""
        shared = self.leases and not local
        if shared:
            burst = lease.shared_burst(per_second, burst)
        key = f"{name} {per_second!r}/{burst}"
        bucket = self.buckets.get(key)
        if bucket is None:
            if len(self.buckets) >= MAX_BUCKETS or now_ns - self._swept_ns > SWEEP_NS:
                self.sweep(now_ns)
            share = self.share if shared else self.workers
            bucket = self.buckets[key] = Bucket(key, per_second, burst, share)
            if shared and self.leasing:
                bucket.start_lease(now_ns * UNITS_PER_NS)
        return bucket

    def gate(self, name: str) -> Gate:
        """The gate of that name."""
        gate = self.gates.get(name)
        if gate is None:
            gate = self.gates[name] = Gate(name)
        return gate

    def take_share(self, gateways: int) -> None:
        """So many gateways divide what is not leased."""
        if gateways != self.share:
            self.share = gateways
            self.generation += 1  # plans hold parts of concurrency limits
            for bucket in self.shared_buckets():
                bucket.take_share(gateways)

    def start_leases(self, now_ns: int) -> None:
        """The server answers: gateways share their rates from now on."""
        self.leasing = True
        for bucket in self.shared_buckets():
            bucket.start_lease(now_ns * UNITS_PER_NS)

    def end_leases(self, now_ns: int) -> None:
        """The server does not answer: each gateway has its share of each rate from now on."""
        self.leasing = False
        for bucket in self.shared_buckets():
            bucket.end_lease(now_ns * UNITS_PER_NS)

    def shared_buckets(self) -> list[Bucket]:
        """Those that gateways share."""
        return [bucket for key, bucket in self.buckets.items() if not key.startswith(LOCAL)] if self.leases else []

    def roll(self, now_ns: int) -> None:
        """Looks at the calendar: for a request at or after `day_ends_ns`, and now and then, as clocks are set."""
        now_s = self._wall()
        self.day_ends_ns = now_ns + int((day_ends_s(now_s) - now_s) * 1e9) + 1
        day = day_of(now_s)
        if day != self.usages.day and self.usages.roll(day):
            self.generation += 1  # plans hold meters

    def now_s(self) -> float:
        """Seconds since 1970."""
        return self._wall()

    def sweep(self, now_ns: int) -> None:
        """Forgets what nothing is lost with; and where that is not enough, the fullest of the rest."""
        self._swept_ns = now_ns
        now = now_ns * UNITS_PER_NS
        kept = {key: bucket for key, bucket in self.buckets.items() if not bucket.is_idle(now)}
        if len(kept) >= MAX_BUCKETS:
            emptiest = sorted(kept, key=lambda key: -kept[key].full_after(now))[: MAX_BUCKETS // 2]
            kept = {key: kept[key] for key in emptiest}
        gates = {name: gate for name, gate in self.gates.items() if gate.open}
        if len(kept) < len(self.buckets) or len(gates) < len(self.gates):
            self.buckets, self.gates = kept, gates
            self.generation += 1


LOCAL: Final = "gateway"  # how the names of buckets begin that are never shared
