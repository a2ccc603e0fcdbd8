"""One supervised child: its process, its state, and the timers that restart or kill it. Owned by the supervisor."""

import asyncio
import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Mapping

import msgspec

from hyperion.fleet.cgroup import Parents
from hyperion.fleet.messages import BACKOFF, FAILED, READY, STARTING, STOPPING, Child, ChildSpec
from hyperion.fleet.output import OutputPump
from hyperion.fleet.spawn import Process, describe_exit, spawn
from hyperion.fleet.walls import Walls
from hyperion.policy.restart import Death, RestartState, decide_restart
from hyperion.schema.config import EXIT_REFUSED

_NOTIFY_BYTES = 64 << 10
# Looks for a sign of life within the time that a child may be silent. They are counted, and not the time itself: a
# supervisor that was stopped together with its children finds one look due, and gives them their time anew.
_LOOKS = 2
# What another try does not mend; memory, processes, descriptors and disks come back.
LASTING = frozenset((errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.ENOTDIR, errno.E2BIG))


class Surroundings(msgspec.Struct, frozen=True):
    """What a child needs of its supervisor. `changed(name)` is called after each change of state; `write` takes lines
    for the log; `log` takes (process, message); `ending` says whether all children are being taken down; `parents` is
    where control groups can be made."""

    environ: Mapping[str, str]
    log_format: str
    write: Callable[[bytes], None]
    log: Callable[[str, str], None]
    changed: Callable[[str], None]
    ending: Callable[[], bool]
    parents: Parents | None = None


class Supervised:
    """A child that is kept running until it is stopped. All methods run on the event loop's thread."""

    def __init__(self, spec: ChildSpec, around: Surroundings) -> None:
        self.spec = spec
        self.seen = Child(spec.name, STARTING, wave=spec.wave, label=spec.label)
        self.gone = asyncio.Event()
        self._around = around
        self._loop = asyncio.get_running_loop()
        self._process: Process | None = None
        self._pump = OutputPump(spec, around.log_format, around.write, self._loop.time())
        self._restarts = RestartState()
        self._ready_since_s: float | None = None
        self._notified = b""
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._silent_looks = 0
        self._walls = Walls(spec, around.parents, self._loop, self._end_for) if spec.confinement else None

    def start(self, process: Process | None = None) -> None:
        """Spawn it, or take over `process`, which was just spawned from the same spec."""
        if process is None:
            try:
                process = spawn(self._walls.build() if self._walls else self.spec, self._around.environ)
            except OSError as error:
                if self._walls:
                    self._walls.tear_down()
                self._note(reason=f"cannot start {self.spec.argv[0]}: {error.strerror}")
                self._come_back(Death(None, EXIT_REFUSED if error.errno in LASTING else 1), "not started")
                return
        self._process = process
        self._ready_since_s = None
        self._notified = b""
        self._loop.add_reader(process.pidfd, self._on_death)
        self._loop.add_reader(process.notify_fd, self._on_notify, process.notify_fd)
        self._loop.add_reader(process.output_fd, self._on_output, process.output_fd)
        self._note(state=STARTING, pid=process.pid, started_at=time.time(), ready_at=0.0, status="")

    def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL to its whole process group after `grace_s`. Once `gone` is set it runs no more."""
        if self.gone.is_set():
            return
        self._cancel_timer()
        if self._process is None:
            self._finish()
            return
        if self.seen.state != STOPPING:
            self._signal(signal.SIGTERM)
            self._note(state=STOPPING)
        self._timer = self._loop.call_later(grace_s, self.kill)

    def kill(self) -> None:
        """SIGKILL, now, to it and to whatever it started."""
        if self._process is not None:
            if self.seen.state != STOPPING:
                self._note(state=STOPPING)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _end_for(self, reason: str) -> None:
        """SIGKILL for what it did, while it is to go on: it is started again as after any death."""
        if self._process is not None:
            self._note(reason=reason)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process.pidfd, number)

    def _on_notify(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _NOTIFY_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(descriptor)
            return
        *lines, self._notified = (self._notified + data).split(b"\n")
        self._notified = self._notified[:_NOTIFY_BYTES]
        for line in lines:
            self._take_line(line.decode("utf-8", "replace"))

    def _take_line(self, line: str) -> None:
        key, _, value = line.partition("=")
        if key == "ERROR":
            self._note(reason=value)
        elif key == "STATUS":
            self._note(status=value)
        elif line == "READY=1" and self.seen.state == STARTING:
            self._ready_since_s = self._loop.time()
            self._note(state=READY, ready_at=time.time(), reason="", status="")
            if self.spec.silence_s:
                self._look_for_life()
        elif line == "WATCHDOG=1":
            self._silent_looks = 0

    def _look_for_life(self) -> None:
        """Kills it once it has been silent for long enough; looks again soon where it was not."""
        if self._silent_looks == _LOOKS:
            self._end_for(f"gave no sign of life for {self.spec.silence_s:g} s")
            return
        self._silent_looks += 1
        self._look = self._loop.call_later(self.spec.silence_s / _LOOKS, self._look_for_life)

    def _on_output(self, descriptor: int) -> None:
        pause_s = self._pump.read(descriptor, self._loop.time())
        if pause_s == 0.0:
            return
        self._loop.remove_reader(descriptor)
        if pause_s is not None:
            self._loop.call_later(pause_s, self._resume_output, descriptor)

    def _resume_output(self, descriptor: int) -> None:
        if self._process is not None and self._process.output_fd == descriptor:
            self._loop.add_reader(descriptor, self._on_output, descriptor)

    def _on_death(self) -> None:
        process = self._process
        if process is None:
            return
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        if pid == 0:
            return
        self._on_notify(process.notify_fd)  # its last words
        self._on_output(process.output_fd)
        for descriptor in (process.pidfd, process.notify_fd, process.output_fd):
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._process = None
        self._silent_looks = 0
        if self._look is not None:
            self._look.cancel()
            self._look = None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what it started and left behind
        if self._walls:
            self._walls.tear_down()
        exit_code = os.waitstatus_to_exitcode(status)
        if self.seen.state == STOPPING:
            self._note(exit=describe_exit(exit_code))
            self._finish()
        else:
            self._recover(exit_code)

    def _recover(self, exit_code: int) -> None:
        ready_s = None if self._ready_since_s is None else self._loop.time() - self._ready_since_s
        self._come_back(Death(ready_s, exit_code), describe_exit(exit_code))

    def _come_back(self, death: Death, how: str) -> None:
        """Start it again, now or later, or leave it alone."""
        restart = decide_restart(death, self._restarts)
        self._restarts = restart.state
        because = f": {self.seen.reason}" if self.seen.reason else ""
        if restart.delay_s is None:
            self._note(state=FAILED, pid=0, exit=how)
            if not self._around.ending():  # otherwise this is why all ends, and whoever ends it has said so
                self._around.log(self.spec.name, f"refused to start{because}")
            return
        self._around.log(self.spec.name, f"{how}{because}; restarting in {restart.delay_s * 1000:.0f} ms")
        self._note(state=BACKOFF, pid=0, exit=how, restarts=self.seen.restarts + 1)
        if restart.delay_s == 0.0:
            self.start()
        else:
            self._timer = self._loop.call_later(restart.delay_s, self.start)

    def _finish(self) -> None:
        self._cancel_timer()
        self._note(pid=0, state=STOPPING)
        self.gone.set()
        self._around.changed(self.spec.name)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _note(self, **changes: object) -> None:
        seen = msgspec.structs.replace(self.seen, **changes)
        if seen != self.seen:
            self.seen = seen
            self._around.changed(self.spec.name)
