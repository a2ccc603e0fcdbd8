"""One gRPC call between its HTTP/2 stream and whoever serves it. Made by `gateway/grpc_connection`.

A `UnaryCall` is served by a plain function once its one message is there whole, and is the pipeline's `Reply`. A
`StreamCall` is served by a coroutine, which reads and writes messages at the pace of its client.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, cast

from msgspec import Struct

from hyperion.gateway.grpc_metadata import CallHead
from hyperion.gateway.grpc_status import CODES, answer_trailers, details_of, error_metadata
from hyperion.gateway.inflate import inflate
from hyperion.gateway.pending import EncodeTogether, PendingCall, Reply
from hyperion.schema.call import BatchAnswer, Buffer, InferenceAnswer
from hyperion.schema.errors import (
    ClientTooSlow,
    DeadlineExceeded,
    HyperionError,
    MalformedRequest,
    NotReady,
    Overloaded,
    Unsupported,
)
from hyperion.wire.grpc_framing import (
    ANSWER_HEAD,
    OK_FIELD,
    Message,
    MessageReader,
    frame_message,
    status_block,
)
from hyperion.wire.http2_frames import ENHANCE_YOUR_CALM
from hyperion.wire.http2_stream import Stream
from hyperion.wire.oip_grpc import AnswerFormat

if TYPE_CHECKING:
    from hyperion.gateway.grpc_connection import GrpcConnection

MAX_BUFFERED_BYTES: Final = 2 << 30  # messages that are still arriving, over all connections
MAX_CONNECTION_BYTES: Final = 512 << 20  # and of one connection
MAX_QUEUED_BYTES: Final = 256 << 20  # answers of one connection that its client does not take
ROOM_BYTES: Final = 64 << 10  # a stream writes its next message while less than this waits for its client
AHEAD: Final = 16  # messages of a stream that are kept until somebody reads them; then its window stays closed


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


class UnaryCall(Call):
    """A call with one message, to be answered with one."""

    __slots__ = ("_serve", "form", "message", "pending", "received_ns", "task")

    def __init__(self, connection: "GrpcConnection", stream: Stream, method: Method) -> None:
        super().__init__(connection, stream, method)
        self.received_ns = connection.now_ns
        self.form: AnswerFormat | None = None
        self.pending: PendingCall | None = None
        self.task: asyncio.Task[None] | None = None
        self.message: Message | None = None
        assert method.serve is not None
        self._serve = method.serve

    def begin(self) -> None:
        """The headers are there."""
        refusal = self._check()
        if refusal is None and self.stream.remote_ended:
            refusal = MalformedRequest("the call has no message, expected one")
        if refusal is not None:
            self.refuse(refusal)

    def feed(self, data: Buffer) -> None:
        """More of the message; its end if the stream says so."""
        ended = self.stream.remote_ended
        if ended and self.reader is None and len(data) >= 5 and not data[0]:
            size = len(data) - 5
            if int.from_bytes(data[1:5]) == size <= self.connection.server.limits.max_body_bytes:
                self._serve(self, bytes(data[5:]))
                return
        try:
            if self.message is not None and len(data):
                raise MalformedRequest("the call has more than one message, expected one")
            messages = self._read(data, 0)
            if len(messages) > 1 or (messages and self.reader is not None and self.reader.held_bytes):
                raise MalformedRequest("the call has more than one message, expected one")
            if messages:
                self.message = messages[0]
            if not ended:
                return
            if self.message is None:
                raise MalformedRequest("the call ends before its message does")
            message = self._plain(self.message)
        except HyperionError as error:
            self.refuse(error)
            return
        self.message = self.reader = None
        self._hold(0)
        self._serve(self, message)

    def look_at_time(self, now_s: float, timeout_s: float) -> None:
        """Once a second: ends the call if its message should be there by now."""
        deadline_ns = self.head.timeout_ns
        late = deadline_ns and now_s * 1e9 - self.received_ns > deadline_ns
        if not self.stream.remote_ended and (late or not self._moves(now_s, timeout_s)):
            self.refuse(ClientTooSlow("the request did not arrive in time; send it faster"))

    def spawn(self, work: Awaitable[bytes]) -> None:
        """Answers with the result of `work`, within gRPC's deadline."""
        self.task = asyncio.ensure_future(self._await(work))

    async def _await(self, work: Awaitable[bytes]) -> None:
        deadline_ns = self.head.deadline_ns
        try:
            async with asyncio.timeout(deadline_ns * 1e-9 if deadline_ns else None):
                data = await work
        except TimeoutError:
            self.fail(DeadlineExceeded("it took longer than the deadline of the call allows"))
        except Exception as error:
            self.fail(self.connection.server.as_refusal(error, self.request_id))
        else:
            self.finish(frame_message(data), OK_FIELD)

    # --- ends ---

    @property
    def together(self) -> EncodeTogether | None:
        form = self.form
        return encode_calls if form is not None and form.raw and not form.id else None

    def send(self, message: bytes) -> None:
        """The message and the trailers that `encode_calls` wrote."""
        size = 5 + int.from_bytes(message[1:5])
        self.finish(message[:size], message[size:])

    def answer(self, answer: InferenceAnswer) -> None:
        """The pipeline's answer."""
        if self.over:
            return
        if not answer.final:
            pending = self.pending
            self.fail(Unsupported("this model answers in parts; call ModelStreamInfer"))
            if pending is not None:
                pending.cancel()
            return
        assert self.form is not None
        try:
            body = self.connection.server.codec.encode(answer, self.form)
        except Exception as error:
            self.fail(self.connection.server.as_refusal(error, self.request_id))
            return
        self.finish(body, answer_trailers(answer, self.request_id, answer.queue_ns))

    def finish(self, body: bytes, trailers: bytes) -> None:
        """Answers with a framed message."""
        if self.over:
            return
        if self.connection.sender.queued_bytes > MAX_QUEUED_BYTES:
            self.connection.http2.reset(self.stream, ENHANCE_YOUR_CALM)
        else:
            self._end()
            self.pending = None
            self.connection.sender.send_answer(self.stream, ANSWER_HEAD, body, trailers)
        self.connection.wake()

    def fail(self, error: HyperionError) -> None:
        """Answers with an error."""
        if not self.over:
            self._end()
            self.pending = None
            block = status_block(
                CODES[error.code], details_of(error, self.request_id), error_metadata(error, self.request_id)
            )
            self.connection.sender.send_head(self.stream, ANSWER_HEAD + block, True)
            self.connection.wake()

    def refuse(self, error: HyperionError) -> None:
        """Answers with an error that the pipeline does not know of."""
        if self.method.counted:
            self.connection.server.record_refusal(self, error)
        self.fail(error)

    def lost(self) -> None:
        """The caller has left."""
        if self.over:
            return
        self._end()
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.cancel()
        if self.task is not None:
            self.task.cancel()


def encode_calls(replies: list[Reply], answer: BatchAnswer) -> list[bytes]:
    """Messages and trailers for all calls of a batch that want raw contents. What they share is written once."""
    calls = cast(list[UnaryCall], replies)
    messages = calls[0].connection.server.codec.encode_together(answer)
    return [
        message + answer_trailers(answer, call.request_id, queue_ns)
        for call, message, queue_ns in zip(calls, messages, answer.queue_ns, strict=True)
    ]


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
