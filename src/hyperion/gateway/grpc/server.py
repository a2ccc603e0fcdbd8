"""What the gRPC connections of one worker share: methods, bounds, memory, and who is connected.

Made by `gateway/grpc`.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Final, cast

from msgspec import Struct

from hyperion.gateway.grpc.call import Method
from hyperion.gateway.grpc.connection import GrpcConnection
from hyperion.gateway.grpc.unary import UnaryCall
from hyperion.gateway.http.large_body import BodyMemory
from hyperion.gateway.pipeline import Pipeline
from hyperion.gateway.unread import choose_unread
from hyperion.schema.call import Buffer
from hyperion.schema.config import GatewayConfig
from hyperion.schema.errors import HyperionError, InternalError, UnknownRoute
from hyperion.telemetry.logs import EventLog
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip.grpc_known import InferCodec

MIB: Final = 1 << 20
LOOK_S: Final = 1.0
PROTOCOL: Final = "grpc"


class GrpcTuning(Struct, frozen=True):
    """What a client may ask of the transport. The defaults are right for nearly everyone.

    Streams are HTTP/2's: calls at the same time on one connection; `max_calls` is for all connections. `inflight` and
    `backlog_bytes` bound one ModelStreamInfer: requests without an answer, and partial answers that wait to be read.
    A client that says nothing for `keepalive_s` is asked if it is there, and has `keepalive_timeout_s` to answer.
    """

    max_streams: int = 1024
    max_calls: int = 8192
    inflight: int = 64
    backlog_bytes: int = 16 * MIB
    handshake_timeout_s: float = 10.0
    keepalive_s: float = 60.0
    keepalive_timeout_s: float = 20.0
    watch_interval_s: float = 1.0


DEFAULT_TUNING: Final = GrpcTuning()


class GrpcServer:
    """The state of one worker's gRPC edge. `methods` is by path."""

    def __init__(
        self,
        pipeline: Pipeline,
        config: GatewayConfig,
        limits: WireLimits,
        log: EventLog,
        tuning: GrpcTuning,
    ) -> None:
        self.tuning = tuning
        self.limits = limits
        self.methods: Mapping[bytes, Method] = {}
        self.unknown = Method(self._refuse_unknown)
        self.new_request_id = pipeline.new_request_id
        self.connections: set[GrpcConnection] = set()
        self.max_connections = config.max_connections
        self.body_timeout_s = config.body_timeout_s
        self.running = 0
        self.buffered_bytes = 0
        self.memory = BodyMemory()
        self.codec = InferCodec(limits)
        self.draining = False
        self.empty = asyncio.Event()
        self._pipeline = pipeline
        self._log = log
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def make_connection(self) -> asyncio.Protocol:
        """For the acceptor."""
        return cast(asyncio.Protocol, GrpcConnection(self))

    def forget(self, connection: GrpcConnection) -> None:
        """A connection has ended."""
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self.empty.set()

    def record_refusal(self, call: UnaryCall, error: HyperionError) -> None:
        """An inference ended at the edge."""
        self._pipeline.refused(PROTOCOL, "", call.request_id, call.received_ns, error)

    def as_refusal(self, error: Exception, request_id: str) -> HyperionError:
        """The error for the caller; one that is not ours to begin with goes to the log."""
        if isinstance(error, HyperionError):
            return error
        self._log.write("error", "gRPC handler failed", request_id=request_id, error=f"{type(error).__name__}: {error}")
        return InternalError("internal error")

    def drain(self) -> None:
        """Lets every connection end with the calls that it has."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.drain()
        if not self.connections:
            self.empty.set()

    def abort(self) -> None:
        """Ends what is left."""
        self._timer.cancel()
        for connection in tuple(self.connections):
            connection.end()

    def _refuse_unknown(self, call: UnaryCall, _message: Buffer) -> None:
        call.fail(self.no_such_method(call.head.path))

    @staticmethod
    def no_such_method(path: bytes) -> UnknownRoute:
        """The error for a path that no service has."""
        return UnknownRoute(f'method "{path[:128].decode("latin-1")}" is not implemented here')

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        now_s = time.monotonic()
        for connection in tuple(self.connections):
            connection.look_at_time(now_s)
        for unread in choose_unread(self.connections):
            unread.abort()
