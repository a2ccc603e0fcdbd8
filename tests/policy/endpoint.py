"""A simulated endpoint for tests of the rollout policy: traffic in, what control would see of it out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from hyperion.policy.release.rollout import Command, Decision, Observed, ReleaseState, begin, decide, split_of
from hyperion.schema.release import OutputSample, PairCounts, Split, TrackCounts
from hyperion.schema.resource import Rollout, Slo

OLD, NEW = "1", "2"
Fault = Callable[["Endpoint", Observed], Observed]


@dataclass
class Behaviour:
    """How a version fares: shares of failed and slow requests, and of predictions by tenth."""

    errors: float = 0.0
    slow: float = 0.04
    bins: tuple[float, ...] = (0.1,) * 10


@dataclass
class Endpoint:
    """An endpoint that takes `rate` requests a second and is looked at every `every_s`."""

    rollout: Rollout
    slo: Slo = field(default_factory=Slo)
    old: Behaviour = field(default_factory=Behaviour)
    new: Behaviour = field(default_factory=Behaviour)
    rate: float = 500.0
    every_s: float = 1.0
    ready_at: float = 2.0
    disagree: float = 0.0
    seed: int = 1
    fault: Fault | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.now = 1_000.0
        self.began = self.now
        self.counts: dict[tuple[int, str, bool], TrackCounts] = {}
        self.pairs: dict[int, PairCounts] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []
        started = begin(
            "e",
            self.rollout,
            rollout_id="r1",
            from_version=OLD,
            from_digest="sha256:old",
            to_version=NEW,
            to_digest="sha256:new",
            epoch=5,
            now=self.now,
        )
        self.events += started.events
        self.state: ReleaseState = started.state

    def run(self, seconds: float) -> "Endpoint":
        """Look until the rollout is over, or for so long."""
        for _ in range(int(seconds / self.every_s)):
            self.look()
            if self.state.state in ("promoted", "halted", "aborted"):
                break
        return self

    def look(self, command: Command | None = None) -> Decision:
        """One look's worth of traffic, and the look."""
        split = split_of(self.rollout, self.state)
        self.now += self.every_s
        self._serve(split)
        observed = self.observe(split.epoch)
        decision = decide(self.rollout, self.slo, self.state, observed, self.now, command)
        again = decide(self.rollout, self.slo, decision.state, observed, self.now)
        assert again.events == ()
        assert again.state == decision.state
        assert msgspec.json.decode(msgspec.json.encode(decision.state), type=ReleaseState) == decision.state
        assert msgspec.json.encode(decision.events)
        self.state = decision.state
        self.events += decision.events
        return decision

    def observe(self, epoch: int) -> Observed:
        """What control sees, with the fault."""
        observed = Observed(
            candidate="ready" if self.now - self.began >= self.ready_at else "loading",
            counts=tuple(self.counts.values()),
            pairs=tuple(self.pairs.values()),
            sample=OutputSample("e", epoch, "y", "number", tuple(i / 100 for i in range(100))),
            acknowledged_epoch=epoch,
            **self.extra,
        )
        return self.fault(self, observed) if self.fault is not None else observed

    def kinds(self) -> list[str]:
        """The kinds of the ledger's entries."""
        return [kind.removeprefix("rollout.") for kind, _ in self.events]

    def _serve(self, split: Split) -> None:
        total = int(self.rate * self.every_s)
        if len(split.tracks) == 1:
            self._count(split, split.tracks[0].version, total, False)
        else:
            canary = int(self.rng.binomial(total, split.tracks[1].share))
            self._count(split, split.tracks[1].version, canary, False)
            self._count(split, split.tracks[0].version, total - canary, False)
        if split.shadow:
            copies = int(self.rng.binomial(total, split.shadow_share))
            failed = self._count(split, split.shadow, copies, True)
            old = self.pairs.get(split.epoch, PairCounts("e", split.epoch))
            self.pairs[split.epoch] = msgspec.structs.replace(
                old,
                pairs=old.pairs + copies - failed,
                disagreements=old.disagreements + int(self.rng.binomial(copies - failed, self.disagree)),
                failed=old.failed + failed,
            )

    def _count(self, split: Split, version: str, requests: int, shadow: bool) -> int:
        how = self.new if version == NEW else self.old
        key = (split.epoch, version, shadow)
        before = self.counts.get(key, TrackCounts("e", split.epoch, version, shadow))
        failed = int(self.rng.binomial(requests, how.errors))
        bins = tuple(int(n) for n in self.rng.multinomial(requests, how.bins)) if split.bins is not None else ()
        self.counts[key] = msgspec.structs.replace(
            before,
            requests=before.requests + requests,
            errors=before.errors + failed,
            slow=before.slow + (int(self.rng.binomial(requests, how.slow)) if split.slow_ns else 0),
            latency=tuple(a + b for a, b in zip(before.latency or (0,) * 50, (0,) * 48 + (requests, 0), strict=True)),
            bins=tuple(a + b for a, b in zip(before.bins or (0,) * len(bins), bins, strict=True)),
        )
        return failed
