"""What stands between callers and one endpoint: who they are, what they may, and what is made of their requests.

`gateway/route` makes a guard for each endpoint that asks for protection; the edges let each request in through it
before its body is decoded, and `gateway/pipeline` leads the call through it to the pool and back. Each stage is a file
of its own. Sees no protocol. An endpoint without a guard costs nothing here.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from hyperion.gateway.cache.answers import BYPASSED, COALESCED, ResponseCache
from hyperion.gateway.cache.elsewhere import Elsewhere
from hyperion.gateway.cache.flights import Finished, Flights
from hyperion.gateway.cache.key import make_key
from hyperion.gateway.dispatch import internal_error
from hyperion.gateway.front.caller import Caller, Peer
from hyperion.gateway.front.identity import HINT, Identities
from hyperion.gateway.front.rules import Rules
from hyperion.gateway.limits.limiter import ENTERED, Limiter
from hyperion.gateway.pending import MODEL, UNHEARD, PendingCall
from hyperion.policy.access import forbids, needs_credentials
from hyperion.schema.call import InferenceAnswer, InferenceCall, Tensor
from hyperion.schema.errors import Fields, Forbidden, HyperionError, RateLimited, Unauthenticated
from hyperion.schema.protect import Protection
from hyperion.schema.snapshot import ServedVersion
from hyperion.wire.tensor import split_rows

if TYPE_CHECKING:
    from hyperion.gateway.pool import VersionPool
    from hyperion.gateway.recovery.course import Course
    from hyperion.gateway.recovery.plan import Recovery

MAX_CALLERS: Final = 16_384
UNPROTECTED: Final = Protection()
NO_OUTPUTS: Final[tuple[Tensor, ...]] = ()


class Visit:
    """One request that was let in, until it ends. Owned by the event loop. `key` is what its answer may be kept under,
    b"" for none; `rows` are those that limits were charged for. `entry` is how it came in, as `limits` says."""

    __slots__ = ("caller", "course", "entry", "guard", "key", "rows", "started")

    def __init__(self, guard: "Guard", caller: Caller, entry: int = ENTERED) -> None:
        self.guard: Final = guard
        self.caller: Final = caller
        self.entry: Final = entry
        self.key = BYPASSED
        self.rows = 0
        self.started = False
        self.course: Course | None = None  # how it gets past failures, where the endpoint asks for that

    def check(self, pending: PendingCall, pool: "VersionPool") -> InferenceCall:
        """The decoded call as the model is to see it. Raises SchemaMismatch."""
        caller = pending.caller = self.caller
        pending.priority = max(pending.priority, caller.record.priority)
        rules = self.guard.rules
        if rules is not None:
            pending.call = rules.check(pending.call, pool.signature)
        return pending.call

    def begin(self, pending: PendingCall, pool: "VersionPool") -> bool:
        """Takes what the admitted call uses up. True where no pool need see it: it was answered, or will be with
        another's answer. Raises RateLimited."""
        guard = self.guard
        limiter = guard.limiter
        now_ns = time.monotonic_ns()
        if limiter is not None:
            self.charge(limiter, pending.rows, now_ns)
            fields = limiter.headers(self.caller, now_ns)
            if fields:
                pending.reply.add_fields(fields)
        judged = pool.watch is not None and pool.watch.judged
        if guard.remembers and not pending.stream and not judged and self._finds(pending, pool, now_ns):
            return True
        return self.set_out(pending, pool)

    def charge(self, limiter: Limiter, rows: int, now_ns: int) -> None:
        """Takes what a request of so many rows uses up, until it ends. Raises RateLimited."""
        try:
            limiter.start(self.caller, rows, now_ns, self.entry)
        except RateLimited as error:
            error.fields = limiter.headers(self.caller, now_ns)
            raise
        self.started = True
        self.rows = rows

    def limits(self) -> Fields:
        """The header fields that say what the caller has left now; () where nothing is limited."""
        limiter = self.guard.limiter
        return () if limiter is None else limiter.headers(self.caller, time.monotonic_ns())

    def _finds(self, pending: PendingCall, pool: "VersionPool", now_ns: int) -> bool:
        """Whether the call is answered with what another one got, or will get."""
        guard = self.guard
        cache, flights, elsewhere = guard.cache, guard.flights, guard.elsewhere
        tenant, digest = self.caller.tenant, pool.served.digest
        if cache is None:
            key = make_key(tenant, digest, pending.call)
        else:
            key = self.key = cache.key(tenant, digest, pending.call, now_ns)
            if key:
                found = cache.get(key, now_ns)
                if found is not None:
                    guard.give(pending, found.answer(pool.model, pool.served.version))
                    return True
            elif flights is None:
                return False
            else:  # it passes the cache by, and may follow another call all the same
                key, elsewhere = make_key(cache.scope(tenant), digest, pending.call), None
        if flights is not None and flights.join(key, pending, pool):
            if cache is not None:
                cache.counts[COALESCED] += 1
            return True
        return elsewhere is not None and elsewhere.look(key, pending, pool)

    def set_out(self, pending: PendingCall, pool: "VersionPool") -> bool:
        """Whether others answer from the start, as the pool cannot."""
        recovery = self.guard.recovery
        if recovery is None:
            return False
        self.course = recovery.begin(pending, pool)
        return self.course.diverted

    def rescues(self, pending: PendingCall, pool: "VersionPool", error: HyperionError) -> bool:
        """Whether the fallback chain takes a call that its own pool has no room for."""
        recovery, limiter = self.guard.recovery, self.guard.limiter
        if recovery is None or not self.guard.has_fallback:
            return False
        now_ns = time.monotonic_ns()
        if limiter is not None:
            try:
                self.charge(limiter, pending.rows, now_ns)
            except RateLimited:
                return False
        course = self.course = recovery.begin(pending, pool)
        if not course.diverted:
            course.divert(now_ns, error)
        return course.diverted

    def answered(
        self, pending: PendingCall, served: ServedVersion, outputs: tuple[Tensor, ...], compute_ns: int
    ) -> None:
        """For the pool: the call was answered with these outputs, which took so long to compute."""
        guard = self.guard
        if guard.cache is not None and self.key and pending.served_by == MODEL:
            guard.cache.put(self.key, outputs, served.version, served.digest, time.monotonic_ns(), compute_ns)
            if guard.elsewhere is not None:
                guard.elsewhere.shared.keep(self.key, outputs)
        if guard.flights is not None:
            guard.flights.answered(pending, outputs, compute_ns)

    def takes(self, error: HyperionError) -> bool:
        """For the pool, before the caller learns of a failure: whether somebody else goes on with the call."""
        return self.course is not None and self.course.takes(error)

    def ended(self, pending: PendingCall, error: HyperionError | None, now_ns: int) -> None:
        """For the pipeline, once: gives back what the call held."""
        guard = self.guard
        if self.started and guard.limiter is not None:
            tokens = pending.parts if pending.stream else 0
            guard.limiter.end(self.caller, self.rows, tokens, now_ns, self.entry)
        if error is not None and guard.flights is not None:
            guard.flights.failed(pending, error)
        course, self.course = self.course, None  # they know each other: freed at once and not by the garbage collector
        if course is not None:
            course.ended()


