"""A gRPC call with one message either way, served by a plain function. Made by `gateway/grpc/connection`.

Once its message is there whole it goes to whoever serves its method; for an inference it is the pipeline's `Reply`.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Final, cast

from hyperion.gateway.grpc.call import Call, Method
from hyperion.gateway.grpc.status import CODES, answer_trailers, details_of, error_metadata
from hyperion.gateway.pending import EncodeTogether, PendingCall, Reply
from hyperion.schema.call import BatchAnswer, Buffer, InferenceAnswer
from hyperion.schema.errors import (
    ClientTooSlow,
    DeadlineExceeded,
    Fields,
    HyperionError,
    MalformedRequest,
    Unsupported,
)
from hyperion.wire.grpc.framing import (
    ANSWER_HEAD,
    OK_FIELD,
    Message,
    field,
    frame_message,
    status_block,
)
from hyperion.wire.http2.frames import ENHANCE_YOUR_CALM
from hyperion.wire.http2.stream import Stream
from hyperion.wire.oip.grpc import AnswerFormat

if TYPE_CHECKING:
    from hyperion.gateway.grpc.connection import GrpcConnection

MAX_QUEUED_BYTES: Final = 256 << 20  # answers of one connection that its client does not take


class UnaryCall(Call):
    """A call with one message, to be answered with one."""

    __slots__ = ("_serve", "fields", "form", "message", "pending", "received_ns", "task")

    def __init__(self, connection: "GrpcConnection", stream: Stream, method: Method) -> None:
        super().__init__(connection, stream, method)
        self.received_ns = connection.now_ns
        self.form: AnswerFormat | None = None
        self.fields = b""
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

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        return self.head.headers

    def add_fields(self, fields: Fields) -> None:
        """Metadata behind the answer."""
        self.fields += b"".join([field(name, value) for name, value in fields])

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
        self.finish(body, answer_trailers(answer, self.request_id, answer.queue_ns) + self.fields)

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
        message + answer_trailers(answer, call.request_id, queue_ns) + call.fields
        for call, message, queue_ns in zip(calls, messages, answer.queue_ns, strict=True)
    ]
