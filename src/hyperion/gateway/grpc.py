"""The gRPC edge: starts a server of `grpc.aio` on the gateway's own event loop, with every service it has.

Started by the gateway process beside the HTTP edge. The handlers are in `grpc_calls`, `grpc_stream` and `grpc_health`;
they take and give bytes: what a message is, `wire` knows.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc
from msgspec import Struct

from hyperion.gateway.grpc_calls import CallLimits, InferenceCalls
from hyperion.gateway.grpc_health import Health, health_handler, reflection_handlers
from hyperion.gateway.pipeline import Pipeline
from hyperion.schema.config import GatewayConfig
from hyperion.schema.errors import InvalidConfig
from hyperion.telemetry.logs import EventLog
from hyperion.wire.limits import WireLimits

MIB: Final = 1 << 20


class GrpcTuning(Struct, frozen=True):
    """What a client may ask of the transport. The defaults are right for nearly everyone.

    Streams are HTTP/2's: calls at the same time on one connection; `max_calls` is for all connections. `inflight` and
    `backlog_bytes` bound one ModelStreamInfer: requests without an answer, and partial answers that wait to be read.
    Clients that ping more often than `min_ping_interval_s` are disconnected.
    """

    max_metadata_bytes: int = 16 * 1024
    max_streams: int = 1024
    max_calls: int = 8192
    inflight: int = 64
    backlog_bytes: int = 16 * MIB
    handshake_timeout_s: float = 10.0
    keepalive_s: float = 60.0
    keepalive_timeout_s: float = 20.0
    min_ping_interval_s: float = 10.0
    watch_interval_s: float = 1.0


DEFAULT_TUNING: Final = GrpcTuning()


class GrpcEdge:
    """The running edge."""

    def __init__(self, server: Any, calls: InferenceCalls, health: Health, port: int) -> None:
        self._server = server
        self._calls = calls
        self._health = health
        self.port = port

    def readiness_changed(self) -> None:
        """Tells those who watch health at once, rather than at their next look."""
        self._health.changed()

    async def stop(self, grace_s: float) -> None:
        """Takes no new call, lets those that run finish for `grace_s` seconds, then ends the rest."""
        self._health.stop()
        self._calls.drain()
        await self._server.stop(grace_s)


async def start_grpc(
    pipeline: Pipeline,
    config: GatewayConfig,
    limits: WireLimits,
    log: EventLog,
    tuning: GrpcTuning = DEFAULT_TUNING,
    clock_ns: Callable[[], int] = time.monotonic_ns,
) -> GrpcEdge:
    """Listens on `grpc_host`:`grpc_port` (0: any; workers share it through SO_REUSEPORT) until `stop`.

    Raises InvalidConfig when it cannot, or when a TLS file cannot be used.
    """
    health = Health(pipeline, tuning.watch_interval_s)
    calls = InferenceCalls(
        pipeline, limits, CallLimits(tuning.max_calls, tuning.inflight, tuning.backlog_bytes), log, clock_ns
    )
    credentials = _credentials(config)
    server = grpc.aio.server(options=_options(tuning, limits))
    server.add_generic_rpc_handlers((calls.handler(), health_handler(health), *reflection_handlers()))
    host = f"[{config.grpc_host}]" if ":" in config.grpc_host else config.grpc_host
    address = f"{host}:{config.grpc_port}"
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError:
        raise InvalidConfig(
            f"gRPC cannot listen on {address}: is it in use, or the TLS key not that of the certificate? "
            "Choose another --grpc-port, or check the TLS files"
        ) from None
    await server.start()
    return GrpcEdge(server, calls, health, port)


def _options(tuning: GrpcTuning, limits: WireLimits) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", limits.max_body_bytes),
        ("grpc.max_send_message_length", -1),  # answers are as long as the model makes them
        ("grpc.max_metadata_size", tuning.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", tuning.max_metadata_bytes),
        ("grpc.max_concurrent_streams", tuning.max_streams),
        ("grpc.server_handshake_timeout_ms", int(tuning.handshake_timeout_s * 1000)),
        ("grpc.keepalive_time_ms", int(tuning.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(tuning.keepalive_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", int(tuning.min_ping_interval_s * 1000)),
    ]


def _credentials(config: GatewayConfig) -> grpc.ServerCredentials | None:
    """TLS as configured, None for none. With `tls_client_ca` a client must show a certificate of that authority."""
    if config.tls_cert is None or config.tls_key is None:
        return None
    client_ca = _read(config.tls_client_ca) if config.tls_client_ca is not None else None
    return grpc.ssl_server_credentials(
        [(_read(config.tls_key), _read(config.tls_cert))],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidConfig(f"TLS file {path} cannot be read: {error.strerror}") from None
