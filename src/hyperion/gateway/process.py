"""The gateway process from start to exit: wires the edges, the pipeline and the link, then serves until SIGTERM.

Called by `cli/process`. On SIGTERM it stops accepting, answers what it has, and leaves within `drain_s`.
"""

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from hyperion.gateway.accept import Acceptor
from hyperion.gateway.front.door import Door
from hyperion.gateway.front.identity import Identities
from hyperion.gateway.http.edge import HttpEdge
from hyperion.gateway.http.routes import HttpRoutes
from hyperion.gateway.http.status import CODES
from hyperion.gateway.jobs.remember import Remembering
from hyperion.gateway.limits.book import LimitBook
from hyperion.gateway.link import ControlLink
from hyperion.gateway.pipeline import Pipeline
from hyperion.gateway.pool import VersionPool
from hyperion.gateway.pools import make_pool
from hyperion.gateway.release.counts import Counts
from hyperion.gateway.release.report import Reporter
from hyperion.gateway.route import Router
from hyperion.gateway.setting import PoolSetting
from hyperion.gateway.siblings import Siblings, socket_of
from hyperion.gateway.tls import TlsFiles, make_tls_context
from hyperion.schema.config import GatewayConfig
from hyperion.schema.errors import InvalidConfig
from hyperion.schema.snapshot import ServedVersion
from hyperion.telemetry.logs import EventLog, Format
from hyperion.telemetry.metrics import Metrics
from hyperion.wire.limits import WireLimits

if TYPE_CHECKING:
    from hyperion.gateway.grpc.edge import GrpcEdge

DEADLINE_LOOK_S: Final = 0.01
IDLE_LOOKS: Final = 100  # so many in a row find nothing: then the next call is waited for
REST_S: Final = 1.0
GIVE_WAY_S: Final = 1.5  # how long what takes a while to import lets the first model go first
FIRST_CALLER_S: Final = 0.05  # and then the caller who waits for it
BACKLOG: Final = 4096
MIN_SLOT_BYTES: Final = 64 << 20
TLS_LOOK_S: Final = 1.0


