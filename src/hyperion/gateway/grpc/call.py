"""What every gRPC call has between its HTTP/2 stream and whoever serves it: its head, its messages, its end.

The two kinds are in `grpc_unary` and `grpc_stream_call`.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from hyperion.gateway.grpc.metadata import CallHead
from hyperion.gateway.http.inflate import inflate
from hyperion.schema.call import Buffer
from hyperion.schema.errors import (
    HyperionError,
    MalformedRequest,
    Overloaded,
)
from hyperion.wire.grpc.framing import (
    Message,
    MessageReader,
)
from hyperion.wire.http2.stream import Stream

if TYPE_CHECKING:
    from hyperion.gateway.grpc.connection import GrpcConnection
    from hyperion.gateway.grpc.stream_call import StreamCall
    from hyperion.gateway.grpc.unary import UnaryCall

MAX_BUFFERED_BYTES: Final = 2 << 30  # messages that are still arriving, over all connections
MAX_CONNECTION_BYTES: Final = 512 << 20  # and of one connection


class Method(Struct, frozen=True):
    """How a method is served: `serve(call, message)` for a unary one, `run(call)` for one that streams. `counted`: it
    is one of those whose number is bounded."""

    serve: Callable[["UnaryCall", Buffer], None] | None = None
    run: Callable[["StreamCall"], Awaitable[None]] | None = None
    counted: bool = False


class Call:
    """What both kinds have in common: how they end."""

    __slots__ = (
        "connection",
        "counted",
        "head",
        "held_bytes",
        "method",
        "over",
        "progress",
        "reader",
        "request_id",
        "stream",
    )

    def __init__(self, connection: "GrpcConnection", stream: Stream, method: Method) -> None:
        server = connection.server
        head: CallHead = stream.head
        self.connection = connection
        self.stream = stream
        self.method = method
        self.head = head
        self.request_id = head.request_id or server.new_request_id()
        self.reader: MessageReader | None = None
        self.held_bytes = 0
        self.over = False
        self.progress = (0, stream.opened_s)
        if method.counted:
            server.running += 1

    def _check(self) -> HyperionError | None:
        """What is wrong with the call before its first message."""
        if self.head.refusal is not None:
            return self.head.refusal
        server = self.connection.server
        if self.method.counted and server.running > server.tuning.max_calls:
            # HTTP/2's own limit would say neither why nor for how long.
            return Overloaded(f"{server.tuning.max_calls} calls are open on this server", retry_after_s=1.0)
        return None

    def _read(self, data: Buffer, kept_bytes: int) -> list[Message]:
        """The messages that are there whole with `data`; `kept_bytes` are those of earlier ones that are kept. Raises
        HyperionError."""
        server, connection = self.connection.server, self.connection
        if self.reader is None:
            self.reader = MessageReader(server.limits.max_body_bytes, server.memory.take)
        messages = self.reader.feed(data)
        self._hold(kept_bytes + sum([len(message.data) for message in messages]) + self.reader.held_bytes)
        if server.buffered_bytes > MAX_BUFFERED_BYTES or connection.buffered_bytes > MAX_CONNECTION_BYTES:
            raise Overloaded("too many bytes of unfinished requests are held", retry_after_s=1.0)
        return messages

    def _hold(self, held_bytes: int) -> None:
        change = held_bytes - self.held_bytes
        self.held_bytes = held_bytes
        self.connection.buffered_bytes += change
        self.connection.server.buffered_bytes += change

    def _plain(self, message: Message) -> Buffer:
        """The bytes of a message, inflated if need be. Raises HyperionError."""
        if not message.compressed:
            return message.data
        encoding = self.head.encoding
        if encoding in (b"", b"identity"):
            raise MalformedRequest("a message is compressed, but grpc-encoding does not say how")
        return inflate(message.data, encoding, self.connection.server.limits.max_body_bytes)

    def _moves(self, now_s: float, timeout_s: float) -> bool:
        """If a little more of the request has come within the time."""
        received_bytes, since_s = self.progress
        if self.stream.received_bytes != received_bytes:
            self.progress = (self.stream.received_bytes, now_s)
            return True
        return now_s - since_s <= timeout_s

    def _end(self) -> None:
        """Counts the call no more. Called once, however it ends."""
        self.over = True
        if self.held_bytes:
            self._hold(0)
        self.reader = None
        self.stream.owner = None
        if self.method.counted:
            self.connection.server.running -= 1
