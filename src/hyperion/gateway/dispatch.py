"""One runner, seen from a gateway: its connection, the batches it holds, and what comes back for each caller.

Made and used by `gateway/pool`. Callers that left in the meantime are skipped here and only here. A connection that
ends hands the batches it held back to the pool, and says which of them the replica was computing.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Final, cast

from hyperion.gateway.pending import PendingCall
from hyperion.gateway.replica import Batch, Link, Outcomes
from hyperion.gateway.ring import SLOTS, Ring
from hyperion.schema.call import Buffer, Tensor
from hyperion.schema.errors import HyperionError, InternalError, ModelFailed
from hyperion.wire.frame import (
    ALIGNMENT,
    CANCEL,
    HELLO,
    INLINE_LIMIT_BYTES,
    PART,
    PREDICT,
    PROTOCOL,
    RESULT,
    Frame,
    FrameError,
    FrameReader,
    encode_frame,
    read_tensors,
)
from hyperion.wire.frame_headers import INLINE, Cancel, Failure, Predict, Result, TensorHead
from hyperion.wire.tensor import check_tensor_data

__all__ = ["Batch", "Outcomes", "ReplicaLink", "internal_error", "own"]

GLANCE_BYTES: Final = 64 << 10


class ReplicaLink(Link):
    """A connection to one runner: an `asyncio.Protocol` in all but name, as a compiled class has no interpreted base.
    `credits` batches may be sent before a result must come back."""

    def __init__(self, name: str, ring: Ring, outcomes: Outcomes, lost: "asyncio.Future[None]") -> None:
        super().__init__(name, outcomes)
        self.memory_bytes = 0
        self._ring = ring
        self._lost = lost
        self._reader = FrameReader()
        self._free_slots = list(range(SLOTS))
        self._at_fault = 0  # the batch whose result could not be used
        self._taking = False  # who hears of one frame may ask for a glance: the next one has to wait for its turn
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1

    @property
    def has_credit(self) -> bool:
        """Whether a batch may be sent now. Streams hold none: the pool bounds them when they are admitted."""
        return self.ready and bool(self._free_slots)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the interface but not the class
        connection = transport.get_extra_info("socket")
        self._descriptor = connection.fileno() if connection else -1

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc) if exc else "the replica closed its connection")

    def close(self) -> None:
        """Ends the connection; the runner keeps on serving others."""
        self._descriptor = -1
        if self._transport is not None:
            self._transport.close()

    def _end(self, reason: str) -> None:
        transport, self._transport = self._transport, None
        if transport is None:
            return
        self.ready = False
        self._descriptor = -1
        held = list(self._held.values())
        self._held.clear()
        computing = self._at_fault or self._ring.computing()
        self._ring.close()
        transport.abort()
        self._outcomes.link_lost(self, held, computing, reason)
        if not self._lost.done():
            self._lost.set_result(None)

    def send(self, batch: Batch) -> None:
        """Sends the batch; there must be credit. Tensor bytes go through the ring when they are large."""
        assert self._transport is not None
        self._hold(batch)
        calls = batch.calls
        if not batch.stream:
            batch.slot = self._free_slots.pop()
        first = calls[0].call
        size_bytes = sum(pending.size_bytes for pending in calls)
        in_ring = not batch.stream and INLINE_LIMIT_BYTES < size_bytes <= self._ring.slot_bytes - 64 * ALIGNMENT
        heads: list[TensorHead] = []
        inline: list[Buffer] = []
        offset = self._ring.request_offset(batch.slot) if in_ring else INLINE
        for index, tensor in enumerate(first.inputs):
            shape = tensor.shape if len(calls) == 1 else (batch.rows, *tensor.shape[1:])
            start = offset
            size = 0
            for pending in calls:
                data = pending.call.inputs[index].data
                size += len(data) if isinstance(data, bytes) else memoryview(data).nbytes
                if in_ring:
                    offset = self._ring.write(offset, data)
                else:
                    inline.append(data)
            heads.append(TensorHead(tensor.name, tensor.datatype, shape, size, start))
            if in_ring:
                offset = -(-offset // ALIGNMENT) * ALIGNMENT
        header = Predict(
            tuple([pending.rows for pending in calls]),
            tuple(heads),
            first.outputs,
            dict(first.parameters),
            batch.stream,
            self._ring.reply_offset(batch.slot) if batch.slot >= 0 else 0,
            self._ring.slot_bytes if batch.slot >= 0 else 0,
        )
        batch.sent_ns = time.monotonic_ns()
        self._transport.write(encode_frame(PREDICT, batch.id, header, inline))

    def cancel(self, pending: PendingCall) -> None:
        """Tells the runner that nobody waits for this, if it is a stream; a batch goes on without the call."""
        if not pending.stream:
            return
        for batch in self._held.values():
            if batch.stream and batch.calls[0] is pending and self._transport is not None:
                self._transport.write(encode_frame(CANCEL, batch.id, Cancel("caller left")))

    def glance(self) -> None:
        """Takes what has come in by now, without waiting for the loop's next turn."""
        if self._descriptor < 0 or self._taking or not self._held:
            return
        try:
            data = os.read(self._descriptor, GLANCE_BYTES)
        except OSError:  # nothing there; or the connection is broken, which the loop will find out, too
            return
        if data:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        self._taking = True
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except FrameError as error:
            self._end(f"it broke the protocol: {error}")
        finally:
            self._taking = False

    def _take(self, frame: Frame) -> None:
        kind = frame.kind
        if kind == RESULT:
            batch = self._held.get(frame.id)
            if batch is None:
                raise FrameError(f"result for batch {frame.id}, which it does not hold")
            self._at_fault = batch.id
            self._settle(batch, frame)
            self._at_fault = 0
            # Only now: the outputs were copied out of the reply slot, and everybody in the batch has an answer.
            if self.holds(batch):
                self._let_go(batch)
            if not batch.stream:
                self._free_slots.append(batch.slot)
            self._outcomes.batch_done(batch, frame.header)
        elif kind == PART:
            batch = self._held.get(frame.id)
            if batch is None or not batch.stream:
                raise FrameError(f"part for stream {frame.id}, which it does not hold")
            batch.back_ns = time.monotonic_ns()
            self._at_fault = batch.id
            pending = batch.calls[0]
            if not pending.done:
                outputs = own(read_tensors(frame.header.tensors, frame.data, self._ring.view))
                self._outcomes.succeeded(pending, outputs, batch, frame.header, False)
            self._at_fault = 0
        elif kind == HELLO:
            if frame.header.protocol != PROTOCOL:
                raise FrameError(f"it speaks version {frame.header.protocol} of the protocol, expected {PROTOCOL}")
            self.ready = True
            self.memory_bytes = frame.header.memory_bytes
            self._outcomes.link_ready(frame.header)
        else:
            raise FrameError(f"a runner may not send frames of kind {kind}")

    def _settle(self, batch: Batch, frame: Frame) -> None:
        """One outcome per caller of the batch."""
        result: Result = frame.header
        self.memory_bytes = result.memory_bytes or self.memory_bytes
        began_ns = max(batch.sent_ns, self._freed_ns)
        batch.back_ns = self._freed_ns = time.monotonic_ns()
        calls = batch.calls
        self._note(batch, len(result.failures), batch.back_ns - began_ns)
        if result.failures:
            failures = {failure.index: failure for failure in result.failures}
            for index, failure in failures.items():
                if not 0 <= index < len(calls):
                    raise FrameError(f"failure of request {index} in a batch of {len(calls)}")
                self._fail(calls[index], failure, batch)
            calls = [pending for index, pending in enumerate(calls) if index not in failures]
            if not calls:
                return
        owned = own(read_tensors(result.tensors, frame.data, self._ring.view))
        if len(calls) > 1:
            rows = sum([pending.rows for pending in calls])
            for tensor in owned:
                if not tensor.shape or tensor.shape[0] != rows:
                    raise FrameError(f'output "{tensor.name}" of shape {tensor.shape} for {rows} rows')
        self._hand_out(calls, owned, batch, result)

    def _fail(self, pending: PendingCall, failure: Failure, batch: Batch) -> None:
        if pending.done:
            return
        error = ModelFailed(
            f'model "{pending.call.model}" raised {failure.kind} for this request; '
            f"its message is in the log under request id {pending.request_id}"
        )
        self._outcomes.failed(pending, error, batch, f"{failure.kind}: {failure.message}")


def own(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Checked copies of tensors that look into a frame or a ring, which are about to be used again. Raises
    FrameError."""
    owned = []
    for tensor in tensors:
        copy = Tensor(tensor.name, tensor.datatype, tensor.shape, bytes(tensor.data))
        try:
            check_tensor_data(copy)
        except HyperionError as error:
            raise FrameError(f'output "{tensor.name}": {error.message}') from None
        owned.append(copy)
    return tuple(owned)


def internal_error(request_id: str) -> InternalError:
    """What a caller may know of a bug of ours."""
    return InternalError(f"an internal error; quote request id {request_id} when you report it")
