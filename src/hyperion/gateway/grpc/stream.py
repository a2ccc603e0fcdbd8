"""ModelStreamInfer: many requests in flight on one stream, each with one answer or several.

Made by `gateway/grpc/calls` for each such stream. A request that fails gets an error message of its own and the stream
goes on. Answers leave in the order of their requests; those of models that stream leave as they come, since they could
hold up everything behind them for minutes, and are told apart by their id.

Every queue is bounded: no request is read while `inflight` of them are open, and a caller that does not read partial
answers loses the request that makes them once `backlog_bytes` wait.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Protocol

from hyperion.gateway.grpc.status import PUSHBACK, error_metadata
from hyperion.gateway.grpc.stream_call import StreamCall
from hyperion.gateway.pending import PendingCall
from hyperion.schema.call import Buffer, InferenceAnswer
from hyperion.schema.errors import Fields, HyperionError, NotReady, Overloaded
from hyperion.wire.oip.grpc import AnswerFormat, encode_stream_answer, encode_stream_error


class StreamEdge(Protocol):
    """What a stream needs of its edge."""

    def submit_streamed(self, request: Buffer, stream: "InferStream") -> None:
        """Decodes a request and hands it to the pipeline, with a slot of `stream` for the answers. Never raises."""
        ...

    def details(self, error: HyperionError, request_id: str) -> str:
        """What the caller is told about an error."""
        ...


class Slot:
    """One request of a stream, and its answers that wait to be written. `ordered` holds them back until those of the
    requests before it are out."""

    __slots__ = ("_form", "_model", "_stream", "_version", "ended", "ordered", "pending", "ready", "request_id", "told")

    def __init__(self, stream: "InferStream", model: str, version: str, form: AnswerFormat, request_id: str) -> None:
        self._stream = stream
        self._model = model
        self._version = version
        self._form = form
        self.request_id = request_id
        self.pending: PendingCall | None = None
        self.ready: deque[bytes | None] = deque()
        self.ordered = True
        self.ended = False
        self.told = 0

    together = None

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        return self._stream.call.head.headers

    def send(self, message: bytes) -> None:
        raise AssertionError(f"{len(message)} bytes that nobody wrote for this protocol")

    def answer(self, answer: InferenceAnswer) -> None:
        """One answer. A model that streams may end with an empty one, which is sent to callers who ask for it only."""
        if self.ended:
            return
        form, final = self._form, answer.final
        if self.ordered or not final:
            self._put(encode_stream_answer(answer, form, final), final)
            return
        if answer.outputs:
            self._put(encode_stream_answer(answer, form, not form.empty_final), not form.empty_final)
            answer = InferenceAnswer(answer.model, answer.version, answer.digest, ())
        if not self.ended:
            wanted = form.empty_final or not self.told
            self._put(encode_stream_answer(answer, form, True) if wanted else None, True)

    def add_fields(self, fields: Fields) -> None:
        """Nothing: an answer of a stream has no metadata of its own."""

    def fail(self, error: HyperionError) -> None:
        """The error in place of the (other) answers."""
        if not self.ended:
            message = self._stream.edge.details(error, self.request_id)
            # Nothing is sent again by itself within a stream.
            told = tuple([field for field in error_metadata(error, self.request_id) if field[0] != PUSHBACK])
            self._put(encode_stream_error(message, self._model, self._version, self._form.id, told), True)

    def cancel(self) -> None:
        """Nobody reads the answers any more."""
        self.ended = True
        if self.pending is not None:
            self.pending.cancel()

    def _put(self, message: bytes | None, last: bool) -> None:
        self.told += 1
        self.ended = last
        if not self._stream.put(self, message, last):
            self.fail(Overloaded("the stream's answers are not read fast enough; read them, or ask for fewer"))
            if self.pending is not None:
                self.pending.cancel()


class InferStream:
    """One ModelStreamInfer call, from its first request to its end. `run` is its whole life."""

    def __init__(self, call: StreamCall, edge: StreamEdge, inflight: int, backlog_bytes: int) -> None:
        self.call = call
        self.edge = edge
        self._places = asyncio.Semaphore(inflight)
        self._backlog_bytes = backlog_bytes
        self._waiting_bytes = 0
        self._order: deque[Slot] = deque()
        self._open: set[Slot] = set()
        self._outgoing: deque[tuple[bytes | None, Slot | None]] = deque()
        self._wake = asyncio.Event()
        self._read_all = False
        self._reader_done = False
        self._draining = False

    async def run(self) -> None:
        """Reads requests and writes answers until the caller has closed its side and has every answer."""
        reader = asyncio.create_task(self._read())
        try:
            await self._write()
            if self._reader_done:
                await reader
            if not self._read_all:
                raise NotReady("the gateway is shutting down; open a new stream")
        finally:
            reader.cancel()
            for slot in tuple(self._open):
                slot.cancel()

    def drain(self) -> None:
        """Ends the stream once the requests that it holds are answered."""
        self._draining = True
        self._wake.set()

    def open_slot(self, model: str, version: str, form: AnswerFormat, request_id: str, ordered: bool) -> Slot:
        """A place for the answers to the request that was just read."""
        slot = Slot(self, model, version, form, request_id)
        slot.ordered = ordered
        self._open.add(slot)
        if ordered:
            self._order.append(slot)
        return slot

    def put(self, slot: Slot, message: bytes | None, last: bool) -> bool:
        """Queues a message (None: nothing, but the request has ended); False, and nothing queued, if too many wait."""
        size = len(message) if message is not None else 0
        if not last and self._waiting_bytes + size > self._backlog_bytes:
            return False
        self._waiting_bytes += size
        if slot.ordered:
            slot.ready.append(message)
            self._advance()
        else:
            self._outgoing.append((message, slot if last else None))
        self._wake.set()
        return True

    def _advance(self) -> None:
        """Moves what may leave now from the slots to the wire, in the order of the requests."""
        order = self._order
        while order and order[0].ready:
            slot = order[0]
            message = slot.ready.popleft()
            last = slot.ended and not slot.ready
            self._outgoing.append((message, slot if last else None))
            if last:
                order.popleft()

    async def _read(self) -> None:
        try:
            while not self._draining:
                await self._places.acquire()
                request = await self.call.read()
                if request is None:
                    self._read_all = True
                    return
                self.edge.submit_streamed(request, self)
        finally:
            self._reader_done = True
            self._wake.set()

    async def _write(self) -> None:
        outgoing = self._outgoing
        while True:
            while outgoing:
                message, ended = outgoing.popleft()
                if message is not None:
                    self._waiting_bytes -= len(message)
                    await self.call.write(message)
                if ended is not None:
                    self._open.discard(ended)
                    self._places.release()
            if not self._open and (self._reader_done or self._draining):
                return
            self._wake.clear()
            await self._wake.wait()
