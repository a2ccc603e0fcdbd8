"""The short way of a request that is the same bytes as one that the cache has answered: it is not decoded at all.

Called by `gateway/http/routes` for V2 inference, between the look at the caller and the look at the queue: a repeated
request is told nothing of an overload that it does not add to. It is limited, counted and logged as any other.
"""

import time
from typing import Final

from hyperion.gateway.cache.answers import BYPASSED
from hyperion.gateway.http.exchange import Exchange, encode_again
from hyperion.gateway.pending import UNHEARD, PendingCall
from hyperion.gateway.pipeline import Pipeline
from hyperion.gateway.pool import VersionPool
from hyperion.schema.call import Buffer, InferenceCall
from hyperion.schema.errors import HyperionError

PROTOCOL: Final = "http"


class Repeats:
    """Answers what comes again, for all endpoints."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._calls: dict[str, InferenceCall] = {}  # to be counted as; their inputs are nobody's business

    def answer(self, exchange: Exchange, pool: VersionPool, json_length: bytes) -> bool:
        """Whether the exchange was answered. Its headers must have been found valid. Raises RateLimited."""
        visit = exchange.visit
        cache = None if visit is None else visit.guard.cache
        if visit is None or cache is None or not cache.front.answers:
            return False
        if pool.watch is not None and pool.watch.judged:
            return False
        tenant, served = visit.caller.tenant, pool.served
        now_ns = time.monotonic_ns()
        made = cache.front.find(tenant, served.digest, served.version, pool.watch, json_length, exchange.body, now_ns)
        if made is None:
            return False
        limiter = visit.guard.limiter
        if limiter is not None:
            visit.charge(limiter, made.rows, now_ns)
            fields = limiter.headers(visit.caller, now_ns)
            if fields:
                exchange.add_fields(fields)
        call = self._calls.get(pool.model)
        if call is None:
            call = self._calls[pool.model] = InferenceCall(pool.model, "", "", ())
        pending = PendingCall(call, UNHEARD, PROTOCOL, exchange.request_id, exchange.received_ns, rows=made.rows)
        pending.done = True
        pending.served = pool.served.version
        pending.visit = visit
        exchange.answer_again(made.head, made.body)
        self._pipeline.finished(pending, None, 0, 0, now_ns)
        return True

    def learn(self, exchange: Exchange, pool: VersionPool, json_length: bytes, body: Buffer) -> None:
        """The exchange, whose request had that body, went the long way: where that ended in the cache, the next one
        need not."""
        visit, pending, form = exchange.visit, exchange.pending, exchange.format
        cache = None if visit is None else visit.guard.cache
        if visit is None or cache is None or pending is None or form is None:
            return
        served = pool.served
        if not pending.done or visit.key == BYPASSED or pending.served != served.version:
            return  # it is being computed, or a split chose another version
        entry, now_ns = cache.last_good(visit.key), time.monotonic_ns()
        if entry is None or now_ns >= entry.ends_ns:
            return  # somebody else had to answer
        try:
            head, answer = encode_again(entry.answer(pool.model, served.version), form)
        except HyperionError:
            return  # nor could this one's caller be told: no JSON carries it
        cache.front.keep(
            entry,
            visit.caller.tenant,
            served.digest,
            served.version,
            pool.watch,
            json_length,
            body,
            pending.rows,
            head,
            answer,
            now_ns,
        )
