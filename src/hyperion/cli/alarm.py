"""A timer with the kernel's precision, for the load generator: the loop's own are whole milliseconds."""

import asyncio
import ctypes
import os
import struct
import time
from collections.abc import Callable
from typing import Self


class Alarm:
    """Rings at a moment of `time.monotonic`. Uses `timerfd` through libc; where that is missing, the loop's timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self.loop, self.ring = loop, ring
        self.libc = ctypes.CDLL(None, use_errno=True)
        create = getattr(self.libc, "timerfd_create", None)
        # CLOCK_MONOTONIC is 1; flags are non-blocking and close-on-exec.
        self.descriptor = create(1, os.O_NONBLOCK | os.O_CLOEXEC) if create else -1

    def __enter__(self) -> Self:
        if self.descriptor >= 0:
            self.loop.add_reader(self.descriptor, self._rang)
        return self

    def __exit__(self, *error: object) -> None:
        if self.descriptor >= 0:
            self.loop.remove_reader(self.descriptor)
            os.close(self.descriptor)

    def set(self, when: float) -> None:
        """Ring at ``time.monotonic() == when``; at once if that is past."""
        if self.descriptor < 0:
            self.loop.call_later(max(0.0, when - time.monotonic()), self.ring)
            return
        seconds, fraction = divmod(max(when, 1e-6), 1)
        spec = struct.pack("qqqq", 0, 0, int(seconds), int(fraction * 1e9))
        self.libc.timerfd_settime(self.descriptor, 1, spec, None)  # 1: absolute time

    def _rang(self) -> None:
        try:
            os.read(self.descriptor, 8)
        except BlockingIOError:
            return
        self.ring()
