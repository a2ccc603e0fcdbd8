"""What children print, on its way to the supervisor's own stderr: neither a model that prints for ever nor a terminal
that nobody reads may hurt anyone, and personal data that a model prints stays out of the log. Called by the supervisor
only."""

import os
import threading
from collections import deque
from collections.abc import Callable

from hyperion.fleet.messages import ChildSpec
from hyperion.policy.redact import redact_text, shorten

_READ_BYTES = 1 << 20
_LINE_BYTES = 8 << 10
_BURST_S = 4.0
_PAUSE_S = 0.01
_EVENT = b'{"time":'  # how `telemetry/logs` begins a line, which it has looked at


class LogWriter:
    """Writes to a descriptor from a thread of its own, so that a reader who stops reading stops nobody else.

    At most `limit_bytes` wait; what does not fit is dropped, and counted in the log.
    """

    def __init__(self, descriptor: int, limit_bytes: int = 4 << 20) -> None:
        self._descriptor = descriptor
        self._limit_bytes = limit_bytes
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped_bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Queue whole lines. Never blocks."""
        with self._changed:
            if self._waiting_bytes + len(data) > self._limit_bytes:
                self._dropped_bytes += len(data)
                return
            if self._dropped_bytes:
                data = b"... %d bytes of log dropped: nobody read them\n" % self._dropped_bytes + data
                self._dropped_bytes = 0
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Write what waits, for at most `timeout_s`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                data = self._waiting.popleft()
                self._waiting_bytes -= len(data)
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                continue  # the reader is gone for good: keep taking, so that the queue stays empty


def format_line(log_format: str, process: str, line: str) -> bytes:
    """Return one line of log about, or from, a process: text or JSON."""
    if log_format != "json":
        return f"{process} | {line}\n".encode("utf-8", "replace")
    import msgspec

    return msgspec.json.encode({"process": process, "message": line}) + b"\n"


class OutputPump:
    """Cuts one child's output into lines and passes them on; holds at most one incomplete line.

    With `output_bytes_s` 0 lines have no prefix. Otherwise each is prefixed, those over the rate are dropped, and
    reading pauses for a moment after each drop: a child that prints for ever is slowed, never stopped.
    """

    def __init__(self, spec: ChildSpec, log_format: str, write: Callable[[bytes], None], now_s: float) -> None:
        self._name = spec.name
        self._rate = spec.output_bytes_s
        self._log_format = log_format
        self._write = write
        self._rest = b""
        self._dropped = 0
        self._credit = self._rate * _BURST_S
        self._filled_at_s = now_s

    def read(self, descriptor: int, now_s: float) -> float | None:
        """Read once. Returns how long to pause before the next time in seconds, or None at the end of the output."""
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return 0.0
        except OSError:
            data = b""
        if not data:
            self._pass(self._rest + b"\n" if self._rest else b"", now_s)
            self._rest = b""
            return None
        lines, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if len(self._rest) > _LINE_BYTES:
            lines, newline, self._rest = lines + newline + self._rest, b"\n", b""
        return self._pass(lines + newline, now_s)

    def _pass(self, lines: bytes, now_s: float) -> float:
        if not lines:
            return 0.0
        if not self._rate:
            self._write(_redact_lines(lines))
            return 0.0
        self._credit = min(self._rate * _BURST_S, self._credit + (now_s - self._filled_at_s) * self._rate)
        self._filled_at_s = now_s
        if self._dropped and self._credit >= self._rate:
            self._say(f"... {self._dropped} bytes of output dropped: over {self._rate} bytes/s")
            self._dropped = 0
        taken = lines[: int(self._credit)] if not self._dropped else b""
        self._credit -= len(taken)
        self._dropped += len(lines) - len(taken)
        for line in taken.splitlines():
            self._say(shorten(line.decode("utf-8", "replace"), _LINE_BYTES))
        return _PAUSE_S if len(taken) < len(lines) else 0.0

    def _say(self, line: str) -> None:
        self._write(format_line(self._log_format, self._name, line))


def _redact_lines(lines: bytes) -> bytes:
    """Lines of a process of ours: its events as they are, and what else there is (a traceback, a library's complaint)
    without personal data."""
    if all(line.startswith(_EVENT) for line in lines.splitlines()):
        return lines
    return b"".join(
        [
            line if line.startswith(_EVENT) else redact_text(line.decode("utf-8", "replace")).encode()
            for line in lines.splitlines(keepends=True)
        ]
    )
