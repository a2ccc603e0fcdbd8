"""A runner of this run's own: the same process, verification and sandbox as behind an endpoint, fed through shared
memory by the thread that reads the table. One link per lane.

The columns of a table are written once, straight into the memory from which the model reads them.
"""

import os
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Final

import numpy as np

from hyperion.batch.columns import InputPlan
from hyperion.batch.link import Answer, Array, Batch
from hyperion.fleet.replicas import describe_runner
from hyperion.fleet.scratch import make_scratch, remove_tree
from hyperion.fleet.spawn import Process, describe_exit, spawn
from hyperion.gateway.ring import SLOTS, Ring
from hyperion.policy.redact import redact_text
from hyperion.schema.call import Buffer
from hyperion.schema.config import RunnerConfig
from hyperion.schema.errors import ModelRefused, RunnerLost
from hyperion.schema.model import Signature
from hyperion.wire.frame import (
    ALIGNMENT,
    GREETING,
    HELLO,
    PREDICT,
    RESULT,
    Frame,
    FrameError,
    FrameReader,
    encode_frame,
    read_tensors,
)
from hyperion.wire.frame_headers import INLINE, Hello, Predict, Result, TensorHead
from hyperion.wire.tensor import DATATYPES, encode_elements, to_numpy

START_S: Final = 600.0
LEAVE_S: Final = 10.0
_RECEIVE_BYTES: Final = 256 << 10
_LEAST_SLOT_BYTES: Final = 1 << 20


