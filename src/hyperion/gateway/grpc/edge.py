"""The gRPC edge: listens, and gives each connection to a server of our own (ADR 0010), with every service it has.

Started by the gateway process beside the HTTP edge. Bytes and connections are in `grpc_connection`, calls in
`grpc_unary` and `grpc_stream_call`, the services in `grpc_calls`, `grpc_stream` and `grpc_health`; what a message is,
`wire` knows.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final

from hyperion.gateway.accept import Acceptor
from hyperion.gateway.grpc.calls import InferenceCalls
from hyperion.gateway.grpc.health import Health, reflect
from hyperion.gateway.grpc.once import GrpcOnce
from hyperion.gateway.grpc.server import DEFAULT_TUNING, GrpcServer, GrpcTuning
from hyperion.gateway.pipeline import Pipeline
from hyperion.gateway.tls import make_tls_context
from hyperion.schema.config import GatewayConfig
from hyperion.schema.errors import InvalidConfig
from hyperion.telemetry.logs import EventLog
from hyperion.wire.grpc.messages import REFLECTION_SERVICES
from hyperion.wire.limits import WireLimits

BACKLOG: Final = 4096


class GrpcEdge:
    """The running edge."""

    def __init__(self, server: GrpcServer, calls: InferenceCalls, health: Health, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self.server = server
        self._calls = calls
        self._health = health
        self._acceptor: Acceptor | None = None

    def accept(self, acceptor: Acceptor) -> None:
        """For `start_grpc`: who brings the connections."""
        self._acceptor = acceptor

    def use(self, context: ssl.SSLContext | None) -> None:
        """Newcomers get this TLS context."""
        assert self._acceptor is not None
        self._acceptor.use(context)

    def keep(self, once: GrpcOnce) -> None:
        """Calls with an idempotency key are this one's."""
        self._calls.once = once

    def readiness_changed(self) -> None:
        """Tells those who watch health at once, rather than at their next look."""
        self._health.changed()

    async def stop(self, grace_s: float) -> None:
        """Takes no new call, lets those that run finish for `grace_s` seconds, then ends the rest."""
        assert self._acceptor is not None
        self._acceptor.close()
        self._health.stop()
        self._calls.drain()
        self.server.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.server.empty.wait()
        self.server.abort()


async def start_grpc(
    pipeline: Pipeline,
    config: GatewayConfig,
    limits: WireLimits,
    log: EventLog,
    tuning: GrpcTuning = DEFAULT_TUNING,
    clock_ns: Callable[[], int] = time.monotonic_ns,
) -> GrpcEdge:
    """Accepts on the inherited socket, or without one listens on `grpc_host`:`grpc_port` (0: any), until `stop`.

    Raises InvalidConfig when it cannot, or when a TLS file cannot be used.
    """
    context = make_tls_context(config, "h2")
    listener = _listen(config)
    server = GrpcServer(pipeline, config, limits, log, tuning)
    health = Health(pipeline, tuning.watch_interval_s)
    calls = InferenceCalls(pipeline, server, limits, clock_ns)
    server.methods = {
        **calls.methods(),
        **health.methods(),
        **{f"/{service}/ServerReflectionInfo".encode(): reflect(server) for service in REFLECTION_SERVICES},
    }
    edge = GrpcEdge(server, calls, health, listener)
    edge.accept(Acceptor(listener, server.make_connection, context, most_per_turn=1))
    return edge


def _listen(config: GatewayConfig) -> socket.socket:
    if config.grpc_fd is not None:
        listener = socket.socket(fileno=os.dup(config.grpc_fd))
        listener.listen(BACKLOG)
        return listener
    host, port = config.grpc_host, config.grpc_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=True)
    except OSError as error:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise InvalidConfig(
            f"gRPC cannot listen on {address}: {error.strerror or error}; choose another --grpc-port"
        ) from None
