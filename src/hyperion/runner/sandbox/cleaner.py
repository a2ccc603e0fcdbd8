"""Who removes a runner's socket and private directory where no supervisor does (`hyperion runner`): in its sandbox the
runner cannot, and when it is killed it cannot either.

Called by `enter`, before the sandbox and before any thread.
"""

import contextlib
import os
from pathlib import Path

from hyperion.fleet.scratch import remove_tree


def leave_cleaner(scratch: Path, socket: Path) -> None:
    """Fork a process that waits for the end of this one, removes both and ends. Raises OSError."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(reading)  # `writing` stays open, and is closed by the end of this process, whatever ends it
        return
    status = 1
    try:
        os.close(writing)
        os.setsid()  # neither Ctrl-C nor the end of the group is meant for it
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.read(reading, 1)
        with contextlib.suppress(OSError):
            remove_tree(scratch)
        socket.unlink(missing_ok=True)
        status = 0
    finally:
        os._exit(status)
