"""All guards of one gateway: made from the snapshot, kept as long as what they guard does not change.

Made by `gateway/process`; `gateway/route` asks it for each endpoint's guard. What outlives a guard (who is known, what
was used up, how much memory caches may hold) is here.
"""

import ipaddress
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hyperion.gateway.cache.answers import ResponseCache
from hyperion.gateway.cache.elsewhere import Elsewhere
from hyperion.gateway.cache.flights import Finished, Flights
from hyperion.gateway.cache.memory import CacheMemory
from hyperion.gateway.cache.shared import SharedCache, SharedStore
from hyperion.gateway.front.caller import ANONYMOUS, Peer
from hyperion.gateway.front.guard import UNPROTECTED, Guard
from hyperion.gateway.front.identity import HINT, Identities
from hyperion.gateway.limits.book import LimitBook
from hyperion.gateway.limits.limiter import Limiter
from hyperion.gateway.pending import PendingCall
from hyperion.policy.access import grants, shows
from hyperion.schema.errors import Forbidden, HyperionError, MissingExtra, Unauthenticated
from hyperion.schema.protect import Access, Protection
from hyperion.schema.snapshot import ServedModel, Snapshot

COMMAND: Final = "deploy"
# What browsers add that speak for a page, and proxies that speak for somebody elsewhere.
FOR_OTHERS: Final = (b"origin", b"forwarded", b"x-forwarded-for")


