"""The one pipeline that every protocol uses: find the model, check the call, admit it, hand it to its pool, record the
end.

Called by the edges (`gateway/http*`, `gateway/grpc`). Sees no protocol but its name. Never here: bytes, sockets.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from hyperion.gateway.admit import admit
from hyperion.gateway.front.caller import ANONYMOUS, UNKNOWN_PEER, Caller, Peer
from hyperion.gateway.front.door import Door
from hyperion.gateway.front.guard import Visit
from hyperion.gateway.front.listing import Listing
from hyperion.gateway.pending import NO_HEADERS, SHADOW, UNHEARD, PendingCall, Reply
from hyperion.gateway.pool import VersionPool
from hyperion.gateway.room import overloaded, refusal_of
from hyperion.gateway.route import Router
from hyperion.schema.call import InferenceCall
from hyperion.schema.errors import HyperionError, NotReady, Overloaded
from hyperion.schema.events import BatchRecord, RequestRecord
from hyperion.schema.snapshot import ServedVersion
from hyperion.telemetry.logs import EventLog
from hyperion.telemetry.metrics import OTHER, Metrics

OK: Final = "ok"
SHED: Final = frozenset(("overloaded", "not_ready", "rate_limited", "deadline_exceeded"))
ID_ENDS: Final = tuple([f"{n:03x}" for n in range(4096)])  # formatting a number costs more than the rest of an id

ChangeModel = Callable[[str, Mapping[str, Any] | None], Awaitable[None]]


class Pipeline:
    """`statuses[protocol][error code or "ok"]` is what metrics show as the code; `change_model(name, parameters)`
    loads, or with None unloads, a model and returns when that is done. `door` knows who may ask what is no
    inference."""

    def __init__(
        self,
        router: Router,
        statuses: Mapping[str, Mapping[str, str]],
        change_model: ChangeModel,
        metrics: Metrics,
        log: EventLog,
        id_prefix: str,
        access_log: bool = False,
        door: Door | None = None,
    ) -> None:
        self._router = router
        self._statuses = statuses
        self._change_model = change_model
        self._metrics = metrics
        self._log = log
        self._door = door
        self.listing: Final = Listing(router, door)
        if door is not None:
            door.finished = self.finished
        self.access_log = access_log
        self._id_prefix = id_prefix
        self._id_block = 0
        self._id_start = f"{id_prefix}0"
        self._id_index = 0
        self.resting = False  # nobody looks at deadlines: the next call has to rouse him who does
        self.rouse: Callable[[], None] = _nobody
        self.starting = False  # an edge does not listen yet
        self.leaving = False  # nobody new is let in; who is there is still answered
        self.draining = False  # not any more

    # --- calls ---

    def new_request_id(self) -> str:
        """Unique across processes and restarts: a random prefix per process and a counter in base 16."""
        index = self._id_index
        if index == len(ID_ENDS):
            self._id_block += 1
            self._id_start = f"{self._id_prefix}{self._id_block:x}"
            index = 0
        self._id_index = index + 1
        return self._id_start + ID_ENDS[index]

    def find(
        self, model: str, version: str, headers: Mapping[bytes, bytes] | None = None, peer: Peer = UNKNOWN_PEER
    ) -> VersionPool:
        """The pool that will answer; ask once per request, as a split may draw lots. `headers` are the caller's, to
        which an assignment may stick. Raises UnknownModel or NotReady."""
        try:
            pool = self._router.table.choose(model, version, headers)
        except HyperionError:
            self.check_right("", headers or NO_HEADERS, peer)  # who shows nothing learns nothing of what is served
            self.listing.check(model, headers or NO_HEADERS, peer)
            raise
        if self.draining:
            raise NotReady("the gateway is shutting down; send the request again", retry_after_s=1.0)
        return pool

    def check_right(self, scope: str, headers: Mapping[bytes, bytes], peer: Peer) -> None:
        """For questions and commands that are no inference. Raises Unauthenticated, or Forbidden without the scope."""
        if self._door is not None:
            self._door.check(scope, headers, peer)

    def check_queue(
        self, pool: VersionPool, timeout_ns: int, received_ns: int, priority: int, visit: Visit | None
    ) -> None:
        """For a pool with a backlog, before a body is decoded: raises Overloaded if the answer would come too late for
        the caller's `timeout_ns` (0: the endpoint's). `priority` is the transport's; a body can only lower it."""
        budget_ns = pool.deadline_ns
        if timeout_ns and timeout_ns < budget_ns:
            budget_ns = timeout_ns
        caller = ANONYMOUS if visit is None else visit.caller
        priority = max(priority, caller.record.priority)
        reason = refusal_of(pool, priority, caller, 1, received_ns + budget_ns - time.monotonic_ns())
        if reason:
            raise overloaded(pool, reason)

    def submit(
        self,
        call: InferenceCall,
        reply: Reply,
        *,
        protocol: str,
        request_id: str,
        received_ns: int,
        stream: bool = False,
        timeout_ns: int = 0,
        priority: int | None = None,
        pool: VersionPool | None = None,
        visit: Visit | None = None,
        headers: Mapping[bytes, bytes] | None = None,
        peer: Peer = UNKNOWN_PEER,
    ) -> PendingCall:
        """Takes one decoded call. Never raises: a refusal goes to `reply.fail`, maybe before this returns.

        `pool` and `visit` are what `find` and `enter` gave, where the edge asked already; where not, `headers` and
        `peer` are for them. `timeout_ns` and `priority` are the transport's (header, gRPC deadline); the shorter
        timeout of transport, call and endpoint holds.
        """
        if self.resting:
            self.resting = False
            self.rouse()
        pending = PendingCall(call, reply, protocol, request_id, received_ns, 0, 0, 0, stream)
        if priority is not None:
            pending.priority = priority
        try:
            if pool is None:
                pool = self.find(call.model, call.version, headers, peer)
                if pool.guard is not None:
                    visit = pool.guard.enter(headers or NO_HEADERS, peer)
            if visit is not None:
                pending.visit = visit
                call = visit.check(pending, pool)
            watch = pool.watch
            if watch is None:
                pending.served = pool.served.version
                admit(pool, pending, timeout_ns)
            else:
                pool = watch.settle_on(call, pool)
                pending.served = pool.served.version
                admit(pool, pending, timeout_ns)
                pending.tally = watch.tally_of(call, pool)
            if visit is not None and visit.begin(pending, pool):
                return pending
        except HyperionError as error:
            if (
                visit is not None
                and pool is not None
                and isinstance(error, Overloaded)
                and visit.rescues(pending, pool, error)
            ):
                return pending
            pending.done = True
            pending.reply = UNHEARD
            if pool is None:
                self.refused(protocol, call.model, request_id, received_ns, error)
            else:
                self.finished(pending, error, 0, 0, time.monotonic_ns())
            reply.fail(error)
            return pending
        pool.enqueue(pending)
        return pending

    def refused(
        self,
        protocol: str,
        model: str,
        request_id: str,
        received_ns: int,
        error: HyperionError,
        caller: Caller = ANONYMOUS,
    ) -> None:
        """Records a request that ended at the edge: it could not be decoded, or `find` refused it."""
        known = model if model in self._router.table.models else OTHER
        self._record(known, OTHER, protocol, request_id, time.monotonic_ns() - received_ns, error, 0, 0, 0, caller)

    def refused_again(self, protocol: str, model: str) -> None:
        """Counts a request that ended as an earlier one did which was refused as `Overloaded`."""
        status = self._statuses[protocol][Overloaded.code]
        self._metrics.record(RequestRecord("", model, OTHER, protocol, status, 0))
        self._metrics.count_shed(Overloaded.code)

    def finished(
        self, pending: PendingCall, error: HyperionError | None, queue_ns: int, compute_ns: int, now_ns: int
    ) -> None:
        """For the pools: one call has ended. Those that a batch answered have been counted by then."""
        if pending.tally is not None and (error is not None or pending.stream):
            pending.tally.ended(pending, error, now_ns - pending.received_ns)
        if pending.visit is not None:
            pending.visit.ended(pending, error, now_ns)
        if pending.protocol == SHADOW:
            return
        self._record(
            *self._labels_of(pending),
            pending.protocol,
            pending.request_id,
            now_ns - pending.received_ns,
            error,
            queue_ns,
            compute_ns,
            pending.rows,
            pending.caller,
        )

    def batch_done(
        self, pool: VersionPool, rows: int, answered: list[PendingCall], formed_ns: int, back_ns: int, compute_ns: int
    ) -> None:
        """For the pools: a batch of `rows` rows came back and has answered these calls."""
        protocol = answered[0].protocol if answered else ""
        for pending in answered:
            if pending.protocol != protocol or self.access_log:
                for each in answered:
                    self.finished(each, None, formed_ns - each.received_ns, compute_ns, back_ns)
                answered = []
                break
        for pending in answered:
            if pending.visit is not None:  # be the endpoint's guard gone by now or not
                pending.visit.ended(pending, None, back_ns)
        if protocol == SHADOW:
            answered = []
        self._metrics.record_batch(
            BatchRecord(
                pool.model,
                pool.served.version,
                rows,
                compute_ns,
                formed_ns,
                back_ns,
                protocol,
                self._statuses[protocol][OK] if answered else OK,
                [pending.received_ns for pending in answered],
            )
        )

    def _labels_of(self, pending: PendingCall) -> tuple[str, str]:
        """Model and version as metrics show them; `other` for what is not served."""
        model = pending.call.model
        if model not in self._router.table.models or not pending.served:
            return OTHER, OTHER
        return model, pending.served

    def _record(
        self,
        model: str,
        version: str,
        protocol: str,
        request_id: str,
        total_ns: int,
        error: HyperionError | None,
        queue_ns: int,
        compute_ns: int,
        rows: int,
        caller: Caller,
    ) -> None:
        """The only place where a finished request becomes metrics and a log line."""
        code = error.code if error is not None else OK
        status = self._statuses[protocol][code]
        message = ""
        if error is not None:
            route = self._router.table.any_route(model) if self.access_log else None
            message = error.message if route is None else route.default.redaction.refusal(code, error.message)
        record = RequestRecord(
            request_id,
            model,
            version,
            protocol,
            status,
            total_ns,
            queue_ns,
            compute_ns,
            rows,
            message,
            caller.tenant,
            caller.key,
        )
        self._metrics.record(record)
        if error is not None and code in SHED:
            self._metrics.count_shed(code)
        if self.access_log or (error is not None and error.blame != "caller" and code not in SHED):
            self._log.request(record)

    # --- questions ---

    def is_ready(self) -> bool:
        """Whether every edge listens and the models are ready."""
        return not (self.starting or self.leaving or self.draining) and self.are_models_ready()

    def are_models_ready(self) -> bool:
        """Whether a snapshot is there, nothing is being loaded for the first time, and every model served has a replica
        that answers."""
        table = self._router.table
        loading = any(row.state == "LOADING" and row.name not in table.models for row in table.index)
        return bool(table.version) and not loading and all(pool.ready or pool.remote for pool in table.pools())

    def is_model_ready(self, model: str, version: str) -> bool:
        """Whether a replica of the version answers. Raises UnknownModel."""
        try:
            return self._router.table.find(model, version).ready
        except NotReady:
            return False

    def show(
        self, model: str, version: str, headers: Mapping[bytes, bytes], peer: Peer
    ) -> tuple[ServedVersion, tuple[str, ...]]:
        """As `describe`, for a caller. Raises Unauthenticated and Forbidden, too."""
        self.listing.check(model, headers, peer)
        return self.describe(model, version)

    def describe(self, model: str, version: str) -> tuple[ServedVersion, tuple[str, ...]]:
        """The version as it is served, and the names of all versions. Raises UnknownModel, NotReady."""
        table = self._router.table
        pool = table.find(model, version)
        return pool.served, tuple(table.models[model].versions)

    def models(self) -> tuple[str, ...]:
        """Names of the models that are served."""
        return tuple(self._router.table.models)

    async def load(self, model: str, parameters: Mapping[str, Any]) -> None:
        """Loads a model, or loads it again; returns when it serves. Raises HyperionError."""
        await self._change_model(model, parameters)

    async def unload(self, model: str) -> None:
        """Unloads a model. Raises HyperionError."""
        await self._change_model(model, None)

    def look_at_deadlines(self) -> None:
        """Ends the calls whose deadline has passed, and counts what has ended. Called every few milliseconds."""
        now_ns = time.monotonic_ns()
        if self._door is not None:
            self._door.look_at_deadlines(now_ns)
        for pool in self._router.all_pools():
            pool.look_at_deadlines(now_ns)
        self._metrics.settle()

    def is_idle(self) -> bool:
        """Whether `look_at_deadlines` can wait until a call comes."""
        if self._door is not None and not self._door.is_idle():
            return False
        return all(pool.is_idle() for pool in self._router.all_pools())

    def gauges(self) -> dict[str, dict[tuple[str, ...], float]]:
        """What stands now, for the metrics."""
        queued: dict[tuple[str, ...], float] = {}
        inflight: dict[tuple[str, ...], float] = {}
        replicas: dict[tuple[str, ...], float] = {}
        breakers: dict[tuple[str, ...], float] = {}
        brownouts: dict[tuple[str, ...], float] = {}
        for pool in self._router.table.pools():
            key = (pool.model, pool.served.version)
            state = pool.queue_state()
            queued[key] = state.queued_rows
            inflight[key] = state.running_rows
            brownouts[key] = pool.brownout
            replicas[(*key, "ready")] = state.replicas
            replicas[(*key, "unready")] = len(pool.served.replicas) - state.replicas
            for name, value in pool.breaker_states().items():
                breakers[(*key, name)] = value
        return {
            "hyperion_queue_depth": queued,
            "hyperion_inflight": inflight,
            "hyperion_replicas": replicas,
            "hyperion_breaker_state": breakers,
            "hyperion_brownout": brownouts,
            "hyperion_snapshot_version": {(): self._router.table.version},
        }


def _nobody() -> None:
    """Nobody looks at deadlines yet."""
