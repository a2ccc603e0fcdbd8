"""The runner's loop: accept gateways, take one batch at a time from each in turn, compute, answer.

Called by `runner/process` once the model is warm. One thread: the model is never entered twice at once. A batch that
raises is retried in halves, so that only the requests that cause it fail. Streams advance one part per turn, so that
they and the batches share the model. A computation over its limit is ended by the kernel's timer (SIGALRM), which
works even when the model never returns to Python. Where even that does nothing (the process was stopped, or the model
has taken the signal), the supervisor ends it, as it is told no more that this loop goes round.
"""

import os
import select
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from hyperion.policy.redact import shorten
from hyperion.runner.channel import Channel, ChannelClosed
from hyperion.runner.memory import resident_bytes
from hyperion.runner.model import LoadedModel
from hyperion.schema.call import Tensor
from hyperion.wire.frame import CANCEL, HELLO, PART, PREDICT, RESULT, Frame, FrameError, encode_frame
from hyperion.wire.frame_headers import Failure, Hello, Predict, Result
from hyperion.wire.tensor import from_numpy, join_rows, to_numpy

Arrays = dict[str, np.ndarray]
IDLE_WAIT_S: Final = 1.0
MEMORY_LOOK_NS: Final = 100_000_000
TELL_NS: Final = 1_000_000_000
EXIT_MEMORY: Final = 4
MAX_MESSAGE: Final = 500  # characters of an exception's


class Stream:
    """A generator that is being drained for one request."""

    def __init__(self, channel: Channel, frame: Frame, parts: Iterator[Arrays]) -> None:
        self.channel = channel
        self.frame = frame
        self.parts = parts
        self.compute_ns = 0