def run(config: GatewayConfig, notify: Callable[[str], None]) -> int:
    """Serves until SIGTERM; returns the exit code. `notify` takes `READY=1` once every edge listens."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Gateway(config, notify).run())


class Gateway:
    """One worker."""

    def __init__(self, config: GatewayConfig, notify: Callable[[str], None]) -> None:
        self._config = config
        self._notify = notify
        form: Format = "text" if config.log_format == "text" else "json"
        self._log = EventLog(f"gateway {config.worker}", form)
        self._metrics = Metrics()
        self._counts = Counts()
        leases = bool(config.redis_url)
        self._book = LimitBook(config.workers, leases, config.requests_per_second, config.concurrency)
        identities = Identities(config.trusted_proxies, unknown_key=lambda issuer: self._link.tell_unknown_key(issuer))
        identities.starting = True
        self._door = door = Door(identities, self._book, config.require_auth, redis_url=config.redis_url)
        self._metrics.add_counters(door.counters)
        self._router = Router(self._make_pool, self._log, self._counts, door=door)
        run_dir, home = Path(config.run_dir), Path(config.home)
        self._siblings = Siblings(run_dir, config.worker, config.workers, self._metrics)
        self._link = ControlLink(
            run_dir / "control.sock",
            home / "snapshot.json",
            config.worker,
            self._router.apply,
            self._router.draining,
            self._log,
            lambda: self._router.rejected,
        )
        self._router.drained = self._link.tell_drained
        self._reporter = Reporter(
            run_dir / "control.sock", config.worker, self._counts, self._metrics.count_dropped, self._book
        )
        from hyperion.gateway.grpc.status import CODES as GRPC_CODES

        self._pipeline = Pipeline(
            self._router,
            {"http": CODES, "grpc": GRPC_CODES},
            self._link.change_model,
            self._metrics,
            self._log,
            secrets.token_hex(5) + "-",
            config.access_log,
            door,
        )
        self._pipeline.starting = True
        self._setting = PoolSetting(
            config.queue_rows,
            max(MIN_SLOT_BYTES, config.max_body_bytes) + (1 << 20),
            self._pipeline.finished,
            self._pipeline.batch_done,
            self._log,
            self._router.find_any,
            config.credential_dirs,
        )
        self._metrics.add_counters(self._setting.graphs.counters)
        self._metrics.add_gauges(self._pipeline.gauges)
        self._answering = asyncio.Event()  # every model does, for the first time
        self._limits = WireLimits(max_body_bytes=config.max_body_bytes)
        routes = HttpRoutes(self._pipeline, self._limits, self._siblings.scrape, self._log)
        self._edge = HttpEdge(
            config, routes.serve, self._pipeline.new_request_id, routes.record_refusal, routes.refusals
        )
        self._remembering = Remembering(
            run_dir / "control.sock", self._pipeline, self._router, identities, routes.serve, self._edge, self._log
        )
        routes.jobs = self._remembering.http
        self._metrics.add_gauges(lambda: {"hyperion_connections": {(): float(len(self._edge.connections))}})

    def _make_pool(self, model: str, served: ServedVersion) -> VersionPool:
        return make_pool(model, served, self._setting)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        leaving = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, leaving.set)
        await self._link.restore()
        tasks = [
            loop.create_task(self._link.follow()),
            loop.create_task(self._look_at_deadlines()),
            loop.create_task(self._tick()),
            loop.create_task(self._reporter.run()),
            *self._share_limits(loop),
            *self._remembering.start(),
        ]
        path = socket_of(Path(self._config.run_dir), self._config.worker)
        path.unlink(missing_ok=True)
        siblings = await asyncio.start_unix_server(self._siblings.answer, str(path))
        acceptor = self._listen()
        await self._give_way(leaving)
        await asyncio.to_thread(_import_slow, self._config)
        grpc = await self._start_grpc()
        if self._config.tls_cert:
            tasks.append(loop.create_task(self._follow_tls(acceptor, grpc)))
        self._pipeline.starting = False
        tasks.append(self._remembering.start_jobs())
        self._notify("READY=1")
        # What was made by now lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        watch = loop.create_task(_first_to_end(tasks))
        await asyncio.wait([watch, loop.create_task(leaving.wait())], return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            self._log.write("error", "a background task ended", error=str(watch.result()))
            return 1
        self._remembering.stop_jobs()
        await self._drain(acceptor, grpc)
        siblings.close()
        for task in tasks:
            task.cancel()
        self._router.close()
        await self._door.close()
        await asyncio.sleep(0)  # lets the closed connections say good-bye
        return 0

    def _share_limits(self, loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[None]]:
        if not self._config.redis_url:
            return []
        from hyperion.gateway.limits.shared import SharedLimits

        shared = SharedLimits(self._config.redis_url, self._book, self._log)
        self._metrics.add_gauges(shared.gauges)
        self._metrics.add_counters(shared.counters)
        return [loop.create_task(shared.run())]

    def _listen(self) -> Acceptor:
        config = self._config
        if config.http_fd is not None:
            listener = socket.socket(fileno=os.dup(config.http_fd))
        else:
            family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
            listener = socket.create_server((config.host, config.port), family=family, backlog=BACKLOG, reuse_port=True)
        listener.listen(BACKLOG)
        return Acceptor(listener, self._edge.make_connection, make_tls_context(config, "http/1.1"))

    async def _start_grpc(self) -> "GrpcEdge | None":
        if not self._config.grpc_port:
            return None
        from hyperion.gateway.grpc.edge import start_grpc
        from hyperion.gateway.grpc.once import GrpcOnce

        edge = await start_grpc(self._pipeline, self._config, self._limits, self._log)
        once, tenant_of = self._remembering.once, self._remembering.tenant_of
        edge.keep(GrpcOnce(self._pipeline, edge.server, once, tenant_of))
        return edge

    async def _give_way(self, leaving: asyncio.Event) -> None:
        """Returns when the models answer, or are not worth waiting for any more. HTTP answers meanwhile, but nobody is
        told that this worker is ready."""
        waits = [asyncio.ensure_future(event.wait()) for event in (leaving, self._answering)]
        await asyncio.wait(waits, timeout=GIVE_WAY_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.sleep(FIRST_CALLER_S)

    async def _look_at_deadlines(self) -> None:
        called = asyncio.Event()
        self._pipeline.rouse = called.set
        idle = 0
        while True:
            await asyncio.sleep(DEADLINE_LOOK_S)
            self._pipeline.look_at_deadlines()
            self._counts.settle()
            if not self._answering.is_set() and self._pipeline.are_models_ready():
                self._answering.set()
            idle = 0 if self._pipeline.starting or not self._pipeline.is_idle() else idle + 1
            if idle >= IDLE_LOOKS:
                idle = await self._rest(called)

    async def _rest(self, called: asyncio.Event) -> int:
        """Waits for a call, a second at most. Returns how many idle looks that is worth: none, if one came."""
        called.clear()
        self._pipeline.resting = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REST_S):
                await called.wait()
        self._pipeline.resting = False
        return 0 if called.is_set() else IDLE_LOOKS

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._edge.tick(time.monotonic())
            if self._metrics.crowded:
                self._metrics.forget({(pool.model, pool.served.version) for pool in self._router.all_pools()})

    async def _follow_tls(self, acceptor: Acceptor, grpc: "GrpcEdge | None") -> None:
        """Gives newcomers the certificates that lie there now. Files that do not fit together change nothing."""
        files = TlsFiles(self._config)
        while True:
            await asyncio.sleep(TLS_LOOK_S)
            if not files.have_changed():
                continue
            try:
                http = await asyncio.to_thread(make_tls_context, self._config, "http/1.1")
                h2 = await asyncio.to_thread(make_tls_context, self._config, "h2")
            except InvalidConfig as error:
                self._log.write("error", "new TLS files not taken; the old ones stay", error=error.message)
                continue
            acceptor.use(http)
            if grpc is not None:
                grpc.use(h2)
            self._log.write("info", "TLS files taken anew")

    async def _drain(self, acceptor: Acceptor, grpc: "GrpcEdge | None") -> None:
        """Stops accepting, lets every open request end, within `drain_s`."""
        self._pipeline.leaving = True
        acceptor.close()
        self._edge.drain()
        ends_s = asyncio.get_running_loop().time() + self._config.drain_s
        if grpc is not None:
            await grpc.stop(self._config.drain_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(ends_s):
                await self._edge.empty.wait()
                await self._remembering.drain()
        self._pipeline.draining = True


def _import_slow(config: GatewayConfig) -> None:
    """Imports what the first small requests do without, and would wait for."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy starts a thread per core for matrices; here are none
    import_module("numpy")
    if config.grpc_port:
        import_module("hyperion.gateway.grpc.edge")


async def _first_to_end(tasks: list[asyncio.Task[None]]) -> BaseException | None:
    done, _rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return next(iter(done)).exception()
