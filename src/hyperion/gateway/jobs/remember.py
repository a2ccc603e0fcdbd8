"""The parts of a gateway that have control remember things, put together: idempotency keys, and jobs, which run here.

Made by `gateway/process`, which runs its tasks.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

from hyperion.gateway.front.caller import Peer
from hyperion.gateway.front.guard import Guard, Visit
from hyperion.gateway.front.identity import Identities
from hyperion.gateway.http.exchange import Dated, Exchange
from hyperion.gateway.http.jobs import HttpJobs
from hyperion.gateway.jobs.desk import Desk
from hyperion.gateway.jobs.once import Once
from hyperion.gateway.jobs.runner import JobRunner
from hyperion.gateway.limits.limiter import COUNTED, UNCOUNTED
from hyperion.gateway.pipeline import Pipeline
from hyperion.gateway.route import Router
from hyperion.policy.redact import Redaction
from hyperion.schema.job import ClaimedJob
from hyperion.schema.protect import Jobs
from hyperion.telemetry.logs import EventLog

DEFAULT: Final = Jobs()
NOTHING_HIDDEN: Final = Redaction()


class Remembering:
    """`once` is for the edges, `http` for the routes of HTTP. `serve` runs an exchange and never raises."""

    def __init__(
        self,
        socket_path: Path,
        pipeline: Pipeline,
        router: Router,
        identities: Identities,
        serve: Callable[[Exchange], None],
        edge: Dated,
        log: EventLog,
    ) -> None:
        self._router = router
        self._identities = identities
        self._desk = Desk(socket_path)
        self.once: Final = Once(self._desk, log)
        self.http: Final = HttpJobs(pipeline, self._desk, self.once, identities.identify, self.jobs_of)
        self._runner = JobRunner(
            socket_path, self._desk, self.once, serve, self.visit_of, self.redaction_of, edge, time.monotonic_ns, log
        )
        self._fetching: asyncio.Task[None] | None = None

    def start(self) -> "list[asyncio.Task[None]]":
        """Begins what runs for as long as the gateway does."""
        loop = asyncio.get_running_loop()
        work: list[Coroutine[Any, Any, None]] = [self._desk.run(), self.once.keep_leases()]
        return [loop.create_task(one) for one in work]

    def start_jobs(self) -> "asyncio.Task[None]":
        """Begins to run jobs: once the models answer, and not while the first callers wait."""
        self._fetching = asyncio.get_running_loop().create_task(self._runner.run())
        return self._fetching

    def stop_jobs(self) -> None:
        """Takes no more jobs; `drain` waits for those that run."""
        if self._fetching is not None:
            self._fetching.cancel()

    async def drain(self) -> None:
        """Returns when no job runs any more."""
        await self._runner.drain()

    def tenant_of(self, headers: Mapping[bytes, bytes], peer: Peer) -> str:
        """Whose request it is, "" for nobody's. Raises Unauthenticated."""
        return self._identities.identify(headers, peer).tenant

    def jobs_of(self, endpoint: str) -> Jobs:
        """How the endpoint's jobs are worked off."""
        route = self._router.table.models.get(endpoint)
        return DEFAULT if route is None or route.served is None else route.served.protection.jobs

    def redaction_of(self, endpoint: str) -> Redaction:
        """What of the endpoint's values is not kept."""
        route = self._router.table.models.get(endpoint)
        return NOTHING_HIDDEN if route is None else route.default.redaction

    def visit_of(self, job: ClaimedJob) -> Visit | None:
        """The job as a request of its tenant, who was let in when he asked for it; None where the endpoint has no
        guard. All jobs of a tenant are one caller: limits per key hold for them together."""
        route = self._router.table.models.get(job.endpoint)
        guard: Guard | None = None if route is None else route.default.guard
        if guard is None:
            return None
        return Visit(guard, self._identities.for_jobs(job.tenant), COUNTED if job.counted else UNCOUNTED)