class RunnerLoop:
    """Serves `model` on `listener` until told to drain and its last gateway has left."""

    def __init__(
        self,
        model: LoadedModel,
        listener: socket.socket,
        hello: Hello,
        compute_limit_s: float,
        memory_limit_bytes: int,
        log: Callable[[str], None],
    ) -> None:
        self._model = model
        self._listener = listener
        self._hello = hello
        self._compute_limit_s = compute_limit_s
        self._memory_limit_bytes = memory_limit_bytes
        self._log = log
        self._datatypes = {spec.name: spec.datatype for spec in model.signature.outputs}
        self._channels: dict[int, Channel] = {}
        self._streams: deque[Stream] = deque()
        self._epoll = select.epoll()
        self._draining = False
        self._exit_code = 0
        self._memory_bytes = hello.memory_bytes
        self._memory_looked_ns = 0
        self._told_ns = 0

    def drain(self) -> None:
        """No new gateways; `run` returns when those that are connected have left. Safe in a signal handler."""
        self._draining = True

    def run(self, wakeup_fd: int, tell_alive: Callable[[], None]) -> int:
        """Loops until drained; returns the process's exit code. `wakeup_fd` has a byte for each signal; `tell_alive` is
        called about once a second, but not while the model computes."""
        self._listener.setblocking(False)
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(wakeup_fd, select.EPOLLIN)
        turns: deque[Channel] = deque()
        while not self._exit_code and not (self._draining and not self._channels):
            now_ns = time.monotonic_ns()
            if now_ns - self._told_ns > TELL_NS:
                self._told_ns = now_ns
                tell_alive()
            busy = bool(turns or self._streams)
            for fd, _events in self._epoll.poll(0 if busy else IDLE_WAIT_S):
                channel = self._channels.get(fd)
                if channel is not None:
                    waiting = bool(channel.pending)
                    if self._receive(channel) and channel.pending and not waiting:
                        turns.append(channel)
                elif fd == wakeup_fd:
                    # Each byte is a signal. Its handler is called by the interpreter, which this loop, compiled, may
                    # not enter again as long as nobody asks for anything.
                    self._draining = self._draining or signal.SIGTERM in os.read(wakeup_fd, 64)
                else:
                    self._accept()
            if turns:
                channel = turns.popleft()
                if channel.pending and self._serve(channel, channel.pending.popleft()) and channel.pending:
                    turns.append(channel)
            if self._streams:
                self._advance(self._streams.popleft())
        return self._exit_code

    def _accept(self) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError as error:
            self._log(f"accept failed: {error}")
            return
        if self._draining:
            connection.close()
            return
        channel = Channel(connection)
        try:
            channel.send_bytes(encode_frame(HELLO, 0, self._hello))
        except ChannelClosed:
            channel.close()
            return
        self._channels[connection.fileno()] = channel
        self._epoll.register(connection, select.EPOLLIN)

    def _receive(self, channel: Channel) -> bool:
        try:
            channel.receive()
        except ChannelClosed as error:
            self._drop(channel, str(error))
            return False
        return True

    def _drop(self, channel: Channel, reason: str) -> None:
        if reason:
            self._log(f"closed a gateway's connection: {reason}")
        if self._channels.pop(channel.fileno(), None) is None:
            return
        self._epoll.unregister(channel.fileno())
        channel.pending.clear()
        channel.close()
        self._streams = deque(stream for stream in self._streams if stream.channel is not channel)

    def _serve(self, channel: Channel, frame: Frame) -> bool:
        """Works on one frame. False when the channel is gone."""
        try:
            if frame.kind == PREDICT:
                self._predict(channel, frame)
            elif frame.kind == CANCEL:
                self._cancel(channel, frame.id)
            else:
                raise ChannelClosed(f"a gateway sent a frame of kind {frame.kind}")
        except (ChannelClosed, FrameError) as error:
            self._drop(channel, str(error) or "left")
            return False
        return True

    def _predict(self, channel: Channel, frame: Frame) -> None:
        predict: Predict = frame.header
        inputs = {tensor.name: to_numpy(tensor) for tensor in channel.read_inputs(frame)}
        if predict.stream:
            # Turns are taken between parts, by when the frame's or the ring's bytes may have been used again.
            inputs = {name: array.copy() for name, array in inputs.items()}
            self._streams.append(Stream(channel, frame, self._model.stream(inputs)))
            return
        channel.mark(frame.id)
        started = time.perf_counter_ns()
        signal.setitimer(signal.ITIMER_REAL, self._compute_limit_s)
        failures: list[Failure] = []
        tensors = self._compute(inputs, predict.rows, predict.outputs, failures)
        signal.setitimer(signal.ITIMER_REAL, 0)
        took_ns = time.perf_counter_ns() - started
        result = Result((), tuple(failures), took_ns, self._look_at_memory())
        channel.send(RESULT, frame.id, tensors, predict, result)
        channel.mark(0)

    def _compute(
        self, inputs: Arrays, rows: Sequence[int], wanted: tuple[str, ...], failures: list[Failure]
    ) -> tuple[Tensor, ...]:
        """Outputs of the requests that succeed, joined; () when none does."""
        parts: list[tuple[Tensor, ...]] = []
        self._try(inputs, rows, wanted, 0, parts, failures)
        if len(parts) < 2:
            return parts[0] if parts else ()
        outputs = list(zip(*parts, strict=True))
        if all(len({tensor.shape[1:] for tensor in pieces}) == 1 for pieces in outputs):
            return tuple([join_rows(pieces) for pieces in outputs])
        # Each part is as wide as the model made it, as for texts that are padded to the longest: what succeeded has to
        # be computed as one batch.
        failed = {failure.index for failure in failures}
        mask = np.repeat([index not in failed for index in range(len(rows))], rows)
        kept = [count for index, count in enumerate(rows) if index not in failed]
        try:
            return self._run({name: array[mask] for name, array in inputs.items()}, kept, wanted)
        except Exception as error:
            self._fail([index for index in range(len(rows)) if index not in failed], error, failures)
            return ()

    def _try(
        self,
        inputs: Arrays,
        rows: Sequence[int],
        wanted: tuple[str, ...],
        first: int,
        parts: list[tuple[Tensor, ...]],
        failures: list[Failure],
    ) -> None:
        """Adds what the batch answers to `parts`, in halves where it raises. `first` is the index of the first
        request."""
        try:
            parts.append(self._run(inputs, rows, wanted))
            return
        except Exception as error:
            if len(rows) == 1 or isinstance(error, MemoryError):
                self._fail(range(first, first + len(rows)), error, failures)
                return
        half = len(rows) // 2
        cut = sum(rows[:half])
        self._try({k: v[:cut] for k, v in inputs.items()}, rows[:half], wanted, first, parts, failures)
        self._try({k: v[cut:] for k, v in inputs.items()}, rows[half:], wanted, first + half, parts, failures)

    def _run(self, inputs: Arrays, rows: Sequence[int], wanted: tuple[str, ...]) -> tuple[Tensor, ...]:
        """The outputs of one batch. Raises what the model raises, and for what does not fit its signature."""
        outputs = self._model.predict(inputs, wanted)
        if self._model.signature.batched:
            check_rows(outputs, sum(rows))
        return self._encode(outputs)

    def _fail(self, indices: Iterable[int], error: Exception, failures: list[Failure]) -> None:
        if isinstance(error, MemoryError):
            # What is leaked stays leaked: answer, with as little as possible, then start afresh.
            self._exit_code = EXIT_MEMORY
            message = shorten(str(error), MAX_MESSAGE)
        else:
            message = describe(error)
        failures.extend([Failure(index, type(error).__name__, message) for index in indices])

    def _encode(self, outputs: Arrays) -> tuple[Tensor, ...]:
        return tuple([from_numpy(name, array, self._datatypes[name]) for name, array in outputs.items()])

    def _advance(self, stream: Stream) -> None:
        """One part of a stream, or its end."""
        channel, frame = stream.channel, stream.frame
        channel.mark(frame.id)
        started = time.perf_counter_ns()
        signal.setitimer(signal.ITIMER_REAL, self._compute_limit_s)
        tensors: tuple[Tensor, ...] | None = None
        failures: tuple[Failure, ...] = ()
        try:
            part = next(stream.parts, None)
            if part is not None:
                tensors = self._encode(part)
        except Exception as error:
            failures = (Failure(0, type(error).__name__, describe(error)),)
        signal.setitimer(signal.ITIMER_REAL, 0)
        stream.compute_ns += time.perf_counter_ns() - started
        channel.mark(0)
        try:
            if tensors is None:
                result = Result((), failures, stream.compute_ns, self._look_at_memory())
                channel.send(RESULT, frame.id, (), frame.header, result)
                return
            channel.send(PART, frame.id, tensors, frame.header, Result((), (), stream.compute_ns))
        except ChannelClosed as error:
            self._drop(channel, str(error))
            return
        self._streams.append(stream)

    def _cancel(self, channel: Channel, batch_id: int) -> None:
        for stream in tuple(self._streams):
            if stream.channel is channel and stream.frame.id == batch_id:
                self._streams.remove(stream)
                channel.send(RESULT, batch_id, (), stream.frame.header, Result((), (), stream.compute_ns))

    def _look_at_memory(self) -> int:
        """Resident bytes, at most 100 ms old. Over the limit, this runner leaves after the answer."""
        now = time.monotonic_ns()
        if now - self._memory_looked_ns > MEMORY_LOOK_NS:
            self._memory_looked_ns = now
            self._memory_bytes = resident_bytes()
            if 0 < self._memory_limit_bytes < self._memory_bytes:
                self._log(
                    f"{self._memory_bytes >> 20} MiB resident, over the limit of {self._memory_limit_bytes >> 20}"
                )
                self._exit_code = EXIT_MEMORY
        return self._memory_bytes


def check_rows(outputs: Arrays, rows: int) -> None:
    """Raises ValueError unless every output has one row per input row: a wrong count would answer one caller with
    another's data."""
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != rows:
            raise ValueError(f'output "{name}" has shape {array.shape} for a batch of {rows} rows')


def describe(error: BaseException) -> str:
    """An exception for the log: its message (bounded, without personal data), the innermost line of code, and what the
    sandbox may have to do with it."""
    from hyperion.runner.sandbox.hint import explain_denial  # rarely needed

    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return shorten(str(error), MAX_MESSAGE) + where + explain_denial(error)


def log_to_stderr(message: str) -> None:
    """One line on stderr, which the supervisor prefixes with the replica's name."""
    sys.stderr.write(message + "\n")
