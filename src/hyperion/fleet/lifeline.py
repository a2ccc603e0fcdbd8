"""The child's side of the supervisor: die when it dies, and tell it when ready.

Called first thing by the `main` of every child (`cli.process`), in the child itself: a `preexec_fn` in the parent would
cost a slow fork for every start.
"""

import os
import signal
from collections.abc import Callable, MutableMapping

PARENT_PID = "HYPERION_PARENT_PID"
NOTIFY_FD = "HYPERION_NOTIFY_FD"
CONFIG_VARIABLE = "HYPERION_PROCESS_CONFIG"
_PR_SET_PDEATHSIG = 1


def tie_to_parent(environ: MutableMapping[str, str]) -> bool:
    """Have the kernel kill this process when its supervisor dies. Returns False if there is no supervisor.

    Exits at once if the supervisor died before the kernel knew. Raises OSError where the kernel refuses.
    """
    parent = environ.pop(PARENT_PID, "")
    if not parent:
        return False
    die_with_parent()
    if os.getppid() != int(parent):
        os._exit(1)
    # Ctrl-C reaches the supervisor, which drains its children in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return True


def die_with_parent() -> None:
    """Ask for SIGKILL upon the death of the thread that started this process."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def open_notify(environ: MutableMapping[str, str]) -> Callable[[str], None]:
    """Return what tells the supervisor one line: `READY=1`, `ERROR=…`, `STATUS=…` or `WATCHDOG=1` (a sign of
    life), as sd_notify(3) has them. Without one it does nothing.

    The variable is taken out of `environ`, so that no grandchild speaks in our name.
    """
    number = environ.pop(NOTIFY_FD, "")
    if not number:
        return lambda _line: None
    descriptor = int(number)
    os.set_inheritable(descriptor, False)
    os.set_blocking(descriptor, False)

    def notify(line: str) -> None:
        text = " ".join(line.split())[:4000]  # one write below PIPE_BUF is never torn
        try:
            os.write(descriptor, text.encode("utf-8", "replace")[:4094] + b"\n")
        except (BrokenPipeError, BlockingIOError):
            return  # nobody listens: the supervisor is gone, and so shall we be

    return notify