class Guard:
    """One endpoint's. `required` says that who shows no credentials is refused where the endpoint has no rule."""

    __slots__ = (
        "_access",
        "_admitted",
        "_finished",
        "_identities",
        "_needs_credentials",
        "cache",
        "elsewhere",
        "endpoint",
        "flights",
        "limiter",
        "protection",
        "recovery",
        "remembers",
        "rules",
    )

    def __init__(
        self,
        endpoint: str,
        protection: Protection,
        identities: Identities,
        required: bool,
        limiter: Limiter | None,
        cache: ResponseCache | None,
        flights: Flights | None,
        finished: Finished,
    ) -> None:
        self.endpoint: Final = endpoint
        self.protection: Final = protection
        self.limiter: Final = limiter
        self.cache: Final = cache
        self.flights: Final = flights
        self.elsewhere: Elsewhere | None = None  # the door's, which has the way to Redis
        self.recovery: Recovery | None = None  # the router's, which knows the pools
        self.rules: Rules | None = None  # the router's, which knows the signature
        self.remembers: Final = cache is not None or flights is not None
        self._finished: Final = finished
        self._identities: Final = identities
        self._access: Final = protection.access
        self._needs_credentials: Final = needs_credentials(protection.access, required)
        self._admitted: set[Caller] = set()  # by identity: one object stands for one set of credentials

    def enter(self, headers: Mapping[bytes, bytes], peer: Peer) -> Visit:
        """Lets a request in, before its body costs anything. Raises Unauthenticated, Forbidden or RateLimited."""
        caller = self.admit(headers, peer)
        limiter = self.limiter
        if limiter is not None:
            now_ns = time.monotonic_ns()
            try:
                limiter.enter(caller, now_ns)
            except RateLimited as error:
                error.fields = limiter.headers(caller, now_ns)
                raise
        return Visit(self, caller)

    def admit(self, headers: Mapping[bytes, bytes], peer: Peer) -> Caller:
        """Who asks, if it may see and call this endpoint. Raises Unauthenticated or Forbidden."""
        caller = self._identities.identify(headers, peer)
        if caller not in self._admitted:
            self._look_at(caller)
        return caller

    @property
    def has_fallback(self) -> bool:
        """Whether others may answer for what the endpoint has no room for."""
        return self.recovery is not None and bool(self.recovery.steps)

    def give(self, pending: PendingCall, answer: InferenceAnswer) -> None:
        """Answers a call that no pool has seen."""
        reply = pending.reply
        error: HyperionError | None = None
        try:
            reply.answer(answer)
        except HyperionError as problem:
            error = problem
        except Exception:  # a bug of ours must cost this caller only
            error = internal_error(pending.request_id)
        pending.done = True
        pending.reply = UNHEARD
        self._finished(pending, error, 0, 0, time.monotonic_ns())
        if error is not None:
            reply.fail(error)

    def last_good(self, pending: PendingCall) -> InferenceAnswer | None:
        """The last answer that was kept for such a call, be its time over or not."""
        cache = self.cache
        if cache is None or pending.visit is None or not pending.visit.key:
            return None
        found = cache.last_good(pending.visit.key)
        return None if found is None else found.answer(self.endpoint)

    def answered_together(
        self, calls: list[PendingCall], served: ServedVersion, outputs: tuple[Tensor, ...], rows: int, compute_ns: int
    ) -> None:
        """For the pool: these calls, of `rows` rows each, were answered with the outputs' rows in their order."""
        flights = self.flights
        wanted: list[Visit] = []  # of the calls whose answers anybody but their callers wants
        whose: list[PendingCall] = []
        counts: list[int] = []
        gap = 0
        for pending in calls:
            visit = pending.visit
            if visit is None or not pending.done:
                gap += rows
            elif visit.key or (flights is not None and flights.has_followers(pending)):
                wanted.append(visit)
                whose.append(pending)
                counts += (gap, rows)
                gap = 0
            else:
                gap += rows
                if flights is not None:
                    flights.answered(pending, NO_OUTPUTS, compute_ns)
        if not wanted:
            return
        counts.append(gap)
        cut = [split_rows(tensor, counts)[1::2] for tensor in outputs]
        for index, visit in enumerate(wanted):
            visit.answered(whose[index], served, tuple([pieces[index] for pieces in cut]), compute_ns)

    def go_on(self, pending: PendingCall, pool: "VersionPool") -> None:
        """Sends a call on that was looked up elsewhere and not found."""
        if pending.visit is None or not pending.visit.set_out(pending, pool):
            pool.enqueue(pending)

    def close(self) -> None:
        """The endpoint has gone, or has another guard."""
        if self.cache is not None:
            self.cache.close()

    def _look_at(self, caller: Caller) -> None:
        if caller.anonymous:
            if self._needs_credentials:
                raise Unauthenticated(f'endpoint "{self.endpoint}" needs credentials; {HINT}')
        else:
            reason = forbids(self._access, caller.tenant, caller.scopes, caller.claims)
            if reason:
                raise Forbidden(f'{caller.subject} may not call endpoint "{self.endpoint}": {reason}')
        if len(self._admitted) >= MAX_CALLERS:
            self._admitted.clear()
        self._admitted.add(caller)