class RunnerLink:
    """Starts the runner of `config`, whose socket and scratch directory are this link's own, and talks to it."""

    def __init__(self, config: RunnerConfig, batch_rows: int) -> None:
        """Raises ModelRefused where the model cannot be loaded."""
        self._config = config
        self._batch_rows = batch_rows
        self._next_id = 0
        self._last_line = ""
        self._process: Process | None = None
        self._connection: socket.socket | None = None
        self._ring: Ring | None = None
        self._frames = FrameReader()
        self._arrived: deque[Frame] = deque()
        self.signature = Signature((), ())
        self._start()

    def score(self, batches: Iterable[Batch], plans: Sequence[InputPlan]) -> Iterator[Answer]:
        """One batch is computed while the next is written: there are `SLOTS` of them."""
        waiting: deque[tuple[int, Batch]] = deque()
        for number, batch in enumerate(batches):
            if len(waiting) == SLOTS:
                yield self._receive(*waiting.popleft())
            waiting.append((self._send(batch, plans, number % SLOTS), batch))
        while waiting:
            yield self._receive(*waiting.popleft())

    def revive(self) -> None:
        """Start a new process in place of the one that is gone."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the process and remove what it left."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        if self._process is not None:
            self._end(self._process)
            self._process = None
        Path(self._config.socket).unlink(missing_ok=True)
        if os.path.isdir(self._config.scratch):
            remove_tree(Path(self._config.scratch))

    def _start(self) -> None:
        make_scratch(Path(self._config.scratch))
        process = self._process = spawn(describe_runner(self._config), os.environ)
        os.set_blocking(process.output_fd, True)
        threading.Thread(target=self._pass_on, args=(process.output_fd,), name="runner output", daemon=True).start()
        try:
            self._wait_until_ready(process)
            connection = self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(self._config.socket)
            self._frames, self._arrived = FrameReader(), deque()
            hello: Hello = self._read_frame(HELLO).header
            self.signature = hello.signature
            self._ring = Ring(self._measure_slot(hello.signature))
            socket.send_fds(connection, [GREETING], [self._ring.fd])
        except OSError as error:
            self.close()
            raise RunnerLost(f"the model's process left: {self._last_line or error}") from error
        except BaseException:
            self.close()
            raise

    def _wait_until_ready(self, process: Process) -> None:
        ends = time.monotonic() + START_S
        text = b""
        while b"READY=1\n" not in text:
            left = ends - time.monotonic()
            if left <= 0:
                raise ModelRefused(f"{self._config.spec.name}: it is not ready after {START_S:.0f} s")
            ready, _, _ = select.select([process.notify_fd, process.pidfd], [], [], left)
            data = os.read(process.notify_fd, 65_536) if process.notify_fd in ready else b""
            text += data
            if not data and ready:
                break
        else:
            return
        errors = [line[6:].decode("utf-8", "replace") for line in text.split(b"\n") if line.startswith(b"ERROR=")]
        raise ModelRefused(errors[-1] if errors else f"{self._config.spec.name}: its process left: {self._last_line}")

    def _measure_slot(self, signature: Signature) -> int:
        """Bytes of a slot: a batch of the larger side. What does not fit goes through the socket, as do texts."""
        sides = []
        for specs in (signature.inputs, signature.outputs):
            row = sum(prod(abs(size) for size in spec.shape[1:]) * DATATYPES[spec.datatype].size for spec in specs)
            sides.append(self._batch_rows * row + ALIGNMENT * (len(specs) + 1))
        return max(_LEAST_SLOT_BYTES, *sides)

    def _send(self, batch: Batch, plans: Sequence[InputPlan], slot: int) -> int:
        """Write a batch to its slot and announce it; returns its id."""
        ring = self._ring
        assert ring is not None, "connected"
        rows = batch.last - batch.first
        heads: list[TensorHead] = []
        inline: list[Buffer] = []
        offset = ring.request_offset(slot)
        ends = offset + ring.slot_bytes
        for plan in plans:
            shape = (rows, *plan.tail)
            data: Array | bytes
            if plan.datatype == "BYTES":
                data = encode_elements(batch.take(plan).ravel().tolist())
                heads.append(TensorHead(plan.name, plan.datatype, shape, len(data), INLINE))
                inline.append(data)
                continue
            dtype = np.dtype(DATATYPES[plan.datatype].dtype)
            size = prod(shape) * dtype.itemsize
            if offset + size <= ends:
                target = np.frombuffer(ring.view, dtype, prod(shape), offset).reshape(shape)
                batch.fill(plan, target)
                heads.append(TensorHead(plan.name, plan.datatype, shape, size, offset))
                offset += -(-size // ALIGNMENT) * ALIGNMENT
            else:
                target = np.empty(shape, dtype)
                batch.fill(plan, target)
                heads.append(TensorHead(plan.name, plan.datatype, shape, size, INLINE))
                inline.append(target.tobytes())
        self._next_id += 1
        requests = (1,) * rows if batch.single else (rows,)
        header = Predict(requests, tuple(heads), (), {}, False, ring.reply_offset(slot), ring.slot_bytes)
        try:
            self._socket().sendall(encode_frame(PREDICT, self._next_id, header, inline))
        except OSError as error:
            raise self._lost(error) from error
        return self._next_id

    def _receive(self, batch_id: int, batch: Batch) -> Answer:
        ring = self._ring
        assert ring is not None, "connected"
        try:
            frame = self._read_frame(RESULT)
            result: Result = frame.header
            if frame.id != batch_id:
                raise FrameError(f"it answered batch {frame.id} instead of {batch_id}")
            tensors = read_tensors(result.tensors, frame.data, ring.view)
        except (OSError, FrameError) as error:
            raise self._lost(error) from error
        outputs = {tensor.name: to_numpy(tensor).copy() for tensor in tensors}
        failures = {failure.index: f"{failure.kind}: {failure.message}" for failure in result.failures}
        return Answer(batch, outputs, failures)

    def _read_frame(self, kind: int) -> Frame:
        """The next frame, which must be of that kind: there is one for each that was sent."""
        while True:
            if self._arrived:
                frame = self._arrived.popleft()
                if frame.kind != kind:
                    raise FrameError(f"expected a frame of kind {kind}, got {frame.kind}")
                return frame
            data = self._socket().recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("it closed the connection")
            self._arrived.extend(self._frames.feed(data))

    def _socket(self) -> socket.socket:
        assert self._connection is not None, "connected"
        return self._connection

    def _lost(self, error: Exception) -> RunnerLost:
        process, how = self._process, str(error)
        if process is not None:
            select.select([process.pidfd], [], [], 1.0)
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                how = describe_exit(os.waitstatus_to_exitcode(status))
                self._let_go(process)
        return RunnerLost(f"{how}{': ' + self._last_line if self._last_line else ''}")

    def _end(self, process: Process) -> None:
        """It leaves by itself once its only caller has gone and it was told to."""
        signal.pidfd_send_signal(process.pidfd, signal.SIGTERM)
        ended, _, _ = select.select([process.pidfd], [], [], LEAVE_S)
        if not ended:
            signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
        os.waitpid(process.pid, 0)
        self._let_go(process)

    def _let_go(self, process: Process) -> None:
        os.close(process.pidfd)
        os.close(process.notify_fd)
        self._process = None

    def _pass_on(self, descriptor: int) -> None:
        """What the model prints, to our own stderr, without personal data; the last line explains a death."""
        with open(descriptor, "rb") as output:
            for raw in output:
                line = redact_text(raw[:8192].decode("utf-8", "replace").rstrip("\n"))
                self._last_line = line[:300] or self._last_line
                sys.stderr.write(f"{self._config.replica} | {line}\n")
