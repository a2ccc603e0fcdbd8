"""Start one child process with its pipes, and nothing else.

Called by the supervisor, and by `cli` before its event loop exists: every millisecond before the first child counts.
"""

import os
import signal
from collections.abc import Mapping

from msgspec import Struct

from hyperion.fleet.environment import scrub
from hyperion.fleet.lifeline import NOTIFY_FD, PARENT_PID
from hyperion.fleet.messages import ChildSpec

_RESET = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


class Process(Struct, frozen=True):
    """A running child: its pid, a pidfd that becomes readable when it dies, and the read ends of its two pipes."""

    pid: int
    pidfd: int
    notify_fd: int
    output_fd: int


def spawn(spec: ChildSpec, environ: Mapping[str, str]) -> Process:
    """Start `spec` in a process group of its own, because Ctrl-C is the supervisor's business, with an empty stdin and
    one pipe for stdout and stderr. A confined child gets only those variables of `environ` that hold no secrets.

    Raises OSError where the program cannot be started; nothing is left of it then."""
    around = environ if spec.confinement is None else scrub(environ)
    notify_fd, notify_end = os.pipe()
    opened = [notify_fd, notify_end]
    try:
        output_fd, output_end = os.pipe()
        opened += (output_fd, output_end)
        pid = os.posix_spawn(
            spec.argv[0],
            spec.argv,
            {**around, **spec.env, PARENT_PID: str(os.getpid()), NOTIFY_FD: str(notify_end)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output_end, 1),
                (os.POSIX_SPAWN_DUP2, output_end, 2),
                # A descriptor duplicated onto itself is inherited; all others are closed on exec.
                *((os.POSIX_SPAWN_DUP2, number, number) for number in (notify_end, *spec.pass_fds)),
            ],
            setpgroup=0,
            setsigmask=(),
            setsigdef=_RESET,
        )
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # too many descriptors: nobody would see it die
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    except OSError:
        for descriptor in opened:
            os.close(descriptor)
        raise
    os.close(notify_end)
    os.close(output_end)
    os.set_blocking(notify_fd, False)
    os.set_blocking(output_fd, False)
    return Process(pid, pidfd, notify_fd, output_fd)


def describe_exit(exit_code: int) -> str:
    """Return how a process ended, from the negative signal number or the exit code.

    >>> describe_exit(-9), describe_exit(3)
    ('killed by SIGKILL', 'exit code 3')
    """
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"killed by signal {-exit_code}"