class Door:
    """`required` refuses callers without credentials wherever an endpoint does not say otherwise. `draw` gives random
    numbers in [0, 1). `redis_url` "" keeps caches in this process."""

    def __init__(
        self,
        identities: Identities,
        book: LimitBook,
        required: bool = False,
        draw: Callable[[], float] = random.random,
        redis_url: str = "",
    ) -> None:
        self.book: Final = book
        self.required: Final = required
        self.memory: Final = CacheMemory()
        self.finished: Finished = _nobody  # the pipeline's, once there is one
        self.problems: dict[str, str] = {}  # what an endpoint asks for and does not get, and why
        self._identities = identities
        self._draw = draw
        self._redis_url = redis_url
        self._store: SharedStore | None = None
        self._guards: dict[str, Guard] = {}
        self._landing: list[Flights] = []  # of guards that are gone
        self._counted: dict[tuple[str, ...], float] = {}  # by caches that are gone
        self._limited = bool(book.requests_per_second or book.concurrency)
        self._everywhere = required or self._limited

    def follow(self, snapshot: Snapshot) -> None:
        """Knows whom the snapshot knows, and forgets the guards of endpoints that are gone."""
        directory = snapshot.directory
        self._identities.update(directory)
        self._limited = bool(
            self.book.requests_per_second
            or self.book.concurrency
            or any(tenant.limits or tenant.key_limits or tenant.quotas for tenant in directory.tenants)
        )
        known = directory.tenants or directory.keys or directory.issuers
        self._everywhere = self.required or self._limited or bool(known)
        names = {model.name for model in snapshot.models}
        for name in [name for name in self._guards if name not in names]:
            self._drop(name)

    def guard_of(self, model: ServedModel) -> Guard | None:
        """The guard of an endpoint; the same one as long as its protection does not change. None where nothing is asked
        for, and for members, which only their owners call."""
        protection = model.protection
        guard = self._guards.get(model.name)
        if model.internal or (protection == UNPROTECTED and not self._everywhere):
            if guard is not None:
                self._drop(model.name)
            return None
        limited = self._limited or protection.limits is not None or protection.cost is not None
        if guard is None or guard.protection != protection or (guard.limiter is not None) != limited:
            if guard is not None:
                self._drop(model.name)
            guard = self._guards[model.name] = self._make(model.name, protection, limited)
        return guard

    def check(self, scope: str, headers: Mapping[bytes, bytes], peer: Peer) -> None:
        """For what is no inference: raises Unauthenticated without credentials where they are required, and Forbidden
        where they lack the scope ("" needs none). To let anybody call models is not to let anybody unload them: where
        no credentials are required, who shows none may command from this machine only, and speaking for himself."""
        if not self.required and scope != COMMAND:
            return
        who = self._identities.identify(headers, peer) if self._everywhere or peer.names else ANONYMOUS
        if not who.anonymous:
            if not grants(who.scopes, scope):
                raise Forbidden(f'{who.subject} lacks the scope "{scope}" that this needs')
        elif self.required or not _is_here(headers, peer):
            hint = HINT.replace("NAME", f"NAME --scope {scope}") if scope else HINT
            raise Unauthenticated(f"this needs credentials; {hint}")

    def shows(self, rules: Sequence[Access | None], headers: Mapping[bytes, bytes], peer: Peer) -> list[bool]:
        """For lists: of endpoints with these rules, which ones the caller may know of. Raises Unauthenticated for wrong
        credentials, wherever anybody's count."""
        if not self._everywhere and all(access is None for access in rules):
            return [True] * len(rules)
        who = self._identities.identify(headers, peer)
        return [shows(access, self.required, who.anonymous, who.tenant, who.scopes, who.claims) for access in rules]

    def is_idle(self) -> bool:
        """Whether nobody waits for an answer that another one computes."""
        return not self._landing and not any(
            guard.flights is not None and guard.flights.busy for guard in self._guards.values()
        )

    def look_at_deadlines(self, now_ns: int) -> None:
        """Ends waiters whose deadline has passed. Called before the pools look at theirs."""
        for guard in self._guards.values():
            if guard.flights is not None:
                guard.flights.look_at_deadlines(now_ns)
        for flights in tuple(self._landing):
            flights.look_at_deadlines(now_ns)
            if not flights.busy:
                self._landing.remove(flights)

    def counters(self) -> dict[str, dict[tuple[str, ...], float]]:
        """What all caches have counted, for the metrics."""
        results = dict(self._counted)
        for cache in self.memory.caches:
            for result, count in cache.counts.items():
                results[(result,)] = results.get((result,), 0.0) + count
        return {"hyperion_cache_total": results}

    def _drop(self, endpoint: str) -> None:
        guard = self._guards.pop(endpoint)
        if guard.cache is not None:
            for result, count in guard.cache.counts.items():
                self._counted[(result,)] = self._counted.get((result,), 0.0) + count
        if guard.flights is not None and guard.flights.busy:
            self._landing.append(guard.flights)
        guard.close()

    def _make(self, endpoint: str, protection: Protection, limited: bool) -> Guard:
        cache = protection.cache
        stale = any(link.cached for link in protection.fallback)
        guard = Guard(
            endpoint,
            protection,
            self._identities,
            self.required,
            Limiter(self.book, endpoint, protection.limits, protection.cost) if limited else None,
            ResponseCache(cache, self.memory, self._draw, stale) if cache is not None else None,
            Flights(self.finished) if protection.coalesce else None,
            self.finished,
        )
        self.problems.pop(endpoint, None)
        if cache is not None and cache.shared:
            try:
                self._share(guard, cache.ttl_s)
            except MissingExtra as error:
                self.problems[endpoint] = error.message
        return guard

    def _share(self, guard: Guard, ttl_s: float) -> None:
        """Lets a guard's cache look into Redis, if there is one."""
        if not self._redis_url or guard.cache is None:
            self.problems[guard.endpoint] = "cache.shared needs --redis-url: answers are kept by each gateway alone"
            return
        if self._store is None:
            self._store = SharedStore(self._redis_url)
        shared = SharedCache(self._store, guard.endpoint, ttl_s)
        guard.elsewhere = Elsewhere(shared, guard.cache, guard.flights, guard.go_on, guard.give, self.finished)

    async def close(self) -> None:
        """Ends the connections to Redis."""
        if self._store is not None:
            await self._store.close()


def _is_here(headers: Mapping[bytes, bytes], peer: Peer) -> bool:
    """Whether a request comes from this machine, and not from a web page or by way of a proxy."""
    if any(name in headers for name in FOR_OTHERS):
        return False
    if not peer.address:  # a Unix socket
        return True
    address = ipaddress.ip_address(peer.address.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _nobody(pending: PendingCall, error: HyperionError | None, _queue_ns: int, _compute_ns: int, _now_ns: int) -> None:
    raise AssertionError(f"{pending.request_id} ended before there was a pipeline: {error}")
