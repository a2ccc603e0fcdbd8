"""A gRPC call with any number of messages either way, served by a coroutine, which reads and writes them at the pace of
its client. Made by `gateway/grpc/connection`.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from hyperion.gateway.grpc.call import Call, Method
from hyperion.gateway.grpc.status import CODES, details_of, error_metadata
from hyperion.schema.call import Buffer
from hyperion.schema.errors import (
    ClientTooSlow,
    DeadlineExceeded,
    HyperionError,
    MalformedRequest,
    NotReady,
)
from hyperion.wire.grpc.framing import (
    ANSWER_HEAD,
    OK_FIELD,
    Message,
    frame_message,
    status_block,
)
from hyperion.wire.http2.stream import Stream

if TYPE_CHECKING:
    from hyperion.gateway.grpc.connection import GrpcConnection

ROOM_BYTES: Final = 64 << 10  # a stream writes its next message while less than this waits for its client
AHEAD: Final = 16  # messages of a stream that are kept until somebody reads them; then its window stays closed


class StreamCall(Call):
    """A call with any number of messages either way."""

    __slots__ = ("_expiry", "_messages", "_reading", "_room", "_started", "_task", "received_ns")

    def __init__(self, connection: "GrpcConnection", stream: Stream, method: Method) -> None:
        super().__init__(connection, stream, method)
        self.received_ns = connection.now_ns
        self._messages: deque[Message] = deque()
        self._reading: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = False
        self._expiry: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """The headers are there."""
        refusal = self._check()
        if refusal is not None:
            self.fail(refusal)
            return
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run())
        if self.head.deadline_ns:
            self._expiry = loop.call_later(self.head.deadline_ns * 1e-9, self._expire)

    async def _run(self) -> None:
        assert self.method.run is not None
        try:
            await self.method.run(self)
        except asyncio.CancelledError:
            if not self.over:
                self.fail(NotReady("the gateway is shutting down; open a new stream"))
            raise
        except Exception as error:
            self.fail(self.connection.server.as_refusal(error, self.request_id))
        else:
            self.finish()

    def _expire(self) -> None:
        self.fail(DeadlineExceeded("the deadline of the call has passed"))

    # --- messages ---

    def feed(self, data: Buffer) -> None:
        """More of the messages; their end if the stream says so."""
        kept_bytes = self.held_bytes - (self.reader.held_bytes if self.reader is not None else 0)
        try:
            self._messages += self._read(data, kept_bytes)
            if self.stream.remote_ended and self.reader is not None and self.reader.held_bytes:
                raise MalformedRequest("the call ends before its message does")
        except HyperionError as error:
            self.fail(error)
            return
        if len(self._messages) > AHEAD and not self.stream.withheld:
            self.connection.http2.withhold(self.stream, True)
        reading, self._reading = self._reading, None
        if reading is not None and not reading.done():
            reading.set_result(None)

    def look_at_time(self, now_s: float, timeout_s: float) -> None:
        """Once a second: ends the call if a message that has begun does not go on."""
        if self._moves(now_s, timeout_s) or self.stream.remote_ended or self.stream.withheld:
            return
        if self.reader is not None and self.reader.held_bytes:
            self.fail(ClientTooSlow("the request did not arrive in time; send it faster"))

    async def read(self) -> Buffer | None:
        """The next message, None after the last one. Raises HyperionError for one that cannot be inflated."""
        while not self._messages:
            if self.stream.remote_ended:
                return None
            self._reading = asyncio.get_running_loop().create_future()
            await self._reading
        message = self._messages.popleft()
        self._hold(self.held_bytes - len(message.data))
        if self.stream.withheld and len(self._messages) <= AHEAD // 2:
            self.connection.http2.withhold(self.stream, False)
            self.connection.wake()
        return self._plain(message)

    async def write(self, data: bytes) -> None:
        """Sends a message; returns when there is room for the next one."""
        if self.over:
            return
        sender = self.connection.sender
        if not self._started:
            self._started = True
            sender.send_head(self.stream, ANSWER_HEAD)
        sender.send_data(self.stream, frame_message(data))
        self.connection.wake()
        if self.stream.queued_bytes > ROOM_BYTES:
            self._room = asyncio.get_running_loop().create_future()
            self.connection.writers.add(self)
            await self._room

    def look_for_room(self) -> None:
        """For the connection, after it has sent something."""
        if self.stream.queued_bytes <= ROOM_BYTES and self._room is not None:
            self.connection.writers.discard(self)
            room, self._room = self._room, None
            if not room.done():
                room.set_result(None)

    # --- ends ---

    def finish(self) -> None:
        """Every message was sent."""
        if not self.over:
            self._close()
            if not self._started:
                self.connection.sender.send_head(self.stream, ANSWER_HEAD)
            self.connection.sender.send_trailers(self.stream, OK_FIELD)
            self.connection.wake()

    def fail(self, error: HyperionError) -> None:
        """Ends the call with an error, after what was sent."""
        if self.over:
            return
        self._close()
        block = status_block(
            CODES[error.code], details_of(error, self.request_id), error_metadata(error, self.request_id)
        )
        if self._started:
            self.connection.sender.send_trailers(self.stream, block)
        else:
            self.connection.sender.send_head(self.stream, ANSWER_HEAD + block, True)
        self.connection.wake()

    def lost(self) -> None:
        """The caller has left."""
        if not self.over:
            self._close()

    def _close(self) -> None:
        self._end()
        self._messages.clear()
        self.connection.writers.discard(self)
        if self._expiry is not None:
            self._expiry.cancel()
        task: asyncio.Task[Any] | None = self._task
        if task is not None and task is not asyncio.current_task():
            task.cancel()
